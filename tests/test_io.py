"""Files are whole or absent, and errors name the file."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evergrad import io
from evergrad.io import atomic


def test_write_atomic_replaces_and_leaves_no_temporary(tmp_path):
    path = tmp_path / "a.bin"
    io.write_atomic(path, b"old")
    io.write_atomic(path, bytearray(b"new"))
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_write_atomic_refuses_text(tmp_path):
    with pytest.raises(TypeError):
        io.write_atomic(tmp_path / "a", "text")
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import resource, sys
from evergrad import io
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    io.write_atomic(sys.argv[1], bytes(8192))
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_write_atomic_keeps_the_old_file_when_the_disk_is_full(tmp_path):
    path = tmp_path / "a.bin"
    io.write_atomic(path, b"old")
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "OSError\n"
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_write_atomic_needs_the_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        io.write_atomic(tmp_path / "missing" / "a", b"")


def test_atomic_folder_appears_whole(tmp_path):
    target = tmp_path / "versions" / "0001"
    with io.atomic_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("a")
        assert folder.parent == target.parent
        assert not target.exists()
    assert (target / "sub" / "a").read_text() == "a"
    assert [p.name for p in target.parent.iterdir()] == ["0001"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_atomic_folder_vanishes_when_its_block_raises(tmp_path, error):
    def fill():
        with io.atomic_folder(tmp_path / "a") as folder:
            (folder / "a").write_text("a")
            raise error

    with pytest.raises(error):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_atomic_folder_never_overwrites(tmp_path):
    target = tmp_path / "a"
    target.mkdir()
    with pytest.raises(FileExistsError, match="not overwritten"), io.atomic_folder(target):
        raise AssertionError("the block must not run")
    other = tmp_path / "b"
    with pytest.raises(FileExistsError, match="not overwritten"), io.atomic_folder(other):
        other.mkdir()  # somebody else was faster
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


WRITER = """
import os, sys
from evergrad import io
with io.atomic_folder(sys.argv[1]) as folder:
    (folder / "half").write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
    os.abort()
"""


def test_leftovers_go_only_when_their_writer_is_gone(tmp_path):
    (tmp_path / "keep").write_text("keep")
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "deep" / "version")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"writing\n"
    try:
        assert io.clean_leftovers(tmp_path) == []
    finally:
        process.kill()
        process.communicate()
    removed = io.clean_leftovers(tmp_path)
    assert [p.name.startswith(atomic.PREFIX) for p in removed] == [True]
    assert list((tmp_path / "deep").iterdir()) == []
    assert (tmp_path / "keep").exists()


@pytest.mark.parametrize("write", ["file", "folder"])
def test_the_next_write_removes_what_a_killed_one_left_beside_it(tmp_path, write):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "version")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    try:
        io.write_atomic(tmp_path / "a", b"a")
        assert len(list(tmp_path.iterdir())) == 2, "its writer still runs"
    finally:
        process.kill()
        process.communicate()
    below = tmp_path / "below" / next(tmp_path.glob(f"{atomic.PREFIX}*")).name
    below.parent.mkdir()
    below.touch()
    if write == "file":
        io.write_atomic(tmp_path / "b", b"b")
    else:
        with io.atomic_folder(tmp_path / "b"):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "below"]
    assert below.exists(), "a folder of somebody else's is not looked through"


def test_leftovers_of_a_reused_pid_and_of_another_machine(tmp_path):
    mine = atomic._temporary_name().split(".")
    start = mine[4]
    elsewhere = list(mine)
    elsewhere[2], elsewhere[3] = "00000000", "4194305"  # above the largest pid there is
    (tmp_path / ".".join(mine)).touch()
    (tmp_path / ".".join(elsewhere)).touch()
    (tmp_path / (atomic.PREFIX + "unknown")).touch()
    assert io.clean_leftovers(tmp_path) == []
    if start != "0":
        reused = list(mine)
        reused[4] = str(int(start) + 1)
        (tmp_path / ".".join(reused)).touch()
        assert [p.name for p in io.clean_leftovers(tmp_path)] == [".".join(reused)]


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="needs Linux's namespaces")
def test_leftovers_of_another_container_stay(tmp_path, monkeypatch):
    """With this one's name, and processes that are not seen from here."""
    fields = atomic._temporary_name().split(".")
    monkeypatch.setattr(os, "readlink", lambda path: "pid:[1]")
    other = atomic._temporary_name().split(".")
    for each in (fields, other):
        each[3] = "4194305"  # above the largest pid there is
        (tmp_path / ".".join(each)).touch()
    monkeypatch.undo()
    io.write_atomic(tmp_path / "a", b"a")
    assert {path.name for path in tmp_path.iterdir()} == {"a", ".".join(other)}


def test_clean_leftovers_of_a_missing_root(tmp_path):
    assert io.clean_leftovers(tmp_path / "nothing") == []


def test_remove_folder(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    io.remove_folder(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        io.remove_folder(tmp_path / "a")


def test_json_round_trip_is_exact(tmp_path):
    path = tmp_path / "a.json"
    value = {"float": 0.1 + 0.2, "large": 2**127 - 1, "text": "naïve 中 \x00", "list": [None, True]}
    io.write_json(path, value)
    assert io.read_json(path) == value
    io.write_json(path, {"a": np.float64(0.1), "b": np.arange(2), "c": tmp_path})
    assert io.read_json(path) == {"a": 0.1, "b": [0, 1], "c": str(tmp_path)}


def test_json_refuses_what_it_cannot_hold(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match=r"a\.json.*JSON"):
        io.write_json(path, float("nan"))
    with pytest.raises(TypeError, match=r"a\.json.*no JSON form for object"):
        io.write_json(path, object())
    assert not path.exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty file"),
        (b" \n", "empty file"),
        (b'{"a": [1, 2', "truncated JSON"),
        (b'{"a": "unfin', "truncated JSON"),
        (b'{"a": 1,\n oops}', "not JSON.*line 2 column 2"),
        (b'{"a": 1} tail', "not JSON"),
        (b"\xff\xfe{", "not UTF-8"),
    ],
)
def test_read_json_says_what_is_wrong(tmp_path, content, problem):
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(io.CorruptFileError, match=rf"state\.json: .*{problem}"):
        io.read_json(path)


def test_read_json_of_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        io.read_json(tmp_path / "nothing.json")


def test_safetensors_round_trip(tmp_path):
    tensors = {
        "strided": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.array(2.5),
        "mask": np.array([True, False]),
        "big_endian": np.arange(3, dtype=">i4"),
        "half": np.array([1.5], np.float16),
    }
    path = tmp_path / "a.safetensors"
    io.save_safetensors(path, tensors, {"format": "np"})
    loaded = io.load_safetensors(path)
    assert loaded.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(loaded[name], value)
        assert loaded[name].shape == value.shape
        assert loaded[name].dtype == value.dtype.newbyteorder("=")
        assert loaded[name].flags.writeable
        assert loaded[name].flags.c_contiguous
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_safetensors_is_read_by_the_package_itself(tmp_path):
    package = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "a.safetensors"
    io.save_safetensors(path, {"w": np.eye(3, dtype=np.float32)})
    np.testing.assert_array_equal(package.load_file(path)["w"], np.eye(3))


@pytest.mark.parametrize("length", [0, 4, 20, 100, -1])
def test_safetensors_truncated(tmp_path, length):
    path = tmp_path / "model.safetensors"
    io.save_safetensors(path, {"w": np.arange(100, dtype=np.float32)})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(io.CorruptFileError, match=r"model\.safetensors: truncated"):
        io.load_safetensors(path)


def test_safetensors_bad_arguments(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(TypeError, match="'w' must be a numeric array, got list"):
        io.save_safetensors(path, {"w": [1.0]})
    with pytest.raises(TypeError, match="'w' must be a numeric array, got object"):
        io.save_safetensors(path, {"w": np.array([None])})
    with pytest.raises(TypeError, match="names must be str"):
        io.save_safetensors(path, {1: np.zeros(1)})
    with pytest.raises(TypeError, match="metadata"):
        io.save_safetensors(path, {"w": np.zeros(1)}, {"a": 1})
    with pytest.raises(FileNotFoundError):
        io.load_safetensors(path)


def resident_bytes(path):
    """Of the maps of a file, what is in memory."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            inside = line.endswith(str(path))
        elif inside and words[0] == "Rss:":
            found += 1024 * int(words[1])
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux says what is resident")
def test_released_pages_are_gone_until_they_are_looked_at(tmp_path):
    path = tmp_path / "weights.safetensors"
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((1000, 500), np.float32) for name in "ab"}
    io.save_safetensors(path, weights)
    mapped = io.read_safetensors(path)
    for name, weight in weights.items():
        np.testing.assert_array_equal(np.asarray(mapped[name]), weight)
    before = resident_bytes(path)
    assert before >= 2 * 2_000_000
    io.release(mapped["a"])
    assert resident_bytes(path) < before - 1_900_000
    for name, weight in weights.items():
        np.testing.assert_array_equal(np.asarray(mapped[name]), weight)
    io.release(weights["a"])  # not of a file
    io.release(mapped["b"])


@pytest.mark.parametrize("mode", ["c", "r+", "r"])
def test_maps_of_others_are_not_released(tmp_path, mode):
    """What was written to a private one is nowhere else."""
    np.save(tmp_path / "a.npy", np.ones((1000, 500), np.float32))
    mapped = np.load(tmp_path / "a.npy", mmap_mode=mode)
    if mode != "r":
        mapped[...] = 7
    expected = np.array(mapped)
    io.release(np.asarray(mapped))
    np.testing.assert_array_equal(mapped, expected)


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
@pytest.mark.parametrize("inside", ["", "folder"])
def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path, inside):
    import resource

    def write():
        if not inside:
            io.write_atomic(tmp_path / "a", bytes(5000))
        with io.atomic_folder(tmp_path / inside) as folder:
            io.save_safetensors(folder / "a", {"a": np.zeros(5000)})

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert str(caught.value).endswith(f": {str(tmp_path / inside / 'a')!r}")
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_disk_is_not_hidden_by_the_next_one(tmp_path, monkeypatch):
    def refuse(self, missing_ok=False):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(FileNotFoundError) as caught:
        io.write_atomic(tmp_path / "missing" / "a", b"a")
    assert caught.value.filename == str(tmp_path / "missing" / "a")


def test_a_folder_in_the_way_is_named_once(tmp_path):
    with pytest.raises(IsADirectoryError) as caught:
        io.write_atomic(tmp_path, b"a")
    assert str(caught.value).endswith(f": {str(tmp_path)!r}")
    assert atomic.PREFIX not in str(caught.value)


def test_json_of_a_name_that_is_no_text(tmp_path):
    """Python has the bytes of such a name as lone surrogates, for which UTF-8 has no form."""
    value = {"name": os.fsdecode(b"caf\xe9.txt"), "other": "é"}
    io.write_json(tmp_path / "a.json", value)
    assert io.read_json(tmp_path / "a.json") == value


# Pictures


class Drawing:
    """Stands for a figure of matplotlib, which writes bit by bit."""

    def __init__(self, fails=False):
        self.fails = fails

    def savefig(self, file, format, **settings):
        file.write(f"{format} {settings}".encode())
        if self.fails:
            raise MemoryError


def test_a_picture_that_fails_leaves_the_former_one(tmp_path):
    path = tmp_path / "a.SVG"
    io.write_picture(path, Drawing(), dpi=90)
    assert path.read_text() == "svg {'dpi': 90}"
    with pytest.raises(MemoryError):
        io.write_picture(path, Drawing(fails=True))
    assert path.read_text() == "svg {'dpi': 90}"
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_goes_where_its_link_leads(tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "picture.png")
    io.write_picture(tmp_path / "link", Drawing())
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "picture.png").read_text() == "png {}"
