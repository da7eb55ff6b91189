"""Text from tokens as they come."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

__all__ = ["TextStream", "pieces", "tail"]

#: Tokens that a character has at most.
_CHARACTER = 4
#: Tokens that are decoded again before the first of them are let go where that takes a proof, and
#: bytes in a row among which a stop string is looked for before they are over.
_LONG = 64
_HALF = "\ufffd"


class _Decoder(Protocol):
    def decode(self, ids: Sequence[int], /) -> str: ...


class _Streamed(_Decoder, Protocol):
    @property
    def byte_tokens(self) -> Collection[int]: ...


class TextStream:
    """Turn tokens into text one by one: what is given out is never taken back.

    All pieces, one after the other, are the tokens decoded at once. So a character is held back
    until all its bytes are there, and what may be the beginning of a stop string until it is known
    not to be. SentencePiece's bytes are held back until one of its other tokens comes, or a stop
    string is complete: a single one that fits no character makes U+FFFD of all bytes beside it.

    Parameters
    ----------
    tokenizer : Tokenizer
        Decodes.
    stops : sequence of str
        Strings that end the text. They are not part of it.
    before : sequence of int
        The text that is continued, whole characters: some tokenizers decode a token differently at
        the beginning of a text.

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
        self, tokenizer: _Streamed, stops: Sequence[str] = (), before: Sequence[int] = ()
    ) -> None:
        if not all(stops):
            raise ValueError("a stop string must not be empty")
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        self._bytes = tokenizer.byte_tokens
        # A few of the last tokens are decoded again in front of the new ones, and cut off.
        self._ids = self._behind(before)
        self._given = len(tokenizer.decode(self._ids))
        self._pending = ""
        self.text = ""
        self.count = 0
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that this token completes: often a word, sometimes nothing."""
        self.count += 1
        self._ids.append(token)
        waits = token in self._bytes and not self._ends()
        return self._release("" if waits else self._decoded(final=False), final=False)

    def finish(self) -> str:
        """What is still held back."""
        return self._release(self._decoded(final=True), final=True)

    def _ends(self) -> bool:
        """Whether bytes complete a stop string: they are characters, and nothing comes after."""
        if not self._stops or self.stopped or len(self._ids) > _LONG:
            return False
        ready = self._pending + self._tokenizer.decode(self._ids)[self._given :]
        return not ready.endswith(_HALF) and any(stop in ready for stop in self._stops)

    def _behind(self, before: Sequence[int]) -> list[int]:
        """The last tokens of a text that new ones are decoded behind."""
        start = len(before)
        while start and before[start - 1] in self._bytes:  # they decode together with new ones
            start -= 1
        if start == len(before):
            return tail(self._tokenizer, before)
        return [int(token) for token in before[max(start - 1, 0) :]]

    def _decoded(self, final: bool) -> str:
        """What is sure of the text since the last time."""
        text = self._tokenizer.decode(self._ids)
        # U+FFFD at the end may be a character whose bytes are still coming: just one, as those that
        # cannot begin a character have one each.
        sure = len(text) - (text.endswith(_HALF) and not final)
        new = text[self._given : sure]
        self._given = max(sure, self._given)
        if sure == len(text):  # what follows begins anew behind any last token
            self._ids = self._ids[-1:]
            self._given = len(self._tokenizer.decode(self._ids))
        elif len(self._ids) > _LONG:
            self._forget(text)
        return new

    def _forget(self, text: str) -> None:
        """Let go of tokens in front of the last, if what those decode to is the same without."""
        end = len(self._ids) - _CHARACTER
        gone, kept = self._tokenizer.decode(self._ids[:end]), self._ids[end - 1 :]
        first = len(self._tokenizer.decode(kept[:1]))  # behind any token, as in a longer text
        if gone + self._tokenizer.decode(kept)[first:] == text != gone:
            self._ids, self._given = kept, self._given - len(gone) + first

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
