"""Layers: gradients against finite differences, and what modules promise."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import signal
import threading
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import evergrad
from evergrad import nn, ops, optim
from op_support import SEED, succeeds


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


@pytest.fixture
def float64() -> Iterator[None]:
    with evergrad.use_backend("reference"):
        yield


def to_float64(module: nn.Module, rng: np.random.Generator) -> None:
    """Random float64 parameters: zeros and ones would hide terms."""
    for parameter in module.parameters():
        parameter.data = rng.standard_normal(parameter.data.shape)
    nn.flatten_(module)


def finite_difference(function: Callable[[], float], array: np.ndarray) -> np.ndarray:
    """Central differences of function() with respect to every element of a float64 array."""
    step = 1e-6
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + step
        above = function()
        array[index] = value - step
        below = function()
        array[index] = value
        gradient[index] = (above - below) / (2 * step)
    return gradient


def check_gradients(layer: nn.Module, x: np.ndarray, rng: np.random.Generator, **inputs) -> None:
    """Every gradient of <dout, layer(x)>, with a random dout, against finite differences."""
    random_state = layer.random_state()

    def forward():
        layer.load_random_state(random_state)  # the same dropout mask every time
        return layer(x, **inputs)

    out, backward = forward()
    dout = rng.standard_normal(out.shape)
    dx = backward(dout)

    def objective() -> float:
        return float((forward()[0] * dout).sum())

    def close(gradient, array):
        np.testing.assert_allclose(gradient, finite_difference(objective, array), 1e-6, 1e-7)

    for parameter in layer.parameters():
        close(parameter.grad, parameter.data)
    if np.issubdtype(x.dtype, np.floating):
        close(dx, x)
    if "residual" in inputs:
        close(dout, inputs["residual"])


LAYERS = {
    "linear": lambda: nn.Linear(5, 3),
    "linear_without_bias": lambda: nn.Linear(5, 3, bias=False),
    "linear_relu": lambda: nn.Linear(5, 3, activation="relu"),
    "linear_sigmoid": lambda: nn.Linear(5, 3, activation="sigmoid"),
    "linear_tanh": lambda: nn.Linear(5, 3, activation="tanh"),
    "linear_gelu": lambda: nn.Linear(5, 3, activation="gelu"),
    "linear_gelu_tanh": lambda: nn.Linear(5, 3, activation="gelu_tanh"),
    "residual_linear": lambda: nn.ResidualLinear(5, 3),
    "residual_linear_dropout": lambda: nn.ResidualLinear(5, 3, dropout=0.4),
    "layer_norm": lambda: nn.LayerNorm(5),
    "rms_norm": lambda: nn.RMSNorm(5),
    "dropout": lambda: nn.Dropout(0.4),
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU("tanh"),
    "mlp": lambda: nn.MLP(5, 7),
    "mlp_dropout": lambda: nn.MLP(5, 7, bias=False, dropout=0.3, hidden_dropout=0.3),
    "swiglu": lambda: nn.GatedMLP(5, 7),
    "geglu": lambda: nn.GatedMLP(5, 7, activation="gelu", bias=True),
    "geglu_dropout": lambda: nn.GatedMLP(5, 7, activation="gelu_tanh", hidden_dropout=0.3),
    "sequential": lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.LayerNorm(4)),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("mode", ["mean", "cls"])
def test_gradients_of_pooling(mode, rng):
    cu_seqlens = np.array([0, 3, 3, 4])  # three sequences, one of them empty
    check_gradients(nn.Pool(mode), rng.standard_normal((4, 5)), rng, cu_seqlens=cu_seqlens)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("frozen", [None, "token", "position"])
def test_embedding_sum_is_that_of_its_tables(frozen, rng):
    token, position = nn.Embedding(7, 5), nn.Embedding(4, 5)
    for table in (token, position):
        to_float64(table, rng)
    if frozen is not None:
        {"token": token, "position": position}[frozen].freeze()
    ids, places = np.array([[6, 1], [1, 0]]), np.array([[0, 1], [0, 3]])
    out, backward = nn.embedding_sum(token, ids, position, places)
    np.testing.assert_array_equal(out, token(ids)[0] + position(places)[0])
    dout = rng.standard_normal(out.shape)
    assert backward(dout) is None
    for table, indices in ((token, ids), (position, places)):
        if table.weight.requires_grad:
            summed = table.weight.grad.copy()
            table.weight.grad.fill(0)
            table(indices)[1](dout)
            np.testing.assert_array_equal(summed, table.weight.grad)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name, rng):
    layer = LAYERS[name]()
    to_float64(layer, rng)
    check_gradients(layer, rng.standard_normal((4, 5)), rng)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", [name for name in LAYERS if "linear" in name])
def test_gradients_with_a_residual(name, rng):
    layer = LAYERS[name]()
    to_float64(layer, rng)
    residual = rng.standard_normal((4, 3))
    check_gradients(layer, rng.standard_normal((4, 5)), rng, residual=residual)


@pytest.mark.usefixtures("float64")
def test_gradients_of_embedding(rng):
    table = nn.Embedding(6, 3)
    to_float64(table, rng)
    check_gradients(table, np.array([[4, 0], [4, 1]]), rng)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("lengths", [[7], [1, 4, 2], [3, 0, 2]])
def test_gradients_of_attention(lengths, dropout, rng):
    attention = nn.Attention(dim=6, heads=2, dropout=dropout)
    to_float64(attention, rng)
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)])
    x, residual = rng.standard_normal((2, sum(lengths), 6))
    check_gradients(attention, x, rng, cu_seqlens=cu_seqlens, residual=residual)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "options",
    [
        {"kv_heads": 2},
        {"kv_heads": 1, "head_dim": 4, "bias": False},
        {"is_causal": False, "out_bias": False},
        {"window": 1},
        {"window": 1, "is_causal": False},
        {"scale": 1.0, "attention_dropout": 0.3, "dropout": 0.2},
    ],
    ids=str,
)
@pytest.mark.parametrize("turned", [False, True])
def test_gradients_of_every_attention(turned, options, rng):
    attention = nn.Attention(dim=8, heads=4, **options)
    to_float64(attention, rng)
    inputs = {"cu_seqlens": np.array([0, 1, 5, 7])}
    if turned:
        positions = np.array([0, 0, 1, 2, 3, 0, 1])
        inputs["rotation"] = nn.Rotary(attention.head_dim)(positions, np.float64)
    check_gradients(attention, rng.standard_normal((7, 8)), rng, **inputs)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("frozen", [(), ("qkv", "proj"), ("proj",)], ids=str)
def test_gradient_of_a_position_bias(frozen, rng):
    """Through the attention into the table, over sequences shorter than the bias."""
    attention = nn.Attention(dim=6, heads=2, is_causal=False)
    position_bias = nn.RelativePositionBias(4, 2, max_distance=4)
    for layer in (attention, position_bias):
        to_float64(layer, rng)
    if frozen:
        attention.freeze(*frozen)
    x, dout = rng.standard_normal((2, 7, 6))
    cu_seqlens = np.array([0, 2, 7])

    def forward():
        bias, bias_backward = position_bias(5, 5)
        dbias = np.zeros_like(bias)
        out, backward = attention(x, cu_seqlens, bias=bias, dbias=dbias, need_dx=False)
        return out, lambda: (backward(dout), bias_backward(dbias))

    forward()[1]()
    weight = position_bias.table.weight
    expected = finite_difference(lambda: float((forward()[0] * dout).sum()), weight.data)
    np.testing.assert_allclose(weight.grad, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_of_cross_attention(dropout, rng):
    cross = nn.CrossAttention(6, 2, head_dim=4, dropout=dropout, attention_dropout=dropout)
    to_float64(cross, rng)
    x, states = rng.standard_normal((5, 6)), rng.standard_normal((4, 6))
    dout, random_state = rng.standard_normal((5, 6)), cross.random_state()

    def forward():
        cross.load_random_state(random_state)
        return cross(x, states, np.array([0, 2, 2, 5]), np.array([0, 1, 3, 4]))

    found = {"x": x, "states": states}
    gradients = dict(zip(found, forward()[1](dout), strict=True))
    for name, parameter in cross.named_parameters():
        found[name], gradients[name] = parameter.data, parameter.grad
    for name, array in found.items():
        expected = finite_difference(lambda: float((forward()[0] * dout).sum()), array)
        np.testing.assert_allclose(gradients[name], expected, 1e-6, 1e-7, err_msg=name)


def test_a_backward_of_two_gives_two_even_where_neither_is_needed(rng):
    x, states = rng.standard_normal((2, 4, 8)).astype(np.float32)
    offsets = np.array([0, 4])
    for frozen in (["query", "key_value"], ["query", "key_value", "proj"]):
        cross = nn.CrossAttention(8, 2)
        cross.freeze(*frozen)
        learns = "proj" not in frozen
        out, backward = cross(x, states, offsets, offsets, need_dx=False, need_dstates=False)
        assert backward.needed == learns
        assert backward(out) == (None, None)
        _, backward = cross(x, states, offsets, offsets, need_dx=False, need_dstates=False)
        assert backward(None) == (None, None)
        out, backward = cross(x, states, offsets, offsets, need_dx=False)
        dx, dstates = backward(out)
        assert dx is None and dstates.shape == states.shape


def test_what_an_attention_refuses():
    with pytest.raises(ValueError, match="kv_heads must divide heads, got heads=4, kv_heads=3"):
        nn.Attention(dim=8, heads=4, kv_heads=3)
    with pytest.raises(ValueError, match="heads must divide dim"):
        nn.CrossAttention(dim=8, heads=3)
    with pytest.raises(ValueError, match="at least one head, got heads=4, kv_heads=0"):
        nn.Attention(dim=8, heads=4, kv_heads=0)
    with pytest.raises(ValueError, match="at least one head, got heads=-2"):
        nn.CrossAttention(dim=8, heads=-2)
    with pytest.raises(ValueError, match="activation: expected one of 'silu'"):
        nn.GatedMLP(4, 8, activation="relu")


def test_what_needs_no_gradient_says_so(rng):
    """And so spares the layer above it that of its input."""
    x = rng.standard_normal((4, 8)).astype(np.float32)
    for layer in (nn.Linear(8, 8), nn.RMSNorm(8), nn.LayerNorm(8), nn.MLP(8, 8),
                  nn.GatedMLP(8, 8), nn.Attention(8, 2)):  # fmt: skip
        assert layer(x)[1].needed
        assert layer(x, need_dx=False)[1].needed
        layer.freeze()
        assert layer(x)[1].needed
        _, backward = layer(x, need_dx=False)
        assert not backward.needed
        assert backward(x) is None


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
def test_norms_add_the_cotangent_of_the_residual_path(kind, rng):
    norm = kind(5)
    to_float64(norm, rng)
    x, dout, dresidual = rng.standard_normal((3, 4, 5))
    dx = norm(x)[1](dout)
    np.testing.assert_allclose(norm(x)[1](dout, dresidual=dresidual), dx + dresidual)


def test_gradients_add_up_over_backward_passes(rng):
    layer = nn.MLP(4, 8, rng=rng)
    x, dout = rng.standard_normal((2, 3, 4)).astype(np.float32)
    layer(x)[1](dout)
    once = {name: parameter.grad.copy() for name, parameter in layer.named_parameters()}
    layer(x)[1](dout)
    for name, parameter in layer.named_parameters():
        # The second sum begins with the first one's result: where terms cancel, digits go.
        largest = abs(once[name]).max()
        np.testing.assert_allclose(parameter.grad, 2 * once[name], rtol=0, atol=1e-6 * largest)


def test_packed_sequences_do_not_see_each_other(rng):
    attention = nn.Attention(dim=8, heads=2)
    x = rng.standard_normal((9, 8)).astype(np.float32)
    packed, _ = attention(x, np.array([0, 4, 9]))
    np.testing.assert_allclose(packed[:4], attention(x[:4])[0], 1e-5, 1e-6)
    np.testing.assert_allclose(packed[4:], attention(x[4:])[0], 1e-5, 1e-6)


def test_attention_is_causal(rng):
    attention = nn.Attention(dim=8, heads=2)
    x = rng.standard_normal((6, 8)).astype(np.float32)
    before, _ = attention(x)
    x[4:] += 1
    after, _ = attention(x)
    np.testing.assert_allclose(after[:4], before[:4], 1e-5, 1e-6)
    assert not np.allclose(after[4:], before[4:])


def test_attention_takes_packed_tokens():
    with pytest.raises(ValueError, match=r"expected \[tokens, dim\], got shape \(1, 5, 8\)"):
        nn.Attention(dim=8, heads=2)(np.ones((1, 5, 8), np.float32))


def test_heads_must_divide_dim():
    with pytest.raises(ValueError, match="heads must divide dim"):
        nn.Attention(dim=8, heads=3)


# What a backward pass skips.


@pytest.mark.parametrize("name", LAYERS)
def test_no_dx_on_request(name, rng):
    layer = LAYERS[name]()
    x = rng.standard_normal((4, 5)).astype(np.float32)
    out, backward = layer(x, need_dx=False)
    dout = rng.standard_normal(out.shape).astype(np.float32)
    assert backward(dout) is None
    assert all(parameter.grad.any() for parameter in layer.parameters())


@pytest.mark.parametrize("name", LAYERS)
def test_frozen_parameters_get_no_gradient_and_leave_dx_alone(name, rng):
    layer = LAYERS[name]()
    x = rng.standard_normal((4, 5)).astype(np.float32)
    state = layer.random_state()
    out, backward = layer(x)
    dout = rng.standard_normal(out.shape).astype(np.float32)
    dx = backward(dout)
    layer.freeze()
    layer.load_random_state(state)
    np.testing.assert_array_equal(layer(x)[1](dout), dx)
    assert all(parameter.grad is None for parameter in layer.parameters())
    assert layer(x, need_dx=False)[1](dout) is None


def test_a_single_frozen_part_leaves_the_other_gradients_alone(rng):
    layer = nn.Attention(dim=8, heads=2)
    x, dout = rng.standard_normal((2, 6, 8)).astype(np.float32)
    layer(x)[1](dout)
    expected = {name: parameter.grad.copy() for name, parameter in layer.named_parameters()}
    for frozen in expected:
        layer.unfreeze()
        layer.freeze(frozen)
        layer.flat.grad.fill(0)
        layer(x)[1](dout)
        for name, parameter in layer.named_parameters():
            if name == frozen:
                assert parameter.grad is None
            else:
                np.testing.assert_array_equal(parameter.grad, expected[name])


def test_sequential_stops_at_the_lowest_layer_that_learns(rng):
    net = nn.Sequential(*(nn.Linear(4, 4, activation="tanh") for _ in range(3)))
    x, dout = rng.standard_normal((2, 5, 4)).astype(np.float32)
    net(x)[1](dout)
    expected = [parameter.grad.copy() for parameter in net.layers[1].parameters()]
    net.freeze("layers.0", "layers.2")
    net.flat.grad.fill(0)
    assert net(x, need_dx=False)[1](dout) is None
    for parameter, gradient in zip(net.layers[1].parameters(), expected, strict=True):
        np.testing.assert_array_equal(parameter.grad, gradient)


# What a closure saves is dropped as soon as it is used.


def test_backward_runs_once(rng):
    layer = nn.Linear(3, 2)
    out, backward = layer(np.ones((1, 3), np.float32))
    backward(out)
    with pytest.raises(RuntimeError, match="run the forward again"):
        backward(out)


def test_saved_arrays_are_released_as_the_backward_pass_goes_by(rng):
    released: list[str] = []

    class Probe(nn.Module):
        """Reports the arrays that it saved, when they are released."""

        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self, x, *, need_dx=True):
            saved = x.copy()
            weakref.finalize(saved, released.append, self.name)

            def backward(dout):
                released.append(f"backward {self.name}")
                return dout * saved

            return x, nn.once(backward)

    net = nn.Sequential(Probe("low"), Probe("high"))
    out, backward = net(np.ones((2, 2), np.float32))
    assert released == []
    backward(out)
    assert released == ["backward high", "high", "backward low", "low"]


# Dropout.


def test_dropout_in_evaluation_is_the_identity():
    dropout = nn.Dropout(0.9)
    dropout.eval()
    x = np.ones((3, 3), np.float32)
    out, backward = dropout(x)
    assert out is x
    assert backward(x) is x


def test_dropout_repeats_from_a_restored_state():
    net = nn.Sequential(nn.Dropout(0.5), nn.ResidualLinear(8, 8, dropout=0.5))
    x = np.ones((16, 8), np.float32)
    net(x)
    state = net.random_state()
    expected = [net(x)[0].copy() for _ in range(3)]
    net.load_random_state(state)
    for out in expected:
        np.testing.assert_array_equal(net(x)[0], out)


def test_layers_that_share_a_stream_drop_different_elements():
    stream = nn.RandomStream(0)
    first, second = nn.Dropout(stream=stream), nn.Dropout(stream=stream)
    x = np.ones(1000, np.float32)
    agreement = (first(x)[0] == second(x)[0]).mean()
    assert 0.4 < agreement < 0.6
    net = nn.Sequential(first, second)
    assert list(net.random_state().values()) == [[0, 2000]]


def test_random_state_must_fit():
    with pytest.raises(ValueError, match="random state has streams"):
        nn.Dropout(0.5).load_random_state({"other": [0, 0]})


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_dropout_probability_out_of_range(p):
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\)"):
        nn.Dropout(p)


# Modules.


class Tied(nn.Module):
    def __init__(self) -> None:
        self.table = nn.Embedding(4, 3)
        self.inner = [nn.Linear(3, 3), nn.LayerNorm(3)]
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight = self.table.weight


def test_names_follow_the_definition_and_shared_parameters_appear_once():
    assert [name for name, _ in Tied().named_parameters()] == [
        "table.weight",
        "inner.0.weight",
        "inner.0.bias",
        "inner.1.weight",
        "inner.1.bias",
    ]


def test_modes_reach_every_module():
    net = nn.Sequential(nn.Dropout(), nn.MLP(2, 2))
    net.eval()
    assert not any(module.training for _, module in net.named_modules())
    net.train()
    assert all(module.training for _, module in net.named_modules())


def test_state_dict_round_trip():
    first, second = nn.MLP(3, 5), nn.MLP(3, 5)
    nn.flatten_(second)
    second.load_state_dict(first.state_dict())
    for name, array in second.state_dict().items():
        np.testing.assert_array_equal(array, first.state_dict()[name])
    assert np.shares_memory(second.up.weight.data, second.flat.data)


def test_load_state_dict_names_all_problems_and_changes_nothing():
    layer = nn.MLP(3, 5)
    before = {name: array.copy() for name, array in layer.state_dict().items()}
    state = {name: array + 1 for name, array in before.items()}
    state["more"] = state.pop("up.bias")
    state["up.weight"] = state["up.weight"].T
    with pytest.raises(ValueError, match="state does not fit MLP") as error:
        layer.load_state_dict(state)
    message = str(error.value)
    assert "missing: up.bias" in message
    assert "unknown: more" in message
    assert "shape of up.weight: got (3, 5), expected (5, 3)" in message
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_load_state_dict_refuses_integers():
    with pytest.raises(TypeError, match="weight must be floating point"):
        nn.Linear(2, 1, bias=False).load_state_dict({"weight": np.array([[1, 2]])})


def test_unknown_activation():
    with pytest.raises(
        ValueError, match=r"activation: expected one of None, 'gelu'.*, got 'swish'"
    ):
        nn.Linear(2, 2, activation="swish")
    with pytest.raises(ValueError, match="approximate: expected one of 'none', 'tanh', got 'erf'"):
        nn.GELU("erf")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (nn.GELU, "approximate"),
        (nn.Pool, "mode"),
        (lambda **given: nn.Linear(2, 2, **given), "activation"),
        (lambda **given: nn.GatedMLP(4, 8, **given), "activation"),
    ],
)
def test_an_array_that_is_no_choice(make, name):
    with pytest.raises(ValueError, match=rf"^{name}: .* got float32 array of shape \(3,\)"):
        make(**{name: np.ones(3, np.float32)})


# Flat buffers.


def test_flatten_lays_out_matrices_first_and_keeps_values_and_gradients(rng):
    layer = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 2))
    x = rng.standard_normal((4, 3)).astype(np.float32)
    out, backward = layer(x)
    backward(out)
    norm, linear = layer.layers
    order = [linear.weight, norm.weight, norm.bias, linear.bias]
    values = np.concatenate([parameter.data.ravel() for parameter in order])
    gradients = np.concatenate([parameter.grad.ravel() for parameter in order])
    flat = nn.flatten_(layer)
    assert layer.flat is flat
    assert flat.decay == 6
    np.testing.assert_array_equal(flat.data, values)
    np.testing.assert_array_equal(flat.grad, gradients)
    assert all(np.shares_memory(p.data, flat.data) for p in layer.parameters())
    assert all(np.shares_memory(p.grad, flat.grad) for p in layer.parameters())
    assert flat.grad.any()


def test_a_module_without_flat_buffers_says_what_makes_them():
    layer = nn.Linear(2, 3)
    with pytest.raises(AttributeError, match=r"Linear has no flat buffers: call nn.flatten_"):
        _ = layer.flat
    assert not hasattr(layer, "flat")
    assert "weight" in dict(inspect.getmembers(layer))


def test_flatten_keeps_tied_parameters_tied():
    net = Tied()
    flat = nn.flatten_(net)
    assert flat.data.size == 12 + 9 + 3 + 3 + 3
    flat.data.fill(7)
    assert net.head.weight is net.table.weight
    assert (net.head.weight.data == 7).all()


def test_freezing_moves_parameters_out_of_the_flat_buffers():
    net = nn.MLP(3, 5)
    before = {name: array.copy() for name, array in net.state_dict().items()}
    old = nn.flatten_(net)
    net.freeze("up")
    assert net.flat.data.size == 5 * 3 + 3
    assert net.up.weight.data.base is None
    with pytest.raises(RuntimeError, match="flattened anew"):
        _ = old.data
    net.unfreeze()
    assert net.flat.data.size == 2 * 5 * 3 + 5 + 3
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_learns_and_leaves_the_original_alone(copied, rng):
    net = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    net.freeze("layers.0.bias")
    optimizer = optim.AdamW(net.flat, lr=0.1)
    x = rng.standard_normal((4, 3)).astype(np.float32)

    def step(net: nn.Module, optimizer: optim.Optimizer) -> None:
        optimizer.zero_grad()
        out, backward = net(x)
        backward(out)
        optimizer.step()

    step(net, optimizer)
    before = {name: array.copy() for name, array in net.state_dict().items()}
    other, its_optimizer = copied((net, optimizer))
    assert its_optimizer.flat is other.flat
    assert np.shares_memory(other.flat.data, other.layers[0].weight.data)
    step(other, its_optimizer)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert copy.copy(net.flat).data is net.flat.data
    step(net, optimizer)
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(array, net.state_dict()[name])
    assert (other.layers[1].weight.data != before["layers.1.weight"]).any()


def freeze_a_part(net: nn.Sequential) -> None:
    net.layers[0].freeze("weight")


def quantize_a_part(net: nn.Sequential) -> None:
    nn.quantize(net.layers[0], "int8")


def share_a_part(net: nn.Sequential) -> None:
    nn.flatten_(nn.Sequential(net.layers[0], nn.Linear(32, 2)))


def stop_one(net: nn.Sequential) -> None:
    net.layers[0].weight.requires_grad = False


def stop_one_and_go_on(net: nn.Sequential) -> None:
    stop_one(net)
    net.layers[0].weight.requires_grad = True


def assign_one(net: nn.Sequential) -> None:
    net.layers[0].bias.data = np.zeros(32, np.float32)


@pytest.mark.parametrize(
    "move",
    [freeze_a_part, quantize_a_part, share_a_part, stop_one, stop_one_and_go_on, assign_one],
)
def test_a_step_over_buffers_that_a_parameter_has_left_is_refused(move):
    net = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 2))
    optimizer = optim.SGD(nn.flatten_(net), lr=0.1)
    move(net)
    with pytest.raises(RuntimeError, match=r"call nn\.flatten_\(model\)"):
        optimizer.step()
    copied = copy.deepcopy(net)
    with pytest.raises(RuntimeError, match="these flat buffers are gone"):
        _ = copied.flat.data
    optim.SGD(nn.flatten_(net), lr=0.1).step()


def test_evaluating_gives_every_part_its_own_mode_back():
    net = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5), nn.Dropout(0.5))
    first, second, third = net.layers
    net.eval()
    second.train()
    x = np.ones(100, np.float32)
    with nn.evaluating(net):
        np.testing.assert_array_equal(net(x)[0], x)
        outer, inner = nn.evaluating(net), nn.evaluating(second)
        with outer, inner:
            pass
        assert not second.training
    assert [net.training, first.training, second.training, third.training] == [
        False, False, True, False,
    ]  # fmt: skip


def test_a_forgotten_block_may_end_within_another():
    """Garbage collection ends it, at any time, in any thread."""
    code = """
import gc
from evergrad import nn
net = nn.Sequential(*(nn.Dropout(0.5) for _ in range(50)))
def block():
    with nn.evaluating(net):
        yield
gc.set_threshold(1)
for _ in range(200):
    cycle = [block()]
    next(cycle[0])
    cycle.append(cycle)
    del cycle
    with nn.evaluating(net):
        assert not any(layer.training for layer in net.layers)
gc.collect()
assert all(layer.training for layer in net.layers)
"""
    succeeds(code, timeout=60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_evaluates_whatever_the_parent_was_about():
    net, done = nn.Sequential(nn.Linear(2, 2)), threading.Event()
    net.train()

    def evaluate() -> None:
        while not done.is_set():
            with nn.evaluating(net):
                pass

    thread = threading.Thread(target=evaluate)
    thread.start()
    try:
        for _ in range(50):
            child = os.fork()
            if child == 0:
                try:
                    signal.alarm(20)
                    with nn.evaluating(net):
                        os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
def test_a_residual_is_never_stretched(activation):
    layer = nn.Linear(3, 4, activation=activation)
    last = nn.ResidualLinear(3, 4, dropout=0.5)
    for each in (layer, last):
        with pytest.raises(ValueError, match=r"residual: expected shape \(2, 4\), got \(4,\)"):
            each(np.ones((2, 3), np.float32), residual=np.ones(4, np.float32))


def test_an_embedding_begins_a_sequence_of_layers():
    net = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 2))
    out, backward = net(np.array([1, 3]))
    assert out.shape == (2, 2)
    assert backward(np.ones_like(out)) is None
    assert net.layers[0].weight.grad.any(axis=1).tolist() == [False, True, False, True]


def test_positions_begin_at_0():
    rotary = nn.Rotary(4)
    rotary(np.array([0, 300]))
    with pytest.raises(ValueError, match="positions: expected none below 0, got -1"):
        rotary(np.array([2, -1]))


def test_a_module_may_know_the_one_above_it():
    net = nn.MLP(3, 5)
    net.up.above, net.again = net, [net.down, net.down]
    assert [name for name, _ in net.named_parameters()] == [
        "up.weight", "up.bias", "down.weight", "down.bias",
    ]  # fmt: skip
    net.freeze()
    assert not net.trainable


def test_everything_may_be_frozen():
    net = nn.MLP(3, 5)
    net.freeze()
    assert net.flat.data.size == net.flat.decay == 0
    assert not net.trainable


def test_freeze_needs_a_name_that_exists():
    net = nn.MLP(3, 5)
    with pytest.raises(ValueError, match="'u' names no parameter of MLP"):
        net.freeze("u")


def test_flatten_refuses_mixed_dtypes():
    layer = nn.Linear(2, 2)
    layer.bias = nn.Parameter(np.zeros(2))
    with pytest.raises(TypeError, match="share one dtype"):
        nn.flatten_(layer)


def test_layers_match_their_ops(rng):
    """In float32, on the active backend: fused layers against the ops one by one."""
    layer = nn.MLP(16, 33)
    x, residual = rng.standard_normal((2, 17, 16)).astype(np.float32)
    out, _ = layer(x, residual=residual)
    hidden = ops.gelu(ops.linear(x, layer.up.weight.data, layer.up.bias.data), "tanh")
    expected = ops.linear(hidden, layer.down.weight.data, layer.down.bias.data) + residual
    np.testing.assert_allclose(out, expected, 1e-5, 1e-5)


def test_what_can_be_had_again_is_not_kept(monkeypatch):
    """A norm's output and a GELU's output are gone between forward and backward."""
    monkeypatch.setattr("evergrad.nn.linear.WORTH_KEEPING", 0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 8), np.float32)
    norm, mlp = nn.LayerNorm(8), nn.MLP(8, 32, rng=rng)

    def gradients(again):
        for parameter in (*norm.parameters(), *mlp.parameters()):
            parameter.grad[...] = 0
        h, norm_backward = norm(x)
        out, mlp_backward = mlp(h, residual=x, again=norm_backward.again if again else None)
        gone = weakref.ref(h)
        del h
        assert (gone() is None) == again
        dx = norm_backward(mlp_backward(out), dresidual=out)
        return [dx, *(p.grad.copy() for p in (*norm.parameters(), *mlp.parameters()))]

    for kept, had_again in zip(gradients(False), gradients(True), strict=True):
        np.testing.assert_array_equal(kept, had_again)


@pytest.mark.parametrize("rows", [(), (50,), (2, 3)])
@pytest.mark.parametrize("frozen", [(), ("up",), ("down",)])
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "silu"])
def test_gradients_of_large_arrays_take_the_place_of_what_was_saved(
    monkeypatch, activation, frozen, rows
):
    rng = np.random.default_rng(0)
    x, dout = rng.standard_normal((2, *rows, 8), np.float32)
    mlp = nn.MLP(8, 32, activation=activation, rng=rng)
    for name in frozen:
        mlp.freeze(name)

    def gradients():
        learned = [parameter for parameter in mlp.parameters() if parameter.requires_grad]
        for parameter in learned:
            parameter.grad[...] = 0
        out, backward = mlp(x, residual=x)
        given = dout.copy()
        dx = backward(given)
        np.testing.assert_array_equal(given, dout)
        return [out, dx, *(parameter.grad.copy() for parameter in learned)]

    expected = gradients()
    monkeypatch.setattr("evergrad.nn.linear.WORTH_KEEPING", 0)
    for apart, in_place in zip(expected, gradients(), strict=True):
        np.testing.assert_array_equal(apart, in_place)


def test_again_goes_with_what_backward_keeps():
    _, backward = nn.LayerNorm(4)(np.ones((2, 4), np.float32))
    assert backward.again().shape == (2, 4)
    backward(np.ones((2, 4), np.float32))
    assert backward.again is None
