"""Generation: sampling a continuation, token by token."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .. import ops

__all__ = ["generate"]


class LanguageModel(Protocol):
    """What `generate` needs of a model."""

    training: bool

    @property
    def config(self) -> Any: ...
    def train(self, mode: bool = True) -> None: ...
    def logits(
        self,
        input_ids: npt.NDArray[Any],
        cu_seqlens: npt.NDArray[Any] | None = None,
        *,
        rows: npt.NDArray[Any] | None = None,
    ) -> npt.NDArray[Any]: ...


def generate(
    model: LanguageModel,
    ids: npt.ArrayLike,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float = 0.0,
    seed: int = 0,
    stop: int | Collection[int] | None = None,
    on_token: Callable[[int], None] | None = None,
) -> npt.NDArray[np.int64]:
    """Continue a text.

    Each token is drawn from softmax(logits / temperature), cut to the `top_k` likeliest tokens,
    and of those to the fewest whose probabilities reach `top_p` (`ops.sample`). Where the text
    outgrows the model's context, the model sees its last tokens.

    Parameters
    ----------
    model : GPT2
        Used in evaluation mode; its mode is restored.
    ids : array_like of int
        [n], n >= 1: the text to continue.
    max_new_tokens : int
        How many tokens to add at most.
    temperature : float, default 1.0
        0: always the likeliest token. Below 1 bolder, above 1 more diverse.
    top_k : int, optional
        Draw from so many of the likeliest tokens.
    top_p : float, optional
        In (0, 1]: draw from the fewest likeliest tokens that have this probability together.
    min_p : float, default 0.0
        In [0, 1]: tokens less likely than so many times the likeliest are never drawn.
    seed : int, default 0
        In [0, 2^64). The same seed gives the same text.
    stop : int or collection of int, optional
        Tokens that end the text. They are not part of it.
    on_token : callable, optional
        Called with each new token.

    Returns
    -------
    ndarray of int64
        [n + new]: the given text and its continuation.

    Raises
    ------
    ValueError
        When an argument is out of range.
    FloatingPointError
        When the model's logits hold NaN.

    References
    ----------
    Fan, Lewis & Dauphin, "Hierarchical Neural Story Generation", 2018, arXiv:1805.04833 (top-k);
    Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020, arXiv:1904.09751
    (top-p).

    Examples
    --------
    >>> from evergrad.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=50, context=16, layers=1, heads=2, dim=8))
    >>> ids = generate(model, [1, 2, 3], max_new_tokens=20, top_k=10, seed=1)
    >>> ids.shape, ids[:3].tolist()
    ((23,), [1, 2, 3])
    """
    prompt = np.asarray(ids)
    if prompt.ndim != 1 or not prompt.size or not np.issubdtype(prompt.dtype, np.integer):
        raise ValueError(
            f"ids must be a 1-D array of at least one int, got {prompt.dtype} {prompt.shape}"
        )
    if not temperature >= 0:
        raise ValueError(f"temperature must be >= 0, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be >= 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must lie in (0, 1], got {top_p}")
    if not 0 <= min_p <= 1:
        raise ValueError(f"min_p must lie in [0, 1], got {min_p}")

    stops = {stop} if isinstance(stop, (int, np.integer)) else set(stop or ())
    text = np.empty(len(prompt) + max(max_new_tokens, 0), np.int64)
    text[: len(prompt)] = prompt
    length, context = len(prompt), model.config.context

    was_training = model.training
    model.train(False)
    try:
        while length < len(text):
            window = text[max(length - context, 0) : length]
            logits = model.logits(window, rows=np.array([len(window) - 1]))
            (token,) = ops.sample(
                logits, temperature=temperature, top_k=top_k,
                top_p=1.0 if top_p is None else top_p, min_p=min_p,
                seed=seed, offset=length - len(prompt),
            ).tolist()  # fmt: skip
            if token < 0:
                raise FloatingPointError("the logits hold NaN: the model's weights have diverged")
            if token in stops:
                break
            text[length] = token
            length += 1
            if on_token is not None:
                on_token(token)
    finally:
        model.train(was_training)
    return text[:length]
