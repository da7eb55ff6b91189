"""Byte-level BPE from a vocabulary and its merges: all of it, or what a text needs."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any, Literal

__all__ = ["BytePairs"]

Pairs = list[tuple[str, str]]


class BytePairs:
    """Byte-level BPE (Radford et al. 2019), made when it is needed and as far as it is.

    For the `tokenizers` package to take in 49,000 tokens and their merges takes longer than for a
    model to answer. A line of text can only use those that occur in it, some hundreds.

    Parameters
    ----------
    package : module
        `tokenizers`.
    ids : dict of str to int
        Tokens in the characters that stand for bytes, 0, 1 ... in their order.
    merges : sequence of str
        ``"left right"``, the most important first.
    make : callable
        Makes a tokenizer of some of `ids` and of the merges between them.
    normal_form : {"NFC"}, optional
        What the tokenizer brings texts into before anything else.

    Raises
    ------
    ValueError
        If a merge is not of two tokens, or does not make one.

    Examples
    --------
    >>> import tokenizers
    >>> def make(ids, merges):
    ...     return tokenizers.Tokenizer(tokenizers.models.BPE(ids, merges))
    >>> pairs = BytePairs(tokenizers, {"a": 0, "b": 1, "ab": 2, "ba": 3}, ["a b", "b a"], make)
    >>> pairs.of("bab").encode("bab").tokens, pairs.decode([2, 3])
    (['b', 'ab'], 'abba')
    """

    def __init__(
        self,
        package: ModuleType,
        ids: dict[str, int],
        merges: Sequence[str],
        make: Callable[[dict[str, int], Pairs], Any],
        normal_form: Literal["NFC"] | None = None,
    ) -> None:
        for merge in merges:  # `_pairs` would take half as long again
            left, _, right = merge.partition(" ")
            if not (left and right and left in ids and right in ids and left + right in ids):
                raise ValueError(
                    f"merges: expected two tokens that make a third, got {merge!r:.100}"
                )
        self.ids = ids
        self._merges, self._tokens = merges, list(ids)
        self._make, self._normal_form = make, normal_form
        self._bytes = package.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        self._decoder = package.decoders.ByteLevel()
        #: Tokens that every tokenizer has, whatever the text, and what is done to it at last.
        self.always: Collection[str] = ()
        self.complete: Callable[[Any], Any] = lambda inner: inner

    def whole(self) -> Any:
        """The tokenizer."""
        return self.complete(self._make(self.ids, list(_pairs(self._merges))))

    def of(self, text: str) -> Any:
        """A tokenizer that encodes `text`, and every part of it, as the whole one does.

        A token that BPE comes upon on its way is one that occurs in the text, or in what is left of
        it without bytes that have no token: they are dropped, and their neighbours meet. (Parts of
        a text in a normal form are in it, too.) None where the text still has to be normalised.
        """
        if self._normal_form and not unicodedata.is_normalized(self._normal_form, text):
            return None
        ids: dict[str, int] = {}
        merges: list[str] = []
        if text:
            found = "".join(piece for piece, _ in self._bytes.pre_tokenize_str(text))
            kept = "".join(byte for byte in found if byte in self.ids)
            if kept != found:
                found += f" {kept}"  # no byte looks like a blank
            ids = self._within(found)
            pairs = {
                f"{token[:cut]} {token[cut:]}" for token in ids for cut in range(1, len(token))
            }
            merges = [merge for merge in self._merges if merge in pairs]
        ids.update((token, self.ids[token]) for token in self.always)
        return self.complete(self._make(ids, list(_pairs(merges))))

    def _within(self, text: str) -> dict[str, int]:
        """The tokens that occur in a text."""
        size = len(text)
        if 2 * size * size > len(self.ids):  # to make all its parts takes longer
            return {token: number for token, number in self.ids.items() if token in text}
        parts = {text[i:j] for i in range(size) for j in range(i + 1, size + 1)}
        return {part: self.ids[part] for part in parts & self.ids.keys()}

    def decode(self, ids: Iterable[int]) -> str:
        """What the whole tokenizer makes of ids."""
        return str(self._decoder.decode([self._tokens[each] for each in ids]))


def _pairs(merges: Iterable[str]) -> Iterator[tuple[str, str]]:
    for merge in merges:
        left, _, right = merge.partition(" ")
        yield left, right
