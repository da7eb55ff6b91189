"""Text from tokens as they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["TextStream", "pieces", "tail"]

#: Tokens that a character has at most.
_CHARACTER = 4


class _Decoder(Protocol):
    def decode(self, ids: Sequence[int], /) -> str: ...


class TextStream:
    """Turn tokens into text one by one: what is given out is never taken back.

    A character is held back until all its bytes are there, and what may be the beginning of a stop
    string until it is known not to be.

    Parameters
    ----------
    tokenizer : Tokenizer
        Decodes.
    stops : sequence of str
        Strings that end the text. They are not part of it.
    before : sequence of int
        The text that is continued, or at least its last seven tokens: some tokenizers decode a
        token differently at the beginning of a text.

    Attributes
    ----------
    text : str
        All that was given out.
    count : int
        Tokens that came.
    stopped : bool
        Whether a stop string was met; what comes after it is dropped.

    Raises
    ------
    ValueError
        When a stop string is empty.

    Examples
    --------
    >>> from evergrad.text import Tokenizer
    >>> tokenizer = Tokenizer.train(["naïve"], vocab_size=257)
    >>> stream = TextStream(tokenizer, stops=["END"])
    >>> [stream.add(token) for token in tokenizer.encode("naïvE, EN, END of text").tolist()[:12]]
    ['n', 'a', '', 'ï', 'v', '', 'E,', ' ', '', '', 'EN,', ' ']
    """

    def __init__(
        self, tokenizer: _Decoder, stops: Sequence[str] = (), before: Sequence[int] = ()
    ) -> None:
        if not all(stops):
            raise ValueError("a stop string must not be empty")
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        # The tokens of the last piece are decoded again in front of the new ones, and cut off.
        self._ids = tail(tokenizer, before)
        self._before = len(self._ids)
        self._pending = ""
        self.text = ""
        self.count = 0
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that this token completes: often a word, sometimes nothing."""
        self.count += 1
        self._ids.append(token)
        return self._release(self._decoded(final=False), final=False)

    def finish(self) -> str:
        """What is still held back."""
        return self._release(self._decoded(final=True), final=True)

    def _decoded(self, final: bool) -> str:
        old = self._tokenizer.decode(self._ids[: self._before])
        new = self._tokenizer.decode(self._ids)[len(old) :]
        # U+FFFD at the end: the bytes of a character may still be coming.
        if new.endswith("\ufffd") and len(self._ids) - self._before < _CHARACTER and not final:
            return ""
        self._ids = self._ids[self._before :]
        self._before = len(self._ids)
        return new

    def _release(self, piece: str, final: bool) -> str:
        if self.stopped:
            return ""
        ready = self._pending + piece
        found = [at for stop in self._stops if (at := ready.find(stop)) >= 0]
        self.stopped = bool(found)
        end = min(found) if found else len(ready)
        if not final and not found:
            end -= max((_overlap(ready, stop) for stop in self._stops), default=0)
        self._pending = "" if found else ready[end:]
        self.text += ready[:end]
        return ready[:end]


def pieces(tokenizer: _Decoder, ids: Sequence[int]) -> list[str]:
    """Cut a decoded text into what each token adds to it.

    Parameters
    ----------
    tokenizer : Tokenizer
        Decodes.
    ids : sequence of int
        [n]: the text.

    Returns
    -------
    list of str
        n pieces, which are the decoded text one after the other. A character of several tokens
        belongs to the one that completes it: those before it add nothing.

    Examples
    --------
    >>> from evergrad.text import Tokenizer
    >>> tokenizer = Tokenizer.train(["naïve"], vocab_size=257)
    >>> pieces(tokenizer, tokenizer.encode("naïve").tolist())
    ['n', 'a', '', 'ï', 'v', 'e']
    """
    text = tokenizer.decode(ids)
    found, end = [], 0
    for count in range(1, len(ids) + 1):
        start = end
        # What is decoded so far, up to where more tokens turn half a character into a whole one.
        for ours, whole in zip(tokenizer.decode(ids[:count])[start:], text[start:], strict=False):
            if ours != whole:
                break
            end += 1
        found.append(text[start:end])
    if found:
        found[-1] += text[end:]
    return found


def tail(tokenizer: _Decoder, ids: Sequence[int]) -> list[int]:
    """The last tokens of a text, a few, from the beginning of a character.

    SentencePiece's bytes decode together or not at all: what starts within a character makes all
    characters that follow it U+FFFD, as long as they are bytes.

    Parameters
    ----------
    tokenizer : Tokenizer
        Decodes.
    ids : sequence of int
        [n]: the text.

    Returns
    -------
    list of int
        Four to seven of them, or all if there are fewer.

    Examples
    --------
    >>> from evergrad.text import Tokenizer
    >>> tokenizer = Tokenizer.train([""], vocab_size=257)
    >>> tokenizer.decode(tail(tokenizer, tokenizer.encode("日本語").tolist()))
    '本語'
    """
    near = [int(token) for token in ids[1 - 2 * _CHARACTER :]]
    if len(near) <= _CHARACTER:
        return near
    ends = (near[-count:] for count in range(_CHARACTER, 2 * _CHARACTER))
    return min(ends, key=lambda end: tokenizer.decode(end).count("\ufffd"))


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if stop.startswith(text[-n:])), 0)
