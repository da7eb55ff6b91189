"""Text that ships with CPython itself, and the split into training and held-out parts."""

from __future__ import annotations

from .cpython import cpython_code, cpython_prose
from .domain import Domain, parts, split

__all__ = ["Domain", "cpython_code", "cpython_prose", "parts", "split"]
