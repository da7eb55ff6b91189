"""Generation: texts that grow token by token, a batch of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .. import nn, ops
from ..nn import Array
from .cache import KVCache

__all__ = ["Sampling", "generate", "stream"]

Ids = npt.NDArray[np.int64]


class LanguageModel(Protocol):
    """What `generate` needs of a model."""

    training: bool

    @property
    def config(self) -> Any: ...
    def train(self, mode: bool = True) -> None: ...
    def logits(
        self,
        input_ids: Array,
        cu_seqlens: Array | None = None,
        *,
        rows: Array | None = None,
        cache: KVCache | None = None,
    ) -> Array: ...


#: Tokens that a text may get before its memory grows.
ROOM = 256


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    It is drawn from softmax(logits / temperature), cut to the tokens that have at least `min_p`
    times the probability of the likeliest, to the `top_k` likeliest, and of those to the fewest
    whose probabilities reach `top_p` (`ops.sample`).

    Parameters
    ----------
    temperature : float, default 1.0
        At most 1e30. 0: always the likeliest token. Below 1 bolder, above 1 more diverse.
    top_k : int, optional
        Draw from so many of the likeliest tokens.
    top_p : float, optional
        In (0, 1]: draw from the fewest likeliest tokens that have this probability together.
    min_p : float, default 0.0
        In [0, 1]: tokens less likely than so many times the likeliest are never drawn.
    repetition_penalty : float, default 1.0
        In [1e-30, 1e30]. The logits of tokens that the text holds already are divided by it where
        they are positive, and multiplied where they are negative; above 1 discourages repetition.
    seed : int, default 0
        In [0, 2^64). The same seed gives the same text; the texts of a batch differ.

    Raises
    ------
    TypeError, ValueError
        When one is of the wrong type, or out of range.

    References
    ----------
    Fan, Lewis & Dauphin, "Hierarchical Neural Story Generation", 2018, arXiv:1805.04833 (top-k);
    Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020, arXiv:1904.09751
    (top-p); Nguyen et al., "Turning Up the Heat", 2024, arXiv:2407.01082 (min-p); Keskar et al.,
    "CTRL", 2019, arXiv:1909.05858 (repetition penalty).

    Examples
    --------
    >>> logits = np.array([1.0, 3.0, 2.0], np.float32)
    >>> Sampling(temperature=0).draw(logits, np.array([0]))
    1
    >>> Sampling(temperature=0, repetition_penalty=2.0).draw(logits, np.array([0, 1]))
    2
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._draw(np.zeros(1, np.float32), 0)  # complains before a prompt is read
        given, limit = self.repetition_penalty, 1e30  # logits beyond are NaN
        if not isinstance(given, (int, float, np.integer, np.floating)):
            raise TypeError(f"repetition_penalty: expected a number, got {type(given).__name__}")
        if not 1 / limit <= given <= limit:
            raise ValueError(
                f"repetition_penalty: expected a number in [1e-30, 1e+30], got {given:g}"
            )

    def draw(self, logits: Array, text: Array, number: int = 0) -> int:
        """Choose a token.

        Parameters
        ----------
        logits : ndarray
            [vocab_size].
        text : ndarray of int
            What comes before.
        number : int, default 0
            Which of the seed's random numbers.

        Raises
        ------
        FloatingPointError
            When the logits hold NaN.
        """
        if self.repetition_penalty != 1:
            seen, penalty = np.unique(text), np.float32(self.repetition_penalty)
            seen = seen[seen < len(logits)]  # others cannot come again
            logits = logits.copy()
            old = logits[seen]
            logits[seen] = np.where(old > 0, old / penalty, old * penalty)
        token = self._draw(logits, number)
        if token < 0:
            raise FloatingPointError("the logits hold NaN: the model's weights have diverged")
        return token

    def _draw(self, logits: Array, number: int) -> int:
        return int(
            ops.sample(
                logits, temperature=self.temperature, top_k=self.top_k,
                top_p=1.0 if self.top_p is None else self.top_p, min_p=self.min_p,
                seed=self.seed, offset=number,
            ).item()
        )  # fmt: skip


class _Text:
    """One text of a batch, and what of it the model has before its eyes."""

    def __init__(self, index: int, prompt: Ids, context: int) -> None:
        self.index, self.context = index, context
        self.ids = np.empty(len(prompt) + ROOM, np.int64)
        self.ids[: len(prompt)] = prompt
        self.length = self.given = len(prompt)
        self.start = max(0, self.length - context)  # the first token that the model sees
        self.read = self.start  # the first whose key and value are not in the cache

    def append(self, token: int) -> None:
        if self.length == len(self.ids):
            self.ids = np.concatenate([self.ids, np.empty_like(self.ids)])
        self.ids[self.length] = token
        self.length += 1
        if self.length - self.start > self.context:
            # Behind another first token every state is another. Half of the context is read anew,
            # and there is room for as many tokens before it happens again.
            self.start = self.read = self.length - (self.context + 1) // 2

    def unread(self) -> Ids:
        """What comes next to what is in the cache."""
        return self.ids[self.read : self.length]


def stream(
    model: LanguageModel,
    prompts: Sequence[npt.ArrayLike],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    stop: Collection[int] = (),
    cache: KVCache | None = None,
    vocab_size: int | None = None,
) -> Generator[tuple[int, int], int | Collection[int] | None, None]:
    """Continue texts, and yield each token as it is drawn.

    The prompts are read in one packed pass, without padding; from then on each text costs a token
    a step. Where a text outgrows the model's context, its last half is read anew, and the model
    sees that and what follows, until the context is full again.

    Parameters
    ----------
    model : GPT2 or Llama
        Used in evaluation mode; its mode is restored at the end.
    prompts : sequence of array_like of int
        The texts to continue, of any lengths >= 1.
    max_new_tokens : int
        How many tokens to add to each at most.
    sampling : Sampling, optional
        How tokens are chosen.
    stop : collection of int
        Tokens that end a text. They are not part of it.
    cache : KVCache, optional
        Of one slot for one prompt, which begins with what it holds: only the rest is read. It keeps
        what comes for the next call, unless that outgrew the context.
    vocab_size : int, optional
        Only tokens below are drawn; default: all that the model scores.

    Yields
    ------
    index, token : int
        Of which text, and its next token. A text is done when its index comes no more; sending
        the index of a text, or a collection of them, ends it early.

    Raises
    ------
    ValueError
        When a prompt is empty or holds something else than ints, or does not fit the cache.
    FloatingPointError
        When the model's logits hold NaN.

    Examples
    --------
    >>> from evergrad.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=50, context=16, layers=1, heads=2, dim=8))
    >>> [index for index, _ in stream(model, [[1, 2, 3], [4]], max_new_tokens=2)]
    [0, 1, 0, 1]
    """
    sampling = Sampling() if sampling is None else sampling
    context = model.config.context
    texts = [_Text(i, _prompt(p), context) for i, p in enumerate(prompts)]
    if max_new_tokens <= 0 or not texts:
        return
    if cache is None:
        longest = max(text.length for text in texts) + max_new_tokens - 1  # the last is not read
        cache = KVCache(model.config, len(texts), min(context, longest))
    else:
        if len(texts) != 1 or len(cache) != 1 or cache.capacity != context:
            raise ValueError(
                f"cache must have one slot of {context} tokens, for one prompt; got {len(cache)}"
                f" of {cache.capacity} for {len(texts)}"
            )
        texts[0].read = int(cache.lengths[0])
        if not texts[0].read < texts[0].given <= context:
            raise ValueError(
                f"the cache holds {texts[0].read} tokens of a context of {context}:"
                f" the prompt must have more, and fit, got {texts[0].given}"
            )
    first = texts[0]
    over: set[int] = set()  # texts that the caller has ended
    try:
        with nn.evaluating(model):
            while texts:
                if any(text.read == text.start for text in texts):  # begins, or begins anew
                    cache.truncate([text.read - text.start for text in texts])
                logits = _logits(model, texts, cache)[:, :vocab_size]
                kept = []
                for slot, (text, row) in enumerate(zip(texts, logits, strict=True)):
                    number = (text.index << 32) + text.length - text.given
                    token = sampling.draw(row, text.ids[: text.length], number)
                    if token in stop:
                        continue
                    text.append(token)
                    ended = yield text.index, token
                    if ended is not None:
                        over.update([int(ended)] if isinstance(ended, (int, np.integer)) else ended)
                    if text.length - text.given < max_new_tokens:
                        kept.append(slot)
                kept = [slot for slot in kept if texts[slot].index not in over]
                if 0 < len(kept) < len(texts):  # without any, the cache has done its work
                    cache.select(kept)
                texts = [texts[slot] for slot in kept]
    finally:
        if first.start:  # what the cache holds begins in the middle of the text
            cache.truncate(0)


def _logits(model: LanguageModel, texts: Sequence[_Text], cache: KVCache) -> Array:
    """Scores of the next token of each text [texts, vocab_size], from what is new to the cache."""
    parts = [text.unread() for text in texts]
    cu_seqlens = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=cu_seqlens[1:])
    ids = parts[0] if len(parts) == 1 else np.concatenate(parts)
    logits = model.logits(ids, cu_seqlens, rows=cu_seqlens[1:] - 1, cache=cache)
    for text in texts:
        text.read = text.length
    return logits


def _prompt(ids: npt.ArrayLike) -> Ids:
    prompt = np.asarray(ids)
    if prompt.ndim != 1 or not prompt.size or not np.issubdtype(prompt.dtype, np.integer):
        raise ValueError(
            f"ids must be a 1-D array of at least one int, got {prompt.dtype} {prompt.shape}"
        )
    return prompt.astype(np.int64)


def generate(
    model: LanguageModel,
    ids: npt.ArrayLike,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    stop: int | Collection[int] | None = None,
    on_token: Callable[[int], None] | None = None,
) -> Ids:
    """Continue a text of token ids.

    Parameters
    ----------
    model : GPT2 or Llama
        Used in evaluation mode; its mode is restored.
    ids : array_like of int
        [n], n >= 1: the text to continue.
    max_new_tokens : int
        How many tokens to add at most.
    temperature, top_k, top_p, min_p, repetition_penalty, seed
        As for `Sampling`.
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
    TypeError, ValueError
        When an argument is of the wrong type, or out of range.
    FloatingPointError
        When the model's logits hold NaN.

    Examples
    --------
    >>> from evergrad.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=50, context=16, layers=1, heads=2, dim=8))
    >>> ids = generate(model, [1, 2, 3], max_new_tokens=20, top_k=10, seed=1)
    >>> ids.shape, ids[:3].tolist()
    ((23,), [1, 2, 3])
    """
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    stops = {stop} if isinstance(stop, (int, np.integer)) else set(() if stop is None else stop)
    new = []
    for _, token in stream(model, [ids], max_new_tokens, sampling, stops):
        new.append(token)
        if on_token is not None:
            on_token(token)
    return np.concatenate([_prompt(ids), np.array(new, np.int64)])
