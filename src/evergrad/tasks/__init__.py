"""Estimators: models at work on texts."""

from __future__ import annotations

from .embed import Embedder

__all__ = ["Embedder"]
