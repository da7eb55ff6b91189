"""Weights of few bits: decoded to the bit as gguf does, products within rounding of the decoded."""

from __future__ import annotations

import mmap

import gguf
import numpy as np
import pytest
from gguf import quants

import evergrad
from evergrad import nn, ops
from evergrad.models import Llama, LlamaConfig
from evergrad.ops.quant import ALIASES, BLOCKS, CODED
from op_support import BACKENDS, using

TYPES = {kind: gguf.GGMLQuantizationType[kind.upper()] for kind in BLOCKS}


def drawn_bytes(kind: str, rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Any bytes are a weight; only scales must be finite and of a sensible size."""
    rng = np.random.default_rng(seed)
    numbers, size = BLOCKS[kind]
    if numbers == 1:
        values = rng.standard_normal((rows, columns)).astype(np.float32)
        return ops.quantize(values, kind).data
    data = rng.integers(0, 256, (rows, columns // numbers * size), np.uint8)
    blocks = data.reshape(rows, columns // numbers, size)
    halves = {"q6_k": (208,), "q4_k": (0, 2), "q4_1": (0, 2), "q5_1": (0, 2)}.get(kind, (0,))
    for at in halves:
        scales = rng.uniform(0.01, 0.1, (*blocks.shape[:2], 1)).astype(np.float16)
        blocks[..., at : at + 2] = scales.view(np.uint8)
    return data


def decoded_by_gguf(kind: str, data: np.ndarray, columns: int) -> np.ndarray:
    view = {"f16": np.float16}.get(kind)
    given = data if view is None else data.view(view)
    return quants.dequantize(given, TYPES[kind]).reshape(len(data), columns)


@pytest.fixture(params=BACKENDS)
def backend(request):
    with using(request.param):
        yield request.param


@pytest.fixture(params=BLOCKS)
def kind(request) -> str:
    return request.param


def test_decoding_is_that_of_gguf_to_the_bit(backend, kind):
    columns = 512
    data = drawn_bytes(kind, 37, columns)
    weight = ops.QuantizedWeight(data, kind, columns)
    expected = decoded_by_gguf(kind, data, columns)
    np.testing.assert_array_equal(weight.dequantize(), expected)


@pytest.mark.parametrize("kind", CODED)
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-6, 300.0])
def test_coding_is_that_of_gguf_to_the_byte(backend, kind, scale):
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((190, 96)).astype(np.float32) * np.float32(scale)
    weight[3] = 0
    weight[4, :40] = -0.0
    weight[5, 32:64] = 2.5 * scale
    weight[6, ::2] = -weight[6, 1::2]  # the largest magnitude twice
    # The scale is 1 there: halves, and the numbers just beside them.
    weight[7, :32] = np.float32(127) * (np.arange(32) == 0)
    weight[7, 1:6] = np.nextafter(
        np.float32([0.5, 0.5, 0.5, -1.5, -2.5]), np.float32([0, 0.5, 1, 0, 0])
    )
    expected = quants.quantize(weight, TYPES[kind]).view(np.uint8).reshape(190, -1)
    np.testing.assert_array_equal(ops.quantize(weight, kind).data, expected)


@pytest.mark.parametrize("kind", [*ALIASES, "q4_0"])
@pytest.mark.parametrize("tiny", [1e-45, 1e-38, 1e-20])
def test_tiny_numbers_become_zeros(backend, kind, tiny):
    assert not ops.quantize(np.full((1, 32), tiny, np.float32), kind).dequantize().any()


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_words_are_rounded_to_nearest_even(backend, kind):
    rng = np.random.default_rng(6)
    bits = rng.integers(0, 2**32, (8, 4096), np.uint32)
    bits[:4] &= np.uint32(0xFFFFF000 if kind == "f16" else 0xFFFF8000)  # ties
    weight = bits.view(np.float32)
    weight[~np.isfinite(weight)] = 1
    halves = rng.standard_normal(weight.shape).astype(np.float32) * np.float32(1e-6)
    weight = np.where(rng.random(weight.shape) < 0.5, weight, halves)
    with np.errstate(over="ignore"):
        expected = quants.quantize(weight, TYPES[kind]).view(np.uint8).reshape(8, -1)
    np.testing.assert_array_equal(ops.quantize(weight, kind).data, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("rows", [1, 3, 20, 40])
def test_bad_scales_show(backend, value, rows):
    data = drawn_bytes("q4_1", 7, 512)
    data[4, :2] = np.array([value], "<f2").view(np.uint8)
    x = np.random.default_rng(7).standard_normal((rows, 512)).astype(np.float32)
    bad = ~np.isfinite(ops.linear(x, ops.QuantizedWeight(data, "q4_1", 512)))
    assert bad[:, 4].all()
    assert not np.delete(bad, 4, axis=1).any()


def test_a_bad_input_shows(backend, kind):
    weight = ops.QuantizedWeight(drawn_bytes(kind, 7, 512), kind, 512)
    x = np.ones((3, 512), np.float32)
    x[:, 100] = np.nan
    assert np.isnan(ops.linear(x, weight)).all()
    assert np.isnan(ops.linear(x[:1], weight)).all()


@pytest.mark.parametrize("kind", ["q4_0", "q4_1", "q8_0"])
@pytest.mark.parametrize("columns", [128, 160, 512, 576])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_bad_number_shows_wherever_it_is(backend, kind, columns, value):
    weight = ops.QuantizedWeight(drawn_bytes(kind, 5, columns), kind, columns)
    for place in {0, 1, 16, 31, 32, 96, 127, columns - 97, columns - 33, columns - 1}:
        x = np.ones((1, columns), np.float32)
        x[0, place] = value
        assert not np.isfinite(ops.linear(x, weight)).any()


@pytest.mark.parametrize("kind", ["q4_0", "q4_1"])
@pytest.mark.parametrize("size", [1e-30, 1e-6, 1e6, 1e30])
def test_inputs_may_be_of_any_size(backend, kind, size):
    """Also side by side: where x becomes integers, it does so block by block."""
    rng = np.random.default_rng(8)
    data = drawn_bytes(kind, 9, 576)
    weight = ops.QuantizedWeight(data, kind, 576)
    exact = decoded_by_gguf(kind, data, 576).astype(np.float64)
    x = (rng.standard_normal((1, 576)) * size).astype(np.float32)
    x[0, 64:96] = 0
    x[0, 96:200] *= np.float32(1e-3)
    x[0, 300:420] *= np.float32(1e-6)
    expected, scale = x @ exact.T, np.abs(x) @ np.abs(exact).T
    assert (np.abs(ops.linear(x, weight) - expected) <= 3e-7 * scale).all()


def test_whole_numbers_are_summed_exactly(backend):
    """Small integers with scales that are powers of two: no rounding anywhere."""
    rng = np.random.default_rng(9)
    data = drawn_bytes("q4_1", 9, 576)
    blocks = data.reshape(9, -1, 20)
    blocks[..., :2] = np.array([0.5], "<f2").view(np.uint8)
    blocks[..., 2:4] = np.array([-2.0], "<f2").view(np.uint8)
    weight = ops.QuantizedWeight(data, "q4_1", 576)
    x = rng.integers(-99, 99, (1, 576)).astype(np.float32)
    np.testing.assert_array_equal(ops.linear(x, weight), x @ weight.dequantize().T)


# One row of x; a few, as registers hold; more, in shares; many, that are packed. Depths straddle
# the blocks that packing cuts.
@pytest.mark.parametrize("rows", [1, 2, 5, 8, 9, 24, 25, 70])
@pytest.mark.parametrize(("features", "columns"), [(1, 256), (50, 768), (97, 1536)])
def test_a_product_is_that_of_the_decoded_weight(backend, kind, rows, features, columns):
    rng = np.random.default_rng(2)
    data = drawn_bytes(kind, features, columns)
    weight = ops.QuantizedWeight(data, kind, columns)
    x = rng.standard_normal((rows, columns)).astype(np.float32)
    bias = rng.standard_normal(features).astype(np.float32)
    residual = rng.standard_normal((rows, features)).astype(np.float32)
    exact = decoded_by_gguf(kind, data, columns).astype(np.float64)
    pre = x @ exact.T + bias
    size = np.abs(x) @ np.abs(exact).T + np.abs(bias)
    out, got_pre = ops.linear(
        x, weight, bias, activation="relu", residual=residual, return_pre=True
    )
    tolerance = 3e-7 * columns**0.5 * size.max()
    np.testing.assert_allclose(got_pre, pre, atol=tolerance)
    np.testing.assert_allclose(out, np.maximum(pre, 0) + residual, atol=tolerance)
    np.testing.assert_allclose(ops.linear(x, weight), pre - bias, atol=tolerance)


@pytest.mark.parametrize("columns", [1, 7, 33, 577])
@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_words_need_no_whole_blocks(backend, kind, columns):
    rng = np.random.default_rng(3)
    weight = ops.quantize(rng.standard_normal((21, columns)).astype(np.float32), kind)
    for rows in (1, 3, 40):
        x = rng.standard_normal((rows, columns)).astype(np.float32)
        expected = x.astype(np.float64) @ weight.dequantize().astype(np.float64).T
        np.testing.assert_allclose(ops.linear(x, weight), expected, atol=1e-5 * columns**0.5)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_special_numbers_come_through(backend, kind):
    special = [0.0, -0.0, np.inf, -np.inf, 6e-8, -6e-8, 65504.0, 1.0]
    weight = np.tile(np.array(special, np.float32), 5)[None]
    coded = ops.quantize(weight, kind)
    expected = decoded_by_gguf(kind, coded.data, 40)
    got = coded.dequantize()
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))
    nan = ops.quantize(np.full((1, 3), np.nan, np.float32), kind)
    assert np.isnan(nan.dequantize()).all()


def test_the_same_bits_for_any_number_of_threads(kind):
    rng = np.random.default_rng(4)
    weight = ops.QuantizedWeight(drawn_bytes(kind, 700, 512), kind, 512)
    for rows in (1, 6, 20, 70):
        x = rng.standard_normal((rows, 512)).astype(np.float32)
        results = []
        for threads in (1, 2, 3):
            with evergrad.num_threads(threads):
                results.append(ops.linear(x, weight))
        np.testing.assert_array_equal(results[0], results[1])
        np.testing.assert_array_equal(results[0], results[2])


def test_bytes_are_used_where_they_lie(kind, tmp_path):
    data = drawn_bytes(kind, 12, 256)
    path = tmp_path / "weight"
    path.write_bytes(b"odd" + data.tobytes())
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    view = np.frombuffer(mapped, np.uint8, offset=3).reshape(data.shape)
    weight = ops.QuantizedWeight(view, kind, 256)
    assert not weight.data.flags.writeable
    np.testing.assert_array_equal(weight.dequantize(), decoded_by_gguf(kind, data, 256))
    x = np.ones((1, 256), np.float32)
    expected = ops.linear(x, ops.QuantizedWeight(data, kind, 256))
    np.testing.assert_array_equal(ops.linear(x, weight), expected)


def test_rows_are_moved_undecoded(kind):
    weight = ops.QuantizedWeight(drawn_bytes(kind, 9, 256), kind, 256)
    dense = weight.dequantize()
    order = np.array([3, 0, 3, 8])
    np.testing.assert_array_equal(weight.rows(order).dequantize(), dense[order])
    both = ops.QuantizedWeight.concatenate([weight.rows(slice(2, 5)), weight])
    np.testing.assert_array_equal(both.dequantize(), np.concatenate([dense[2:5], dense]))
    np.testing.assert_array_equal(np.asarray(weight), dense)


def test_neighbours_in_memory_are_joined_without_a_copy(kind):
    data = drawn_bytes(kind, 9, 256)
    data.flags.writeable = False
    first, second, third = (
        ops.QuantizedWeight(data[rows], kind, 256)
        for rows in (slice(1, 4), slice(4, 8), slice(8, 9))
    )
    both = ops.QuantizedWeight.concatenate([first, second])
    assert both.shape == (7, 256)
    assert np.shares_memory(both.data, data)
    assert not both.data.flags.writeable
    np.testing.assert_array_equal(both.data, data[1:8])
    data.flags.writeable = True
    writable = ops.QuantizedWeight(data[4:8], kind, 256)
    assert not ops.QuantizedWeight.concatenate([first, writable]).data.flags.writeable
    for parts in ([first, third], [second, first], [second, second]):
        joined = ops.QuantizedWeight.concatenate(parts)
        assert not np.shares_memory(joined.data, data)
        np.testing.assert_array_equal(joined.data, np.concatenate([part.data for part in parts]))


def test_embedding_decodes_the_rows_asked_for(backend, kind):
    weight = ops.QuantizedWeight(drawn_bytes(kind, 9, 256), kind, 256)
    dense = weight.dequantize()
    ids = np.array([[3, 0], [3, 8]])
    np.testing.assert_array_equal(ops.embedding(ids, weight), dense[ids])
    out = np.ones((2, 2, 256), np.float32)
    ops.embedding(ids, weight, out=out, accumulate=True)
    np.testing.assert_array_equal(out, dense[ids] + 1)
    positions = np.array([[0, 1], [1, 0]])
    places = np.arange(512, dtype=np.float32).reshape(2, 256)
    summed = ops.embedding_sum(ids, weight, positions, places)
    np.testing.assert_array_equal(summed, dense[ids] + places[positions])
    with pytest.raises(IndexError, match=r"input: expected values in \[0, 9\)"):
        ops.embedding(np.array([9]), weight)


def test_gradients_pass_but_the_weight_has_none():
    rng = np.random.default_rng(5)
    weight = ops.quantize(rng.standard_normal((32, 64)).astype(np.float32), "int4")
    x, dout = (rng.standard_normal((5, n)).astype(np.float32) for n in (64, 32))
    dx, dweight, dbias = ops.linear_backward(dout, x, weight, need_dweight=False)
    expected = ops.linear_backward(dout, x, weight.dequantize())
    np.testing.assert_array_equal(dx, expected[0])
    np.testing.assert_array_equal(dbias, expected[2])
    assert dweight is None
    with pytest.raises(ValueError, match="QuantizedWeight, which cannot learn"):
        ops.linear_backward(dout, x, weight)
    target = np.arange(5)
    loss = ops.linear_cross_entropy(x, weight, target)
    assert loss == ops.linear_cross_entropy(x, weight.dequantize(), target)
    with pytest.raises(ValueError, match="QuantizedWeight, which cannot learn"):
        ops.linear_cross_entropy_with_grads(1.0, x, weight, target)


def test_an_output_over_the_bytes_is_refused(backend):
    """They are decoded before it is written, and would be no weight afterwards."""
    weight = ops.quantize(np.ones((64, 32), np.float32), "bf16")
    before = weight.data.copy()
    out = weight.data.reshape(-1)[: 8 * 32 * 4].view(np.float32).reshape(8, 32)
    x, dout, ids = np.ones((8, 32), np.float32), np.ones((8, 64), np.float32), np.arange(8)
    _, lse = ops.linear_cross_entropy(x, weight, ids, return_lse=True)
    frozen = {"need_dweight": False, "dx": out}
    for call in (
        lambda: ops.embedding(ids, weight, out=out),
        lambda: ops.embedding(ids, weight, out=out, accumulate=True),
        lambda: ops.embedding_sum(ids, weight, ids, x, out=out),
        lambda: ops.linear_backward(dout, x, weight, **frozen),
        lambda: ops.linear_cross_entropy_backward(1.0, x, weight, ids, lse, **frozen),
        lambda: ops.linear_cross_entropy_with_grads(1.0, x, weight, ids, **frozen),
    ):
        with pytest.raises(ValueError, match=r"expected memory of its own, got .* overlaps weight"):
            call()
        np.testing.assert_array_equal(weight.data, before)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1], "q4_1", 32), TypeError, "data: expected a uint8 numpy array"),
        ((np.zeros((1, 20), np.int8), "q4_1", 32), TypeError, "data: expected a uint8"),
        ((np.zeros((1, 20), np.uint8), "q3_k", 32), ValueError, "kind"),
        ((np.zeros((1, 20), np.uint8), "q4_1", 33), ValueError, "columns: expected a multiple"),
        ((np.zeros((1, 20), np.uint8), "q4_1", -32), ValueError, "columns"),
        ((np.zeros((1, 19), np.uint8), "q4_1", 32), ValueError, r"data: expected \[rows, 20\]"),
        ((np.zeros(20, np.uint8), "q4_1", 32), ValueError, r"data: expected \[rows, 20\]"),
        ((np.zeros((4, 40), np.uint8)[:, ::2], "q4_1", 32), ValueError, "C-contiguous"),
    ],
    ids=str,
)
def test_bytes_that_are_no_weight_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.QuantizedWeight(*arguments)


@pytest.mark.parametrize(
    ("weight", "kind", "error", "message"),
    [
        (np.zeros((2, 33), np.float32), "int4", ValueError, "multiple of 32 columns for q4_1"),
        (np.zeros((2, 32), np.float32), "q4_k", ValueError, "kind"),
        (np.zeros((2, 32)), "int4", TypeError, "weight: expected float32"),
        (np.zeros(32, np.float32), "int4", ValueError, "weight"),
        (np.full((1, 32), 1e6, np.float32), "int4", ValueError, "up to 65504 for q4_1, got 1e"),
        (
            np.full((1, 32), np.nan, np.float32),
            "int8",
            ValueError,
            "finite numbers up to 65504 for q8_0",
        ),
    ],
    ids=str,
)
def test_weights_that_have_no_code_are_refused(weight, kind, error, message):
    with pytest.raises(error, match=message):
        ops.quantize(weight, kind)


def test_a_product_checks_its_shapes():
    weight = ops.quantize(np.zeros((4, 32), np.float32), "int4")
    with pytest.raises(ValueError, match=r"weight: expected \[out_features, 31\] to fit x"):
        ops.linear(np.zeros((1, 31), np.float32), weight)


@pytest.mark.parametrize("shape", [(0, 32), (3, 0)])
def test_empty_weights_are_weights(backend, shape):
    weight = ops.quantize(np.zeros(shape, np.float32), "int4")
    assert weight.dequantize().shape == shape
    out = ops.linear(np.ones((2, shape[1]), np.float32), weight, np.ones(shape[0], np.float32))
    np.testing.assert_array_equal(out, np.ones((2, shape[0])))


# Models.


def small_llama(seed=0) -> Llama:
    config = LlamaConfig(vocab_size=90, layers=2, heads=4, kv_heads=2, dim=32, hidden=64)
    model = Llama(config, seed=seed)
    model.eval()
    return model


@pytest.mark.parametrize("kind", [*ALIASES, "bf16"])
def test_a_model_in_few_bits_is_the_model_of_its_decoded_weights(kind):
    model, dense = small_llama(), small_llama()
    ids = np.arange(30) % 90
    before = model.logits(ids)
    report = nn.quantize(model, kind)
    assert report.otherwise == ()
    bits = {"int8": 8.5, "int4": 5, "bf16": 16}[kind]
    norms = 5 * 32 * 4
    assert report.after - norms == round((report.before - norms) * bits / 32)
    dense.load_state_dict(model.state_dict())
    np.testing.assert_allclose(model.logits(ids), dense.logits(ids), atol=1e-5)
    error = np.abs(model.logits(ids) - before).max() / np.abs(before).max()
    assert 0 < error < {"int8": 0.02, "int4": 0.3, "bf16": 0.02}[kind]
    assert model.head.weight is model.embedding.weight or not model.config.tied


def test_what_has_no_whole_groups_goes_to_bf16():
    net = nn.Sequential(nn.Linear(33, 64), nn.Linear(64, 2))
    report = nn.quantize(net, "int8")
    assert report.otherwise == ("layers.0.weight",)
    kinds = [layer.weight.data.kind for layer in net.layers]
    assert kinds == ["bf16", "q8_0"]
    with pytest.raises(ValueError, match="kind"):
        nn.quantize(net, "int3")


def test_frozen_weights_let_the_rest_learn():
    net = nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 2))
    nn.quantize(net, "int8")
    assert [name for name, p in net.named_parameters() if p.requires_grad] == [
        "layers.0.bias",
        "layers.1.bias",
    ]
    out, backward = net(np.ones((3, 32), np.float32))
    backward(np.ones_like(out))
    assert net.layers[0].bias.grad.any()
    net.freeze()
    flat = net.flat
    with pytest.raises(ValueError, match=r"few bits cannot learn: layers\.0\.weight, layers\.1\.w"):
        net.unfreeze()
    assert not net.trainable
    assert net.flat is flat
    with pytest.raises(ValueError, match="few bits"):
        net.load_state_dict(net.state_dict())
