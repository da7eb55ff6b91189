"""A training step of GPT-2, ours and PyTorch's.

Both sides begin with the same weights and see the same batches. Each draws them by itself, by name
and by number, so that neither holds memory that the other one needs.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Settings of AdamW and of clipping, for both sides; matrices alone decay.
LR, BETAS, EPS, WEIGHT_DECAY, CLIP = 3e-4, (0.9, 0.999), 1e-8, 0.1, 1.0
#: The same batches come round again, so that there is something to learn.
BATCHES = 4


@dataclass(frozen=True)
class Training:
    """A GPT-2 and its batches: pre-norm, tied output, GELU by tanh, AdamW, clipping by the norm.

    Examples
    --------
    >>> tiny = Training("tiny", vocab=65, tokens=64, dim=128, heads=4, layers=4, batch_size=16)
    >>> tiny.shape
    'V65 T64 d128 h4 L4 B16'
    >>> inputs, targets = tiny.batch(0)
    >>> inputs.shape, bool((inputs[:, 1:] == targets[:, :-1]).all())
    ((16, 64), True)
    """

    name: str
    vocab: int
    tokens: int
    dim: int
    heads: int
    layers: int
    batch_size: int

    @property
    def shape(self) -> str:
        return (
            f"V{self.vocab} T{self.tokens} d{self.dim} h{self.heads} L{self.layers}"
            f" B{self.batch_size}"
        )

    @property
    def flops(self) -> float:
        """Useful operations of a step.

        Each weight of a product costs a multiplication and an addition a token; the pairs of
        tokens that the causal mask leaves cost as much for scores and again for the mixture.
        Backward has two products for each one of forward. Nothing that is computed a second time
        counts, and neither does what is not a product.
        """
        weights = self.layers * 12 * self.dim**2 + self.vocab * self.dim
        pairs = self.layers * (self.tokens + 1) / 2  # for each token
        return 3 * self.batch_size * self.tokens * (2 * weights + 4 * self.dim * pairs)

    def weights(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The initial values of the parameter of this name."""
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        values = rng.standard_normal(shape, np.float32)
        values *= 0.02
        if len(shape) == 1 and name.endswith("weight"):  # of a norm
            values += 1
        return values

    def batch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Input and target tokens [batch_size, tokens]: some tokens come more often than others."""
        rng = np.random.default_rng([self.vocab, number % BATCHES])
        shape = (self.batch_size, self.tokens + 1)
        drawn = np.floor(self.vocab * rng.random(shape) ** 3).astype(np.int64)
        return drawn[:, :-1].copy(), drawn[:, 1:].copy()

    def evergrad_step(self) -> Callable[[], float]:
        """A function that makes one optimizer step and returns the loss before it."""
        from evergrad import nn, optim
        from evergrad.models import GPT2, GPT2Config
        from evergrad.text import Batch

        config = GPT2Config(self.vocab, self.tokens, self.layers, self.heads, self.dim)
        model = GPT2(config, seed=None)
        flat = nn.flatten_(model)
        for name, value in model.state_dict().items():
            value[...] = self.weights(name, value.shape)
        optimizer = optim.AdamW(flat, LR, BETAS, EPS, WEIGHT_DECAY)
        bounds = np.arange(self.batch_size + 1) * self.tokens
        batches = self._endless(lambda x, y: Batch(x.reshape(-1), y.reshape(-1), bounds))

        def step() -> float:
            optimizer.zero_grad()
            loss = model.loss_and_gradients(next(batches))
            _, scale = optim.clip_scale(flat.grad, CLIP)
            optimizer.step(grad_scale=scale)
            return loss

        return step

    def torch_step(self) -> Callable[[], float]:
        """The same in PyTorch, eager, with its fused AdamW."""
        import torch

        from evergrad.bench.torch_gpt2 import GPT2

        model = GPT2(self.vocab, self.tokens, self.dim, self.heads, self.layers)
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, value in parameters.items():
                value.copy_(torch.from_numpy(self.weights(name, tuple(value.shape))))
        matrices = [p for p in parameters.values() if p.ndim >= 2]
        vectors = [p for p in parameters.values() if p.ndim < 2]
        groups = [
            dict(params=matrices, weight_decay=WEIGHT_DECAY),
            dict(params=vectors, weight_decay=0.0),
        ]
        optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS, fused=True)
        batches = self._endless(lambda x, y: (torch.from_numpy(x), torch.from_numpy(y)))

        def step() -> float:
            optimizer.zero_grad()
            loss = model(*next(batches))
            loss.backward()
            # PyTorch adds a tensor's squares up in float32: for the 38 million of GPT-2's token
            # embedding the norm comes out 1e-3 too small, and after 15 steps losses are 4e-3 apart.
            # By rows first takes it no longer than `clip_grad_norm_` (140 for 134 ms of one core).
            grads = [x.grad for x in parameters.values() if x.grad is not None]
            rows = [torch.linalg.vector_norm(x.view(-1, x.shape[-1]), dim=1) for x in grads]
            norm = torch.linalg.vector_norm(torch.cat(rows))
            torch.nn.utils.clip_grads_with_norm_(parameters.values(), CLIP, norm)
            optimizer.step()
            return loss.item()

        return step

    def _endless(self, prepare: Callable[[np.ndarray, np.ndarray], Any]) -> Any:
        prepared = [prepare(*self.batch(number)) for number in range(BATCHES)]
        while True:
            yield from prepared


#: So small that what a process holds after a step of it is imports and what they set up.
NOTHING = Training("nothing", vocab=8, tokens=4, dim=8, heads=1, layers=1, batch_size=1)
