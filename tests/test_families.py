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

import evergrad
from evergrad import models, nn
from evergrad.io import CorruptFileError
from evergrad.text import Batch
from op_support import SEED

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

pytestmark = pytest.mark.filterwarnings("default")  # their warnings are not ours

VOCAB, IGNORED = 61, -100
LENGTHS = (9, 1, 24, 5)
SOURCES = (3, 7, 14, 1)


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


def bert(kind: str = "BertForMaskedLM", **options: Any) -> Any:
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 96,
    }
    return getattr(transformers, kind)(transformers.BertConfig(**SIZES, **sizes, **options))


def t5(untied: bool = False, **options: Any) -> Any:
    sizes = {
        "d_model": 16,
        "d_kv": 6,
        "d_ff": 40,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "num_heads": 2,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 12,
        "decoder_start_token_id": 0,
    }
    config = transformers.T5Config(**SIZES, **{**sizes, **options}, tie_word_embeddings=not untied)
    module = transformers.T5ForConditionalGeneration(config)
    if untied:  # as in the files of T5 1.1
        module.lm_head.weight = torch.nn.Parameter(torch.empty(VOCAB, 16))
        module.config.tie_word_embeddings = False
    return module


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

BERT: dict[str, Callable[[], Any]] = {
    "bert": bert,
    "bert gelu_new": lambda: bert(hidden_act="gelu_new", type_vocab_size=3),
}
T5: dict[str, Callable[[], Any]] = {
    "t5": t5,
    "t5 gated": lambda: t5(feed_forward_proj="gated-gelu"),
    "t5 untied": lambda: t5(untied=True),
    "t5 1.1": lambda: t5(untied=True, feed_forward_proj="gated-gelu"),
    "t5 gated silu": lambda: t5(feed_forward_proj="gated-silu", num_decoder_layers=None),
}
FAMILIES = {**CAUSAL, **BERT, **T5}


@dataclass
class Results:
    """What a model makes of a batch: logits and loss, and gradients under transformers' names."""

    logits: np.ndarray
    loss: float
    gradients: dict[str, np.ndarray]


def error(got: Any, exact: Any, around: float = 0.0) -> float:
    """Largest difference over largest magnitude.

    What is 0 but for rounding, such as the gradient of the keys' bias, is measured by the largest
    magnitude of what is `around` it.
    """
    difference = np.abs(np.asarray(got, np.float64) - exact).max(initial=0)
    scale = np.abs(exact).max(initial=0)
    return float(difference / (scale if scale > 1e-12 * around else around))


def assert_close(ours: Results, exact: Results, theirs: Results) -> None:
    assert ours.gradients.keys() == exact.gradients.keys()
    pairs = [(name, *(r.gradients[name] for r in (ours, exact, theirs))) for name in ours.gradients]
    largest = max(np.abs(gradient).max() for gradient in exact.gradients.values())
    for name, got, wanted, peer in (
        ("logits", ours.logits, exact.logits, theirs.logits),
        ("loss", ours.loss, exact.loss, theirs.loss),
        *pairs,
    ):
        found, budget = error(got, wanted, largest), max(1e-5, 3 * error(peer, wanted, largest))
        assert found <= budget, f"{name}: {found:.2g}, budget {budget:.2g}"


def padded(packed: np.ndarray, lengths: tuple[int, ...], fill: int) -> Any:
    """[total] -> [sequences, longest]."""
    out = np.full((len(lengths), max(lengths)), fill, np.int64)
    for row, part in zip(out, np.split(packed, np.cumsum(lengths)[:-1]), strict=True):
        row[: len(part)] = part
    return torch.tensor(out)


def offsets(lengths: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)])


def drawn_batch(name: str) -> Any:
    """Sequences of unequal length, for the family that the name begins with."""
    rng = np.random.default_rng(SEED)
    total = sum(LENGTHS)
    ids, target = rng.integers(1, VOCAB, (2, total))  # 0 pads, and gets no gradient there
    target[rng.random(total) < 0.3] = IGNORED
    target[0] = 0  # at least one counts
    if name.startswith("bert"):
        return models.MaskedBatch(ids, target, offsets(LENGTHS), rng.integers(0, 2, total))
    if name.startswith("t5"):
        sources = rng.integers(1, VOCAB, sum(SOURCES))
        return models.Seq2SeqBatch(sources, offsets(SOURCES), ids, target, offsets(LENGTHS))
    return Batch(ids, target, offsets(LENGTHS))


def theirs_on(module: Any, batch: Any, dtype: Any) -> Results:
    module = module.to(dtype)
    module.zero_grad()
    mask = padded(np.ones(sum(LENGTHS), np.int64), LENGTHS, 0)
    if isinstance(batch, models.Seq2SeqBatch):
        read = padded(np.ones(sum(SOURCES), np.int64), SOURCES, 0)
        logits = module(
            padded(batch.input_ids, SOURCES, 0),
            attention_mask=read,
            decoder_input_ids=padded(batch.decoder_ids, LENGTHS, 0),
        ).logits
    else:
        options = {}
        if isinstance(batch, models.MaskedBatch):
            options["token_type_ids"] = padded(batch.segments, LENGTHS, 0)
        ids = padded(batch.input_ids, LENGTHS, 0)
        logits = module(ids, attention_mask=mask, **options).logits
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


def logits_of(model: Any, batch: Any) -> np.ndarray:
    if isinstance(batch, models.Seq2SeqBatch):
        encoded = model.encode(batch.input_ids, batch.cu_seqlens)
        return model.logits(batch.decoder_ids, batch.decoder_cu_seqlens, encoded=encoded)
    if isinstance(batch, models.MaskedBatch):
        return model.logits(batch.input_ids, batch.cu_seqlens, batch.segments)
    return model.logits(batch.input_ids, batch.cu_seqlens)


def ours_on(model: Any, batch: Any) -> Results:
    loss, backward = model.loss(batch)
    model.flat.grad.fill(0)
    backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return Results(logits_of(model, batch), loss, under_their_names(model, gradients))


def loaded(module: Any, folder: Any) -> Any:
    module.float().save_pretrained(folder)
    return models.load(folder)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_loss_and_every_gradient(name, tmp_path):
    module, batch = drawn(FAMILIES[name]()), drawn_batch(name)
    model = loaded(module, tmp_path)
    ours = ours_on(model, batch)
    theirs, exact = (theirs_on(module, batch, dtype) for dtype in (torch.float32, torch.float64))
    assert_close(ours, exact, theirs)

    model.flat.grad.fill(0)
    assert model.loss_and_gradients(batch) == pytest.approx(exact.loss, rel=1e-5)
    at_once = {name: parameter.grad for name, parameter in model.named_parameters()}
    ours.gradients = under_their_names(model, at_once)
    assert_close(ours, exact, theirs)


@pytest.mark.parametrize("name", FAMILIES)
def test_they_read_what_we_save(name, tmp_path):
    module, batch = drawn(FAMILIES[name]()), drawn_batch(name)
    model = loaded(module, tmp_path / "theirs")
    models.save(model, tmp_path / "ours")
    again, report = type(module).from_pretrained(tmp_path / "ours", output_loading_info=True)
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


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_scaling": YARN, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        {"rope_scaling": {**YARN, "factor": 3.0}, "rope_parameters": YARN, "rope_theta": 700.0},
        {"rope_scaling": None, "rope_parameters": YARN},
        {"rope_scaling": {}, "rope_parameters": YARN, "rope_theta": 700.0},
        {"rope_parameters": YARN, "original_max_position_embeddings": 12},
        {"rope_parameters": {**YARN, "beta_fast": 1.0, "beta_slow": 32.0}},
        {"rope_parameters": LLAMA_3, "original_max_position_embeddings": 40},
    ],
)
def test_two_words_on_rope(rope, tmp_path):
    """Where several settings speak of the same, transformers decides which one rules."""
    module = drawn(llama())
    module.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    for name in ("rope_parameters", "rope_scaling", "rope_theta"):
        settings.pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps(settings | rope))
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    ids = np.arange(60)
    exact = theirs.double()(torch.tensor(ids[None])).logits[0].detach().numpy()
    assert error(models.load(tmp_path).logits(ids), exact) < 1e-4


ABSENT = "absent"


def without_absent(told: Any) -> Any:
    if not isinstance(told, dict):
        return told
    return {name: without_absent(value) for name, value in told.items() if value != ABSENT}


def with_settings(module: Any, settings: dict[str, Any], folder: Any) -> tuple[Any, Any]:
    """What transformers and we make of a model whose config.json was edited."""
    module.float().save_pretrained(folder)
    return with_config(folder, type(module), settings)


def with_config(folder: Any, kind: Any, settings: dict[str, Any]) -> tuple[Any, Any]:
    told = json.loads((folder / "config.json").read_text()) | settings
    told = without_absent(told)
    (folder / "config.json").write_text(json.dumps(told))
    return kind.from_pretrained(folder).eval(), models.load(folder)


TIED = [
    {"tie_word_embeddings": tied, "scale_decoder_outputs": scaled}
    for tied in (ABSENT, None, True, False)
    for scaled in (ABSENT, None, True, False)
]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        # The names that attribute_map gives them rule over a model's own.
        ("gpt2", {"n_head": 2, "num_attention_heads": 4}),
        ("gpt2", {"n_head": ABSENT, "num_attention_heads": 4}),
        ("gpt2", {"n_layer": 5, "num_hidden_layers": 2}),
        ("gpt2", {"n_embd": 24, "hidden_size": 16}),
        ("gpt2", {"n_positions": 7, "max_position_embeddings": 96}),
        ("t5", {"num_heads": 4, "num_attention_heads": 2, "d_kv": 3, "head_dim": 6}),
        ("t5", {"d_model": 4, "hidden_size": 16, "num_layers": 1, "num_hidden_layers": 2}),
        ("t5", {"num_layers": 3, "num_hidden_layers": 2, "num_decoder_layers": None}),
        # What is not told, or null, has a default.
        ("llama", {"attention_dropout": None, "num_key_value_heads": 2, "per_layer_config": {}}),
        ("llama", {"rope_parameters": {**LLAMA_3, "original_max_position_embeddings": ABSENT}}),
        ("llama", {"rope_parameters": {**YARN, "factor": None}}),
        ("gpt2", {"activation_function": "gelu_accurate"}),
        ("gpt2", {"activation_function": "gelu_python_tanh"}),
        ("bert", {"hidden_act": "gelu_python"}),
        ("t5", {"is_gated_act": None, "feed_forward_proj": "relu"}),
        # An odd table is used up to its last row.
        ("t5 9", {"relative_attention_num_buckets": 9}),
        ("t5 9", {"relative_attention_num_buckets": 9, "relative_attention_max_distance": 6}),
        *[("t5", settings) for settings in TIED],
        *[("t5 untied", settings) for settings in TIED],
    ],
)  # fmt: skip
def test_settings_mean_what_they_mean_to_transformers(name, settings, tmp_path):
    makers = {**FAMILIES, "t5 9": lambda: t5(relative_attention_num_buckets=9)}
    batch = drawn_batch(name)
    theirs, model = with_settings(drawn(makers[name]()), settings, tmp_path / "edited")
    exact = theirs_on(theirs, batch, torch.float64).logits
    assert error(logits_of(model, batch), exact) < 1e-5
    models.save(model, tmp_path / "ours")
    again = type(theirs).from_pretrained(tmp_path / "ours").eval()
    assert error(theirs_on(again, batch, torch.float64).logits, exact) < 1e-12
    assert models.load(tmp_path / "ours").config == model.config


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize(
    ("told", "of_generation"), [(None, 1), (0, [1, 2]), ([2, 0], [1, -1]), ([1, 2], ABSENT), (2, 0)]
)
def test_what_ends_a_text_is_what_generation_config_says(name, told, of_generation, tmp_path):
    module, ids = drawn(FAMILIES[name]()), np.arange(1, 5)  # 0 fills up
    free = module.generate(torch.tensor(ids[None]), max_new_tokens=12, do_sample=False)[0].tolist()
    candidates = [*dict.fromkeys(free[6:]), VOCAB - 1, VOCAB - 2]  # the first are met

    def tokens(of: Any) -> Any:
        if isinstance(of, list):
            return [tokens(each) for each in of]
        return candidates[of] if isinstance(of, int) and of >= 0 else of

    module.save_pretrained(tmp_path)
    path = tmp_path / "generation_config.json"
    path.unlink()
    if of_generation != ABSENT:
        path.write_text(json.dumps({"eos_token_id": tokens(of_generation)}))
    theirs, model = with_config(tmp_path, type(module), {"eos_token_id": tokens(told)})
    expected = theirs.generate(torch.tensor(ids[None]), max_new_tokens=12, do_sample=False)[0]
    ends = tokens(told if of_generation == ABSENT else of_generation)
    last = expected[-1].item() in (ends if isinstance(ends, list) else [ends])
    assert last, "something has to end it"
    assert model.generate(ids, 12).tolist() == expected[:-1].tolist()


@pytest.mark.parametrize("ends", ["x", [0, "x"], 1.5, True])
def test_ends_of_a_wrong_type_are_named(ends, tmp_path):
    gpt2().save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    with pytest.raises(CorruptFileError, match="eos_token_id must be an integer or a list of them"):
        models.load(tmp_path)


@pytest.mark.parametrize("ends", [None, 3, (3, 4)])
def test_a_generation_config_of_another_model_does_not_rule_over_what_is_saved(ends, tmp_path):
    told = {"eos_token_id": [1, 2], "bos_token_id": 1, "pad_token_id": 2, "max_new_tokens": 7}
    (tmp_path / "generation_config.json").write_text(json.dumps(told))
    model = models.GPT2(models.GPT2Config(9, context=8, layers=1, heads=1, dim=8, eos_token=ends))
    models.save(model, tmp_path)
    assert models.load(tmp_path).config == model.config
    settings = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).generation_config
    assert (settings.bos_token_id, settings.pad_token_id) == (None, None)
    assert settings.eos_token_id == (list(ends) if isinstance(ends, tuple) else ends)
    assert settings.max_new_tokens == 7
    (tmp_path / "tokenizer.json").touch()  # it stays, and with it what it says
    (tmp_path / "generation_config.json").write_text(json.dumps(told))
    models.save(model, tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text()) == told


def test_what_answers_begin_with_is_not_asked_of_a_model_without_answers(tmp_path):
    """transformers takes one for each text of a batch, too; a GPT-2 has no use for any."""
    module = gpt2()
    module.save_pretrained(tmp_path)
    told = {"decoder_start_token_id": [1, 2], "eos_token_id": 3}
    (tmp_path / "generation_config.json").write_text(json.dumps(told))
    assert models.load(tmp_path).config.eos_token == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"relative_attention_num_buckets": 3}, r"num_buckets: .* \[4, .* got 3"),
        ({"relative_attention_max_distance": 2}, r"max_distance: .* \[3, .* got 2"),
    ],
)
def test_distances_without_a_bucket_are_refused_when_a_t5_is_made(settings, message):
    settings = t5().config.to_dict() | settings
    with pytest.raises(ValueError, match=message):
        models.T5(models.T5Config.from_dict(settings))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_head_of_its_own_beside_a_configuration_that_says_tied(name, tmp_path):
    module = drawn({"gpt2": gpt2, "llama": llama}[name](tie_word_embeddings=False))
    module.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"tie_word_embeddings": True}))
    ids = np.arange(20)
    exact = module.double()(torch.tensor(ids[None])).logits[0].detach().numpy()
    model = models.load(tmp_path)
    assert not model.config.tied
    assert error(model.logits(ids), exact) < 1e-5


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_a_head_written_twice_stays_tied(name):
    module = drawn(
        {"gpt2": gpt2, "llama": lambda: llama(tie_word_embeddings=True), "t5": t5}[name]()
    )
    tensors = {key: tensor.numpy() for key, tensor in module.state_dict().items()}
    assert "lm_head.weight" in tensors
    assert models.build(module.config.to_dict(), tensors).config.tied


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("llama", {"is_causal": False}, "is_causal=False is not supported"),
        (
            "llama",
            {"per_layer_config": {"0": {"intermediate_size": 8}}},
            r"per_layer_config=.* is not supported, only \{\}",
        ),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 0}}, "factor must be"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": "2"}}, "factor must be"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": None}}, "linear' needs 'factor'"),
        ("llama", {"rope_scaling": "linear"}, "rope_scaling must be an object, is 'linear'"),
        ("llama", {"rope_parameters": [1]}, r"rope_parameters must be an object, is \[1\]"),
        ("llama", {"rope_parameters": {"rope_theta": 0.0}}, "theta must be a number above 1"),
        (
            "llama",
            {"rope_parameters": {**LLAMA_3, "low_freq_factor": 4.0}},
            "low_freq_factor must lie below high_freq_factor",
        ),
        ("llama", {"eos_token_id": "x"}, "eos_token must be a token id, is 'x'"),
        ("llama", {"attention_dropout": 1.5}, r"attention_dropout must be a number in \[0, 1\)"),
        ("gpt2", {"is_encoder_decoder": True}, "is_encoder_decoder=True is not supported"),
        ("t5", {"is_encoder_decoder": False}, "is_encoder_decoder=False is not supported"),
        ("t5", {"dense_act_fn": "gelu_new"}, "dense_act_fn='gelu_new' contradicts"),
        ("t5", {"is_gated_act": True}, "is_gated_act=True contradicts"),
        (
            "t5",
            {"feed_forward_proj": "gated-gelu", "is_gated_act": None},
            "is_gated_act=None contradicts",
        ),
    ],
)
def test_settings_that_ask_for_another_model(name, settings, message):
    module = {"gpt2": gpt2, "llama": llama, "t5": t5}[name]()
    tensors = {key: tensor.numpy() for key, tensor in module.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        models.build(module.config.to_dict() | settings, tensors)


def test_other_names_of_the_same_settings():
    module = gpt2()
    settings = module.config.to_dict()
    for theirs, name in (
        ("n_layer", "num_hidden_layers"),
        ("n_positions", "max_position_embeddings"),
    ):
        settings[name] = settings.pop(theirs)
    config = models.GPT2Config.from_dict(settings)
    assert (config.layers, config.context) == (2, 96)


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


# BERT as an encoder.


def encoder_outputs(module: Any, batch: Any) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states and pooled outputs of transformers, in float64."""
    mask = padded(np.ones(sum(LENGTHS), np.int64), LENGTHS, 0)
    out = module.double().eval()(
        padded(batch.input_ids, LENGTHS, 0),
        attention_mask=mask,
        token_type_ids=padded(batch.segments, LENGTHS, 0),
    )
    return out.last_hidden_state[mask.bool()].detach().numpy(), out.pooler_output.detach().numpy()


@pytest.mark.parametrize("kind", ["BertModel", "BertForPreTraining"])
def test_an_encoder_with_its_pooler(kind, tmp_path):
    module, batch = drawn(bert(kind)), drawn_batch("bert")
    model = loaded(module, tmp_path / "theirs")
    assert model.config.has_pooler
    assert model.config.has_head == (kind == "BertForPreTraining")
    expected = encoder_outputs(module.base_model, batch)
    hidden = model.encode(batch.input_ids, batch.cu_seqlens, batch.segments)
    pooled, _ = model.pool(hidden, batch.cu_seqlens)
    assert error(hidden, expected[0]) < 1e-5
    assert error(pooled, expected[1]) < 1e-5

    models.save(model, tmp_path / "ours")
    again = transformers.AutoModel.from_pretrained(tmp_path / "ours")
    for got, wanted in zip(encoder_outputs(again, batch), expected, strict=True):
        assert error(got, wanted) < 1e-12


def test_gradients_through_the_pooler(tmp_path):
    module, batch = drawn(bert("BertModel")), drawn_batch("bert")
    model = loaded(module, tmp_path)
    hidden, hidden_backward = model(batch.input_ids, batch.cu_seqlens, batch.segments)
    pooled, pool_backward = model.pool(hidden, batch.cu_seqlens)
    dpooled = np.random.default_rng(SEED).standard_normal(pooled.shape, np.float32)
    hidden_backward(pool_backward(dpooled))
    out = module.double()(
        padded(batch.input_ids, LENGTHS, 0),
        attention_mask=padded(np.ones(sum(LENGTHS), np.int64), LENGTHS, 0),
        token_type_ids=padded(batch.segments, LENGTHS, 0),
    )
    out.pooler_output.backward(torch.tensor(dpooled.astype(np.float64)))
    gradients = under_their_names(model, {n: p.grad for n, p in model.named_parameters()})
    exact = {name: parameter.grad.numpy() for name, parameter in module.named_parameters()}
    largest = max(np.abs(gradient).max() for gradient in exact.values())
    for name, gradient in exact.items():
        assert error(gradients[name], gradient, largest) < 1e-5, name


def test_the_first_berts_called_weights_gamma_and_beta(tmp_path):
    module = drawn(bert())
    tensors = {}
    for name, tensor in module.state_dict().items():
        older = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        tensors[older.replace("LayerNorm.bias", "LayerNorm.beta")] = tensor.numpy()
    settings = module.config.to_dict() | {"architectures": ["BertForMaskedLM"]}
    model, same = models.build(settings, tensors), loaded(module, tmp_path)
    np.testing.assert_array_equal(model.flat.data, same.flat.data)


def test_what_an_encoder_cannot_do():
    model = models.Bert(models.BertConfig(9, layers=1, heads=2, dim=8, hidden=8, has_head=False))
    batch = models.MaskedBatch(np.array([1, 2]), np.array([-100, 3]), np.array([0, 2]))
    with pytest.raises(ValueError, match="no masked-LM head"):
        model.loss(batch)
    with pytest.raises(ValueError, match="no masked-LM head"):
        model.logits(batch.input_ids)
    with pytest.raises(ValueError, match="no pooler"):
        model.pool(model.encode(batch.input_ids), batch.cu_seqlens)


# Parts of a model that learn, and seeds.

OURS: dict[str, Callable[..., Any]] = {
    "gpt2": lambda seed=1, **options: models.GPT2(
        models.GPT2Config(VOCAB, 32, layers=2, heads=2, dim=16, **options), seed
    ),
    "llama": lambda seed=1, **options: models.Llama(
        models.LlamaConfig(VOCAB, 32, layers=2, heads=2, kv_heads=1, dim=16, hidden=24, **options),
        seed,
    ),
    "bert": lambda seed=1, **options: models.Bert(
        models.BertConfig(VOCAB, 32, layers=2, heads=2, dim=16, hidden=24, **options), seed
    ),
    "t5": lambda seed=1, **options: models.T5(
        models.T5Config(VOCAB, 2, heads=2, head_dim=8, dim=16, hidden=24, **options), seed
    ),
}


@pytest.mark.parametrize("name", OURS)
def test_initial_loss_is_that_of_guessing(name):
    loss, _ = OURS[name]().loss(drawn_batch(name))
    # T5's embedding is that large from the beginning: its logits have a variance of 1.
    assert loss == pytest.approx(np.log(VOCAB), abs=0.8 if name == "t5" else 0.05)


@pytest.mark.parametrize(
    ("name", "frozen"),
    [
        ("gpt2", ["wte", "wpe"]),
        ("gpt2", ["wpe", "blocks.0"]),
        ("gpt2", ["wte", "wpe", "blocks.0", "blocks.1"]),
        ("gpt2", ["wte", "wpe", "blocks", "norm.bias"]),
        ("gpt2", ["wte", "wpe", "blocks.0.norm_1", "blocks.0.attention.qkv", "blocks.1.mlp"]),
        ("llama", ["embedding", "blocks.0"]),
        ("llama", ["embedding", "blocks", "norm"]),
        ("bert", ["words", "positions", "segments", "norm", "blocks.0"]),
        ("bert", ["words", "positions", "segments", "norm", "blocks.0.attention"]),
        ("bert", ["words", "positions", "segments", "norm", "blocks.0", "blocks.1.mlp"]),
        ("bert", ["words", "positions", "segments", "norm", "blocks"]),
        ("t5", ["embedding", "encoder"]),
        ("t5", ["embedding", "encoder.blocks.0", "decoder.blocks.0"]),
        ("t5", ["embedding", "encoder.position_bias", "decoder.position_bias"]),
        ("t5", ["embedding", "encoder.blocks", "decoder.blocks", "decoder.norm"]),
        ("t5", ["embedding", "decoder"]),
        ("t5", ["embedding", "decoder", "encoder.blocks", "encoder.norm"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_frozen_parts_leave_the_other_gradients_alone(name, frozen):
    model, batch = OURS[name](), drawn_batch(name)
    model.loss(batch)[1]()
    expected = {name: parameter.grad.copy() for name, parameter in model.named_parameters()}
    model.freeze(*frozen)
    model.flat.grad.fill(0)
    model.loss(batch)[1]()
    learned = 0
    for key, parameter in model.named_parameters():
        if any(f"{key}.".startswith(f"{prefix}.") for prefix in frozen):
            assert parameter.grad is None
        else:
            np.testing.assert_array_equal(parameter.grad, expected[key], err_msg=key)
            learned += parameter.data.size
    assert model.flat.data.size == learned


@pytest.mark.parametrize("name", OURS)
def test_dropout_repeats_and_ends_in_evaluation(name):
    options = {"attention_dropout": 0.2} if name == "llama" else {"dropout": 0.2}
    model, batch = OURS[name](**options), drawn_batch(name)
    state = model.random_state()
    first, second = model.loss(batch)[0], model.loss(batch)[0]
    assert first != second
    model.load_random_state(state)
    assert [model.loss(batch)[0], model.loss(batch)[0]] == [first, second]
    model.eval()
    assert model.loss(batch)[0] == OURS[name]().loss(batch)[0]


@pytest.mark.parametrize("name", OURS)
def test_gradient_in_float64_equals_finite_differences(name):
    """Along random directions, all kinds of dropout included."""
    options: dict[str, Any] = {} if name == "llama" else {"dropout": 0.2}
    if name == "t5":  # a relu has corners
        options |= {"gated": True, "activation": "gelu_tanh"}
    else:
        options["attention_dropout"] = 0.2
    rng = np.random.default_rng(SEED)
    with evergrad.use_backend("reference"):
        model, batch = OURS[name](**options), drawn_batch(name)
        for parameter in model.parameters():
            parameter.data = parameter.data + 0.1 * rng.standard_normal(parameter.data.shape)
            parameter.grad = np.zeros_like(parameter.data)
        flat, state = nn.flatten_(model), model.random_state()
        model.loss(batch)[1]()
        weights = flat.data.copy()

        def loss_at(data: np.ndarray) -> float:
            flat.data[:] = data
            model.load_random_state(state)
            return model.loss(batch)[0]

        for _ in range(3):
            direction, step = rng.standard_normal(weights.size), 1e-7
            slope = (loss_at(weights + step * direction) - loss_at(weights - step * direction)) / (
                2 * step
            )
            assert slope == pytest.approx(
                flat.grad @ direction, rel=0, abs=1e-7 * np.linalg.norm(flat.grad)
            )


def test_rows_that_a_t5_has_not_read_leave_its_cache_as_it_was():
    model = models.T5(models.T5Config(VOCAB, 1, heads=2, head_dim=8, dim=16, hidden=24))
    cache = model.new_cache(model.encode(np.array([1, 2, 3])))
    with pytest.raises(IndexError, match=r"rows must lie in \[0, 2\), got \[2\]"):
        model.logits(np.array([0, 4]), cache=cache, rows=np.array([2]))
    assert cache.lengths.tolist() == [0]
