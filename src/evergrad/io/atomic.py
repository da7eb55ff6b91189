"""Write a file or a folder so that a reader, or a killed writer, never sees half of it.

A temporary sibling is filled, flushed to the disk, then renamed: on one file system a rename is
atomic. What a killed process leaves behind is recognised by its name, which also says who wrote it;
the next write beside it removes it.
"""

from __future__ import annotations

import errno
import os
import platform
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

# .evergrad-tmp.<host>.<pid>.<start of process>.<random>
PREFIX = ".evergrad-tmp."


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`: afterwards the file holds all of it, or what it held before.

    Parameters
    ----------
    path : path-like
        The file; its folder must exist. An existing file is replaced.
    data : bytes
        The whole content.

    Raises
    ------
    TypeError
        If `data` is not bytes-like.
    OSError
        If the folder is missing, not writable, or the disk is full; the old file is untouched.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "note.txt")
    ...     write_atomic(file, b"whole")
    ...     file.read_bytes()
    b'whole'
    """
    view = memoryview(data).cast("B")
    with atomic_file(path) as file:
        file.write(view)


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Fill a temporary sibling of `path`, then rename it: `write_atomic` for what comes in pieces.

    Parameters
    ----------
    path : path-like
        The file; its folder must exist. An existing file is replaced.

    Yields
    ------
    binary file
        To write into. When the block raises, nothing has happened.

    Raises
    ------
    OSError
        As `write_atomic`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "note.txt")
    ...     with atomic_file(path) as file:
    ...         _ = file.write(b"who")
    ...         _ = file.write(b"le")
    ...     path.read_bytes()
    b'whole'
    """
    path = Path(path)
    _clean_beside(path)
    temporary = path.parent / _temporary_name()
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # a read-only disk refuses this, too
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)  # writing to an open file fails without a name
        _rename(error, temporary, path)
        raise
    _fsync_folder(path.parent)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Fill a temporary sibling of `path`, then rename it into place.

    Parameters
    ----------
    path : path-like
        The folder to create. Its parent is created if need be.

    Yields
    ------
    Path
        The temporary folder to write into. When the block ends, its files are flushed to the disk
        and the folder takes its name; when the block raises, the folder is removed.

    Raises
    ------
    FileExistsError
        If `path` exists, at the start or by the end of the block: nothing is overwritten.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     target = pathlib.Path(root, "version")
    ...     with atomic_folder(target) as folder:
    ...         _ = (folder / "a.txt").write_text("a")
    ...         before = target.exists()
    ...     before, sorted(p.name for p in target.iterdir())
    (False, ['a.txt'])
    """
    path = Path(path)
    _refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _clean_beside(path)
    temporary = path.parent / _temporary_name()
    temporary.mkdir()
    try:
        yield temporary
        _fsync_all(temporary)
        _refuse_existing(path)  # rename would silently replace an empty folder
        try:
            os.rename(temporary, path)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                _refuse_existing(path)
            raise
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _rename(error, temporary, path)
        raise
    _fsync_folder(path.parent)


@contextmanager
def atomic_files(folder: str | os.PathLike[str], seal: str) -> Iterator[Path]:
    """Fill a temporary folder within `folder`; its files then take their places together.

    Nothing happens before all of them are whole. No file system renames several at once, but one
    of them is the seal, without which nobody reads the others: it comes last, and an old one goes
    first where others are to be replaced. A process killed between the renames so leaves a folder
    without a seal, never old files among new ones under one. Ctrl-C waits until they are done.

    Parameters
    ----------
    folder : path-like
        It must exist. Files of the same names are replaced, others stay.
    seal : str
        The name of the file that counts.

    Yields
    ------
    Path
        The temporary folder to write into. When the block raises, nothing has happened.

    Raises
    ------
    OSError
        As `write_atomic`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with atomic_files(root, seal="index.txt") as folder:
    ...         _ = (folder / "index.txt").write_text("a.txt")
    ...         _ = (folder / "a.txt").write_text("a")
    ...         before = len(list(pathlib.Path(root).glob("*.txt")))
    ...     before, sorted(path.name for path in pathlib.Path(root).iterdir())
    (0, ['a.txt', 'index.txt'])
    """
    folder = Path(folder)
    _clean_beside(folder / seal)
    temporary = folder / _temporary_name()
    whole = False
    try:
        temporary.mkdir()
        yield temporary
        _fsync_all(temporary)
        whole = True
        _move(temporary, folder, seal)
    except BaseException as error:
        if whole and isinstance(error, KeyboardInterrupt):  # the old files may be gone already
            _move(temporary, folder, seal)
        _rename(error, temporary, folder)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _fsync_folder(folder)


def _move(temporary: Path, folder: Path, seal: str) -> None:
    """Let the files of `atomic_files` take their places, those that have not yet."""
    names = sorted(os.listdir(temporary), key=seal.__eq__)  # it comes last
    if any(os.path.lexists(folder / name) for name in names if name != seal):
        (folder / seal).unlink(missing_ok=True)
        _fsync_folder(folder)
    for name in names:
        if name == seal:
            _fsync_folder(folder)
        os.replace(temporary / name, folder / name)


def remove_folder(path: str | os.PathLike[str]) -> None:
    """Remove a folder so that nobody sees half of it.

    It is renamed to a temporary first: when the process is killed while its files go, what stays is
    a leftover for `clean_leftovers`, no folder that looks whole.

    Parameters
    ----------
    path : path-like
        The folder.

    Raises
    ------
    FileNotFoundError
        If there is none.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     folder = pathlib.Path(root, "old")
    ...     folder.mkdir()
    ...     remove_folder(folder)
    ...     folder.exists()
    False
    """
    path = Path(path)
    temporary = path.parent / _temporary_name()
    os.rename(path, temporary)
    shutil.rmtree(temporary)


def clean_leftovers(root: str | os.PathLike[str]) -> list[Path]:
    """Remove, anywhere under `root`, the temporaries of writers that no longer run.

    Temporaries of running processes, and of other machines that share the file system, stay.

    Parameters
    ----------
    root : path-like
        A folder; one that does not exist holds no leftovers.

    Returns
    -------
    list of Path
        What was removed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     clean_leftovers(root)
    []
    """
    removed = []
    for folder, subfolders, files in os.walk(root):
        found = [name for name in subfolders + files if name.startswith(PREFIX)]
        subfolders[:] = [name for name in subfolders if not name.startswith(PREFIX)]
        for name in found:
            if _writer_is_gone(name):
                path = Path(folder, name)
                _remove(path)
                removed.append(path)
    return removed


def _clean_beside(path: Path) -> None:
    """Remove what killed writers left where `path` lies, and nowhere below.

    Most folders that are written to have no owner who would ever call `clean_leftovers`, and a
    leftover may be as large as a model.
    """
    with suppress(OSError):  # the write itself says what is wrong with the folder
        for name in os.listdir(path.parent):
            if name.startswith(PREFIX) and _writer_is_gone(name):
                _remove(path.parent / name)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _rename(error: BaseException, temporary: Path, path: Path) -> None:
    """Let an error of the system name what was to be written, not what is gone by now."""
    if isinstance(error, OSError) and isinstance(error.filename, (str, os.PathLike)):
        error.filename = os.fspath(error.filename).replace(str(temporary), str(path))
        if error.filename == error.filename2:
            del error.filename2


def _temporary_name() -> str:
    pid = os.getpid()
    return f"{PREFIX}{_host()}.{pid}.{_process_start(pid)}.{os.urandom(4).hex()}"


def _host() -> str:
    """Of the machine, and on it of those who know each other's processes by the same numbers.

    Containers may have a name and a folder in common, and each a process 1 of its own.
    """
    name = platform.node()
    with suppress(OSError):
        name += os.readlink("/proc/self/ns/pid")
    return f"{zlib.crc32(name.encode()):08x}"


def _process_start(pid: int) -> str:
    """Clock ticks from boot to the start of the process: tells two users of one pid apart.

    "0" where the system does not say.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "0"
    # Field 2 is the command in parentheses and may itself hold spaces; start time is field 22.
    return stat.rpartition(")")[2].split()[19]


def _writer_is_gone(name: str) -> bool:
    fields = name[len(PREFIX) :].split(".")
    if len(fields) != 4 or fields[0] != _host() or not fields[1].isdigit():
        return False
    pid = int(fields[1])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False  # it exists and belongs to somebody else, or the name is not ours to judge
    start = _process_start(pid)
    return "0" not in (start, fields[2]) and start != fields[2]


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(f"{path} exists already and is not overwritten")


def _fsync(path: str | os.PathLike[str]) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync_all(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for name in names:
            _fsync(os.path.join(folder, name))
        _fsync_folder(folder)


def _fsync_folder(path: str | os.PathLike[str]) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened, and a rename is journalled
        _fsync(path)
