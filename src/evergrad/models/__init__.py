"""Models: one file per family, with a configuration, a composition, and a table of weight names.

loss, backward = model.loss(batch)      # batch: packed sequences with targets
backward()                              # gradients in model.flat.grad
"""

from __future__ import annotations

from .folder import MODEL_TYPES, load, save
from .generation import generate
from .gpt2 import GPT2, GPT2Config

__all__ = ["GPT2", "MODEL_TYPES", "GPT2Config", "generate", "load", "save"]
