"""A look inside: how likely a model finds each token, and where its attention goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import nn, ops
from ..nn import Array
from .prompting import expect_count

__all__ = ["Explained", "explain"]

#: Longest text: attention is as long as it is wide, in every head of every layer.
LONGEST = 1024


@dataclass(frozen=True)
class Explained:
    """What a model makes of a text of n tokens.

    Attributes
    ----------
    ids : ndarray of int64
        [n].
    log_likelihood : ndarray
        [n], in nats: of each token after those before it; NaN for the first. All NaN for an
        encoder, which predicts nothing.
    likeliest : ndarray of int64
        [n, k]: what the model expected instead, the likeliest first.
    likeliest_log_likelihood : ndarray
        [n, k].
    attention : ndarray
        [layers, heads, n, n]: the weight of token j (last) in what token i becomes; rows add to 1.
    """

    ids: npt.NDArray[np.int64]
    log_likelihood: Array
    likeliest: npt.NDArray[np.int64]
    likeliest_log_likelihood: Array
    attention: Array


def explain(model: Any, ids: npt.ArrayLike, alternatives: int = 3) -> Explained:
    """Run a model over a text and keep what it usually does not show.

    Parameters
    ----------
    model : GPT2, Llama or Bert
        Used in evaluation mode; its mode is restored.
    ids : array_like of int
        [n], 1 <= n <= 1024: the text.
    alternatives : int, default 3
        How many likelier tokens to name at each place, if there are so many.

    Returns
    -------
    Explained

    Raises
    ------
    TypeError
        When the model is of another kind: a T5 has three kinds of attention, over two texts.
    ValueError
        When the text is empty, too long or no ids, or `alternatives` no number of tokens.

    Examples
    --------
    >>> from evergrad.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=50, context=16, layers=2, heads=2, dim=8))
    >>> inside = explain(model, [1, 2, 3])
    >>> inside.attention.shape, inside.likeliest.shape
    ((2, 2, 3, 3), (3, 3))
    >>> bool(np.isclose(inside.log_likelihood[1], -np.log(50), atol=0.2))
    True
    """
    if not hasattr(model, "blocks"):
        raise TypeError(
            f"explain: model must be a GPT2, Llama or Bert, got a {type(model).__name__}"
        )
    given = np.asarray(ids)
    if given.ndim != 1 or not 1 <= given.size <= LONGEST:
        got = given.size if given.ndim == 1 else f"shape {given.shape}"
        raise ValueError(f"ids: expected 1 to {LONGEST} tokens, got {got}")
    if given.dtype.kind not in "iu":
        raise ValueError(f"ids: expected integers, got {given.dtype}")
    expect_count("alternatives", alternatives)
    given = given.astype(np.int64)
    layers: list[Array] = []
    with nn.evaluating(model):
        try:
            for block in model.blocks:
                block.attention.observer = layers.append
            decoder = hasattr(model, "logits") and model.blocks[0].attention.options["is_causal"]
            if decoder:
                log_probs = ops.log_softmax(model.logits(given))
            else:
                model.encode(given)
        finally:
            for block in model.blocks:
                block.attention.observer = None

    n, count = given.size, min(alternatives, model.config.vocab_size) if decoder else 0
    likelihood = np.full(n, np.nan, np.float32)
    likeliest = np.zeros((n, count), np.int64)
    likeliest_likelihood = np.full((n, count), np.nan, np.float32)
    if decoder and n > 1:
        before = log_probs[:-1]
        likelihood[1:] = before[np.arange(n - 1), given[1:]]
        likeliest[1:] = np.argsort(-before, axis=1, kind="stable")[:, :count]
        likeliest_likelihood[1:] = np.take_along_axis(before, likeliest[1:], axis=1)
    return Explained(given, likelihood, likeliest, likeliest_likelihood, np.stack(layers))
