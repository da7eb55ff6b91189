"""Pieces of a training step, both ways: a feed-forward block, packed attention, the last layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np


def normal(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    """The same numbers on both sides."""
    values = np.random.default_rng(seed).standard_normal(shape, np.float32)
    values *= np.float32(scale)
    return values


@dataclass(frozen=True)
class FeedForward:
    """``x + down(gelu(up(x)))`` and its gradients; the number to compare is the last of dx."""

    name: str
    rows: int
    dim: int
    hidden: int

    @property
    def shape(self) -> str:
        return f"{self.rows} rows, {self.dim} to {self.hidden} to {self.dim}"

    @property
    def flops(self) -> float:
        return 3 * 2 * 2 * self.rows * self.dim * self.hidden

    def _drawn(self) -> tuple[np.ndarray, ...]:
        x, dout = normal(1, self.rows, self.dim), normal(2, self.rows, self.dim)
        up = normal(3, self.hidden, self.dim, scale=self.dim**-0.5)
        down = normal(4, self.dim, self.hidden, scale=self.hidden**-0.5)
        return x, dout, up, down

    def evergrad_step(self) -> Callable[[], float]:
        from evergrad import nn, ops

        x, dout, up, down = self._drawn()
        block = nn.MLP(self.dim, self.hidden, activation="gelu_tanh", std=0.0, out_std=0.0)
        flat = nn.flatten_(block)
        block.up.weight.data[...], block.down.weight.data[...] = up, down

        def step() -> float:
            ops.zero_(flat.grad)  # PyTorch gives gradients anew, ours are added up
            _, backward = block(x, residual=x)
            return float(backward(dout)[-1, -1])

        return step

    def torch_step(self) -> Callable[[], float]:
        import torch
        import torch.nn.functional as F

        x, dout, up_weight, down_weight = map(torch.from_numpy, self._drawn())
        x.requires_grad_()
        up, down = (torch.nn.Linear(*shape) for shape in self._shapes())
        with torch.no_grad():
            for layer, weight in ((up, up_weight), (down, down_weight)):
                layer.weight.copy_(weight)
                layer.bias.zero_()
        parameters = [x, *up.parameters(), *down.parameters()]

        def step() -> float:
            out = x + down(F.gelu(up(x), approximate="tanh"))
            dx, *_ = torch.autograd.grad(out, parameters, dout)
            return float((dx - dout)[-1, -1])  # without the residual, as ours

        return step

    def _shapes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (self.dim, self.hidden), (self.hidden, self.dim)


@dataclass(frozen=True)
class PackedAttention:
    """Causal attention over sequences of several lengths, forward and backward.

    Ours lays them end to end. PyTorch pads them to the longest; padding stands at the end, where
    the causal mask hides it, so nothing else is needed. Lengths go evenly from a fifth of the
    longest to the whole of it.
    """

    name: str
    sequences: int
    longest: int
    heads: int
    head_dim: int

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.linspace(self.longest / 5, self.longest, self.sequences).astype(np.int64)

    @property
    def shape(self) -> str:
        return (
            f"{self.sequences} sequences, {self.lengths.mean() / self.longest:.1f} of"
            f" {self.longest} tokens, {self.heads} heads of {self.head_dim}, against padding"
        )

    @property
    def flops(self) -> float:
        pairs = (self.lengths * (self.lengths + 1) / 2).sum()
        return float(3 * 4 * self.head_dim * self.heads * pairs)

    def _drawn(self) -> list[np.ndarray]:
        """Query, key, value and the output's cotangent, packed."""
        shape = (int(self.lengths.sum()), self.heads, self.head_dim)
        return [normal(seed, *shape) for seed in range(4)]

    def evergrad_step(self) -> Callable[[], float]:
        from evergrad import ops

        query, key, value, dout = self._drawn()
        bounds = np.concatenate(([0], np.cumsum(self.lengths)))
        packing: dict[str, Any] = dict(is_causal=True, cu_seqlens_q=bounds, cu_seqlens_k=bounds)

        def step() -> float:
            out, lse = ops.attention(query, key, value, return_lse=True, **packing)
            dquery, _, _ = ops.attention_backward(dout, query, key, value, out, lse, **packing)
            return float(dquery[-1, -1, -1])

        return step

    def torch_step(self) -> Callable[[], float]:
        import torch
        import torch.nn.functional as F

        def padded(packed: np.ndarray) -> torch.Tensor:
            parts = torch.from_numpy(packed).split(self.lengths.tolist())
            return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True).transpose(1, 2)

        query, key, value, dout = map(padded, self._drawn())
        inputs = [x.requires_grad_() for x in (query, key, value)]

        def step() -> float:
            out = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            dquery, *_ = torch.autograd.grad(out, inputs, dout)
            return float(dquery[-1, -1, -1, -1])  # the last sequence is the longest

        return step


@dataclass(frozen=True)
class LinearCrossEntropy:
    """The last layer of a language model with its loss, and their gradients."""

    name: str
    rows: int
    dim: int
    classes: int

    @property
    def shape(self) -> str:
        return f"{self.rows} rows, {self.dim} to {self.classes}"

    @property
    def flops(self) -> float:
        return 3 * 2 * self.rows * self.dim * self.classes

    @property
    def held_bytes(self) -> int:
        """What anyone has to hold: inputs and their gradients, float32."""
        return 2 * 4 * (self.rows + self.classes) * self.dim

    def _drawn(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        target = np.random.default_rng(3).integers(0, self.classes, self.rows)
        weight = normal(2, self.classes, self.dim, scale=self.dim**-0.5)
        return normal(1, self.rows, self.dim), weight, target

    def evergrad_step(self) -> Callable[[], float]:
        from evergrad import ops

        x, weight, target = self._drawn()
        dweight = np.zeros_like(weight)

        def step() -> float:
            ops.zero_(dweight)  # PyTorch gives gradients anew, ours are added up
            loss, *_ = ops.linear_cross_entropy_with_grads(1.0, x, weight, target, dweight=dweight)
            return loss

        return step

    def torch_step(self) -> Callable[[], float]:
        import torch
        import torch.nn.functional as F

        x, weight, target = map(torch.from_numpy, self._drawn())
        inputs = [x.requires_grad_(), weight.requires_grad_()]

        def step() -> float:
            loss = F.cross_entropy(F.linear(x, weight), target)
            torch.autograd.grad(loss, inputs)
            return loss.item()

        return step
