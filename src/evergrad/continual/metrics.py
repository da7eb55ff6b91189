"""Progress and forgetting, from the matrix of scores R.

``scores[i, j]`` is the score on domain ``j`` after stage ``i``, and **higher is better**: a loss
such as bits per byte goes in negated. Row 0 is the baseline, measured before anything was learned;
every later row is one stage of training. ``learned[i]`` is the domain that stage ``i`` learned,
``None`` for the baseline or for a stage that none of the columns stands for. NaN marks a score that
was not measured; a term that would need it is left out, and a metric without terms is NaN.

Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning" (2017), define ACC, BWT and
FWT; Chaudhry et al., "Riemannian Walk for Incremental Learning" (2018), forgetting from the best
earlier score. Two conventions of forgetting are in use, and they differ as soon as a domain
improves after its own stage, so each has its name: ``forgetting_last`` and ``forgetting_max``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["acc", "bwt", "forgetting_last", "forgetting_max", "fwt", "summary"]

Learned = Sequence["int | None"]


def _checked(scores: Any, learned: Learned | None) -> tuple[np.ndarray, dict[int, int]]:
    """The matrix in float64, and for each learned domain the row of the stage that learned it.

    A domain learned by several stages counts from the last of them: what came later is what may
    have been forgotten.
    """
    matrix = np.asarray(scores, np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"scores: expected [stages + 1, domains], got shape {matrix.shape}")
    rows, domains = matrix.shape
    if learned is None:
        if rows != domains + 1:
            raise ValueError(
                f"learned: needed for {rows} rows x {domains} domains; it can be left out only for "
                "a baseline row and one stage per domain, in order"
            )
        learned = [None, *range(domains)]
    if len(learned) != rows:
        raise ValueError(f"learned: expected one entry per row ({rows}), got {len(learned)}")
    if learned[0] is not None:
        raise ValueError(f"learned: row 0 is the baseline, expected None, got {learned[0]!r}")
    for domain in learned:
        if domain is not None and not 0 <= domain < domains:
            raise ValueError(f"learned: expected domains below {domains}, got {domain}")
    return matrix, {domain: row for row, domain in enumerate(learned) if domain is not None}


def _reduce(terms: np.ndarray, reduction: str) -> Any:
    if reduction == "none":
        return terms
    if reduction != "mean":
        raise ValueError(f"reduction: expected 'mean' or 'none', got {reduction!r}")
    measured = terms[~np.isnan(terms)]
    return float(measured.mean()) if measured.size else float("nan")


def acc(scores: Any, *, reduction: str = "mean") -> Any:
    """Average score after the last stage: ``ACC = mean_j R[T, j]`` (Lopez-Paz and Ranzato, 2017).

    Parameters
    ----------
    scores : array_like, [stages + 1, domains]
        Row 0 is the baseline; higher is better.
    reduction : {"mean", "none"}
        ``"none"`` returns the terms, [domains].

    Returns
    -------
    float or ndarray of float64

    Raises
    ------
    ValueError
        For a matrix that is not 2-D or empty, or an unknown reduction.

    Examples
    --------
    >>> acc([[0.1, 0.1], [0.8, 0.2], [0.6, 0.9]])
    0.75
    """
    matrix = np.asarray(scores, np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"scores: expected [stages + 1, domains], got shape {matrix.shape}")
    return _reduce(matrix[-1], reduction)


def bwt(scores: Any, learned: Learned | None = None, *, reduction: str = "mean") -> Any:
    """Backward transfer: what later stages did to domains learned before them.

    ``BWT = mean_j R[T, j] - R[i_j, j]`` over domains ``j`` learned at a stage ``i_j < T``
    (Lopez-Paz and Ranzato, 2017). Negative: forgotten; positive: improved by what came later.

    Parameters
    ----------
    scores : array_like, [stages + 1, domains]
        Row 0 is the baseline; higher is better.
    learned : sequence of int or None, optional
        The domain that each row's stage learned; left out, stage ``i`` learned domain ``i - 1``.
    reduction : {"mean", "none"}
        ``"none"`` returns the terms, [domains], NaN where a domain has none.

    Returns
    -------
    float or ndarray of float64

    Raises
    ------
    ValueError
        For shapes or entries of ``learned`` that do not fit.

    Examples
    --------
    >>> round(bwt([[0.1, 0.1], [0.8, 0.2], [0.6, 0.9]]), 6)
    -0.2
    """
    matrix, stage = _checked(scores, learned)
    last = len(matrix) - 1
    terms = np.full(matrix.shape[1], np.nan)
    for domain, row in stage.items():
        if row < last:
            terms[domain] = matrix[last, domain] - matrix[row, domain]
    return _reduce(terms, reduction)


def fwt(scores: Any, learned: Learned | None = None, *, reduction: str = "mean") -> Any:
    """Forward transfer: what earlier stages did for a domain before its own stage.

    ``FWT = mean_j R[i_j - 1, j] - R[0, j]`` over domains ``j`` first learned at a stage
    ``i_j > 1`` (Lopez-Paz and Ranzato, 2017). Positive: what came before helped.

    Parameters
    ----------
    scores : array_like, [stages + 1, domains]
        Row 0 is the baseline; higher is better.
    learned : sequence of int or None, optional
        The domain that each row's stage learned; left out, stage ``i`` learned domain ``i - 1``.
    reduction : {"mean", "none"}
        ``"none"`` returns the terms, [domains], NaN where a domain has none.

    Returns
    -------
    float or ndarray of float64

    Raises
    ------
    ValueError
        For shapes or entries of ``learned`` that do not fit.

    Examples
    --------
    >>> round(fwt([[0.1, 0.1], [0.8, 0.2], [0.6, 0.9]]), 6)
    0.1
    """
    matrix, _ = _checked(scores, learned)
    learned = [None, *range(matrix.shape[1])] if learned is None else learned
    terms = np.full(matrix.shape[1], np.nan)
    for domain in {domain for domain in learned if domain is not None}:
        row = learned.index(domain)
        if row > 1:
            terms[domain] = matrix[row - 1, domain] - matrix[0, domain]
    return _reduce(terms, reduction)


def forgetting_last(scores: Any, learned: Learned | None = None, *, reduction: str = "mean") -> Any:
    """The drop from right after a domain was learned to the end: ``mean_j R[i_j, j] - R[T, j]``.

    The mirror image of ``bwt``. Negative: the domain improved after its own stage.

    Parameters
    ----------
    scores : array_like, [stages + 1, domains]
        Row 0 is the baseline; higher is better.
    learned : sequence of int or None, optional
        The domain that each row's stage learned; left out, stage ``i`` learned domain ``i - 1``.
    reduction : {"mean", "none"}
        ``"none"`` returns the terms, [domains], NaN where a domain has none.

    Returns
    -------
    float or ndarray of float64

    Raises
    ------
    ValueError
        For shapes or entries of ``learned`` that do not fit.

    Examples
    --------
    >>> round(forgetting_last([[0.1, 0.1], [0.8, 0.2], [0.6, 0.9]]), 6)
    0.2
    """
    return _reduce(-bwt(scores, learned, reduction="none"), reduction)


def forgetting_max(scores: Any, learned: Learned | None = None, *, reduction: str = "mean") -> Any:
    """The drop from the best earlier score to the end (Chaudhry et al., 2018).

    ``F = mean_j max_{l < T} R[l, j] - R[T, j]`` over domains ``j`` learned before the last stage
    ``T``; ``l`` runs over the stages before it, the baseline left out as in the paper. Never below
    ``forgetting_last``.

    Parameters
    ----------
    scores : array_like, [stages + 1, domains]
        Row 0 is the baseline; higher is better.
    learned : sequence of int or None, optional
        The domain that each row's stage learned; left out, stage ``i`` learned domain ``i - 1``.
    reduction : {"mean", "none"}
        ``"none"`` returns the terms, [domains], NaN where a domain has none.

    Returns
    -------
    float or ndarray of float64

    Raises
    ------
    ValueError
        For shapes or entries of ``learned`` that do not fit.

    Examples
    --------
    Domain 0 was learned at stage 1 (0.7), rose to 0.8 at stage 2, and ended at 0.6:

    >>> scores = [[0.1, 0.1], [0.7, 0.1], [0.8, 0.5], [0.6, 0.9]]
    >>> round(forgetting_max(scores, [None, 0, None, 1]), 6)
    0.2
    >>> round(forgetting_last(scores, [None, 0, None, 1]), 6)
    0.1
    """
    matrix, stage = _checked(scores, learned)
    last = len(matrix) - 1
    terms = np.full(matrix.shape[1], np.nan)
    for domain, row in stage.items():
        earlier = matrix[1:last, domain]
        if row < last and not np.isnan(earlier).all():
            terms[domain] = np.nanmax(earlier) - matrix[last, domain]
    return _reduce(terms, reduction)


def summary(scores: Any, learned: Learned | None = None) -> dict[str, float]:
    """All five numbers by name.

    Parameters
    ----------
    scores : array_like, [stages + 1, domains]
        Row 0 is the baseline; higher is better.
    learned : sequence of int or None, optional
        The domain that each row's stage learned; left out, stage ``i`` learned domain ``i - 1``.

    Returns
    -------
    dict of str to float
        ``acc``, ``bwt``, ``fwt``, ``forgetting_last``, ``forgetting_max``.

    Raises
    ------
    ValueError
        For shapes or entries of ``learned`` that do not fit.

    Examples
    --------
    >>> sorted(summary([[0.1, 0.1], [0.8, 0.2], [0.6, 0.9]]))
    ['acc', 'bwt', 'forgetting_last', 'forgetting_max', 'fwt']
    """
    return {
        "acc": acc(scores),
        "bwt": bwt(scores, learned),
        "fwt": fwt(scores, learned),
        "forgetting_last": forgetting_last(scores, learned),
        "forgetting_max": forgetting_max(scores, learned),
    }
