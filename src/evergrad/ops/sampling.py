"""Drawing tokens from logits."""

from __future__ import annotations

import numpy as np

from ..backends import active
from . import _check

_U64 = 2**64 - 1


def sample(
    logits: np.ndarray,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int,
    offset: int = 0,
) -> np.ndarray:
    """Draw an index for each row from softmax(logits / temperature), cut to its likeliest.

    Cut in this order: tokens less likely than ``min_p`` times the likeliest (Nguyen et al. 2024),
    all but the ``top_k`` likeliest (Fan et al. 2018), all but the fewest likeliest that have
    ``top_p`` of the probability of those (Holtzman et al. 2020). Of equals the first is likelier.
    The row is not sorted: its logits are counted into bins by likelihood, and only a bin in which
    a cut or the draw falls is.

    Parameters
    ----------
    logits : ndarray, float32, [..., classes]
    temperature : float
        0: the likeliest, always.
    top_k : int, optional
    top_p : float
        In (0, 1].
    min_p : float
        In [0, 1].
    seed, offset : int
        In [0, 2**64). Row i draws with the number of (seed, offset + i): the same on every backend
        and for any number of threads.

    Returns
    -------
    ndarray
        int64, [...]. -1 for a row with nothing to draw: it has a NaN, or nothing above -inf.

    Raises
    ------
    TypeError, ValueError
        For a wrong type, dtype or layout, or an option out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from evergrad import ops
    >>> logits = np.array([[1.0, 3.0, 2.0], [0.0, 0.0, np.nan]], np.float32)
    >>> ops.sample(logits, temperature=0.0, seed=0)
    array([ 1, -1])
    >>> drawn = ops.sample(np.tile(logits[:1], (1000, 1)), top_k=2, seed=0)
    >>> np.unique(drawn).tolist(), 0.7 < (drawn == 1).mean() < 0.76     # e / (1 + e) = 0.73
    ([1, 2], np.True_)
    """
    _check.floats("logits", logits)
    _check.has_rank("logits", logits, 1)
    temperature = _check.number("temperature", temperature, 0.0, 1e30)
    if top_k is not None:
        top_k = _check.integer("top_k", top_k, 1, 2**62)
    top_p = _check.number("top_p", top_p, 0.0, 1.0)
    if top_p == 0:
        raise ValueError("top_p: expected a number above 0, got 0")
    min_p = _check.number("min_p", min_p, 0.0, 1.0)
    seed = _check.integer("seed", seed, 0, _U64)
    offset = _check.integer("offset", offset, 0, _U64)
    if temperature == 0:
        temperature, top_k = 1.0, 1
    tokens = active.sample(_check.rows(logits), temperature, top_k or 0, top_p, min_p, seed, offset)
    return tokens.reshape(logits.shape[:-1])
