"""Text named on the command line: a built-in domain, a file, a folder or a glob."""

from __future__ import annotations

import dataclasses
import functools
import glob
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from evergrad import datasets, text

from ._output import UserError

BUILTIN = {"cpython-prose": datasets.cpython_prose, "cpython-code": datasets.cpython_code}

#: Text without blank lines is cut at a line break once a part has this many characters, and a line
#: that is longer still at a blank.
LONGEST_PART = 4000

#: What an unfinished run of `evergrad train` is called in its store, as a pattern.
RUN = "[0-9a-f]" * 12

#: What a store writes; a text may lie beside it, in a folder of one of these names.
_WRITTEN = re.compile(rf"(?:^|/)(?:current\Z|versions/\d{{4,}}(?=/)|unfinished/{RUN}(?=/))")


def resolve(name: str) -> datasets.Domain:
    """The domain that ``name`` stands for, under that name, so that it can be found again by it.

    Built-in domains bring their own split. Files are cut into parts of about 2000 characters, and
    one part in ten is held out, by the hash of its text: see ``datasets.split``.

    Raises
    ------
    UserError
        When nothing is there, or there is no text in it, or too little to hold a part out.
    """
    if name in BUILTIN:
        return dataclasses.replace(BUILTIN[name](), name=name)
    try:
        return datasets.split(name, [part for file in read(name) for part in _parts(file)])
    except ValueError as error:
        raise UserError(str(error)) from error


def read(name: str) -> list[str]:
    """The clean text of every file that ``name`` (a file, folder or glob) stands for, in order.

    Files that are not UTF-8 text are passed over; in a folder, hidden ones too; and in folders and
    globs, those of a store: what was learned would change with every version.

    Raises
    ------
    UserError
        When there is no such file, or no text in what there is.
    """
    if not name:  # as of a variable that is not set; Python takes it for the folder it is in
        raise UserError("the name of a text is empty")
    path = Path(name)
    if path.is_dir():
        files = [file for file in path.rglob("*") if not _hidden(file.relative_to(path))]
    elif path.exists():
        files = [path]
    else:
        files = [Path(match) for match in glob.glob(name, recursive=True)]
        if not files:
            known = ", ".join(BUILTIN)
            raise UserError(f"{name}: no such file, folder or glob (built-in texts: {known})")
    if files != [path]:
        is_store = functools.cache(_is_store)  # of a folder with many texts in it, once
        files = [file for file in files if not _of_a_store(file, is_store)]
    texts = [_read(file) for file in sorted(files) if file.is_file()]
    found = [text.clean(content) for content in texts if content]
    if not any(content.strip() for content in found):
        raise UserError(f"{name}: no text in it (expected UTF-8)")
    return found


def _parts(content: str) -> list[str]:
    """Paragraphs as ``datasets.parts`` cuts them; what is too long for lack of them, shorter."""
    found = []
    for part in datasets.parts(content):
        run = ""
        for line in part.splitlines(keepends=True):
            for piece in _pieces(line):
                if run and len(run) + len(piece) > LONGEST_PART:
                    found.append(run)
                    run = ""
                run += piece
        found.append(run)
    return found


def _pieces(line: str) -> Iterator[str]:
    """A line as it is; one that no part may be as long as, cut behind blanks, or anywhere."""
    start = 0
    while len(line) - start > LONGEST_PART:
        stop = line.rfind(" ", start, start + LONGEST_PART) + 1 or start + LONGEST_PART
        yield line[start:stop]
        start = stop
    yield line[start:]


def _read(path: Path) -> str | None:
    try:
        content = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\0" in content else content


def _of_a_store(file: Path, is_store: Callable[[Path], bool]) -> bool:
    """Whether a store wrote it: a version's report, say, or a checkpoint's state."""
    path = file.as_posix()
    return any(is_store(Path(path[: found.start()])) for found in _WRITTEN.finditer(path))


def _is_store(folder: Path) -> bool:
    return any(folder.glob("versions/*/report.json")) or any(
        folder.glob("unfinished/*/step-*/state.json")
    )


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
