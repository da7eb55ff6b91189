"""Beam search: the likeliest answers of an encoder-decoder, several guesses at a time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import nn, ops
from ..nn import Array
from ..ops._check import shown
from .prompting import ends_of, expect_count, is_single, known_tokens

if TYPE_CHECKING:
    from ..text import Tokenizer

__all__ = ["Answering", "beam_search"]

Ids = npt.NDArray[np.int64]

#: Power of the longest answer that a float64 still holds.
STRONGEST = 50


class _Beams:
    """The guesses at the answer to one text."""

    def __init__(self, count: int, length_penalty: float) -> None:
        self.count, self.length_penalty = count, length_penalty
        # All begin alike: only one of them may lead on.
        self.scores = np.full(count, -1e9, np.float64)
        self.scores[0] = 0.0
        self.ids: list[list[int]] = [[] for _ in range(count)]
        self.finished: list[tuple[float, list[int]]] = []

    def advance(self, log_probs: Array, stop: Collection[int]) -> list[int]:
        """Take the likeliest continuations; from which beam each of the new ones comes.

        Parameters
        ----------
        log_probs : ndarray
            [count, vocab_size].
        """
        vocab = log_probs.shape[1]
        totals = (self.scores[:, None] + log_probs).reshape(-1)
        # Twice as many as beams: if half of them end, there are beams enough to go on.
        wanted = min(2 * self.count, totals.size)
        best = np.argpartition(-totals, wanted - 1)[:wanted]
        best = best[np.lexsort((best, -totals[best]))]
        chosen: list[tuple[float, int, int]] = []
        length = len(self.ids[0]) + 1
        for rank, flat in enumerate(best.tolist()):
            beam, token = divmod(flat, vocab)
            if token in stop:
                if rank < self.count:
                    self._finish(totals[flat], self.ids[beam], length)
            elif len(chosen) < self.count:
                chosen.append((totals[flat], beam, token))
        while len(chosen) < self.count:  # a vocabulary of next to nothing but ends
            chosen.append((-np.inf, 0, int(best[0]) % vocab))
        self.scores = np.array([score for score, _, _ in chosen])
        self.ids = [[*self.ids[beam], token] for _, beam, token in chosen]
        return [beam for _, beam, _ in chosen]

    def _finish(self, total: float, ids: list[int], length: int) -> None:
        self.finished.append((total / length**self.length_penalty, ids))
        self.finished.sort(key=lambda pair: -pair[0])
        del self.finished[self.count :]

    @property
    def done(self) -> bool:
        """Whether no beam, ended here, would be better than the worst that has ended."""
        if len(self.finished) < self.count:
            return False
        best = self.scores.max() / max(len(self.ids[0]), 1) ** self.length_penalty
        return bool(self.finished[-1][0] >= best)

    def best(self) -> list[int]:
        """The likeliest answer, cut short if none has ended."""
        if not self.done:
            for score, ids in zip(self.scores, self.ids, strict=True):
                self._finish(score, ids, max(len(ids), 1))
        return self.finished[0][1]


def beam_search(
    model: Any,
    prompts: Sequence[npt.ArrayLike],
    max_new_tokens: int,
    num_beams: int = 4,
    length_penalty: float = 1.0,
    stop: Collection[int] = (),
    vocab_size: int | None = None,
) -> list[Ids]:
    """Answer texts with an encoder-decoder.

    The texts are read once, in one packed pass. Of the continuations of all beams of a text the
    `num_beams` likeliest go on; what reaches a stop token is ranked by the sum of its
    log-probabilities over length^length_penalty.

    Parameters
    ----------
    model : T5
        Used in evaluation mode; its mode is restored.
    prompts : sequence of array_like of int
        What is read, of any lengths >= 1.
    max_new_tokens : int
        Longest answer.
    num_beams : int, default 4
        1: always the likeliest token.
    length_penalty : float, default 1.0
        In [-50, 50]. Above 0 long answers are ranked higher, below 0 short ones.
    stop : collection of int
        Tokens that end an answer. They are not part of it.
    vocab_size : int, optional
        Only tokens below are said; default: all that the model scores.

    Returns
    -------
    list of ndarray of int64
        The answer to each text, without start and stop.

    Raises
    ------
    ValueError
        When an argument is out of range, a prompt is empty or holds something else than ints.
    FloatingPointError
        When the model's logits hold NaN.

    References
    ----------
    Sutskever, Vinyals & Le, "Sequence to Sequence Learning with Neural Networks", 2014,
    arXiv:1409.3215; Wu et al., 2016, arXiv:1609.08144 (length penalty).

    Examples
    --------
    >>> from evergrad.models import T5, T5Config
    >>> model = T5(T5Config(vocab_size=50, layers=1, heads=2, head_dim=4, dim=8, hidden=16))
    >>> answers = beam_search(model, [[5, 6, 7], [8]], max_new_tokens=4, num_beams=2)
    >>> [answer.size for answer in answers]
    [4, 4]
    """
    expect_count("num_beams", num_beams, 1)
    expect_count("max_new_tokens", max_new_tokens)
    is_number = isinstance(length_penalty, (int, float, np.integer, np.floating))
    if not is_number or not abs(length_penalty) <= STRONGEST:
        raise ValueError(
            f"length_penalty must be a number in [-{STRONGEST}, {STRONGEST}],"
            f" got {shown(length_penalty)}"
        )
    given = [np.asarray(prompt) for prompt in prompts]
    for prompt in given:
        if prompt.ndim != 1 or not prompt.size or not np.issubdtype(prompt.dtype, np.integer):
            raise ValueError(
                f"ids must be 1-D arrays of at least one int, got {prompt.dtype} {prompt.shape}"
            )
    texts = [_Beams(num_beams, length_penalty) for _ in given]
    if not max_new_tokens or not given:
        return [np.zeros(0, np.int64) for _ in given]
    with nn.evaluating(model):
        capacity = min(max_new_tokens, model.config.context)
        cu_seqlens = np.concatenate([[0], np.cumsum([len(prompt) for prompt in given])])
        cache = model.new_cache(model.encode(np.concatenate(given), cu_seqlens), capacity)
        active = list(range(len(texts)))
        cache.select(np.repeat(active, num_beams))
        tokens = np.full(len(active) * num_beams, model.config.start_token, np.int64)
        for _ in range(capacity):
            logits = model.logits(tokens, np.arange(len(tokens) + 1), cache=cache)
            log_probs = ops.log_softmax(np.ascontiguousarray(logits[:, :vocab_size]))
            log_probs = log_probs.reshape(len(active), num_beams, -1)
            if np.isnan(log_probs).any():
                raise FloatingPointError("the logits hold NaN: the model's weights have diverged")
            slots, kept = [], []
            for place, (text, scores) in enumerate(zip(active, log_probs, strict=True)):
                parents = texts[text].advance(scores, stop)
                if not texts[text].done:
                    kept.append(text)
                    slots += [place * num_beams + beam for beam in parents]
            active = kept
            if not active:
                break
            cache.select(slots)
            tokens = np.array([ids[-1] for text in active for ids in texts[text].ids], np.int64)
    return [np.array(text.best(), np.int64) for text in texts]


class Answering:
    """What an encoder-decoder gets beside its logits.

    Attributes
    ----------
    tokenizer : Tokenizer or None
        Between texts and ids, and its `ends` end an answer, beside the configuration's `eos_token`.
        Without one, prompts are ids.
    """

    tokenizer: Tokenizer | None = None
    config: Any

    def generate(
        self,
        prompt: Any,
        max_new_tokens: int = 200,
        *,
        num_beams: int = 1,
        length_penalty: float = 1.0,
    ) -> Any:
        """Answer a text, or several at once.

        Parameters
        ----------
        prompt : str, array_like of int, or a list of either
            What is read. A text gets the special tokens of its tokenizer; ids are taken as they
            are.
        max_new_tokens, num_beams, length_penalty
            As for `beam_search`; by default there is one beam.

        Returns
        -------
        str, ndarray of int64, or a list of either
            As `prompt`: the answers.

        Raises
        ------
        ValueError
            When an argument is out of range, or a text comes to a model without a tokenizer.

        Examples
        --------
        >>> from evergrad.models import T5, T5Config
        >>> model = T5(T5Config(vocab_size=50, layers=1, heads=2, head_dim=4, dim=8, hidden=16))
        >>> model.generate([5, 6, 7], max_new_tokens=4).size
        4
        """
        single = is_single(prompt)
        prompts = [prompt] if single else list(prompt)
        ends = ends_of(self.config) | (set() if self.tokenizer is None else self.tokenizer.ends)
        answers: list[Any] = beam_search(
            self, [self._ids(each) for each in prompts], max_new_tokens, num_beams,
            length_penalty, ends, known_tokens(self),
        )  # fmt: skip
        for i, each in enumerate(prompts):
            if isinstance(each, str):
                assert self.tokenizer is not None
                answers[i] = self.tokenizer.decode(answers[i])
        return answers[0] if single else answers

    def _ids(self, prompt: Any) -> Any:
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise ValueError("prompt: a text needs a model with a tokenizer; give ids instead")
            prompt = self.tokenizer.encode(prompt, add_special_tokens=True)
        ids, size = np.asarray(prompt), self.config.vocab_size
        if ids.dtype.kind in "iu" and ids.size and (ids.min() < 0 or ids.max() >= size):
            raise ValueError(f"token ids must lie in [0, {size}), got {ids.min()} to {ids.max()}")
        return ids
