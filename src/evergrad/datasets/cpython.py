"""Two domains that every CPython brings along: its reference prose and its standard library.

Both change with the Python version.
"""

from __future__ import annotations

import sysconfig
import tokenize
from collections.abc import Iterable
from pathlib import Path

from .domain import Domain, parts, split

# Not library code: tests, applications with their own conventions, and what was installed later.
# pydoc_data holds the prose: code that was trained on must not contain it.
_LEFT_OUT = {
    "__pycache__",
    "dist-packages",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
}


def cpython_prose() -> Domain:
    """The language reference, as ``help()`` shows it (``pydoc_data.topics``).

    The topics overlap: that of ``if`` stands again, word for word, in the one on compound
    statements, and a fifth of the text is such repetition. So a split by topic would test on text
    that was trained on, besides being lumpy (of 79 topics one holds a seventh of all). Instead each
    paragraph is kept once, in the longest topic that has it, and the split is over parts: runs of
    paragraphs of about 2000 characters.

    Returns
    -------
    Domain
        ``"prose"``; about a tenth of the parts is held out.

    Raises
    ------
    FileNotFoundError
        If this Python comes without its topics.

    Examples
    --------
    >>> domain = cpython_prose()
    >>> domain.name, set(domain.train) & set(domain.heldout)
    ('prose', set())
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise FileNotFoundError(
            "this Python has no reference prose (module pydoc_data.topics); some systems ship the"
            " standard library in several packages"
        ) from error
    documents = _each_paragraph_once(topics.values())
    return split("prose", (part for document in documents for part in parts(document)))


def cpython_code() -> Domain:
    """The Python files of the standard library.

    Without tests, the applications in it (idlelib, tkinter, turtledemo, lib2to3), installed
    packages, the reference prose, and the record of how this interpreter was built.

    Returns
    -------
    Domain
        ``"code"``; about a tenth of the files is held out.

    Raises
    ------
    FileNotFoundError
        If the standard library is not there as files.

    Examples
    --------
    >>> domain = cpython_code()
    >>> domain.name, any("class TextWrapper" in file for file in domain.train + domain.heldout)
    ('code', True)
    """
    root = Path(sysconfig.get_path("stdlib"))
    files = [
        path
        for path in sorted(root.rglob("*.py"))
        if _LEFT_OUT.isdisjoint(path.relative_to(root).parts)
        and not path.name.startswith("_sysconfigdata")
    ]
    if not files:
        raise FileNotFoundError(f"the standard library has no Python files under {root}")
    texts = []
    for path in files:
        with tokenize.open(path) as file:  # honours the encoding that the file declares
            texts.append(file.read())
    return split("code", texts)


def _each_paragraph_once(documents: Iterable[str]) -> list[str]:
    """Drop every paragraph that a longer document, or the same one earlier, has too."""
    seen: set[str] = set()
    result = []
    for document in sorted(documents, key=lambda text: (-len(text), text)):
        kept = []
        for paragraph in document.split("\n\n"):
            words = " ".join(paragraph.split())
            # "Note:" and "See also:" come back everywhere and may.
            if words in seen and len(words) >= 20:
                continue
            seen.add(words)
            kept.append(paragraph)
        text = "\n\n".join(kept)
        if len(text) >= 200:  # what is left is more than a heading
            result.append(text)
    return result
