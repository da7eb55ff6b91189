"""Text to token ids and back, and padding-free batches of them."""

from __future__ import annotations

from .batch import IGNORE_INDEX, Batch, pack, windows
from .cleaning import clean
from .stream import TextStream, pieces, tail
from .tokenizer import Tokenizer

__all__ = [
    "IGNORE_INDEX",
    "Batch",
    "TextStream",
    "Tokenizer",
    "clean",
    "pack",
    "pieces",
    "tail",
    "windows",
]
