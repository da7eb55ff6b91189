"""The training loop: schedule, evaluation, early stopping, checkpoints that resume bit for bit."""

from __future__ import annotations

from .checkpoint import CheckpointMismatchError, latest_checkpoint
from .config import FitConfig
from .data import EncodedDomain, Sampler, encode_domain, window_sampler
from .history import History
from .loop import TrainingDiverged, fit
from .metrics import bits_per_byte

__all__ = [
    "CheckpointMismatchError",
    "EncodedDomain",
    "FitConfig",
    "History",
    "Sampler",
    "TrainingDiverged",
    "bits_per_byte",
    "encode_domain",
    "fit",
    "latest_checkpoint",
    "window_sampler",
]
