"""A domain of text, split so that nothing held out is also trained on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral, Real

# Shorter lines ("else:", "See also:") are common to texts that have nothing to do with each other.
_TELLING_LINE = 20


@dataclass(frozen=True)
class Domain:
    """Texts of one kind.

    Parameters
    ----------
    name : str
        What to call it in tables and plots.
    train : list of str
        Documents to learn from.
    heldout : list of str
        Documents to measure on, ordered by hash: any first few are a fair sample.

    Examples
    --------
    >>> domain = Domain("weather", train=["Rain again."], heldout=["Sun at last."])
    >>> domain.name, len(domain.train)
    ('weather', 1)
    """

    name: str
    train: list[str]
    heldout: list[str]


def split(name: str, documents: Iterable[str], share: float = 0.1) -> Domain:
    """Hold out about a tenth of the documents, the same ones everywhere.

    A document is held out when the SHA-1 of its text says so, so that it stays on its side when
    others come, go or change. Repeats of a document are dropped first. A held-out document most of
    whose text stands, line by line, in a training document or several is moved to training: near
    copies (generated tables, licences) would measure memory.

    Parameters
    ----------
    name : str
        Name of the domain.
    documents : iterable of str
        The texts; blank ones are dropped.
    share : float
        Expected fraction of documents held out, in (0, 1).

    Returns
    -------
    Domain
        With at least one document on either side.

    Raises
    ------
    TypeError
        If the documents are one text, or one of them is none.
    ValueError
        If `share` is no such fraction, fewer than two different documents are left, or all are near
        copies of each other.

    Examples
    --------
    >>> domain = split("numbers", [f"document number {i}" for i in range(100)])
    >>> len(domain.train) + len(domain.heldout), set(domain.train) & set(domain.heldout)
    (100, set())
    """
    if not isinstance(share, Real):
        raise TypeError(f"split: share: expected a number in (0, 1), got {share!r}")
    if not 0 < share < 1:
        raise ValueError(f"split: share must lie in (0, 1), got {share}")
    if isinstance(documents, (str, bytes)):  # its characters would be split
        kind = type(documents).__name__
        raise TypeError(f"split: documents: expected texts, got a single {kind}; see parts()")
    unique = {}
    for number, text in enumerate(documents):
        if not isinstance(text, str):
            kind = type(text).__name__
            raise TypeError(f"split: documents[{number}]: expected a str, got {kind}")
        unique[" ".join(text.split())] = text
    unique.pop("", None)
    texts = sorted(unique.values(), key=_digest)
    if len(texts) < 2:
        raise ValueError(
            f"{name}: {len(texts)} documents are too few to train on some and hold out others"
        )
    # By hash, so the held-out ones are the first; at least one on either side.
    count = sum(_digest(text) < share * 2**64 for text in texts)
    count = min(max(count, 1), len(texts) - 1)
    heldout, train = texts[:count], texts[count:]
    known = {line for text in train for line in _telling_lines(text)}
    copies = {text for text in heldout if _mostly_in(text, known)}
    fresh = [text for text in heldout if text not in copies]
    if not fresh:
        raise ValueError(f"{name}: every held-out document is a near copy of one trained on")
    kept = set(fresh)
    return Domain(name, [text for text in unique.values() if text not in kept], fresh)


def parts(text: str, size: int = 2000) -> list[str]:
    r"""Cut a long document at blank lines into runs of whole paragraphs.

    Parameters
    ----------
    text : str
        The document.
    size : int
        A part ends with the paragraph that brings it to this many characters.

    Returns
    -------
    list of str
        Its parts; joined they are the text again.

    Raises
    ------
    TypeError
        If `text` is no str, or `size` no integer.
    ValueError
        If `size` is less than 1.

    Examples
    --------
    >>> parts("one\n\ntwo\n\nthree", size=8)
    ['one\n\ntwo\n\n', 'three']
    """
    if not isinstance(text, str):
        raise TypeError(f"parts: text: expected a str, got {type(text).__name__}")
    if not isinstance(size, Integral):
        raise TypeError(f"parts: size: expected a positive integer, got {size!r}")
    if size < 1:
        raise ValueError(f"parts: size: expected a positive integer, got {size}")
    found, run, length = [], [], 0
    for paragraph in re.findall(r".+?(?:\n\s*\n|\Z)", text, flags=re.DOTALL):
        run.append(paragraph)
        length += len(paragraph)
        if length >= size:
            found.append("".join(run))
            run, length = [], 0
    return [*found, "".join(run)] if run else found


def _digest(text: str) -> int:
    """The first 64 bits of the SHA-1."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha1(data, usedforsecurity=False).digest()[:8], "big")


def _telling_lines(text: str) -> list[str]:
    return [line for raw in text.split("\n") if len(line := raw.strip()) >= _TELLING_LINE]


def _mostly_in(text: str, known: set[str]) -> bool:
    lines = _telling_lines(text)
    return 2 * sum(len(line) for line in lines if line in known) > sum(map(len, lines))
