"""Every family against transformers: tiny random models, logits, loss, all gradients, files.

The oracle runs in float64. Ours, in float32, has to be within 1e-5 of it, or about as close as
transformers itself comes in float32.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from evergrad import models
from evergrad.text import Batch
from op_support import SEED

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

pytestmark = pytest.mark.filterwarnings("default")  # their warnings are not ours

VOCAB, IGNORED = 61, -100
LENGTHS = (9, 1, 24, 5)


def drawn(module: Any) -> Any:
    """Weights far from initialisation: norms that are not 1, biases that are not 0."""
    torch.manual_seed(SEED)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" in name.lower() or "ln_" in name:
                parameter.normal_(0.0 if name.endswith("bias") else 1.0, 0.2)
            else:
                parameter.normal_(0.0, 0.2)
    return module.eval()


SIZES: dict[str, Any] = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": None}


def gpt2(**options: Any) -> Any:
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 96}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**SIZES, **sizes, **options))


def llama(**options: Any) -> Any:
    sizes = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 96,
    }
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SIZES, pad_token_id=0, **{**sizes, **options})
    )


LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}

CAUSAL: dict[str, Callable[[], Any]] = {
    "gpt2": gpt2,
    "gpt2 untied": lambda: gpt2(tie_word_embeddings=False, n_inner=40),
    "llama": llama,
    "llama tied": lambda: llama(tie_word_embeddings=True, num_key_value_heads=6, head_dim=8),
    "llama linear": lambda: llama(rope_scaling={"rope_type": "linear", "factor": 2.0}),
    "llama llama3": lambda: llama(rope_scaling=LLAMA_3, rope_theta=500.0),
    "llama yarn": lambda: llama(rope_scaling=YARN),
    "llama biased": lambda: llama(attention_bias=True, mlp_bias=True, num_key_value_heads=1),
}


@dataclass
class Results:
    """What a model makes of a batch: logits and loss, and gradients under transformers' names."""

    logits: np.ndarray
    loss: float
    gradients: dict[str, np.ndarray]


def error(got: Any, exact: Any) -> float:
    """Largest difference over largest magnitude."""
    difference = np.abs(np.asarray(got, np.float64) - exact).max(initial=0)
    return float(difference / max(np.abs(exact).max(initial=0), 1e-300))


def assert_close(ours: Results, exact: Results, theirs: Results) -> None:
    assert ours.gradients.keys() == exact.gradients.keys()
    pairs = [(name, *(r.gradients[name] for r in (ours, exact, theirs))) for name in ours.gradients]
    for name, got, wanted, peer in (
        ("logits", ours.logits, exact.logits, theirs.logits),
        ("loss", ours.loss, exact.loss, theirs.loss),
        *pairs,
    ):
        budget = max(1e-5, 3 * error(peer, wanted))
        assert error(got, wanted) <= budget, (
            f"{name}: {error(got, wanted):.2g}, budget {budget:.2g}"
        )


def padded(packed: np.ndarray, lengths: tuple[int, ...], fill: int) -> Any:
    """[total] -> [sequences, longest]."""
    out = np.full((len(lengths), max(lengths)), fill, np.int64)
    for row, part in zip(out, np.split(packed, np.cumsum(lengths)[:-1]), strict=True):
        row[: len(part)] = part
    return torch.tensor(out)


def drawn_batch(lengths: tuple[int, ...] = LENGTHS) -> Batch:
    rng = np.random.default_rng(SEED)
    total = sum(lengths)
    target = rng.integers(0, VOCAB, total)
    target[rng.random(total) < 0.3] = IGNORED
    target[0] = 0  # at least one counts
    return Batch(rng.integers(0, VOCAB, total), target, np.concatenate([[0], np.cumsum(lengths)]))


def theirs_on(module: Any, batch: Batch, dtype: Any, lengths: tuple[int, ...] = LENGTHS) -> Results:
    module = module.to(dtype)
    module.zero_grad()
    mask = padded(np.ones(sum(lengths), np.int64), lengths, 0)
    logits = module(padded(batch.input_ids, lengths, 0), attention_mask=mask).logits
    logits = logits[mask.bool()]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(batch.target))
    loss.backward()
    gradients = {name: p.grad.double().numpy() for name, p in module.named_parameters()}
    return Results(logits.detach().double().numpy(), loss.item(), gradients)


def under_their_names(model: Any, gradients: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gradients of ours, by the names of transformers."""
    values = {name: parameter.data.copy() for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.data[...] = gradients[name]
    renamed = {name: array.copy() for name, array in models.to_theirs(model).items()}
    for name, parameter in model.named_parameters():
        parameter.data[...] = values[name]
    return renamed


def ours_on(model: Any, batch: Batch) -> Results:
    logits = model.logits(batch.input_ids, batch.cu_seqlens)
    loss, backward = model.loss(batch)
    model.flat.grad.fill(0)
    backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return Results(logits, loss, under_their_names(model, gradients))


def loaded(module: Any, folder: Any) -> Any:
    module.float().save_pretrained(folder)
    return models.load(folder)


@pytest.mark.parametrize("name", CAUSAL)
def test_logits_loss_and_every_gradient(name, tmp_path):
    module, batch = drawn(CAUSAL[name]()), drawn_batch()
    model = loaded(module, tmp_path)
    ours = ours_on(model, batch)
    theirs, exact = (theirs_on(module, batch, dtype) for dtype in (torch.float32, torch.float64))
    assert_close(ours, exact, theirs)

    model.flat.grad.fill(0)
    assert model.loss_and_gradients(batch) == pytest.approx(exact.loss, rel=1e-5)
    at_once = {name: parameter.grad for name, parameter in model.named_parameters()}
    ours.gradients = under_their_names(model, at_once)
    assert_close(ours, exact, theirs)


@pytest.mark.parametrize("name", CAUSAL)
def test_they_read_what_we_save(name, tmp_path):
    module, batch = drawn(CAUSAL[name]()), drawn_batch()
    model = loaded(module, tmp_path / "theirs")
    models.save(model, tmp_path / "ours")
    again, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert type(again) is type(module)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for key, tensor in module.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], tensor, rtol=0, atol=0)
    first, second = (theirs_on(m, batch, torch.float64) for m in (module, again))
    assert error(second.logits, first.logits) < 1e-12
    assert models.load(tmp_path / "ours").config == model.config


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_bare_body_is_enough(name, tmp_path):
    """AutoModel saves without the prefix and without a head."""
    module = drawn(CAUSAL[name]())
    if name == "llama":
        module = drawn(llama(tie_word_embeddings=True))
    module.base_model.save_pretrained(tmp_path)
    model = models.load(tmp_path)
    ids = np.arange(12)
    exact = module.double()(torch.tensor(ids[None])).logits[0].detach().numpy()
    assert error(model.logits(ids), exact) < 1e-5


def test_the_older_names_of_rope(tmp_path):
    """transformers 4 wrote rope_theta and rope_scaling, with "type" for what is "rope_type" now."""
    module = drawn(llama(rope_scaling={"rope_type": "linear", "factor": 2.0}, rope_theta=500.0))
    model = loaded(module, tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings["rope_parameters"]
    settings |= {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    assert models.LlamaConfig.from_dict(settings) == model.config


def test_unknown_scaling_is_refused_by_name():
    settings = llama().config.to_dict() | {"rope_parameters": {"rope_type": "longrope"}}
    with pytest.raises(ValueError, match="rope_type='longrope' is not supported"):
        models.Llama(models.LlamaConfig.from_dict(settings))
    settings["rope_parameters"] = {"rope_type": "linear"}
    with pytest.raises(ValueError, match="rope_type='linear' needs 'factor'"):
        models.Llama(models.LlamaConfig.from_dict(settings))


def test_what_does_not_fit_is_listed(tmp_path):
    module = llama()
    settings, tensors = (
        module.config.to_dict(),
        {name: tensor.numpy() for name, tensor in module.state_dict().items()},
    )
    tensors["model.layers.0.extra"] = tensors.pop("model.layers.0.self_attn.k_proj.weight")
    tensors["model.layers.1.self_attn.v_proj.weight"] = np.zeros((3, 24), np.float32)
    with pytest.raises(ValueError, match="do not fit Llama's configuration") as raised:
        models.build(settings, tensors)
    for problem in (
        "missing: model.layers.0.self_attn.k_proj.weight",
        "shape of model.layers.1.self_attn.v_proj.weight: got (3, 24), expected (8, 24)",
        "unknown: model.layers.0.extra",
    ):
        assert problem in str(raised.value)


@pytest.mark.parametrize("name", ["vocab_size", "hidden_size", "num_hidden_layers"])
def test_a_configuration_out_of_proportion_takes_no_memory(name):
    module = llama()
    tensors = {key: tensor.numpy() for key, tensor in module.state_dict().items()}
    settings = module.config.to_dict() | {name: 10**9}
    with pytest.raises(ValueError, match=r"expected the shape|cannot be filled"):
        models.build(settings, tensors)
