"""Models that keep learning: adaptation as a transaction, with progress and forgetting measured."""

from __future__ import annotations

from . import metrics
from .adapt import adapt, begin, gate
from .report import Report
from .scores import ScoreMatrix
from .strategies import Naive, Replay, Reservoir, Strategy
from .versions import StoreError, StoreLockedError, Version, VersionStore

__all__ = [
    "Naive",
    "Replay",
    "Report",
    "Reservoir",
    "ScoreMatrix",
    "StoreError",
    "StoreLockedError",
    "Strategy",
    "Version",
    "VersionStore",
    "adapt",
    "begin",
    "gate",
    "metrics",
]
