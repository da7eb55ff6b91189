"""Rotary positions: the angles by which queries and keys turn, and ways to stretch them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..ops._check import shown
from ._buffer import Array

__all__ = ["Rotary", "Rotation"]


#: What a scaling holds beside its kind.
NUMBERS = (
    "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings",
    "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim",
)  # fmt: skip


class Rotation(NamedTuple):
    """Cosines and sines of each token's angles: what `ops.rotary` takes."""

    cos: Array  # [tokens, dim / 2]
    sin: Array


class Rotary:
    """Angles of rotary position embedding, made as far as they are asked for.

    Parameters
    ----------
    dim : int
        Numbers of a head that are turned; even.
    theta : float, default 10000.0
        Base of the frequencies.
    scaling : mapping, optional
        How a context longer than that of pretraining was reached, in Hugging Face's words:
        "rope_type" is "default", "linear", "dynamic", "llama3" or "yarn", beside the numbers that
        each takes. "dynamic" changes nothing within the context.
    context : int, default 2048
        Longest sequence, as "yarn" takes it where "original_max_position_embeddings" is missing.

    Raises
    ------
    ValueError
        When the kind of scaling is unknown, or a number is missing or impossible.

    References
    ----------
    Su et al., "RoFormer", 2021, arXiv:2104.09864; Chen et al., "Extending Context Window of Large
    Language Models via Positional Interpolation", 2023, arXiv:2306.15595 (linear); Peng et al.,
    "YaRN", 2023, arXiv:2309.00071; Llama Team, "The Llama 3 Herd of Models", 2024,
    arXiv:2407.21783.

    Examples
    --------
    >>> cos, sin = Rotary(4)(np.array([0, 1, 0]))
    >>> sin.round(2)
    array([[0.  , 0.  ],
           [0.84, 0.01],
           [0.  , 0.  ]], dtype=float32)
    """

    def __init__(
        self,
        dim: int,
        theta: float = 10000.0,
        scaling: Mapping[str, Any] | None = None,
        context: int = 2048,
    ) -> None:
        # A number that is null has its default, as in transformers, or is missing.
        scaling = {k: v for k, v in (scaling or {}).items() if v is not None or k not in NUMBERS}
        if not _is_number(theta) or theta <= 1:
            raise ValueError(f"theta must be a number above 1, got {shown(theta)}")
        for name, value in scaling.items():
            if name in NUMBERS and not (_is_number(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {shown(value)}")
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        plain = theta ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)
        self.magnitude = 1.0
        try:
            if kind in ("default", "dynamic"):
                self.inv_freq = plain
            elif kind == "linear":
                self.inv_freq = plain / scaling["factor"]
            elif kind == "llama3":
                self.inv_freq = _llama3(plain, scaling)
            elif kind == "yarn":
                self.inv_freq = _yarn(plain, theta, scaling, context)
                self.magnitude = _yarn_magnitude(scaling)
            else:
                raise ValueError(
                    f"rope_type={kind!r} is not supported, only 'default', 'linear', 'dynamic', "
                    f"'llama3', 'yarn'"
                )
        except KeyError as error:
            raise ValueError(f"rope_type={kind!r} needs {error}, got {dict(scaling)}") from None
        self._cos = self._sin = np.empty((0, dim // 2), np.float32)

    def __call__(self, positions: Array, dtype: Any = np.float32) -> Rotation:
        """Make what a layer needs to turn the tokens at `positions` (int [tokens], from 0)."""
        if positions.min(initial=0) < 0:
            raise ValueError(f"positions: expected none below 0, got {positions.min()}")
        longest = int(positions.max(initial=-1)) + 1
        if longest > len(self._cos):
            length = max(longest, 2 * len(self._cos), 256)
            cos, sin = ops.rotary_table(length, 2 * len(self.inv_freq), inv_freq=self.inv_freq)
            if self.magnitude != 1:
                cos *= np.float32(self.magnitude)
                sin *= np.float32(self.magnitude)
            self._cos, self._sin = cos, sin
        # All layers turn by the same angles: they are looked up once.
        cos, sin = self._cos[positions], self._sin[positions]
        if dtype == np.float32:
            return Rotation(cos, sin)
        return Rotation(cos.astype(dtype), sin.astype(dtype))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value < math.inf


def _llama3(plain: Array, scaling: Mapping[str, Any]) -> Array:
    """Slow frequencies are divided by `factor`, fast ones kept, those between blended."""
    turns = scaling["original_max_position_embeddings"] * plain / (2 * math.pi)  # in the context
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    if not low < high:
        raise ValueError(f"low_freq_factor must lie below high_freq_factor, got {low} and {high}")
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return kept * plain + (1 - kept) * plain / scaling["factor"]


def _yarn(plain: Array, theta: float, scaling: Mapping[str, Any], context: int) -> Array:
    """As `_llama3`, but blended evenly over the index of the frequency, not over the frequency."""
    dim = 2 * len(plain)
    length = scaling.get("original_max_position_embeddings", context)

    def index(turns: float) -> float:
        """Which frequency turns so many times in `length`: length theta^(-2 i / dim) = 2 pi t."""
        return dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = index(scaling.get("beta_fast", 32))
    high = index(scaling.get("beta_slow", 1))
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    scaled = np.clip((np.arange(dim // 2) - low) / ((high - low) or 1e-3), 0, 1)
    return (1 - scaled) * plain + scaled * plain / scaling["factor"]


def _yarn_magnitude(scaling: Mapping[str, Any]) -> float:
    """YaRN's factor of queries and keys, whose square sharpens the softmax of a long context."""
    if "attention_factor" in scaling:
        return float(scaling["attention_factor"])

    def magnitude(weight: float) -> float:
        factor = scaling["factor"]
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    mscale, mscale_all_dim = scaling.get("mscale"), scaling.get("mscale_all_dim")
    if mscale and mscale_all_dim:
        return magnitude(mscale) / magnitude(mscale_all_dim)
    return magnitude(1.0)
