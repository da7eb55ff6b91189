"""A store of immutable model versions, and one pointer to the version in use.

::

    store/
      versions/0001/   model.safetensors  config.json  tokenizer.json  report.json
      versions/0002/   ...
      current          "0001"

A version folder is filled under a temporary name, flushed to the disk and renamed; only then is
``current`` replaced, itself by a rename. So a process killed at any moment leaves either the old
pointer or the new one, and whatever it points to is whole. Nothing ever writes into a version
again: its report lists the SHA-256 of every file, which ``verify`` compares.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from evergrad import io, models
from evergrad.text import Tokenizer

__all__ = ["StoreError", "StoreLockedError", "Version", "VersionStore"]

_REPORT = "report.json"


class StoreError(RuntimeError):
    """A version store cannot do what was asked: nothing there, no such version, not accepted."""


class StoreLockedError(StoreError):
    """Another process, or another thread, is writing to the store."""


@dataclass(frozen=True)
class Version:
    """One version folder.

    Attributes
    ----------
    path : Path
        Holds ``model.safetensors``, ``config.json``, ``tokenizer.json``, ``report.json``.
    """

    path: Path

    @property
    def name(self) -> str:
        """The number of the version, four digits or more."""
        return self.path.name

    @cached_property
    def report(self) -> dict[str, Any]:
        """How the version came about: see ``Report``."""
        file = self.path / _REPORT
        try:
            return io.read_json(file)
        except FileNotFoundError as error:
            raise io.CorruptFileError(f"{file}: missing") from error

    @property
    def accepted(self) -> bool:
        """Whether the gate let it become current."""
        return bool(self.report["accepted"])

    @property
    def parent(self) -> str | None:
        """The version that it was adapted from."""
        return self.report["parent"]

    def load(self) -> tuple[Any, Tokenizer]:
        """Read the model and its tokenizer.

        Returns
        -------
        model, tokenizer
        """
        return models.load(self.path), Tokenizer.load(self.path / "tokenizer.json")

    def verify(self) -> None:
        """Compare every file with the checksum that the report recorded.

        Raises
        ------
        CorruptFileError
            For the first file that is missing or differs, the report itself included.
        """
        report = self.report
        if not isinstance(report, dict) or _digest(_canonical(report)) != report.get("sha256"):
            raise io.CorruptFileError(f"{self.path / _REPORT}: does not match its own checksum")
        for name, expected in report["files"].items():
            file = self.path / name
            if not file.is_file():
                raise io.CorruptFileError(f"{file}: missing")
            size = file.stat().st_size
            if size != expected["bytes"]:
                raise io.CorruptFileError(
                    f"{file}: {size} bytes where the report has {expected['bytes']}"
                )
            if _digest(file.read_bytes()) != expected["sha256"]:
                raise io.CorruptFileError(f"{file}: does not match its checksum in {_REPORT}")


class VersionStore:
    """Versions of one model under one folder.

    Reading needs no lock. One process writes at a time; a second one is told so at once instead of
    waiting, since what it would build on is about to change.

    Parameters
    ----------
    root : path-like
        The folder of the store. It is created by the first write.

    Examples
    --------
    >>> import tempfile
    >>> from evergrad import models, text
    >>> tokenizer = text.Tokenizer.train(["one text", "another text"], vocab_size=300)
    >>> model = models.GPT2(
    ...     models.GPT2Config(
    ...         vocab_size=tokenizer.vocab_size, context=16, dim=8, layers=1, heads=1
    ...     )
    ... )
    >>> with tempfile.TemporaryDirectory() as root:
    ...     store = VersionStore(root)
    ...     first = store.add(model, tokenizer, {"accepted": True})
    ...     second = store.add(model, tokenizer, {"accepted": True})
    ...     store.current().name, store.rollback().name, [v.name for v in store.list()]
    ('0002', '0001', ['0001', '0002'])
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self._holder: tuple[int, int] | None = None  # process and thread inside lock()

    @property
    def _versions(self) -> Path:
        return self.root / "versions"

    def _numbered(self) -> Sequence[Path]:
        """What has the name of a version, whether it is one or not, in order."""
        if not self._versions.is_dir():
            return ()
        numbered = [
            path
            for path in self._versions.iterdir()
            if path.name.isascii() and path.name.isdecimal()
        ]
        return sorted(numbered, key=lambda path: int(path.name))

    def list(self) -> tuple[Version, ...]:
        """All versions, oldest first, rejected ones included.

        Returns
        -------
        tuple of Version
            Empty when there is no store yet.
        """
        return tuple(Version(path) for path in self._numbered() if path.is_dir())

    def get(self, name: str | int) -> Version:
        """The version of that number.

        Parameters
        ----------
        name : str or int
            ``"0002"``, ``"2"`` or ``2``.

        Returns
        -------
        Version

        Raises
        ------
        StoreError
            When there is none.
        """
        for version in self.list():
            if version.name.lstrip("0") == str(name).lstrip("0"):
                return version
        known = ", ".join(version.name for version in self.list()) or "none"
        raise StoreError(f"{self.root}: no version {name} (there are: {known})")

    def current(self) -> Version:
        """The version in use.

        Returns
        -------
        Version

        Raises
        ------
        StoreError
            When there is no store, or it has no current version.
        """
        self.expect_versions()
        choose = "choose one with `evergrad rollback --to`"
        try:
            name = (self.root / "current").read_text("utf-8", "backslashreplace").strip()
        except FileNotFoundError:
            raise StoreError(f"{self.root}: no version is current; {choose}") from None
        try:
            return self.get(name)
        except StoreError:  # whoever wrote it, it was not this class
            raise StoreError(
                f"{self.root / 'current'}: names {name[:20]!r}, which is no version; {choose}"
            ) from None

    def expect_versions(self) -> None:
        """Refuse a store without versions.

        Raises
        ------
        StoreError
            When there is none.
        """
        if not self.list():
            raise StoreError(
                f"{self.root}: no versions here; train a first one with `evergrad train`"
            )

    def find(self, name: str | int | None) -> Version:
        """The version of that number, or the current one for None.

        Parameters
        ----------
        name : str or int, optional
            As in `get`.

        Returns
        -------
        Version

        Raises
        ------
        StoreError
            As `get` and `current`.
        """
        return self.current() if name is None else self.get(name)

    def expect_empty(self) -> None:
        """Refuse a store that has a current version.

        Raises
        ------
        StoreError
            When there is one.
        """
        if self._has_current():
            raise StoreError(
                f"{self.root}: version {self.current().name} is current; "
                "`evergrad adapt` goes on from it, or choose another store"
            )

    def _has_current(self) -> bool:
        """Whether a version is; without one, a file of that name is no pointer of a store."""
        return bool(self.list()) and (self.root / "current").exists()

    def next_name(self) -> str:
        """The name that the next added version gets, as long as the lock is held."""
        taken = self._numbered()
        return f"{int(taken[-1].name) + 1 if taken else 1:04d}"

    def add(
        self,
        model: Any,
        tokenizer: Tokenizer,
        report: Mapping[str, Any],
        *,
        parent: str | None = None,
    ) -> Version:
        """Write a new version; an accepted one becomes current once it is whole on the disk.

        Parameters
        ----------
        model
            What ``models.save`` takes.
        tokenizer : Tokenizer
            Saved beside the model: a version is complete in itself.
        report : mapping
            What ``io.write_json`` takes; ``report["accepted"]`` decides whether the version becomes
            current. The store adds ``version``, ``parent``, ``created``, ``files`` and ``sha256``.
        parent : str, optional
            The version that the new one came from. Default: the current one, if there is one.

        Returns
        -------
        Version

        Raises
        ------
        KeyError
            When the report does not say whether it was accepted.
        TypeError, ValueError
            When the report has no JSON form.
        StoreLockedError
            When another writer holds the store.
        OSError
            When the disk refuses; the store is as before, unless it refused to flush the moved
            pointer: then the new version is current.
        """
        accepted = bool(report["accepted"])
        # Once through JSON, so that the checksum is over what a reader will see.
        content = json.loads(json.dumps(dict(report), allow_nan=False, default=io.plain))
        with self.lock():
            if parent is None and self._has_current():
                parent = self.current().name
            name = self.next_name()
            version = Version(self._versions / name)
            made = None
            try:
                with io.atomic_folder(version.path) as folder:
                    made = folder.stat()
                    models.save(model, folder)
                    tokenizer.save(folder / "tokenizer.json")
                    complete = {
                        **content,
                        "accepted": accepted,
                        "version": name,
                        "parent": parent,
                        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                        "files": {
                            file.name: {
                                "bytes": file.stat().st_size,
                                "sha256": _digest(file.read_bytes()),
                            }
                            for file in sorted(folder.iterdir())
                        },
                    }
                    complete["sha256"] = _digest(_canonical(complete))
                    io.write_json(folder / _REPORT, complete)
                    for file in folder.iterdir():
                        file.chmod(0o444)
                if accepted:
                    self._point_to(version)
            except BaseException:
                # Whole or not, it is not current, unless it failed when the pointer had moved:
                # what is current must stay, as must what came from elsewhere under its name.
                found = version.path.stat() if version.path.exists() else None
                is_ours = made and found and os.path.samestat(made, found)
                if is_ours and (not self._has_current() or self.current() != version):
                    io.remove_folder(version.path)
                raise
        return version

    def rollback(self, to: str | int | None = None) -> Version:
        """Make an earlier version current again. Nothing is deleted.

        Parameters
        ----------
        to : str or int, optional
            Any accepted version. Default: the one that the current version came from.

        Returns
        -------
        Version
            The version that is current now.

        Raises
        ------
        StoreError
            When the current version has no parent, or the target is missing or was rejected.
        CorruptFileError
            When the target fails ``verify``: the pointer stays where it was.
        StoreLockedError
            When another writer holds the store.
        """
        self.expect_versions()  # or the lock would make a folder of a wrong name
        with self.lock():
            if to is None:
                current = self.current()
                if current.parent is None:
                    raise StoreError(f"{self.root}: version {current.name} is the first one")
                to = current.parent
            target = self.get(to)
            if not target.accepted:
                raise StoreError(f"{self.root}: version {target.name} was rejected by the gate")
            target.verify()
            self._point_to(target)
        return target

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store for writing; the thread that holds it may enter again.

        The kernel drops the lock when its process ends, however it ends. What killed writers left
        behind is cleaned up here.

        Raises
        ------
        StoreLockedError
            When somebody else holds it.
        OSError
            When the folder cannot be created or written.
        """
        caller = os.getpid(), threading.get_ident()  # a fork has the ident of its parent's thread
        if self._holder == caller:
            yield
            return
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 64).decode(errors="replace").strip() or "unknown"
                raise StoreLockedError(
                    f"{self.root}: process {holder} is writing to this store; "
                    "wait for it to end and try again"
                ) from None
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            io.clean_leftovers(self.root)
            self._holder = caller
            try:
                yield
            finally:
                self._holder = None
        finally:
            os.close(descriptor)

    def _point_to(self, version: Version) -> None:
        io.write_atomic(self.root / "current", f"{version.name}\n".encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _canonical(report: Mapping[str, Any]) -> bytes:
    """The report's content without its own checksum, in one fixed spelling."""
    content = {key: value for key, value in report.items() if key != "sha256"}
    return json.dumps(content, sort_keys=True, ensure_ascii=True).encode()
