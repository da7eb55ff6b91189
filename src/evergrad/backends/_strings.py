"""What the native module's `Strings` is, where it is missing: a vocabulary in Python."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property
from typing import Any

__all__ = ["Strings", "prefixed_strings"]


class Strings(list[str]):
    """A sequence of strings, and where in it one is."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        super().__init__(texts)
        "".join(self).encode()  # complains of what is no string, and of lone surrogates

    @cached_property
    def _places(self) -> dict[str, int]:
        return dict(zip(self, range(len(self)), strict=True))

    def __contains__(self, text: object) -> bool:
        return text in self._places

    def find(self, text: str) -> int:
        """The last place of a string, or -1."""
        return self._places.get(text, -1)

    def are_distinct(self) -> bool:
        """Whether no string is there twice."""
        return len(self._places) == len(self)

    def within(self, text: str) -> dict[str, int]:
        """Those that occur in a text, and their places."""
        size = len(text)
        if 2 * size * size > len(self):  # to make all its parts takes longer
            return {each: place for each, place in self._places.items() if each and each in text}
        parts = {text[i:j] for i in range(size) for j in range(i + 1, size + 1)}
        return {part: self._places[part] for part in parts & self._places.keys()}

    def among(self, some: Collection[str]) -> list[str]:
        """Those that are among some, in their order, as often as they come."""
        return [text for text in self if text in some]

    def first_unmerged(self, tokens: Collection[str]) -> int:
        """The place of the first that is not two tokens which make a third, or -1."""
        for place, merge in enumerate(self):
            left, _, right = merge.partition(" ")
            if not (
                left and right and left in tokens and right in tokens and left + right in tokens
            ):
                return place
        return -1


def prefixed_strings(data: Any, start: int, count: int) -> tuple[Strings, int]:
    """Strings that have their length in front, from a buffer, and where they end.

    They are `count`, or as many as are whole and UTF-8: 8 bytes of length, little-endian, and so
    many of text each.
    """
    found = Strings()
    for _ in range(count):
        first = start + 8
        stop = first + int.from_bytes(data[start:first], "little")
        if stop > len(data):
            break
        try:
            found.append(str(data[first:stop], "utf-8"))
        except UnicodeDecodeError:
            break
        start = stop
    return found, start
