"""Optimizers over flat parameter buffers, learning-rate schedules, gradient clipping.

optimizer = optim.AdamW(model.flat, lr=1e-3)
norm, scale = optim.clip_scale(model.flat.grad, 1.0)
optimizer.step(grad_scale=scale)
optimizer.zero_grad()
"""

from __future__ import annotations

from .adam import Adam, AdamW
from .clip import clip_scale
from .optimizer import Optimizer
from .rmsprop import RMSprop
from .schedules import constant, linear, linear_warmup_cosine
from .sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "clip_scale",
    "constant",
    "linear",
    "linear_warmup_cosine",
]
