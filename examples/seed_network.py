"""The smallest network that shows everything: 2 inputs, 3 sigmoid units, 1 sigmoid output.

    python examples/seed_network.py

Forward, backward and three optimizers, each number printed beside its formula. The same numbers
are derived by hand, in plain arithmetic, in tests/test_seed_network.py.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from evergrad import nn, ops, optim

INPUT = np.array([[1.0, 0.0]], np.float32)
TARGET = np.array([[1.0]], np.float32)


def network() -> nn.Sequential:
    """The network with the textbook's weights; the output is the logit z2, before its sigmoid."""
    hidden, output = nn.Linear(2, 3, activation="sigmoid"), nn.Linear(3, 1)
    net = nn.Sequential(hidden, output)
    nn.flatten_(net)
    hidden.weight.data[...] = [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]
    hidden.bias.data[...] = [0.1, 0.2, 0.3]
    output.weight.data[...] = [[0.7, 0.8, 0.9]]
    output.bias.data[...] = [0.4]
    return net


def loss_and_gradients(net: nn.Sequential) -> tuple[float, float]:
    """One pass forward and one back; returns the loss and the logit."""
    logit, backward = net(INPUT, need_dx=False)
    loss = ops.binary_cross_entropy_with_logits(logit, TARGET)
    backward(ops.binary_cross_entropy_with_logits_backward(1.0, logit, TARGET))
    return loss, float(logit[0, 0])


def train(optimizer: optim.Optimizer, net: nn.Sequential, steps: int) -> list[float]:
    """The loss before each step, and after the last."""
    losses = []
    for _ in range(steps + 1):
        optimizer.zero_grad()
        loss, _ = loss_and_gradients(net)
        losses.append(loss)
        optimizer.step()
    return losses


def row(name: str, formula: str, values: npt.ArrayLike) -> None:
    numbers = "  ".join(f"{value:9.6f}" for value in np.ravel(values))
    print(f"  {name:<9} {formula:<28} {numbers}")


def main() -> None:
    net = network()
    hidden, output = net.layers
    a1, _ = hidden(INPUT)
    loss, z2 = loss_and_gradients(net)

    print("Forward: x = [1, 0], target 1\n")
    row("z1", "W1 x + b1", ops.linear(INPUT, hidden.weight.data, hidden.bias.data))
    row("a1", "sigmoid(z1)", a1)
    row("z2", "W2 a1 + b2", [z2])
    row("p", "sigmoid(z2)", [1 / (1 + math.exp(-z2))])
    row("loss", "-log p", [loss])

    print("\nBackward: d means the derivative of the loss. Sigmoid and cross-entropy cancel:")
    print("dz2 = p - target, with no factor p (1 - p) left.\n")
    row("dz2, db2", "p - target", output.bias.grad)
    row("dW2", "dz2 a1^T", output.weight.grad)
    row("dz1, db1", "W2^T dz2 * a1 (1 - a1)", hidden.bias.grad)
    row("dW1[:, 0]", "dz1 x[0]", hidden.weight.grad[:, 0])
    row("dW1[:, 1]", "dz1 x[1], and x[1] = 0", hidden.weight.grad[:, 1])

    print("\nNo gradient is positive: every weight and bias that the input reaches must grow")
    print("for the output to approach 1. Three ways to take the step, the loss after n of them:\n")
    shown = (0, 1, 10, 100)
    print("  " + "".join(f"{text:>12}" for text in ("n", *map(str, shown))))
    for name, rule, lr in (
        ("descent", optim.SGD, 0.5),
        ("Adam", optim.Adam, 0.05),
        ("RMSprop", optim.RMSprop, 0.01),
    ):
        net = network()
        losses = train(rule(net.flat, lr=lr), net, shown[-1])
        print("  " + f"{name:>12}" + "".join(f"{losses[n]:12.6f}" for n in shown))


if __name__ == "__main__":
    main()
