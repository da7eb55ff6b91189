"""Byte-level BPE from a vocabulary and its merges: all of it, or what a text needs."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from types import ModuleType
from typing import Any, Literal

from ..backends import active

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
    tokens : iterable of str
        In the characters that stand for bytes; their ids are 0, 1 ...
    merges : iterable of str
        ``"left right"``, the most important first.
    make : callable
        Makes a tokenizer of ids by token, and of merges between these.
    normal_form : {"NFC"}, optional
        What the tokenizer brings texts into before anything else.

    Raises
    ------
    ValueError
        If a token is there twice, or a merge is not of two tokens, or does not make one.

    Examples
    --------
    >>> import tokenizers
    >>> def make(ids, merges):
    ...     return tokenizers.Tokenizer(tokenizers.models.BPE(ids, merges))
    >>> pairs = BytePairs(tokenizers, ["a", "b", "ab", "ba"], ["a b", "b a"], make)
    >>> pairs.of("bab").encode("bab").tokens, pairs.decode([2, 3])
    (['b', 'ab'], 'abba')
    """

    def __init__(
        self,
        package: ModuleType,
        tokens: Iterable[str],
        merges: Iterable[str],
        make: Callable[[dict[str, int], Pairs], Any],
        normal_form: Literal["NFC"] | None = None,
    ) -> None:
        self.tokens, self._merges = strings("tokens", tokens), strings("merges", merges)
        if not self.tokens.are_distinct():
            raise ValueError("tokens: expected each once, got one twice")
        wrong = self._merges.first_unmerged(self.tokens)
        if wrong >= 0:
            raise ValueError(
                f"merges: expected two tokens that make a third, got {self._merges[wrong]!r:.100}"
            )
        self._make, self._normal_form = make, normal_form
        self._bytes = package.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        self._decoder = package.decoders.ByteLevel()
        #: Tokens that every tokenizer has, whatever the text, and what is done to it at last.
        self.always: Collection[str] = ()
        self.complete: Callable[[Any], Any] = lambda inner: inner

    def whole(self) -> Any:
        """The tokenizer."""
        ids = dict(zip(self.tokens, range(len(self.tokens)), strict=True))
        return self.complete(self._make(ids, list(_pairs(self._merges))))

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
            kept = "".join(byte for byte in found if byte in self.tokens)
            if kept != found:
                found += f" {kept}"  # no byte looks like a blank
            ids = self.tokens.within(found)
            pairs = {
                f"{token[:cut]} {token[cut:]}" for token in ids for cut in range(1, len(token))
            }
            merges = self._merges.among(type(self._merges)(pairs))
        ids.update((token, self.tokens.find(token)) for token in self.always)
        return self.complete(self._make(ids, list(_pairs(merges))))

    def decode(self, ids: Iterable[int]) -> str:
        """What the whole tokenizer makes of ids."""
        return str(self._decoder.decode([self.tokens[each] for each in ids]))


def strings(name: str, texts: Iterable[str]) -> Any:
    """Texts as a sequence that knows where each of them is.

    Raises
    ------
    ValueError
        If they are no strings, or have no UTF-8 form.
    """
    if isinstance(texts, active.Strings):
        return texts
    try:
        return active.Strings(texts)
    except (TypeError, UnicodeEncodeError):
        raise ValueError(
            f"{name}: expected strings that have a UTF-8 form, got {texts!r:.100}"
        ) from None


def _pairs(merges: Iterable[str]) -> Iterator[tuple[str, str]]:
    for merge in merges:
        left, _, right = merge.partition(" ")
        yield left, right
