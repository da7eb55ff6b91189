"""GPT-2 against PyTorch and Hugging Face; packing, accumulation, generation, files."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

import evergrad
from evergrad import models, nn, optim
from evergrad.models import GPT2, GPT2Config
from evergrad.text import Batch
from op_support import SEED, each_backend, using

CONFIG = GPT2Config(vocab_size=61, context=24, layers=3, heads=2, dim=16)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


def drawn_model(config: GPT2Config = CONFIG, scale: float = 5.0) -> GPT2:
    """Weights larger than at initialisation, and norms and biases that are not 1 and 0."""
    model = GPT2(config, seed=SEED)
    rng = np.random.default_rng(SEED + 1)
    for parameter in model.parameters():
        if parameter.data.ndim > 1:
            parameter.data *= scale
        else:
            parameter.data += 0.1 * rng.standard_normal(parameter.data.shape)
    return model


def drawn_batch(rng: np.random.Generator, lengths=(9, 1, 24, 5), ignored: float = 0.2) -> Batch:
    total = sum(lengths)
    target = rng.integers(0, CONFIG.vocab_size, total)
    target[rng.random(total) < ignored] = -100
    target[0] = 0  # at least one counts
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)])
    return Batch(rng.integers(0, CONFIG.vocab_size, total), target, cu_seqlens)


def gradients(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: parameter.grad.copy() for name, parameter in model.named_parameters()}


# PyTorch as the oracle: the same model, written with torch.nn.functional, on padded sequences.


class Torch:
    """GPT-2 from torch.nn.functional, over our weights."""

    def __init__(self, model: GPT2) -> None:
        self.torch = pytest.importorskip("torch")
        self.config = model.config
        self.weights = {
            name: self.torch.tensor(array.copy(), requires_grad=True)
            for name, array in model.state_dict().items()
        }

    def logits(self, ids):
        """ids [tokens] of one sequence -> [tokens, vocab]."""
        functional, w, config = self.torch.nn.functional, self.weights, self.config

        def norm(x, name):
            weight, bias = w[f"{name}.weight"], w[f"{name}.bias"]
            return functional.layer_norm(x, (config.dim,), weight, bias, config.layer_norm_eps)

        def linear(x, name):
            return functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

        x = w["wte.weight"][ids] + w["wpe.weight"][: len(ids)]
        for i in range(config.layers):
            block = f"blocks.{i}"
            h = linear(norm(x, f"{block}.norm_1"), f"{block}.attention.qkv")
            query, key, value = (
                part.unflatten(1, (config.heads, -1)).transpose(0, 1) for part in h.chunk(3, dim=1)
            )
            h = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            h = h.transpose(0, 1).flatten(1)
            x = x + linear(h, f"{block}.attention.proj")
            h = functional.gelu(
                linear(norm(x, f"{block}.norm_2"), f"{block}.mlp.up"), approximate="tanh"
            )
            x = x + linear(h, f"{block}.mlp.down")
        head = w["wte.weight"] if config.tied else w["head.weight"]
        return functional.linear(norm(x, "norm"), head)

    def loss(self, batch):
        functional, torch = self.torch.nn.functional, self.torch
        ids = [torch.tensor(part) for part in np.split(batch.input_ids, batch.cu_seqlens[1:-1])]
        logits = torch.cat([self.logits(part) for part in ids])
        return functional.cross_entropy(logits, torch.tensor(batch.target))


@each_backend
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_loss_and_every_gradient_follow_torch(tied, backend, rng):
    config = GPT2Config(**{**vars(CONFIG), "tied": tied, "hidden": 40})
    model, batch = drawn_model(config), drawn_batch(rng)
    theirs = Torch(model)
    expected = theirs.loss(batch)
    expected.backward()
    with using(backend):
        loss, backward = model.loss(batch)
        backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        gradient = theirs.weights[name].grad.numpy()
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(parameter.grad, gradient, 1e-3, 2e-5 * scale, err_msg=name)


@each_backend
def test_twenty_steps_of_adamw_follow_torch(backend, rng):
    model = GPT2(CONFIG, seed=SEED)
    theirs = Torch(model)
    settings = {"lr": 3e-3, "betas": (0.9, 0.95), "eps": 1e-8}
    ours = optim.AdamW(model.flat, **settings, weight_decay=0.1)
    torch_groups = [
        {"params": [w for w in theirs.weights.values() if w.ndim > 1], "weight_decay": 0.1},
        {"params": [w for w in theirs.weights.values() if w.ndim == 1], "weight_decay": 0.0},
    ]
    torch_optimizer = theirs.torch.optim.AdamW(torch_groups, **settings)
    batch = drawn_batch(rng)
    losses, torch_losses = [], []
    for _ in range(20):
        with using(backend):
            ours.zero_grad()
            loss, backward = model.loss(batch)
            backward()
            _, scale = optim.clip_scale(model.flat.grad, 1.0)
            ours.step(grad_scale=scale)
        losses.append(loss)

        torch_optimizer.zero_grad()
        torch_loss = theirs.loss(batch)
        torch_loss.backward()
        theirs.torch.nn.utils.clip_grad_norm_(theirs.weights.values(), 1.0)
        torch_optimizer.step()
        torch_losses.append(torch_loss.item())
    np.testing.assert_allclose(losses, torch_losses, rtol=1e-4)
    assert losses[-1] < losses[0] - 0.5


def test_gradient_in_float64_equals_finite_differences(rng):
    """Along random directions, dropout included."""
    with evergrad.use_backend("reference"):
        model = drawn_model(GPT2Config(**{**vars(CONFIG), "dropout": 0.2}))
        for parameter in model.parameters():
            parameter.data = parameter.data.astype(np.float64)
            parameter.grad = np.zeros_like(parameter.data)
        flat = nn.flatten_(model)
        batch, random_state = drawn_batch(rng), model.random_state()
        _, backward = model.loss(batch)
        backward()
        weights = flat.data.copy()

        def loss_at(data: np.ndarray) -> float:
            flat.data[:] = data
            model.load_random_state(random_state)
            return model.loss(batch)[0]

        for _ in range(5):
            direction = rng.standard_normal(weights.size)
            step = 1e-6
            slope = (loss_at(weights + step * direction) - loss_at(weights - step * direction)) / (
                2 * step
            )
            # A slope may cancel to almost nothing: judge it by its standard deviation, |grad|.
            assert slope == pytest.approx(
                flat.grad @ direction, rel=0, abs=1e-8 * np.linalg.norm(flat.grad)
            )


# Batches.


def test_micro_batches_with_one_normalizer_equal_the_full_batch(rng):
    model, lengths = drawn_model(), (9, 1, 24, 5)
    batch = drawn_batch(rng, lengths)
    full_loss, backward = model.loss(batch)
    backward()
    full = gradients(model)

    model.flat.grad.fill(0)
    counted, loss = int((batch.target != -100).sum()), 0.0
    for start, stop in zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True):
        micro = Batch(
            batch.input_ids[start:stop], batch.target[start:stop], np.array([0, stop - start])
        )
        micro_loss, backward = model.loss(micro, normalizer=counted)
        backward()
        loss += micro_loss
    assert loss == pytest.approx(full_loss, rel=1e-6)
    for name, gradient in gradients(model).items():
        np.testing.assert_allclose(gradient, full[name], 1e-4, 1e-6, err_msg=name)


def test_scale_of_backward_scales_the_gradients(rng):
    model, batch = drawn_model(), drawn_batch(rng)
    model.loss(batch)[1]()
    plain = gradients(model)
    model.flat.grad.fill(0)
    model.loss(batch)[1](0.5)
    for name, gradient in gradients(model).items():
        np.testing.assert_array_equal(gradient, np.float32(0.5) * plain[name])


@each_backend
def test_loss_and_gradients_in_one_call(backend, rng):
    model, batch = drawn_model(), drawn_batch(rng)
    with using(backend):
        loss, backward = model.loss(batch, normalizer=7)
        backward(0.5)
        apart = gradients(model)
        assert model.loss_and_gradients(batch, 7, 0.5) == pytest.approx(loss, rel=1e-6)
    for name, gradient in gradients(model).items():  # added to those of before
        scale = np.abs(apart[name]).max()
        np.testing.assert_allclose(gradient, 2 * apart[name], 1e-4, 1e-6 * scale, err_msg=name)


def test_packing_changes_nothing(rng):
    model, batch = drawn_model(), drawn_batch(rng)
    packed = model.logits(batch.input_ids, batch.cu_seqlens)
    alone = [model.logits(ids) for ids in np.split(batch.input_ids, batch.cu_seqlens[1:-1])]
    np.testing.assert_allclose(packed, np.concatenate(alone), 1e-4, 1e-4)


def test_chosen_rows_of_the_logits(rng):
    model, batch = drawn_model(), drawn_batch(rng)
    last = batch.cu_seqlens[1:] - 1
    everything = model.logits(batch.input_ids, batch.cu_seqlens)
    chosen = model.logits(batch.input_ids, batch.cu_seqlens, rows=last)
    np.testing.assert_allclose(chosen, everything[last], 1e-5, 1e-5)


def test_no_counted_target_means_no_loss_and_no_gradient():
    model = drawn_model()
    batch = Batch(np.array([1, 2]), np.array([-100, -100]), np.array([0, 2]))
    loss, backward = model.loss(batch)
    backward()
    assert loss == 0
    assert not model.flat.grad.any()


@pytest.mark.parametrize("normalizer", [0, -1.0, math.nan, math.inf])
def test_a_normalizer_is_above_0(normalizer, rng):
    model, batch = drawn_model(), drawn_batch(rng)
    for call in (model.loss, model.loss_and_gradients):
        with pytest.raises(ValueError, match=f"normalizer: expected .* above 0, got {normalizer}"):
            call(batch, normalizer)
    assert not model.flat.grad.any()


def test_an_empty_batch_is_valid():
    model = drawn_model()
    nothing = np.zeros(0, np.int64)
    loss, backward = model.loss(Batch(nothing, nothing, np.array([0])))
    backward()
    assert loss == 0
    assert not model.flat.grad.any()
    assert model.logits(nothing).shape == (0, CONFIG.vocab_size)


def test_loss_needs_targets():
    with pytest.raises(ValueError, match="loss needs targets"):
        drawn_model().loss(Batch(np.array([1]), None, np.array([0, 1])))


def test_sequences_must_fit_the_context():
    with pytest.raises(ValueError, match="25 tokens, more than the context of 24"):
        drawn_model().logits(np.zeros(25, np.int64))


def test_tokens_must_lie_in_the_vocabulary():
    with pytest.raises(IndexError):
        drawn_model().logits(np.array([CONFIG.vocab_size]))


# Initialisation and dropout.


def test_initial_loss_is_that_of_guessing(rng):
    loss, _ = GPT2(CONFIG, seed=SEED).loss(drawn_batch(rng))
    assert loss == pytest.approx(math.log(CONFIG.vocab_size), abs=0.05)


def test_initial_weights():
    config = GPT2Config(vocab_size=500, context=64, layers=8, heads=4, dim=64)
    model = GPT2(config, seed=SEED)
    for name, parameter in model.named_parameters():
        if name.endswith(("proj.weight", "down.weight")):
            assert parameter.data.std() == pytest.approx(0.02 / 4, rel=0.1)
        elif parameter.data.ndim > 1:
            assert parameter.data.std() == pytest.approx(0.02, rel=0.1)
        else:
            is_scale = "norm" in name and name.endswith("weight")
            assert (parameter.data == (1 if is_scale else 0)).all()


def test_the_seed_decides():
    first, same, other = (GPT2(CONFIG, seed=seed).flat.data for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_dropout_resumes_from_its_state(rng):
    model, batch = drawn_model(GPT2Config(**{**vars(CONFIG), "dropout": 0.3})), drawn_batch(rng)
    model.loss(batch)
    state = model.random_state()
    json.dumps(state)  # goes into a checkpoint
    first, second = model.loss(batch)[0], model.loss(batch)[0]
    assert first != second
    model.load_random_state(state)
    assert [model.loss(batch)[0], model.loss(batch)[0]] == [first, second]
    model.eval()
    assert model.loss(batch)[0] == model.loss(batch)[0]
    assert model.random_state()["random"][1] > 0


# Generation.


def test_greedy_generation_takes_the_likeliest_token():
    model = drawn_model()
    ids = models.generate(model, [1, 2, 3], 12, temperature=0)
    assert ids.dtype == np.int64
    assert ids[:3].tolist() == [1, 2, 3]
    for n in range(3, len(ids)):
        assert ids[n] == model.logits(ids[:n])[-1].argmax()


def test_generation_repeats_with_its_seed():
    model = drawn_model()
    first, same, other = (models.generate(model, [1], 20, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_generation_goes_on_beyond_the_context():
    model = drawn_model()
    ids = models.generate(model, np.arange(10), 40, temperature=0)
    assert len(ids) == 50
    assert ids[-1] == model.logits(ids[-1 - CONFIG.context : -1])[-1].argmax()


class Distribution:
    """A model whose next token always has these probabilities."""

    def __init__(self, probabilities) -> None:
        self.row = np.log(np.array(probabilities, np.float32))
        self.config = SimpleNamespace(context=8, cache_shape=(0, 1, 1))
        self.training = True

    def train(self, mode: bool = True) -> None:
        self.training = mode

    def logits(self, input_ids, cu_seqlens=None, *, rows=None, cache=None):
        assert not self.training
        return np.tile(self.row, (len(rows), 1))


def frequencies(model: Distribution, count: int = 4000, **options) -> np.ndarray:
    ids = models.generate(model, [0], count, seed=SEED, **options)[1:]
    return np.bincount(ids, minlength=model.row.size) / count


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.4, 0.3, 0.2]),
        ({"temperature": 0.5}, np.array([1, 16, 9, 4]) / 30),
        ({"temperature": 1e-9}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 4 / 7, 3 / 7, 0]),
        ({"top_k": 99}, [0.1, 0.4, 0.3, 0.2]),
        ({"top_p": 0.35}, [0, 1, 0, 0]),
        ({"top_p": 0.65}, [0, 4 / 7, 3 / 7, 0]),
        ({"top_p": 1.0}, [0.1, 0.4, 0.3, 0.2]),
        ({"top_k": 3, "top_p": 0.7}, [0, 4 / 7, 3 / 7, 0]),
        ({"min_p": 0.6}, [0, 4 / 7, 3 / 7, 0]),
    ],
    ids=str,
)
def test_sampling_draws_from_the_distribution(options, expected):
    model = Distribution([0.1, 0.4, 0.3, 0.2])
    observed = frequencies(model, **options)
    np.testing.assert_allclose(observed, expected, atol=0.04)  # five standard deviations
    assert (observed[np.array(expected) == 0] == 0).all()
    assert model.training  # restored


def test_a_stop_token_ends_the_text():
    seen: list[int] = []
    model = Distribution([0.2, 0.2, 0.2, 0.4])
    ids = models.generate(model, [3, 3], 1000, stop=[2, 3], on_token=seen.append)
    assert ids.tolist() == [3, 3, *seen]
    assert set(seen) <= {0, 1}
    assert len(ids) < 1002
    assert models.generate(model, [3], 1000, stop=np.int64(3)).size < 1001


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ids": []}, "ids must be"),
        ({"ids": [0.5]}, "ids must be"),
        ({"ids": [[1]]}, "ids must be"),
        ({"temperature": -1}, "temperature: expected"),
        ({"temperature": math.nan}, "temperature: expected"),
        ({"top_k": 0}, "top_k: expected"),
        ({"top_p": 0}, "top_p: expected"),
        ({"top_p": 1.5}, "top_p: expected"),
        ({"min_p": 1.5}, "min_p: expected"),
    ],
    ids=str,
)
def test_generation_names_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        models.generate(Distribution([1.0]), **{"ids": [0], "max_new_tokens": 1, **options})


def test_generation_does_not_hide_nan():
    with pytest.raises(FloatingPointError, match="NaN"):
        models.generate(Distribution([0.5, np.nan]), [0], 1)


# Files.


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_save_and_load(tied, tmp_path, rng):
    config = GPT2Config(**{**vars(CONFIG), "tied": tied, "hidden": 24, "dropout": 0.1})
    model, batch = drawn_model(config), drawn_batch(rng)
    models.save(model, tmp_path / "new" / "folder")
    loaded = models.load(tmp_path / "new" / "folder")
    assert loaded.config == config
    np.testing.assert_array_equal(loaded.flat.data, model.flat.data)
    model.eval()
    assert not loaded.training  # dropout is off
    assert loaded.loss(batch)[0] == model.loss(batch)[0]


def test_loading_names_what_does_not_fit(tmp_path):
    models.save(drawn_model(), tmp_path)
    config_file = tmp_path / "config.json"
    settings = json.loads(config_file.read_text())

    config_file.write_text(json.dumps(settings | {"n_layer": 4}))
    with pytest.raises(ValueError, match=r"missing: transformer\.h\.3\.ln_1\.weight"):
        models.load(tmp_path)
    config_file.write_text(json.dumps(settings | {"n_positions": 25}))
    with pytest.raises(
        ValueError, match=r"shape of transformer.wpe.weight: got \(24, 16\), expected \(25"
    ):
        models.load(tmp_path)
    config_file.write_text(json.dumps(settings | {"model_type": "other"}))
    with pytest.raises(
        ValueError, match=r"model_type is 'other', expected one of \['bert', 'gpt2'"
    ):
        models.load(tmp_path)
    config_file.write_text(json.dumps(settings | {"scale_attn_by_inverse_layer_idx": True}))
    with pytest.raises(ValueError, match="scale_attn_by_inverse_layer_idx=True is not supported"):
        models.load(tmp_path)


@pytest.mark.filterwarnings("default")  # their warnings are not ours
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
class TestHuggingFace:
    def test_reads_what_we_save(self, tied, tmp_path, rng):
        torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
        model = drawn_model(GPT2Config(**{**vars(CONFIG), "tied": tied}))
        models.save(model, tmp_path)
        theirs, report = transformers.GPT2LMHeadModel.from_pretrained(
            tmp_path, output_loading_info=True
        )
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        ids = rng.integers(0, CONFIG.vocab_size, 20)
        with torch.no_grad():
            expected = theirs(torch.tensor(ids[None])).logits[0].numpy()
        np.testing.assert_allclose(model.logits(ids), expected, 1e-4, 1e-4)

    def test_writes_what_we_load(self, tied, tmp_path, rng):
        torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
        torch.manual_seed(SEED)
        theirs = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=61,
                n_positions=24,
                n_embd=16,
                n_layer=2,
                n_head=2,
                tie_word_embeddings=tied,
                bos_token_id=0,
                eos_token_id=0,
            )
        )
        theirs.save_pretrained(tmp_path)
        model = models.load(tmp_path)
        ids = rng.integers(0, 61, 20)
        theirs.eval()
        expected = theirs(torch.tensor(ids[None]), labels=torch.tensor(ids[None]))
        expected.loss.backward()
        np.testing.assert_allclose(
            model.logits(ids), expected.logits[0].detach().numpy(), 1e-4, 1e-4
        )
        loss, backward = model.loss(Batch(ids[:-1], ids[1:], np.array([0, 19])))
        backward()
        assert loss == pytest.approx(expected.loss.item(), rel=1e-5)
        up = theirs.transformer.h[1].mlp.c_fc.weight.grad.numpy().T
        np.testing.assert_allclose(model.blocks[1].mlp.up.weight.grad, up, 1e-3, 1e-6)
