"""Vocabularies as bytes: the native sequence of strings against the one in Python."""

import copy
import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergrad.backends import _strings as in_python

native = pytest.importorskip("evergrad._native")

KINDS = [native.Strings, in_python.Strings]
#: Few letters, so that there is much to be found; of one to four bytes.
TEXTS = st.text(alphabet="a bé中\N{DRAGON}", max_size=4)


def prefixed(*texts: bytes) -> bytes:
    return b"".join(len(text).to_bytes(8, "little") + text for text in texts)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (prefixed(b"", b"a", "naïve \N{DRAGON}".encode()), ["", "a", "naïve \N{DRAGON}"]),
        (prefixed(b"a", b"b")[:-1], ["a"]),  # ends beyond
        (prefixed(b"a", b"")[:-1], ["a"]),  # within a length
        (prefixed(b"a") + b"\xff" * 9, ["a"]),  # a length that overflows
        (prefixed(b"a", b"\xc3", b"b"), ["a"]),  # no UTF-8
        (prefixed(b"a", b"\xed\xa0\x80"), ["a"]),  # half a surrogate
    ],
)
def test_strings_are_read_up_to_the_first_that_is_broken(data, expected):
    for read in (native.prefixed_strings, in_python.prefixed_strings):
        for skipped in (0, 3):
            end = skipped + len(prefixed(*(text.encode() for text in expected)))
            given = bytes(skipped) + data
            for found in (read(given, skipped, 9), read(memoryview(given), skipped, len(expected))):
                assert (list(found[0]), found[1]) == (expected, end)
    with pytest.raises(BufferError):
        native.prefixed_strings(memoryview(prefixed(b"a"))[::-1], 0, 1)
    assert native.prefixed_strings(b"", 2**62, 1) == ([], 2**62)
    assert native.prefixed_strings(prefixed(b"a", b"b"), 0, 1) == (["a"], 9)


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_what_is_utf8_is_what_python_takes_for_it():
    edges = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1]
    edges += [0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF]
    tried = [bytes(each) for size in (1, 2, 3) for each in itertools.product(edges, repeat=size)]
    leads = [0xE0, 0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5]
    ends = [b"", b"a", b"\x80", b"\xbf", b"\x80\x80", b"\x80\xbf", b"\xbfa", b"\x80\x80\x80"]
    for lead, second in itertools.product(leads, range(256)):
        tried += [bytes([lead, second]) + end for end in ends]
    for data in tried:
        found, _ = native.prefixed_strings(prefixed(data), 0, 1)
        assert len(found) == is_utf8(data), data


@given(st.lists(TEXTS, max_size=30), st.lists(TEXTS, max_size=8), TEXTS)
def test_both_find_the_same(texts, others, text):
    theirs, ours = (kind(texts) for kind in KINDS)
    assert list(theirs) == list(ours) == texts
    assert theirs == texts
    assert theirs != [*texts, "a"]
    assert [theirs[i] for i in range(-len(texts), len(texts))] == texts * 2
    assert theirs[1:-1] == texts[1:-1]
    last = {each: place for place, each in enumerate(texts)}
    for each in [*texts, *others]:
        assert theirs.find(each) == ours.find(each) == last.get(each, -1)
        assert (each in theirs) == (each in ours) == (each in texts)
    assert theirs.are_distinct() == ours.are_distinct() == (len(set(texts)) == len(texts))
    inside = {each: place for each, place in last.items() if each and each in text * 3}
    assert theirs.within(text * 3) == ours.within(text * 3) == inside
    some = [kind(others) for kind in KINDS]
    assert theirs.among(some[0]) == ours.among(some[1]) == [x for x in texts if x in others]


@given(st.lists(TEXTS, max_size=30), st.lists(st.tuples(TEXTS, TEXTS), max_size=8))
def test_both_find_the_same_merge_wrong(texts, pairs):
    merges = [f"{left} {right}" for left, right in pairs] + ["a"]
    tokens = [kind(texts) for kind in KINDS]
    first = [kind(merges).first_unmerged(each) for kind, each in zip(KINDS, tokens, strict=True)]
    assert first[0] == first[1] >= 0

    whole = [(left, right) for left, right in pairs if left and right and " " not in left]
    merges = [f"{left} {right}" for left, right in whole]
    known = [text for left, right in whole for text in (left, right, left + right)]
    for kind in KINDS:
        assert kind(merges).first_unmerged(kind(known)) == -1


def test_many_strings_are_found():
    texts = [f"{i:x}" for i in range(70_000)]
    strings = native.Strings(texts)
    assert strings.are_distinct()
    assert all(strings.find(text) == place for place, text in enumerate(texts))
    assert not native.Strings([*texts, "ff"]).are_distinct()


def test_a_long_string_does_not_make_texts_slow():
    """Its length bounds the parts of a text that are looked for: here there would be 2 million."""
    texts = ["a", "b" * 20_000, "中文", "aaab", ""]
    text = "a" * 2000 + "中文"
    assert native.Strings(texts).within(text) == in_python.Strings(texts).within(text)


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_copied_and_compared_like_lists(kind):
    strings = kind(["a", "é", ""])
    assert strings == ["a", "é", ""] != strings[:2]
    assert strings == kind(["a", "é", ""]) != kind(["a"])
    assert strings != "aé"
    for same in (copy.copy(strings), copy.deepcopy(strings), pickle.loads(pickle.dumps(strings))):
        assert same == strings
        assert same.find("é") == 1
    assert "\ud800" not in strings
    assert strings.find("\ud800") == -1
    assert 5 not in strings


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_string_is_refused(kind):
    for wrong in ([1], ["a", b"b"], 5, None):
        with pytest.raises(TypeError):
            kind(wrong)
    with pytest.raises(UnicodeEncodeError):
        kind(["\ud800"])
    strings = kind(["a"])
    for place in (1, -2):
        with pytest.raises(IndexError):
            strings[place]
