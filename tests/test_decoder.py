"""Blocks behind a cache in one call: bit for bit what they give one by one, never out of date."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import evergrad
from evergrad import nn, ops
from evergrad.models import GPT2, GPT2Config, KVCache, Llama, LlamaConfig
from evergrad.models.language_model import PreNormBlock
from evergrad.ops.decoder import Decoder, DecoderBlock, Map, Norm

pytestmark = pytest.mark.skipif(
    "native" not in evergrad.available_backends(), reason="the native backend has it"
)

SIZE = {"vocab_size": 60, "context": 80, "layers": 3, "dim": 32}
MODELS = {
    "gpt2": lambda: GPT2(GPT2Config(**SIZE, heads=4, hidden=96)),
    "gpt2 relu": lambda: GPT2(GPT2Config(**SIZE, heads=2, activation="relu")),
    "gpt2 linear": lambda: GPT2(GPT2Config(**SIZE, heads=2, activation=None)),
    "llama": lambda: Llama(LlamaConfig(**SIZE, heads=4, kv_heads=2, hidden=64)),
    "llama gelu": lambda: Llama(LlamaConfig(**SIZE, heads=4, hidden=64, activation="gelu")),
    "llama biased": lambda: Llama(
        LlamaConfig(
            **SIZE, heads=2, kv_heads=1, head_dim=24, hidden=64, attention_bias=True, mlp_bias=True
        )
    ),
}


def drawn(name):
    model = MODELS[name]()
    rng = np.random.default_rng(7)
    for array in model.state_dict().values():
        array += rng.standard_normal(array.shape, np.float32) * np.float32(0.2)
    model.eval()
    return model


@pytest.fixture(params=MODELS)
def model(request):
    return drawn(request.param)


@pytest.fixture
def one_by_one(monkeypatch):
    """Logits of the same calls without what is tested here."""

    def run(model, calls, **options):
        with monkeypatch.context() as patch:
            patch.setattr(Decoder, "is_available", staticmethod(lambda: False))
            return logits_of(model, calls, **options)

    return run


def logits_of(model, calls, batch=3):
    cache = KVCache(model.config, batch)
    found = []
    for lengths in calls:
        cu_seqlens = np.concatenate([[0], np.cumsum(lengths)])
        ids = np.random.default_rng(cu_seqlens[-1]).integers(0, 60, cu_seqlens[-1])
        found.append(model.logits(ids, cu_seqlens, cache=cache))
    return found


# Prompts of different and of equal lengths, single tokens, several at a time, none for a slot.
CALLS = [(5, 1, 40), (1, 1, 1), (1, 1, 1), (4, 8, 2), (1, 0, 1), (3, 3, 3)]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", [None, "int8", "int4", "bf16"])
def test_bit_for_bit_what_the_parts_give(model, kind, one_by_one):
    if kind is not None:
        nn.quantize(model, kind)
    ours = logits_of(model, CALLS)
    assert model._together._decoder is not None
    assert_same(ours, one_by_one(model, CALLS))


@pytest.mark.parametrize("length", [256, 257, 530, 1100])
@pytest.mark.parametrize("kind", [None, "int8"])
def test_a_prompt_longer_than_a_piece(length, kind, one_by_one):
    config = LlamaConfig(**{**SIZE, "context": 1200}, heads=4, kv_heads=2, hidden=64)
    model, calls = Llama(config), [(length,), (1,)]
    if kind is not None:
        nn.quantize(model, kind)
    assert_same(logits_of(model, calls, batch=1), one_by_one(model, calls, batch=1))


def test_any_number_of_threads(model):
    with evergrad.num_threads(1):
        expected = logits_of(model, CALLS)
    with evergrad.num_threads(3):
        assert_same(logits_of(model, CALLS), expected)


def test_weights_that_change(model, one_by_one):
    before = logits_of(model, CALLS)
    model.blocks[1].mlp.down.weight.data[...] *= 2  # in place
    within = logits_of(model, CALLS)
    assert not np.array_equal(before[-1], within[-1])
    assert_same(within, one_by_one(model, CALLS))
    weight = model.blocks[2].attention.proj.weight
    weight.data = weight.data * np.float32(0.5)  # another array
    assert_same(logits_of(model, CALLS), one_by_one(model, CALLS))
    nn.quantize(model, "int8")
    assert_same(logits_of(model, CALLS), one_by_one(model, CALLS))


def test_layers_that_change(model, one_by_one):
    logits_of(model, CALLS)
    model.blocks = model.blocks[:2]
    model.config = type(model.config)(**{**vars(model.config), "layers": 2})
    assert_same(logits_of(model, CALLS), one_by_one(model, CALLS))

    class Doubled(nn.ResidualLinear):
        def __call__(self, x, **options):
            out, backward = super().__call__(x, **options)
            return 2 * out, backward

    old = model.blocks[1].mlp.down
    model.blocks[1].mlp.down = Doubled(*old.weight.data.shape[::-1], old.bias is not None, std=0.1)
    assert not model._together.ready()
    assert_same(logits_of(model, CALLS), one_by_one(model, CALLS))


def test_few_bits_that_are_replaced_again_and_again(model, one_by_one):
    """An object may get the identity of one that died."""
    nn.quantize(model, "int8")
    rng = np.random.default_rng(3)
    weight = model.blocks[1].mlp.down.weight
    for _ in range(20):
        logits_of(model, CALLS)
        for _ in range(2):
            weight.data = ops.quantize(rng.standard_normal(weight.data.shape, np.float32), "int8")
        assert_same(logits_of(model, CALLS), one_by_one(model, CALLS))


def set_eps(block):
    block.norm_2.eps = 0.5


def set_window(block):
    block.attention.options["window_size"] = (2, 0)


def set_scale(block):
    block.attention.options["scale"] = 3.0


def set_activation(block):
    changed = block.mlp if hasattr(block.mlp, "gate_up") else block.mlp.up
    changed.activation = "silu" if changed.activation != "silu" else "gelu"


@pytest.mark.parametrize("change", [set_eps, set_window, set_scale, set_activation])
def test_numbers_that_change(model, change, one_by_one):
    before = logits_of(model, CALLS)
    change(model.blocks[1])
    after = logits_of(model, CALLS)
    assert not np.array_equal(before[0], after[0])
    assert_same(after, one_by_one(model, CALLS))


def test_a_block_of_another_class(model, one_by_one):
    class Parallel(PreNormBlock):
        def __call__(self, x, cu_seqlens, **options):
            out, backward = super().__call__(x, cu_seqlens, **options)
            return out + x, backward

    before = logits_of(model, CALLS)
    model.blocks[1].__class__ = Parallel
    after = logits_of(model, CALLS)
    assert not np.array_equal(before[0], after[0])
    assert_same(after, one_by_one(model, CALLS))


def test_fewer_blocks_than_the_cache_has_layers(model, one_by_one):
    logits_of(model, CALLS)
    model.blocks.pop()
    assert_same(logits_of(model, CALLS), one_by_one(model, CALLS))


def test_training_with_dropout_is_left_to_the_layers():
    model = GPT2(GPT2Config(**SIZE, heads=4, dropout=0.5))
    model.eval()
    first = logits_of(model, CALLS)
    assert model._together.ready()
    model.train()
    assert not model._together.ready()
    assert not np.array_equal(logits_of(model, CALLS)[0], first[0])


def test_an_observer_is_called(model):
    logits_of(model, CALLS)
    model.blocks[0].attention.observer = lambda weights: None
    assert not model._together.ready()


def test_copies_are_their_own(model, one_by_one):
    before = logits_of(model, CALLS)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same(logits_of(other, CALLS), before)
        other.blocks[0].mlp.down.weight.data[...] = 0
        assert_same(logits_of(other, CALLS), one_by_one(other, CALLS))
        assert_same(logits_of(model, CALLS), before)


def test_other_backends_take_the_layers_one_by_one(model):
    ours = logits_of(model, CALLS)
    with evergrad.use_backend("reference"):
        assert not Decoder.is_available()
        theirs = logits_of(model, CALLS)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * abs(other).max())


def last_of(model, calls, batch=3):
    """The last logits of each sequence, asked for alone and cut from all; both caches' contents."""
    alone, whole = KVCache(model.config, batch), KVCache(model.config, batch)
    for lengths in calls:
        cu_seqlens = np.concatenate([[0], np.cumsum(lengths)])
        ids = np.random.default_rng(cu_seqlens[-1]).integers(0, 60, cu_seqlens[-1])
        ends = cu_seqlens[1:] - 1
        found = model.logits(ids, cu_seqlens, rows=ends, cache=alone)
        yield found, model.logits(ids, cu_seqlens, cache=whole)[ends]
        for slot, length in enumerate(whole.lengths):
            np.testing.assert_array_equal(
                alone.memory[:, slot, :, :length], whole.memory[:, slot, :, :length]
            )
    assert alone.lengths.tolist() == whole.lengths.tolist()


@pytest.fixture
def narrowed(monkeypatch):
    """How many rows went into each call of the decoder, and came out."""
    seen = []
    call = Decoder.__call__

    def spy(self, x, *args, **options):
        out = call(self, x, *args, **options)
        seen.append((len(x), len(out)))
        return out

    monkeypatch.setattr(Decoder, "__call__", spy)
    return seen


@pytest.mark.parametrize("kind", [None, "int8", "int4"])
@pytest.mark.parametrize("change", [None, set_window])
def test_the_last_tokens_alone(model, kind, change, narrowed):
    if kind is not None:
        nn.quantize(model, kind)
    if change is not None:
        change(model.blocks[-1])
    calls = [(5, 1, 40), (1, 1, 1), (4, 8, 2), (3, 3, 3)]
    for found, expected in last_of(model, calls):
        # A row by itself is multiplied in another way.
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())
    rows = [total for lengths in calls for total in (sum(lengths), sum(lengths))]
    assert narrowed == [(n, 3 if i % 2 == 0 else n) for i, n in enumerate(rows)]


def test_the_last_tokens_where_a_sequence_has_none(model, narrowed):
    cache = KVCache(model.config, 3)
    out = model.logits(np.arange(5), np.array([0, 2, 2, 5]), rows=np.array([1, 1, 4]), cache=cache)
    assert out.shape == (3, 60)
    assert narrowed == [(5, 5)]


@pytest.mark.parametrize("lengths", [(700,), (300, 7, 230), (1, 400, 1), (256, 256)])
def test_the_last_tokens_of_prompts_longer_than_a_piece(lengths, narrowed):
    config = LlamaConfig(**{**SIZE, "context": 1200}, heads=4, kv_heads=2, hidden=64)
    model = Llama(config)
    ones = (1,) * len(lengths)
    for found, expected in last_of(model, [lengths, ones], batch=len(lengths)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())
    assert any(out < rows for rows, out in narrowed)


def test_no_row_beyond_the_tokens(model):
    cache = KVCache(model.config, 1)
    with pytest.raises(IndexError, match=r"rows must lie in \[0, 5\), got \[5\]"):
        model.logits(np.arange(5), np.array([0, 5]), rows=np.array([5]), cache=cache)
    assert cache.lengths.tolist() == [0]  # nothing was read


def test_the_last_tokens_without_the_decoder(model, monkeypatch):
    expected = [found for found, _ in last_of(model, CALLS[:3])]
    monkeypatch.setattr(Decoder, "is_available", staticmethod(lambda: False))
    for found, ours in zip(last_of(model, CALLS[:3]), expected, strict=True):
        np.testing.assert_allclose(found[0], ours, rtol=1e-4, atol=1e-4 * abs(ours).max())


def block(dim=4, **changes):
    norm = Norm(True, 1e-6, np.ones(dim, np.float32))

    def zeros(rows, columns):
        return Map.of(np.zeros((rows, columns), np.float32), None)

    made = DecoderBlock(
        norm, zeros(12, dim), zeros(dim, 4), norm, zeros(16, dim), zeros(dim, 8), "silu", True,
        heads=2, kv_heads=2, head_dim=2, window_left=-1, scale=1.0,
    )  # fmt: skip
    return made._replace(**changes)


def test_no_last_token_of_a_slot_that_gets_none():
    x = np.arange(24, dtype=np.float32).reshape(6, 4)
    spans = [(0, 1, 0, 0, 0), (1, 2, 0, 0, 2), (3, 1, 4, 0, 2)]
    cache = np.zeros((1, 4, 4, 5, 2), np.float32)
    for blocks in ([], [block()], [block(), block()]):
        memory = np.zeros((len(blocks), *cache.shape[1:]), np.float32)
        out = Decoder(blocks)(x, memory, spans, last_only=True)  # maps of zeros: nothing is added
        np.testing.assert_array_equal(out, x[[1, 3, 5]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 4}, r"qkv.weight: expected \(16, 4\), got \(12, 4\)"),
        ({"heads": 3}, "kv_heads: expected a number that divides heads, got heads=3, kv_heads=2"),
        ({"kv_heads": 0}, "kv_heads: expected a number that divides heads"),
        ({"activation": "tanh"}, "activation"),
        ({"norm_1": Norm(True, float("nan"), np.ones(4, np.float32))}, "norm_1.eps"),
        (
            {"norm_1": Norm(True, 1e-6, np.ones(4, np.float32), np.ones(4, np.float32))},
            "norm_1.bias: expected None for an rms norm",
        ),
        ({"down": Map(np.zeros((4, 1), np.uint8), "f16", 8, None)}, r"data: expected \[rows, 16\]"),
        ({"is_gated": False}, r"up.weight: expected \(8, 4\), got \(16, 4\)"),
        ({"activation": "swish"}, "activation"),
        ({"norm_2": Norm(True, 1e-6, np.ones(3, np.float32))}, r"norm_2.weight: .*\(4,\)"),
        ({"proj": Map.of(np.zeros((4, 8), np.float32)[:, ::2], None)}, "proj.weight: .*contiguous"),
    ],
)
def test_blocks_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        Decoder([block(**changes)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.zeros((3, 5), np.float32)}, "x: expected shape"),
        ({"x": np.zeros((3, 4))}, "x: expected float32"),
        ({"cache": np.zeros((1, 1, 3, 5, 2), np.float32)}, "cache: expected shape"),
        ({"spans": [(0, 1, 0, 3, 3)]}, "spans: expected rows"),
        ({"spans": [(0, 2, 0, 0, 3)]}, "spans: expected rows"),
        ({"spans": [(-1, 1, 0, 0, 3)]}, "spans: expected rows"),
        ({"spans": [(0, 1, 0, -1, 3)]}, "spans: expected rows"),
        ({"spans": [(0, 1, 1, 0, 2)]}, "spans: expected rows"),
        ({"spans": [(0, 1, 0, 0, 2)]}, "spans: expected 3 rows like x, got 2"),
        ({"cos": np.zeros((3, 2), np.float32)}, "cos: expected shape"),
        ({"cos": np.zeros((3, 1), np.float32)}, "sin: "),
        ({"sin": np.zeros((3, 1), np.float32)}, "sin: expected None without cos"),
    ],
)
def test_calls_that_do_not_fit(arguments, message):
    given = {
        "x": np.zeros((3, 4), np.float32),
        "cache": np.zeros((1, 1, 4, 5, 2), np.float32),
        "spans": [(0, 1, 0, 0, 3)],
        **arguments,
    }
    with pytest.raises((TypeError, ValueError), match=message):
        Decoder([block()])(**given)


def test_the_reference_lets_float64_pass_but_the_blocks_do_not():
    decoder = Decoder([block()])
    with evergrad.use_backend("reference"), pytest.raises(TypeError, match="x: expected float32"):
        decoder(np.zeros((3, 4)), np.zeros((1, 1, 4, 5, 2)), [(0, 1, 0, 0, 3)])
