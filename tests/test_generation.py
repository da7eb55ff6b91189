"""Texts that grow: batches, caches and contexts give the same tokens; streams lose nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from evergrad import models
from evergrad.models import GPT2, GPT2Config, Llama, LlamaConfig, Sampling
from evergrad.text import TextStream, Tokenizer

PROMPTS = ([5, 3, 8], [7], [1, 2, 3, 4, 5, 6, 7, 8, 9], [40, 41])


def drawn(model):
    rng = np.random.default_rng(7)
    for array in model.state_dict().values():
        array += rng.standard_normal(array.shape, np.float32) * np.float32(0.2)
    model.eval()
    return model


@pytest.fixture(params=["gpt2", "llama"])
def model(request):
    if request.param == "gpt2":
        return drawn(GPT2(GPT2Config(vocab_size=60, context=24, layers=2, heads=2, dim=16)))
    config = LlamaConfig(
        vocab_size=60, context=24, layers=2, heads=4, kv_heads=2, dim=16, hidden=24
    )
    return drawn(Llama(config))


def continued(model, prompts, count, **options):
    stop = options.pop("stop", ())
    texts = [list(prompt) for prompt in prompts]
    for index, token in models.stream(model, prompts, count, Sampling(**options), stop):
        texts[index].append(token)
    return texts


def by_hand(model, prompt, count):
    """Without a cache; where the context is full, its last half remains."""
    ids, context = list(prompt), model.config.context
    start = max(0, len(ids) - context)
    for _ in range(count):
        if len(ids) - start > context:
            start = len(ids) - context // 2
        ids.append(int(model.logits(np.array(ids[start:]))[-1].argmax()))
    return ids


def test_a_batch_gives_what_each_text_gives_by_itself(model):
    together = continued(model, PROMPTS, 12, temperature=0)
    assert together == [by_hand(model, prompt, 12) for prompt in PROMPTS]
    assert len(set(map(tuple, together))) == len(PROMPTS)


def test_texts_leave_the_context_one_by_one(model):
    together = continued(model, [*PROMPTS, list(range(40))], 40, temperature=0)
    assert together == [by_hand(model, prompt, 40) for prompt in [*PROMPTS, range(40)]]


def test_beyond_the_context_hardly_more_is_read_than_is_said(model, monkeypatch):
    read, logits = [], type(model).logits

    def counted(self, input_ids, *arguments, **options):
        read.append(len(input_ids))
        return logits(self, input_ids, *arguments, **options)

    monkeypatch.setattr(type(model), "logits", counted)
    continued(model, [[1]], 200, temperature=0)
    assert len(read) == 200
    assert sum(read) < 2.1 * 200


def test_a_limit_beyond_all_memory_costs_nothing(model):
    running = models.stream(model, [[1, 2]], 10**12, Sampling(temperature=0))
    said = [next(running)[1] for _ in range(600)]
    running.close()
    assert [1, 2, *said[:200]] == by_hand(model, [1, 2], 200)


def test_what_a_tokenizer_lacks_is_not_drawn(model):
    free = continued(model, PROMPTS, 12, temperature=1.0)
    drawn = [token for _, token in models.stream(model, PROMPTS, 12, vocab_size=7)]
    assert max(map(max, free)) >= 7
    assert set(drawn) <= set(range(7))
    assert len(set(drawn)) > 3


def test_drawn_texts_do_not_depend_on_the_length_of_the_batch(model):
    options = {"temperature": 1.0, "top_k": 20, "seed": 3}
    together = continued(model, PROMPTS, 10, **options)
    assert together[:2] == continued(model, PROMPTS[:2], 10, **options)
    assert together != continued(model, PROMPTS, 10, **{**options, "seed": 4})
    same = continued(model, [[1, 2]] * 3, 20, **options)
    assert len(set(map(tuple, same))) == 3


def test_a_stopped_text_leaves_the_others_alone(model):
    free = continued(model, PROMPTS, 12, temperature=0)
    stop = free[1][4]
    expected = []
    for prompt, text in zip(PROMPTS, free, strict=True):
        new = text[len(prompt) :]
        expected.append(list(prompt) + (new[: new.index(stop)] if stop in new else new))
    assert continued(model, PROMPTS, 12, temperature=0, stop={stop}) == expected
    assert expected[1] != free[1]


def test_the_reader_can_end_a_text(model):
    texts = [list(prompt) for prompt in PROMPTS]
    running = models.stream(model, PROMPTS, 12, Sampling(temperature=0))
    index, token = next(running)
    try:
        while True:
            texts[index].append(token)
            enough = index == 2 and len(texts[2]) == len(PROMPTS[2]) + 3
            index, token = running.send(index if enough else None)
    except StopIteration:
        pass
    expected = [by_hand(model, prompt, 12) for prompt in PROMPTS]
    expected[2] = expected[2][: len(PROMPTS[2]) + 3]
    assert texts == expected


def test_the_mode_is_restored_when_the_reader_leaves(model):
    model.train()
    running = models.stream(model, PROMPTS, 12)
    next(running)
    assert not model.training
    running.close()
    assert model.training


def test_streams_that_overlap_leave_the_mode_as_it_was():
    model = drawn(
        GPT2(GPT2Config(vocab_size=60, context=24, layers=2, heads=2, dim=16, dropout=0.5))
    )
    expected = continued(model, [PROMPTS[0]], 8, temperature=0)[0][len(PROMPTS[0]) :]
    model.train()
    first, second = (models.stream(model, [PROMPTS[0]], 8, Sampling(temperature=0)) for _ in "ab")
    next(first)
    said = [next(second)[1]]
    first.close()
    assert not model.training
    said += [token for _, token in second]
    assert said == expected
    assert model.training


@pytest.mark.parametrize("penalty", [1.3, 0.7])
def test_the_repetition_penalty_is_that_of_transformers(penalty):
    rng = np.random.default_rng(3)
    logits = rng.standard_normal(50).astype(np.float32)
    text = rng.integers(0, 50, 20)
    process = transformers.RepetitionPenaltyLogitsProcessor(penalty)
    theirs = process(torch.as_tensor(text)[None], torch.as_tensor(logits)[None])[0].numpy()
    for _ in range(50):  # the order of all tokens
        sampling = Sampling(temperature=0, repetition_penalty=penalty)
        best = sampling.draw(logits, text)
        assert best == theirs.argmax()
        theirs[best] = logits[best] = -1e30
    assert logits.max() == np.float32(-1e30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repetition_penalty": 0}, r"repetition_penalty: .* \[1e-30, 1e\+30\], got 0"),
        ({"repetition_penalty": float("nan")}, r"repetition_penalty: .*, got nan"),
        ({"repetition_penalty": 1e39}, r"repetition_penalty: .*, got 1e\+39"),
        ({"repetition_penalty": None}, "repetition_penalty: expected a number, got NoneType"),
        ({"temperature": "1"}, "temperature: expected a number, got str"),
        ({"temperature": math.inf}, r"temperature: .* \[0, 1e\+30\], got inf"),
        ({"top_k": 1.5}, "top_k: expected an integer, got float"),
        ({"top_p": "1"}, "top_p: expected a number, got str"),
        ({"min_p": None}, "min_p: expected a number, got NoneType"),
        ({"seed": -1}, r"seed: expected an integer in \[0, "),
        ({"seed": 1.5}, "seed: expected an integer, got float"),
    ],
    ids=str,
)
def test_sampling_names_bad_settings(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Sampling(**options)


# Streams.

TOKENIZER = Tokenizer.train(["the naïve stream of 文字 and 🌊 waves END"] * 3, vocab_size=300)


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.sampled_from("aENDï文🌊 x"), max_size=40),
    st.lists(st.sampled_from(["END", "EN文", "🌊", "aa", "DE"]), max_size=2),
)
def test_a_stream_gives_the_text_up_to_the_first_stop_string(text, stops):
    stream = TextStream(TOKENIZER, stops)
    pieces = []
    for token in TOKENIZER.encode(text).tolist():
        pieces.append(stream.add(token))
        if stream.stopped:
            break
    pieces.append(stream.finish())
    found = [text.find(stop) for stop in stops if stop in text]
    assert "".join(pieces) == stream.text == text[: min(found, default=len(text))]
    assert stream.stopped == bool(found)


def test_a_stream_gives_bytes_that_are_no_character_too():
    ids = [*TOKENIZER.encode("a").tolist(), *TOKENIZER.encode("🌊").tolist()[:1]]
    stream = TextStream(TOKENIZER)
    assert "".join([*map(stream.add, ids), stream.finish()]) == TOKENIZER.decode(ids)


@pytest.fixture(scope="module")
def vocabularies():
    """A tokenizer of each kind: what it is called, and ids that come often."""
    words = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            {each: at for at, each in enumerate(["[UNK]", *"ab.\ufffd", "##a", "##.", "##\ufffd"])}
        )
    )
    words.decoder = tokenizers.decoders.WordPiece()
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [*"\u2581ab\ufffd", "\u2581a", "a\u2581", "\u2581\ufffd"]
    sentence_piece = Tokenizer.from_gguf(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": pieces,
            "tokenizer.ggml.scores": [0.0] * len(pieces),
            "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * 7],
        }
    )
    whole = Tokenizer.train(["naïve 文字 🌊 \ufffd\ufffd x\ufffd "] * 3, vocab_size=280)
    of_bytes = whole.encode("\ufffd🌊文a é\U0010ffff").tolist()
    single = Tokenizer.train([""], 257).encode("\ufffd🌊文é").tolist()
    return {
        "byte-level": (whole, [*of_bytes, *single]),
        "SentencePiece": (
            sentence_piece,
            [*range(259, 266), *(3 + byte for byte in "\ufffd🌊文é\u0800".encode()), 3 + 0xFF],
        ),
        "WordPiece": (Tokenizer(words), [*range(8)]),
    }


@settings(max_examples=300, deadline=None)
@given(st.data())
@pytest.mark.parametrize("kind", ["byte-level", "SentencePiece", "WordPiece"])
def test_the_pieces_of_a_stream_are_the_whole(vocabularies, kind, data):
    """Of any tokens: the character U+FFFD among bytes is not taken for half a character."""
    tokenizer, often = vocabularies[kind]
    some = st.sampled_from(often) | st.integers(0, tokenizer.vocab_size - 1)
    ids = data.draw(st.lists(some, max_size=30) | st.lists(st.sampled_from(often), min_size=60))
    stream = TextStream(tokenizer)
    pieces = [*map(stream.add, ids), stream.finish()]
    assert "".join(pieces) == stream.text == tokenizer.decode(ids)


@pytest.mark.parametrize("text", ["\ufffd", "a\ufffd\ufffd\ufffd", "\ufffd" * 300])
@pytest.mark.parametrize("kind", ["byte-level", "SentencePiece"])
def test_a_stream_of_replacement_characters(vocabularies, kind, text):
    """A page of what another program could not read goes on, and is not kept for the end."""
    tokenizer, _ = vocabularies[kind]
    ids = tokenizer.encode(text).tolist()
    stream = TextStream(tokenizer)
    shown = "".join(map(stream.add, ids))
    assert len(shown) >= len(text) - 1
    assert shown + stream.finish() == text
    assert len(stream._ids) < 100


def test_a_stream_of_replacement_characters_behind_blanks_is_let_go_of(vocabularies):
    """The first of a text's tokens loses its blank, the first of those that are kept must not."""
    tokenizer, _ = vocabularies["SentencePiece"]
    ids = [tokenizer._inner.token_to_id("\u2581\ufffd")] * 300
    stream = TextStream(tokenizer)
    shown = "".join(map(stream.add, ids))
    assert len(stream._ids) < 100
    assert shown + stream.finish() == tokenizer.decode(ids)


def test_a_stop_string_is_not_empty():
    with pytest.raises(ValueError, match="must not be empty"):
        TextStream(TOKENIZER, ["x", ""])
