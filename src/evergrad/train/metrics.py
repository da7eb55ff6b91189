"""How well a language model knows a text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from evergrad import nn
from evergrad.text import pack, windows


def bits_per_byte(
    model: Any, ids: np.ndarray, num_bytes: int, window: int, *, batch_size: int = 16
) -> float:
    """Bits that the model needs for a byte of text: its code length, whatever the tokenizer.

    ``-sum_i log2 p(ids[i] | ids[start of its window .. i - 1]) / num_bytes``. The stream is cut
    into windows as by `text.windows`: every token but the first is scored exactly once, with the
    tokens of its window before it as context. Short windows, hence short contexts, score worse.

    Parameters
    ----------
    model : Module
        With ``loss(batch, normalizer)``. Evaluated without dropout.
    ids : ndarray, integer, [tokens]
        The text, from a leading ``eot``.
    num_bytes : int
        Bytes of the text in UTF-8.
    window : int
        Tokens of a window.
    batch_size : int
        Windows that are evaluated at once.

    Returns
    -------
    float
        Lower is better; 8 is what raw bytes take.

    Raises
    ------
    TypeError, ValueError
        If `ids` is no integer array of one dimension, or there are fewer than two tokens, or no
        bytes, or `window` or `batch_size` is below 1.

    Examples
    --------
    A model that knows nothing spreads its bets over the vocabulary:

    >>> from evergrad.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=256, context=8, layers=1, heads=1, dim=4), seed=None)
    >>> round(bits_per_byte(model, np.arange(100), num_bytes=99, window=8), 3)
    8.0
    """
    spans = windows(ids, window)
    if ids.size < 2 or not num_bytes >= 1:
        raise ValueError(
            f"bits_per_byte: needs two tokens and one byte, got {ids.size} and {num_bytes}"
        )
    if batch_size < 1:  # or none would be evaluated, which took no bits
        raise ValueError(f"bits_per_byte: batch_size must be at least 1, got {batch_size}")
    nats = 0.0
    with nn.evaluating(model):
        for first in range(0, len(spans), batch_size):
            loss, _ = model.loss(pack(spans[first : first + batch_size]), normalizer=1.0)
            nats += loss
    return nats / math.log(2) / num_bytes
