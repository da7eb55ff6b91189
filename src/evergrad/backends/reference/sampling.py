"""Drawing a token from each row of logits."""

from __future__ import annotations

import numpy as np

from ._common import Array, ieee
from .dropout import _UINT64, _mix64


def uniform(seed: int, counter: int) -> float:
    """A number in [0, 1) with 53 random bits, a pure function of seed and counter."""
    with np.errstate(over="ignore"):  # modulo 2^64
        bits = _mix64(np.uint64(seed & _UINT64) ^ _mix64(np.uint64(counter & _UINT64)))
    return int(bits >> np.uint64(11)) * 2.0**-53


@ieee
def sample(
    logits: Array,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    seed: int,
    offset: int,
) -> Array:
    """A token for each row of logits [rows, n], drawn in proportion to exp(logit / temperature).

    The tokens in order of likelihood (of equals the first comes first), cut in this order: where
    the weight falls below min_p times the first one's, after top_k (0: all), and where the sum of
    the weights reaches top_p of the whole. -1 where there is nothing to draw: a NaN, or all -inf.
    """
    tokens = np.full(len(logits), -1, np.int64)
    for i, row in enumerate(logits):
        peak = row.max(initial=-np.inf)
        if not peak > -np.inf or np.isnan(row).any():
            continue
        weight = np.where(row == peak, 1, np.exp((row - peak) / row.dtype.type(temperature)))
        order = np.argsort(-row, kind="stable")
        order = order[(weight[order] > 0) & (weight[order] >= min_p)]
        mass = np.cumsum(weight[order[: top_k or None]], dtype=np.float64)
        if top_p < 1:
            mass = mass[: np.searchsorted(mass, top_p * mass[-1]) + 1]
        # Inverse of the cumulative distribution: the first token whose mass exceeds the draw.
        drawn = np.searchsorted(mass, uniform(seed, offset + i) * mass[-1], side="right")
        tokens[i] = order[min(drawn, len(mass) - 1)]
    return tokens
