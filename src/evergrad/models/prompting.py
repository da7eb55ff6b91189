"""Prompts: texts and conversations instead of token ids, for models that have a tokenizer."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..ops._check import shown
from ..text import TextStream
from .cache import KVCache
from .generation import Sampling, stream

if TYPE_CHECKING:
    from ..text import Tokenizer

__all__ = ["Conversation", "Prompted"]

Ids = npt.NDArray[np.int64]


class Prompted:
    """What a decoder that continues texts gets beside its logits.

    Attributes
    ----------
    tokenizer : Tokenizer or None
        Between texts and ids. Without one, prompts are ids.
    """

    tokenizer: Tokenizer | None = None
    config: Any

    def generate(
        self,
        prompt: Any,
        max_new_tokens: int = 200,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop: str | int | Iterable[str | int] | None = None,
    ) -> Any:
        """Continue a text, or several at once.

        Parameters
        ----------
        prompt : str, array_like of int, or a list of either
            What to continue. A text begins with the token that the model's texts begin with, and
            is not empty for the model even if it is; ids are taken as they are.
        max_new_tokens : int, default 200
            How many tokens to add to each at most.
        temperature : float, default 0.0
            0: always the likeliest token. Else drawn, as in `Sampling`.
        top_k, top_p, min_p, repetition_penalty, seed
            As for `Sampling`.
        stop : str, int, or iterable of either, optional
            Strings and tokens that end a text, beside the tokenizer's `ends` (without a tokenizer,
            the configuration's `eos_token`). A string is cut off a text; of ids, the token that
            completes it is the last.

        Returns
        -------
        str, ndarray of int64, or a list of either
            As `prompt`: what was given, and its continuation.

        Raises
        ------
        TypeError, ValueError
            When an argument is of the wrong type or out of range, or a text comes to a model
            without a tokenizer.

        Examples
        --------
        >>> from evergrad.models import GPT2, GPT2Config
        >>> from evergrad.text import Tokenizer
        >>> model = GPT2(GPT2Config(vocab_size=257, context=16, layers=1, heads=2, dim=8))
        >>> model.tokenizer = Tokenizer.train(["a text"], vocab_size=257)
        >>> model.generate("Once", max_new_tokens=8).startswith("Once")
        True
        >>> [ids.size for ids in model.generate([[1, 2], [3]], max_new_tokens=8, stop=5)]
        [10, 9]
        """
        single = is_single(prompt)
        prompts = [prompt] if single else list(prompt)
        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
        pieces: list[list[Any]] = [[] for _ in prompts]
        for index, piece in self._stream(prompts, max_new_tokens, sampling, stop):
            pieces[index].append(piece)
        whole = [_joined(*pair) for pair in zip(prompts, pieces, strict=True)]
        return whole[0] if single else whole

    def stream(self, prompt: Any, max_new_tokens: int = 200, **options: Any) -> Iterator[Any]:
        """Continue one text, piece by piece as it is produced.

        Parameters
        ----------
        prompt, max_new_tokens
            As for `generate`, but one prompt.
        **options
            As for `generate`.

        Returns
        -------
        iterator of str or of int
            For a text, pieces of its continuation: often words, never half a character, and not
            what could be the beginning of a stop string. For ids, tokens.

        Raises
        ------
        TypeError, ValueError
            As `generate`.

        Examples
        --------
        >>> from evergrad.models import GPT2, GPT2Config
        >>> model = GPT2(GPT2Config(vocab_size=50, context=16, layers=1, heads=2, dim=8))
        >>> len(list(model.stream([1, 2], max_new_tokens=3)))
        3
        """
        if not is_single(prompt):
            raise ValueError("stream: prompt must be one text or one sequence of ids, got several")
        sampling, stop = _sampling(options)
        found = self._stream([prompt], max_new_tokens, sampling, stop)
        return (piece for _, piece in found)

    def chat(
        self, messages: Iterable[Mapping[str, Any]], max_new_tokens: int = 200, **options: Any
    ) -> str:
        """Answer a conversation.

        Parameters
        ----------
        messages : iterable of mapping
            ``{"role": "user", "content": "..."}`` ..., written as the tokenizer's chat template
            says.
        max_new_tokens : int, default 200
            How many tokens the answer has at most.
        **options
            As for `generate`.

        Returns
        -------
        str
            The assistant's next message.

        Raises
        ------
        TypeError, ValueError
            When the model has no tokenizer, this no chat template, or an argument is of the wrong
            type or out of range.

        See Also
        --------
        Conversation : the same over many turns, each read once, and as a stream.

        Examples
        --------
        >>> from evergrad.models import GPT2, GPT2Config
        >>> from evergrad.text import Tokenizer
        >>> model = GPT2(GPT2Config(vocab_size=257, context=16, layers=1, heads=2, dim=8))
        >>> model.tokenizer = Tokenizer.train(["a text"], vocab_size=257)
        >>> model.tokenizer.chat_template = "{{ messages[-1].content }}: "
        >>> isinstance(model.chat([{"role": "user", "content": "Hello"}]), str)
        True
        """
        return "".join(self.stream_chat(messages, max_new_tokens, **options))

    def stream_chat(
        self, messages: Iterable[Mapping[str, Any]], max_new_tokens: int = 200, **options: Any
    ) -> Iterator[str]:
        """Answer a conversation, piece by piece as it is produced.

        Parameters
        ----------
        messages, max_new_tokens, **options
            As for `chat`.

        Returns
        -------
        iterator of str
            Pieces of the assistant's next message.
        """
        return Conversation(self, messages).reply(max_new_tokens, **options)

    def _stream(
        self,
        prompts: Sequence[Any],
        max_new_tokens: int,
        sampling: Sampling,
        stop: Any,
        cache: KVCache | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Which prompt, and a piece of its continuation; bad arguments are refused at once."""
        expect_count("max_new_tokens", max_new_tokens)
        strings, tokens = _stops(stop)
        if self.tokenizer is None:
            if strings or any(isinstance(prompt, str) for prompt in prompts):
                raise ValueError(
                    "the model has no tokenizer, which texts and stop strings need:"
                    " set model.tokenizer, or give token ids"
                )
            tokens |= ends_of(self.config)
        else:
            tokens |= self.tokenizer.ends
        ids, known = [self._ids(prompt) for prompt in prompts], known_tokens(self)
        streams = [
            # Only where its text is looked at. What a token looks like may depend on those before.
            TextStream(self.tokenizer, strings, before[before < known].tolist())
            if self.tokenizer is not None and (strings or isinstance(prompt, str))
            else None
            for prompt, before in zip(prompts, ids)
        ]
        running = stream(
            self,  # type: ignore[arg-type]
            ids, max_new_tokens, sampling, tokens, cache, known,
        )  # fmt: skip
        return _pieces(running, streams, [isinstance(prompt, str) for prompt in prompts])

    def _ids(self, prompt: Any) -> Ids:
        if isinstance(prompt, str):
            assert self.tokenizer is not None
            ids = self.tokenizer.prompt(prompt)
        else:
            ids = np.asarray(prompt)
        if ids.ndim != 1 or not ids.size or ids.dtype.kind not in "iu":
            raise ValueError(
                "a prompt must be a text or a sequence of at least one token,"
                f" got {ids.dtype} {ids.shape}"
            )
        size = self.config.vocab_size
        if ids.min() < 0 or ids.max() >= size:
            raise ValueError(f"token ids must lie in [0, {size}), got {ids.min()} to {ids.max()}")
        return ids.astype(np.int64)


class Conversation:
    """A conversation with a model, of which it reads every turn only once.

    Parameters
    ----------
    model : Prompted
        With a tokenizer that has a chat template.
    messages : iterable of mapping
        What was said already; {"role": "system", "content": "..."} instructs.

    Attributes
    ----------
    messages : list of mapping
        What was said; append to it, then ask for a `reply`.

    Raises
    ------
    TypeError, ValueError
        When `messages` are no mappings, or the model has no tokenizer.

    Examples
    --------
    >>> from evergrad.models import GPT2, GPT2Config
    >>> from evergrad.text import Tokenizer
    >>> model = GPT2(GPT2Config(vocab_size=257, context=16, layers=1, heads=2, dim=8))
    >>> model.tokenizer = Tokenizer.train(["a text"], vocab_size=257)
    >>> model.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}: {% endfor %}"
    >>> conversation = Conversation(model)
    >>> conversation.messages.append({"role": "user", "content": "Hello"})
    >>> reply = "".join(conversation.reply(max_new_tokens=8))
    >>> conversation.messages[-1] == {"role": "assistant", "content": reply}
    True
    """

    def __init__(self, model: Prompted, messages: Iterable[Mapping[str, Any]] = ()) -> None:
        if model.tokenizer is None:
            raise ValueError("chat: the model has no tokenizer: set model.tokenizer")
        self._model, self._tokenizer = model, model.tokenizer
        self.messages = list(messages) if isinstance(messages, Iterable) else [messages]
        if isinstance(messages, (str, Mapping)) or not all(
            isinstance(each, Mapping) for each in self.messages
        ):
            raise TypeError(
                'messages: expected [{"role": "user", "content": "..."}, ...],'
                f" got {shown(messages)}"
            )
        self._cache = KVCache(model.config)
        self._read = np.empty(0, np.int64)  # what the cache holds, or the beginning of it
        self._running: Generator[str, None, None] | None = None

    def reply(self, max_new_tokens: int = 200, **options: Any) -> Iterator[str]:
        """Say the assistant's next message, piece by piece, which the messages hold as it grows.

        Parameters
        ----------
        max_new_tokens : int, default 200
            How many tokens it has at most.
        **options
            As for `Prompted.generate`.

        Returns
        -------
        iterator of str
            Pieces of the message. One that is closed early leaves what it said, as the next
            `reply` makes it do.

        Raises
        ------
        TypeError, ValueError
            When the chat template refuses the messages, or an argument is of the wrong type or out
            of range.
        """
        if self._running is not None:
            self._running.close()  # the cache is for one at a time
        sampling, stop = _sampling(options)
        ids = self._tokenizer.encode(self._tokenizer.chat(self.messages), parse_special=True)
        cache = self._rewound(ids) if len(ids) <= self._cache.capacity else None
        if cache is None:
            self._cache.reset()
        strings, tokens = _stops(stop)
        text = TextStream(self._tokenizer, strings)
        found = self._model._stream([ids], max_new_tokens, sampling, tokens, cache)
        self._running = self._said(ids, found, text)
        return self._running

    def _said(
        self, ids: Ids, found: Iterator[tuple[int, int]], text: TextStream
    ) -> Generator[str, None, None]:
        said: list[int] = []
        # There from the beginning: what is said next comes behind it, however this ends.
        message = {"role": "assistant", "content": ""}
        self.messages.append(message)

        def told(piece: str) -> str:
            message["content"] = text.text
            return piece

        try:
            for _, token in found:
                said.append(token)
                yield told(text.add(token))
                if text.stopped:
                    break
            yield told(text.finish())
        finally:
            self._read = np.concatenate([ids, np.array(said, np.int64)])

    def _rewound(self, ids: Ids) -> KVCache:
        """The cache, with what it shares with `ids`; the last of these is always read anew."""
        held = min(len(self._read), len(ids) - 1, int(self._cache.lengths[0]))
        differs = np.flatnonzero(self._read[:held] != ids[:held])
        self._cache.truncate(int(differs[0]) if differs.size else held)
        return self._cache


def _pieces(
    running: Any, streams: Sequence[TextStream | None], as_text: Sequence[bool]
) -> Iterator[tuple[int, Any]]:
    ended: int | None = None
    while True:
        try:
            index, token = running.send(ended)
        except StopIteration:
            break
        text = streams[index]
        piece = text.add(token) if text is not None else ""
        ended = index if text is not None and text.stopped else None
        yield index, (piece if as_text[index] else token)
    for index, text in enumerate(streams):
        if as_text[index] and text is not None and (rest := text.finish()):
            yield index, rest


def expect_count(name: str, value: Any, least: int = 0) -> None:
    """Refuse what is no whole number of at least `least`."""
    if not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be an int >= {least}, got {shown(value)}")


def known_tokens(model: Any) -> int:
    """How many tokens a model may say: those its tokenizer has, of a vocabulary that is padded."""
    size: int = model.config.vocab_size
    return size if model.tokenizer is None else min(size, model.tokenizer.vocab_size)


def ends_of(config: Any) -> set[int]:
    """Tokens that end a text, as the configuration says."""
    ends = config.eos_token
    return set() if ends is None else {ends} if isinstance(ends, int) else set(ends)


def is_single(prompt: Any) -> bool:
    """Whether a prompt is one text or one sequence of ids; otherwise it is a list of them."""
    if isinstance(prompt, (str, np.ndarray)):
        return not isinstance(prompt, np.ndarray) or prompt.ndim == 1
    if not isinstance(prompt, Sequence):
        raise TypeError(
            f"prompt: expected a text, token ids, or a list of either, got {type(prompt).__name__}"
        )
    return bool(len(prompt)) and all(isinstance(each, (int, np.integer)) for each in prompt)


def _joined(prompt: Any, pieces: Sequence[Any]) -> Any:
    if isinstance(prompt, str):
        return prompt + "".join(pieces)
    return np.concatenate([np.asarray(prompt, np.int64), np.array(pieces, np.int64)])


def _sampling(options: Mapping[str, Any]) -> tuple[Sampling, Any]:
    """How tokens are chosen, and what ends a text, of the options of `generate`."""
    chosen = {"temperature": 0.0, **options}
    stop = chosen.pop("stop", None)
    return Sampling(**chosen), stop


def _stops(stop: Any) -> tuple[list[str], set[int]]:
    """Strings and tokens that end a text."""
    if stop is None:
        return [], set()
    each = list(stop) if isinstance(stop, Iterable) and not isinstance(stop, str) else [stop]
    for one in each:
        if not isinstance(one, (str, int, np.integer)) or one == "":
            raise ValueError(f"stop must be strings and token ids, not empty, got {shown(one)}")
    return [one for one in each if isinstance(one, str)], {
        int(one) for one in each if not isinstance(one, str)
    }
