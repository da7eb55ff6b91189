"""JSON files, with errors that name the file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .atomic import write_atomic
from .errors import CorruptFileError


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int | None = 2) -> None:
    """Write `value` as UTF-8 JSON, atomically.

    Parameters
    ----------
    path : path-like
        The file; an existing one is replaced.
    value : object
        What `json` accepts, plus NumPy scalars and arrays (as numbers and lists). Floats come
        back exactly, and so do names of files that are no text.
    indent : int, optional
        Blanks per level; None writes one line, many times faster.

    Raises
    ------
    TypeError
        If a part of `value` has no JSON form.
    ValueError
        If a number is NaN or infinite: JSON has none.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "a.json")
    ...     write_json(file, {"loss": 0.5})
    ...     read_json(file)
    {'loss': 0.5}
    """
    try:
        data = _encoded(value, indent)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be written as JSON: {error}") from error
    except TypeError as error:
        raise TypeError(f"{path}: cannot be written as JSON: {error}") from error
    write_atomic(path, data + b"\n")


def _encoded(value: Any, indent: int | None) -> bytes:
    def dumps(escaped: bool) -> str:
        return json.dumps(
            value, indent=indent, ensure_ascii=escaped, allow_nan=False, default=plain
        )

    try:
        return dumps(escaped=False).encode()
    except UnicodeEncodeError:  # the name of a file that is no text: JSON has escapes for its bytes
        return dumps(escaped=True).encode()


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    object
        Its content.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CorruptFileError
        If it is empty, truncated, not UTF-8 or not JSON; the message says which, and where.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "a.json")
    ...     _ = file.write_text('{"loss": 0')
    ...     try:
    ...         read_json(file)
    ...     except CorruptFileError as error:
    ...         print(str(error).partition("a.json: ")[2])
    truncated JSON: ends at line 1 column 11 where more is expected
    """
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorruptFileError(f"{path}: not UTF-8 text (byte {error.start})") from error
    if not text.strip():
        raise CorruptFileError(f"{path}: empty file where JSON is expected")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        # An unterminated string is reported where it starts, everything else where it ends.
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
            problem = f"truncated JSON: ends at {where} where more is expected"
            if error.msg.startswith("Unterminated string"):
                problem = f"truncated JSON: the string that starts at {where} never ends"
        else:
            problem = f"not JSON: {error.msg} at {where}"
        raise CorruptFileError(f"{path}: {problem}") from error


class JsonObject:
    """An object in a JSON file of others, whose values are checked when they are asked for.

    Parameters
    ----------
    path : path-like
        The file.
    optional : bool, default False
        Whether there need not be one; it then says nothing.

    Attributes
    ----------
    values : dict
        All of it.

    Raises
    ------
    CorruptFileError
        As `read_json`, or if the file holds something else than an object.

    Examples
    --------
    >>> JsonObject("no/such.json", optional=True).get("dim", (int,), "an integer") is None
    True
    """

    def __init__(self, path: str | os.PathLike[str], optional: bool = False) -> None:
        self.path = Path(path)
        self.values: Any = {} if optional and not self.path.is_file() else read_json(path)
        if not isinstance(self.values, dict):
            raise CorruptFileError(f"{path}: expected an object, got {type(self.values).__name__}")

    def get(self, name: str, types: tuple[type, ...], expected: str) -> Any:
        """A value of one of the types, or None; `expected` is what an error says of them."""
        value = self.values.get(name)
        if value is not None and type(value) not in types:
            raise self.error(name, expected)
        return value

    def ids(self, name: str) -> list[int]:
        """Ids of tokens, given alone or in a list, but for those that no vocabulary has.

        Some files say -1 where there is none.
        """
        expected = "an integer or a list of them"
        given = self.get(name, (int, list), expected)
        ids = [given] if type(given) is int else given or []
        if any(type(each) is not int for each in ids):
            raise self.error(name, expected)
        return [each for each in ids if 0 <= each < 2**31]

    def error(self, name: str, expected: str) -> CorruptFileError:
        """What to raise of a value that is there."""
        value = self.values[name]
        return CorruptFileError(f"{self.path}: {name} must be {expected}, is {value!r:.80}")


def plain(value: Any) -> Any:
    """What JSON has for a NumPy scalar, an array or a path: `default` of `json.dumps`.

    Raises
    ------
    TypeError
        If it is something else.

    Examples
    --------
    >>> json.dumps({"lr": np.float32(0.5)}, default=plain)
    '{"lr": 0.5}'
    """
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")
