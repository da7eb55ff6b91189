"""Text survives the way to ids and back; batches hold every token once."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergrad.text import IGNORE_INDEX, Batch, Tokenizer, clean, pack, windows

TEXTS = ["The quick brown fox jumps over the lazy dog.\n" * 3, "def f(x):\n    return x\n" * 5]


@pytest.fixture(scope="module")
def tokenizer():
    pytest.importorskip("tokenizers")
    return Tokenizer.train(TEXTS, vocab_size=300)


# Tokenizer


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_round_trip_is_lossless(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int64
    assert ids.ndim == 1
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "\r\n\r",
        " leading",
        "trailing  ",
        "\t\tx",
        "\x00",
        "naïve e\u0301",
        "中文 😀",
        *TEXTS,
    ],
)
def test_round_trip_of_awkward_texts(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_end_of_text_is_an_id_of_its_own(tokenizer):
    assert 0 <= tokenizer.eot < tokenizer.vocab_size
    assert tokenizer.decode([tokenizer.eot]) == "<|endoftext|>"
    spelled = tokenizer.encode("<|endoftext|>")
    assert tokenizer.eot not in spelled
    assert tokenizer.decode(spelled) == "<|endoftext|>"


def test_training_merges_and_is_deterministic(tokenizer):
    again = Tokenizer.train(TEXTS, vocab_size=300)
    text = "".join(TEXTS)
    assert tokenizer.vocab_size == 300
    assert len(tokenizer.encode(text)) < 0.7 * len(text)
    np.testing.assert_array_equal(again.encode(text), tokenizer.encode(text))


def test_little_text_gives_a_smaller_vocabulary():
    pytest.importorskip("tokenizers")
    assert Tokenizer.train(["a"], vocab_size=1000).vocab_size == 257


def test_save_and_load(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    loaded = Tokenizer.load(path)
    text = "the fox returns x <|endoftext|> 中"
    np.testing.assert_array_equal(loaded.encode(text), tokenizer.encode(text))
    assert (loaded.vocab_size, loaded.eot) == (tokenizer.vocab_size, tokenizer.eot)
    assert loaded.decode(loaded.encode(text)) == text


def test_encode_many_equals_encode(tokenizer):
    many = tokenizer.encode_many([*TEXTS, ""])
    for text, ids in zip([*TEXTS, ""], many, strict=True):
        np.testing.assert_array_equal(ids, tokenizer.encode(text))


def test_decode_of_half_a_character(tokenizer):
    ids = tokenizer.encode("中")
    assert len(ids) == 3
    assert "\ufffd" in tokenizer.decode(ids[:2])
    assert tokenizer.decode([]) == ""


def test_tokenizer_bad_arguments(tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"at least 257.*got 256"):
        Tokenizer.train(TEXTS, vocab_size=256)
    with pytest.raises(TypeError, match="one string"):
        Tokenizer.train("text", vocab_size=300)
    with pytest.raises(TypeError, match="must be str, got int"):
        tokenizer.encode(3)
    with pytest.raises(ValueError, match="lone surrogate at character 1"):
        tokenizer.encode("a\ud800")
    with pytest.raises(IndexError, match=r"\[0, 300\), got 0 to 300"):
        tokenizer.decode([0, 300])
    with pytest.raises(IndexError, match="got -1"):
        tokenizer.decode([-1])
    with pytest.raises(TypeError, match="integers, got float64"):
        tokenizer.decode([0.5])
    with pytest.raises(ValueError, match="one dimension"):
        tokenizer.decode([[1]])
    path = tmp_path / "tokenizer.json"
    with pytest.raises(FileNotFoundError):
        Tokenizer.load(path)
    tokenizer.save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"tokenizer\.json: truncated or no tokenizer"):
        Tokenizer.load(path)


def test_tokenizers_missing_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pip install 'evergrad\[text\]'"):
        Tokenizer.train(TEXTS, vocab_size=300)


# Batches

IDS = st.lists(st.integers(0, 99), max_size=12).map(lambda ids: np.array(ids, np.int64))


@given(sequences=st.lists(IDS, max_size=6))
def test_pack_keeps_every_sequence(sequences):
    batch = pack(sequences)
    kept = [ids for ids in sequences if len(ids) > 1]
    assert len(batch) == len(kept)
    assert batch.counted == sum(len(ids) - 1 for ids in kept)
    for i, ids in enumerate(kept):
        part = slice(*batch.cu_seqlens[i : i + 2])
        np.testing.assert_array_equal(batch.input_ids[part], ids[:-1])
        np.testing.assert_array_equal(batch.target[part], ids[1:])


@given(ids=IDS, window=st.integers(1, 15))
def test_windows_predict_every_token_but_the_first_once(ids, window):
    found = windows(ids, window)
    targets = [part[1:] for part in found]
    np.testing.assert_array_equal(np.concatenate([ids[:0], *targets]), ids[1:])
    assert all(2 <= len(part) <= window + 1 for part in found)
    assert all(len(part) == window + 1 for part in found[:-1])
    assert all(part.base is not None for part in found)  # views: nothing is copied


def test_pack_accepts_small_integers():
    batch = pack([np.array([1, 2, 3], np.uint16)])
    assert batch.input_ids.dtype == batch.target.dtype == np.int64


def test_counted_leaves_out_ignored_targets():
    ids = np.array([1, 2, 3])
    batch = Batch(ids, np.array([2, IGNORE_INDEX, 4]), np.array([0, 3]))
    assert batch.counted == 2
    assert Batch(ids, None, np.array([0, 3])).counted == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1, 2], None, [0, 2]), TypeError, "input_ids must be an int64 array, got list"),
        ((np.zeros(2), None, np.array([0, 2])), TypeError, "got float64"),
        ((np.zeros((1, 2), int), None, np.array([0, 2])), ValueError, r"got shape \(1, 2\)"),
        ((np.zeros(2, int), np.zeros(3, int), np.array([0, 2])), ValueError, "3 entries.* 2"),
        ((np.zeros(2, int), None, np.array([0, 1])), ValueError, "from 0 to 2"),
        ((np.zeros(2, int), None, np.array([1, 2])), ValueError, "from 0 to 2"),
        ((np.zeros(2, int), None, np.array([0, 2, 1, 2])), ValueError, "from 0 to 2"),
        ((np.zeros(0, int), None, np.zeros(0, int)), ValueError, "from 0 to 0"),
    ],
)
def test_batch_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        Batch(*arguments)


def test_pack_and_windows_bad_arguments():
    with pytest.raises(TypeError, match=r"sequences\[1\] must be an integer array, got float64"):
        pack([np.arange(3), np.zeros(3)])
    with pytest.raises(ValueError, match="one dimension"):
        windows(np.zeros((2, 2), int), 4)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        windows(np.arange(3), 0)


# Cleaning


@given(text=st.text(st.characters()))
def test_clean_is_idempotent_and_encodable(text):
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    cleaned.encode()
    assert "\r" not in cleaned
    assert "\x00" not in cleaned


def test_clean():
    assert clean("a\r\nb\rc\u2028d\n\te\x0c\x00") == "a\nb\nc\nd\n\te"
    assert clean("naïve 中 😀 e\u0301") == "naïve 中 😀 e\u0301"
