"""The smallest useful text classifier: embedding, mean over the tokens, two linear layers.

    python examples/text_classifier.py

The three-layer network of many tutorials, here on texts that are drawn: a text is positive if more
of its words come from one half of the vocabulary than from the other. Prints loss and accuracy as
they go, and what a training step takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from evergrad import nn, ops, optim

VOCABULARY, DIM, HIDDEN = 10_000, 16, 24
BATCH, TOKENS = 32, 50

Ids = npt.NDArray[np.int64]
Array = npt.NDArray[np.float32]


class TextClassifier(nn.Module):
    """Logit of the positive class for each text of a packed batch."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.embedding = nn.Embedding(VOCABULARY, DIM, rng=rng)
        self.pool = nn.Pool("mean")
        self.layers = nn.Sequential(
            nn.Linear(DIM, HIDDEN, activation="relu", rng=rng), nn.Linear(HIDDEN, 1, rng=rng)
        )
        nn.flatten_(self)

    def __call__(self, ids: Ids, cu_seqlens: Ids) -> tuple[Array, Callable[[Array], None]]:
        x, embedding_backward = self.embedding(ids)
        x, pool_backward = self.pool(x, cu_seqlens)
        logits, layers_backward = self.layers(x)
        return logits, lambda dout: embedding_backward(pool_backward(layers_backward(dout)))


def batch(rng: np.random.Generator) -> tuple[Ids, Ids, Array]:
    """Texts of TOKENS words, end to end; where each begins; which are positive."""
    ids = rng.integers(0, VOCABULARY, (BATCH, TOKENS))
    label = (ids < VOCABULARY // 2).mean(1, keepdims=True) > 0.5
    return ids.ravel(), np.arange(BATCH + 1) * TOKENS, label.astype(np.float32)


def step(
    model: TextClassifier,
    optimizer: optim.Optimizer,
    ids: Ids,
    cu_seqlens: Ids,
    label: Array,
) -> float:
    """One update; returns the loss."""
    optimizer.zero_grad()
    logits, backward = model(ids, cu_seqlens)
    loss = ops.binary_cross_entropy_with_logits(logits, label)
    backward(ops.binary_cross_entropy_with_logits_backward(1.0, logits, label))
    optimizer.step()
    return float(loss)


def main() -> None:
    rng = np.random.default_rng(0)
    model = TextClassifier(rng)
    optimizer = optim.Adam(model.flat, lr=3e-3)
    batches = [batch(rng) for _ in range(1000)]
    for i in range(0, len(batches), 200):
        start = time.perf_counter()
        losses = [step(model, optimizer, *each) for each in batches[i : i + 200]]
        microseconds = (time.perf_counter() - start) / len(losses) * 1e6
        ids, cu_seqlens, label = batch(rng)
        right = ((model(ids, cu_seqlens)[0] > 0) == (label > 0)).mean()
        print(
            f"step {i + len(losses):4d}  loss {np.mean(losses):.3f}  "
            f"accuracy {right:.2f}  {microseconds:.0f} us a step"
        )


if __name__ == "__main__":
    main()
