"""The textbook's 2-3-1 network, derived by hand.

Every number below follows from the definition by arithmetic alone: no array, no library, nothing
of evergrad. The layers must agree with it, and it must agree with finite differences.
"""

from __future__ import annotations

import subprocess
import sys
from math import exp, log
from pathlib import Path

import numpy as np
import pytest

import evergrad
from evergrad import nn, ops, optim
from op_support import each_backend, using


def sigmoid(z: float) -> float:
    return 1 / (1 + exp(-z))


# Forward. x = [1, 0], W1 = [[.1, .2], [.3, .4], [.5, .6]], b1 = [.1, .2, .3].

z1_1 = 0.1 * 1 + 0.2 * 0 + 0.1  # 0.2
z1_2 = 0.3 * 1 + 0.4 * 0 + 0.2  # 0.5
z1_3 = 0.5 * 1 + 0.6 * 0 + 0.3  # 0.8

a1_1 = sigmoid(z1_1)  # 0.549834
a1_2 = sigmoid(z1_2)  # 0.622459
a1_3 = sigmoid(z1_3)  # 0.689974

# W2 = [[.7, .8, .9]], b2 = [.4].

z2 = 0.7 * a1_1 + 0.8 * a1_2 + 0.9 * a1_3 + 0.4  # 1.903828
p = sigmoid(z2)  # 0.870324

# Binary cross-entropy with target t = 1: -(t log p + (1 - t) log(1 - p)) = -log p.

loss = -log(p)  # 0.138889

# Backward. dL/dp = -1/p and dp/dz2 = p (1 - p), so dL/dz2 = -(1 - p) = p - 1.

dz2 = p - 1  # -0.129676

# z2 = W2 a1 + b2 is linear in each: the derivative by W2_j is a1_j, by b2 is 1, by a1_j is W2_j.

dw2_1 = dz2 * a1_1
dw2_2 = dz2 * a1_2
dw2_3 = dz2 * a1_3
db2 = dz2

da1_1 = dz2 * 0.7
da1_2 = dz2 * 0.8
da1_3 = dz2 * 0.9

# a1_j = sigmoid(z1_j), and the sigmoid's derivative is a (1 - a), of the same unit.

dz1_1 = da1_1 * a1_1 * (1 - a1_1)
dz1_2 = da1_2 * a1_2 * (1 - a1_2)
dz1_3 = da1_3 * a1_3 * (1 - a1_3)

# z1 = W1 x + b1: the derivative by W1_jk is x_k, so the second column, where x_2 = 0, gets none.

dw1_11, dw1_12 = dz1_1 * 1, dz1_1 * 0
dw1_21, dw1_22 = dz1_2 * 1, dz1_2 * 0
dw1_31, dw1_32 = dz1_3 * 1, dz1_3 * 0
db1_1, db1_2, db1_3 = dz1_1, dz1_2, dz1_3

# And by x_k: the sum over the units that x_k reaches.

dx_1 = dz1_1 * 0.1 + dz1_2 * 0.3 + dz1_3 * 0.5
dx_2 = dz1_1 * 0.2 + dz1_2 * 0.4 + dz1_3 * 0.6

GRADIENTS = {
    "layers.0.weight": [[dw1_11, dw1_12], [dw1_21, dw1_22], [dw1_31, dw1_32]],
    "layers.0.bias": [db1_1, db1_2, db1_3],
    "layers.1.weight": [[dw2_1, dw2_2, dw2_3]],
    "layers.1.bias": [db2],
}


def network(dtype: type = np.float32, output_activation: str | None = None) -> nn.Sequential:
    net = nn.Sequential(
        nn.Linear(2, 3, activation="sigmoid"), nn.Linear(3, 1, activation=output_activation)
    )
    weights = {
        "layers.0.weight": [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]],
        "layers.0.bias": [0.1, 0.2, 0.3],
        "layers.1.weight": [[0.7, 0.8, 0.9]],
        "layers.1.bias": [0.4],
    }
    for name, parameter in net.named_parameters():
        parameter.data = np.array(weights[name], dtype)
    nn.flatten_(net)
    return net


def forward(net: nn.Sequential, dtype: type = np.float32):
    """Loss, and the function for the way back."""
    x, target = np.array([[1, 0]], dtype), np.array([[1]], dtype)
    logit, net_backward = net(x)

    def backward() -> np.ndarray:
        return net_backward(ops.binary_cross_entropy_with_logits_backward(1.0, logit, target))

    return ops.binary_cross_entropy_with_logits(logit, target), backward


DTYPES = {np.float32: 1e-6, np.float64: 1e-14}  # relative tolerance


@pytest.fixture(params=DTYPES, ids=lambda dtype: dtype.__name__)
def dtype(request):
    """float32 on the active backend, float64 on the reference."""
    if request.param == np.float32:
        yield np.float32
    else:
        with evergrad.use_backend("reference"):
            yield np.float64


def test_forward_equals_the_derivation(dtype):
    rtol = DTYPES[dtype]
    net = network(dtype)
    first, second = net.layers
    x = np.array([[1, 0]], dtype)
    z1 = ops.linear(x, first.weight.data, first.bias.data)
    np.testing.assert_allclose(z1, [[z1_1, z1_2, z1_3]], rtol)
    a1, _ = first(x)
    np.testing.assert_allclose(a1, [[a1_1, a1_2, a1_3]], rtol)
    logit, _ = second(a1)
    np.testing.assert_allclose(logit, [[z2]], rtol)
    np.testing.assert_allclose(nn.Sigmoid()(logit)[0], [[p]], rtol)
    assert forward(net, dtype)[0] == pytest.approx(loss, rel=rtol)


def test_backward_equals_the_derivation(dtype):
    rtol = DTYPES[dtype]
    net = network(dtype)
    dx = forward(net, dtype)[1]()
    np.testing.assert_allclose(dx, [[dx_1, dx_2]], rtol)
    for name, parameter in net.named_parameters():
        np.testing.assert_allclose(parameter.grad, GRADIENTS[name], rtol)


def test_an_output_sigmoid_of_its_own_gives_the_same_gradients(dtype):
    """dL/dp = -1/p through the sigmoid, instead of the loss on the logit."""
    rtol = DTYPES[dtype]
    net = network(dtype, output_activation="sigmoid")
    output, backward = net(np.array([[1, 0]], dtype))
    np.testing.assert_allclose(output, [[p]], rtol)
    backward(-1 / output)
    for name, parameter in net.named_parameters():
        np.testing.assert_allclose(parameter.grad, GRADIENTS[name], rtol)


def test_derivation_equals_finite_differences():
    step = 1e-6
    with evergrad.use_backend("reference"):
        net = network(np.float64)
        for name, parameter in net.named_parameters():
            for index in np.ndindex(parameter.data.shape):
                value = parameter.data[index]
                parameter.data[index] = value + step
                above, _ = forward(net, np.float64)
                parameter.data[index] = value - step
                below, _ = forward(net, np.float64)
                parameter.data[index] = value
                derived = np.array(GRADIENTS[name])[index]
                assert (above - below) / (2 * step) == pytest.approx(derived, rel=1e-7, abs=1e-9)


@each_backend
@pytest.mark.parametrize(
    "rule",
    [
        lambda flat: optim.SGD(flat, lr=0.5),
        lambda flat: optim.Adam(flat, lr=0.05),
        lambda flat: optim.RMSprop(flat, lr=0.01),
    ],
    ids=["descent", "adam", "rmsprop"],
)
def test_training_brings_the_loss_down(rule, backend):
    with using(backend):
        net = network()
        optimizer = rule(net.flat)
        losses = []
        for _ in range(100):
            optimizer.zero_grad()
            value, backward = forward(net)
            losses.append(value)
            backward()
            optimizer.step()
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 3


def test_one_step_of_descent_is_the_gradient_times_the_learning_rate():
    net = network()
    before = net.flat.data.copy()
    forward(net)[1]()
    optim.SGD(net.flat, lr=0.5).step()
    np.testing.assert_allclose(net.flat.data, before - 0.5 * net.flat.grad, rtol=1e-6)


def test_the_example_prints_these_numbers():
    example = Path(__file__).parents[1] / "examples" / "seed_network.py"
    run = subprocess.run([sys.executable, example], capture_output=True, text=True, check=True)
    for value in (z1_3, a1_1, z2, p, loss, dz2, dw2_3, dz1_2):
        assert f"{value:.6f}" in run.stdout
