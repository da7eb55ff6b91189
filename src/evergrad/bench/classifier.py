"""A training step of a small text classifier: where nothing but overhead is large."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from evergrad.bench.pieces import normal

LR = 1e-3
BATCHES = 8


@dataclass(frozen=True)
class TextClassifier:
    """Embedding, mean over the tokens, a hidden layer with ReLU, one logit; Adam on all of it."""

    name: str
    vocab: int
    dim: int
    hidden: int
    batch_size: int
    tokens: int

    @property
    def shape(self) -> str:
        return (
            f"V{self.vocab} d{self.dim}, {self.hidden} ReLU, 1 logit,"
            f" {self.batch_size} texts of {self.tokens}"
        )

    @property
    def flops(self) -> float:
        return 3 * 2 * self.batch_size * (self.dim * self.hidden + self.hidden)

    def _weights(self) -> tuple[np.ndarray, ...]:
        """Embedding, hidden layer, output; biases begin at 0."""
        return (
            normal(1, self.vocab, self.dim),
            normal(2, self.hidden, self.dim, scale=self.dim**-0.5),
            normal(3, 1, self.hidden, scale=self.hidden**-0.5),
        )

    def _batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(0)
        ids = rng.integers(0, self.vocab, (BATCHES, self.batch_size, self.tokens))
        labels = (ids < self.vocab // 2).mean(2, keepdims=True) > 0.5
        return list(zip(ids, labels.astype(np.float32), strict=True))

    def evergrad_step(self) -> Callable[[], float]:
        from evergrad import nn, ops, optim

        embedding, pool = nn.Embedding(self.vocab, self.dim), nn.Pool("mean")
        first, second = (
            nn.Linear(self.dim, self.hidden, activation="relu"),
            nn.Linear(self.hidden, 1),
        )
        layers = nn.Sequential(first, second)
        model = nn.Sequential(embedding, layers)  # for its parameters alone
        flat = nn.flatten_(model)
        parameters = (embedding.weight, first.weight, second.weight)
        for parameter, values in zip(parameters, self._weights(), strict=True):
            parameter.data[...] = values
        for layer in (first, second):
            assert layer.bias is not None
            layer.bias.data[...] = 0
        optimizer = optim.Adam(flat, lr=LR)
        bounds = np.arange(self.batch_size + 1) * self.tokens
        batches = _endless([(ids.ravel(), label) for ids, label in self._batches()])

        def step() -> float:
            ids, label = next(batches)
            optimizer.zero_grad()
            x, embedding_backward = embedding(ids)
            x, pool_backward = pool(x, bounds)
            logits, layers_backward = layers(x)
            loss = ops.binary_cross_entropy_with_logits(logits, label)
            dlogits = ops.binary_cross_entropy_with_logits_backward(1.0, logits, label)
            embedding_backward(pool_backward(layers_backward(dlogits)))
            optimizer.step()
            return float(loss)

        return step

    def torch_step(self) -> Callable[[], float]:
        import torch
        import torch.nn.functional as F

        embedding = torch.nn.Embedding(self.vocab, self.dim)
        first, second = torch.nn.Linear(self.dim, self.hidden), torch.nn.Linear(self.hidden, 1)
        with torch.no_grad():
            weights = (embedding.weight, first.weight, second.weight)
            for weight, values in zip(weights, self._weights(), strict=True):
                weight.copy_(torch.from_numpy(values))
            first.bias.zero_()
            second.bias.zero_()
        parameters = [*embedding.parameters(), *first.parameters(), *second.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=LR, fused=True)
        batches = _endless([(torch.from_numpy(i), torch.from_numpy(y)) for i, y in self._batches()])

        def step() -> float:
            ids, label = next(batches)
            optimizer.zero_grad(set_to_none=True)
            logits = second(F.relu(first(embedding(ids).mean(1))))
            loss = F.binary_cross_entropy_with_logits(logits, label)
            loss.backward()
            optimizer.step()
            return loss.item()

        return step


def _endless(batches: list[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    while True:
        yield from batches
