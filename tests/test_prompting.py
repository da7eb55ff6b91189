"""Prompts as texts, as ids and as conversations."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")

from evergrad import models
from evergrad.models import GPT2, Conversation, GPT2Config, Llama, LlamaConfig
from evergrad.text import TextStream, Tokenizer

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
PROMPTS = ["The naïve", "", "def f(x):\n    return", "中文"]


@pytest.fixture(scope="module")
def tokenizer():
    made = Tokenizer.train([__doc__ * 3, TEMPLATE * 3, "def f(x):\n    return x\n" * 3], 300)
    assert made.vocab_size == 300
    made.chat_template = TEMPLATE
    return made


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request, tokenizer):
    size = {"vocab_size": 300, "context": 96, "layers": 2, "heads": 4, "dim": 32}
    if request.param == "gpt2":
        made = GPT2(GPT2Config(**size), seed=1)
    else:
        made = Llama(LlamaConfig(**size, hidden=64, kv_heads=2), seed=1)
    # Far from uniform, so that texts differ; and the likeliest tokens are no halves of characters.
    odd = [token for token in range(300) if not tokenizer.decode([token]).isascii()]
    for parameter in made.parameters():
        if parameter.data.ndim == 2:
            parameter.data *= 4
        if len(parameter.data) == 300:
            parameter.data[odd] = 0
    made.tokenizer = tokenizer
    return made


@pytest.fixture(scope="module")
def byte_fallback():
    """A vocabulary as SentencePiece makes them, which has bytes for what is no letter."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"\u2581abc"]
    return Tokenizer.from_gguf(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.scores": [0.0] * len(tokens),
            "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * 4],
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
        }
    )


def continued(model, ids, count=30, stop=(), **options):
    """The reference: ids in, ids out."""
    options = {"temperature": 0, **options}
    return models.generate(model, ids, count, stop=stop, **options)[len(ids) :]


def test_texts_are_their_ids_continued(model, tokenizer):
    for prompt in PROMPTS:
        ids = [tokenizer.eot, *tokenizer.encode(prompt)]
        new = continued(model, ids, stop=tokenizer.ends)
        expected = prompt + tokenizer.decode([*ids[1:], *new])[len(prompt) :]
        assert model.generate(prompt, 30) == expected
        assert prompt + "".join(model.stream(prompt, 30)) == expected


def test_a_text_of_bytes_goes_on_within_its_line(byte_fallback):
    """SentencePiece's bytes decode together or not at all, so that the prompt's matter."""
    ids = byte_fallback.encode("日本語で").tolist()
    path = [*ids, byte_fallback.eos]
    # What a token is followed by is all that this model knows.
    size = byte_fallback.vocab_size
    model = Llama(LlamaConfig(size, context=64, layers=1, heads=4, dim=272, hidden=8))
    for name, parameter in model.named_parameters():
        parameter.data[...] = 1 if "norm" in name else 0
    np.fill_diagonal(model.embedding.weight.data, 1)
    for token, following in itertools.pairwise(path[4:]):
        model.head.weight.data[following, token] = 1
    model.tokenizer = byte_fallback
    assert model.generate("日本") == "日本語で"
    assert "".join(model.stream("日本")) == "語で"


@pytest.mark.parametrize("text", ["日本語です", "ab日本", "é é", "😀a😀😀", "ab c"])
def test_a_stream_continues_from_any_character(byte_fallback, text):
    for at in range(1, len(text) + 1):
        before = byte_fallback.encode(text[:at]).tolist()
        following = byte_fallback.encode(text).tolist()[len(before) :]
        stream = TextStream(byte_fallback, before=before)
        assert "".join([*map(stream.add, following), stream.finish()]) == text[at:]


@pytest.mark.parametrize("before", ["", "ab", "a\n", "日本"])
@pytest.mark.parametrize(
    ("text", "stop"),
    [
        ("ab\nab", "\n"),
        ("a\n\n日本", "\n\n"),
        ("日本語です", "語"),
        ("aé\nb", "é\n"),
        ("\na", "\n"),
        ("b\ufffda", "\ufffd"),
    ],
)
def test_bytes_that_complete_a_stop_string_are_the_last(byte_fallback, text, stop, before):
    """A line's end is one of SentencePiece's bytes: what follows is not waited for."""
    known = byte_fallback.encode(before).tolist()
    ids = byte_fallback.encode(before + text).tolist()[len(known) :]
    stream = TextStream(byte_fallback, [stop], known)
    for token in ids:
        stream.add(token)
        if stream.stopped:
            break
    assert stream.text + stream.finish() == text[: text.index(stop)]
    # U+FFFD may also be what bytes without a meaning decode to, until something else comes.
    through = text.index(stop) + len(stop) + (stop == "\ufffd")
    assert byte_fallback.decode([*known, *ids[: stream.count]]) == before + text[:through]


def test_a_batch_is_each_prompt_alone(model, tokenizer):
    assert model.generate(PROMPTS, 30) == [model.generate(prompt, 30) for prompt in PROMPTS]
    ids = [tokenizer.prompt(prompt) for prompt in PROMPTS]
    for array, prompt in zip(model.generate(ids, 30), ids, strict=True):
        assert array.dtype == np.int64
        assert array.tolist() == model.generate(prompt, 30).tolist()
        assert array.tolist() == [*prompt, *model.stream(prompt.tolist(), 30)]
    mixed = model.generate([PROMPTS[0], ids[1]], 5)
    assert mixed[0] == model.generate(PROMPTS[0], 5)
    assert mixed[1].tolist() == model.generate(ids[1], 5).tolist()
    assert model.generate([]) == []
    assert model.generate("The", 0) == "The"


def test_sampling_is_that_of_models_generate(model, tokenizer):
    options = {"temperature": 0.9, "top_k": 50, "top_p": 0.9, "min_p": 0.01, "seed": 7}
    options["repetition_penalty"] = 1.2
    ids = tokenizer.prompt("The")
    expected = continued(model, ids, stop=tokenizer.ends, **options)
    assert model.generate(ids, 30, **options).tolist() == [*ids, *expected]
    assert list(model.stream(ids, 30, **options)) == expected.tolist()


def test_stops_end_a_text(model, tokenizer):
    whole = model.generate(PROMPTS, 40)
    for prompt, text in zip(PROMPTS, whole, strict=True):
        new = text[len(prompt) :]
        stop = new[5:7]
        cut = prompt + new[: new.index(stop)]
        assert model.generate(prompt, 40, stop=stop) == cut
        assert prompt + "".join(model.stream(prompt, 40, stop=["absent", stop])) == cut
        batch = model.generate(PROMPTS, 40, stop=stop)
        assert batch[PROMPTS.index(prompt)] == cut
        ids = tokenizer.prompt(prompt)
        until = model.generate(ids, 40, stop=stop)
        ended = tokenizer.decode(until[len(ids) :])
        assert stop in ended
        assert stop not in tokenizer.decode(until[len(ids) : -1])
    ids = tokenizer.prompt("The")
    new = continued(model, ids, stop=tokenizer.ends).tolist()
    last = new[10]
    assert list(model.stream(ids, 30, stop=last)) == new[: new.index(last)]
    assert list(model.stream(ids, 30, stop=[last, "absent"])) == new[: new.index(last)]
    assert list(model.stream(ids, 30, stop=np.array([last, 299]))) == new[: new.index(last)]


def test_the_tokenizers_ends_end_a_text(model, tokenizer, monkeypatch):
    ids = tokenizer.prompt("The")
    new = continued(model, ids).tolist()
    monkeypatch.setattr(tokenizer, "ends", frozenset([new[7]]))
    assert list(model.stream(ids, 30)) == new[: new.index(new[7])]


def test_a_reply_continues_the_template(model, tokenizer):
    messages = [{"role": "system", "content": "Be."}, {"role": "user", "content": "naïve"}]
    text = "<system>Be.\n<user>naïve\n<assistant>"
    new = continued(model, tokenizer.encode(text), stop=tokenizer.ends)
    assert model.chat(messages, 30) == tokenizer.decode(new)
    assert "".join(model.stream_chat(messages, 30)) == tokenizer.decode(new)
    assert len(messages) == 2
    stop = tokenizer.decode(new)[4:6]
    reply = model.chat(messages, 30, stop=stop)
    assert reply == tokenizer.decode(new).partition(stop)[0]


@pytest.mark.parametrize("turns", [2, 12], ids=["within", "beyond the context"])
def test_a_conversation_says_what_chat_says(model, turns):
    conversation, messages = Conversation(model), []
    for turn in range(turns):
        said = {"role": "user", "content": f"turn {turn}"}
        messages.append(said)
        conversation.messages.append(said)
        options = {"temperature": 0.8, "seed": turn, "repetition_penalty": 1.1}
        reply = "".join(conversation.reply(10, **options))
        assert reply == model.chat(messages, 10, **options)
        messages.append({"role": "assistant", "content": reply})
        assert conversation.messages == messages


def test_a_conversation_reads_each_turn_once(model, monkeypatch):
    conversation = Conversation(model, [{"role": "system", "content": "A long instruction."}])
    read, logits = [], type(model).logits

    def counted(self, input_ids, *arguments, **options):
        read.append(len(input_ids))
        return logits(self, input_ids, *arguments, **options)

    monkeypatch.setattr(type(model), "logits", counted)
    for text in ("Hi", "So"):
        conversation.messages.append({"role": "user", "content": text})
        list(conversation.reply(3))
    first, second = read[0], read[3]
    assert read[1:3] == [1, 1]
    # The end of a line, who speaks, what, and who answers; perhaps the reply's last token.
    assert second < first - len("A long instruction.") // 2


def test_an_interrupted_reply_is_part_of_the_conversation(model):
    conversation = Conversation(model, [{"role": "user", "content": "Hi"}])
    reply = conversation.reply(20)
    said = next(reply) + next(reply)
    reply.close()
    assert conversation.messages[-1] == {"role": "assistant", "content": said}
    conversation.messages.append({"role": "user", "content": "Go on"})
    before = list(conversation.messages)
    assert "".join(conversation.reply(10)) == model.chat(before, 10)


def test_what_follows_a_reply_that_is_left_unfinished_stands_behind_it(model):
    conversation = Conversation(model, [{"role": "user", "content": "Hi"}])
    said = "".join(itertools.islice(conversation.reply(20), 2))
    conversation.messages.append({"role": "user", "content": "Go on"})
    before = [dict(message) for message in conversation.messages]
    assert before[1:] == [
        {"role": "assistant", "content": said},
        {"role": "user", "content": "Go on"},
    ]
    assert "".join(conversation.reply(10)) == model.chat(before, 10)


def test_a_tokenizer_with_gaps_in_its_ids(model):
    package = pytest.importorskip("tokenizers")
    words = package.models.WordLevel({"a": 0, "b": 1, "<eos>": 9}, unk_token="a")
    sparse = Tokenizer(package.Tokenizer(words), {"eos_token": "<eos>"})
    assert (sparse.vocab_size, sparse.ends) == (10, {9})
    other = type(model)(dataclasses.replace(model.config, vocab_size=12))
    other.tokenizer = sparse
    said = [token for token in other.stream([1, 1], 60, temperature=5.0)]
    assert 9 not in said
    assert set(said) <= set(range(9))
    assert len(said) < 60  # the end is drawn, and not said


def test_a_conversation_that_was_too_long_for_a_while(model):
    """What the cache holds from before is not taken for what was too long."""
    conversation = Conversation(model, [{"role": "user", "content": "Hi"}])
    list(conversation.reply(5))
    conversation.messages.append({"role": "user", "content": "x" * 200})
    list(conversation.reply(5))
    del conversation.messages[1:]
    conversation.messages[0] = {"role": "user", "content": "Hi " + "x" * 20}
    expected = model.chat(list(conversation.messages), 10)
    assert "".join(conversation.reply(10)) == expected


def test_the_next_reply_ends_one_that_is_left_unfinished(model):
    conversation = Conversation(model, [{"role": "user", "content": "Hi"}])
    first = conversation.reply(20)
    said = next(first)
    second = conversation.reply(10)
    assert conversation.messages[-1] == {"role": "assistant", "content": said}
    before = list(conversation.messages)
    assert "".join(second) == model.chat(before, 10)
    assert list(first) == []


def test_without_a_tokenizer_ids_alone(tokenizer):
    model = GPT2(GPT2Config(vocab_size=300, context=16, layers=1, heads=2, dim=8))
    assert model.generate([1, 2], 3).shape == (5,)
    for ask in (
        lambda: model.generate("text"),
        lambda: model.generate([1], stop="."),
        lambda: model.stream("text"),
        lambda: model.chat([{"role": "user", "content": "Hi"}]),
    ):
        with pytest.raises(ValueError, match="has no tokenizer"):
            ask()


def test_without_a_tokenizer_the_configuration_says_what_ends(model):
    said = continued(model, [5, 6], 12).tolist()
    end = said[6]
    for ends in (end, (299, end)):
        config = dataclasses.replace(model.config, eos_token=ends)
        other = type(model)(config)
        other.load_state_dict(model.state_dict())
        assert other.generate([5, 6], 12)[2:].tolist() == said[: said.index(end)]


def test_a_vocabulary_that_is_padded(model, tokenizer):
    """Rows behind the tokenizer's are never drawn; a text of tokens that have none is refused."""
    known = tokenizer.vocab_size
    padded = type(model)(dataclasses.replace(model.config, vocab_size=known + 40, tied=False))
    rows = np.random.default_rng(1).standard_normal((40, 32), np.float32)
    padded.head.weight.data[known:] = 5 * rows
    assert padded.generate([1, known + 3], 20, temperature=1.0)[2:].max() >= known
    padded.tokenizer = tokenizer
    assert padded.generate([1, known + 3], 20, temperature=1.0)[2:].max() < known
    assert padded.generate("The", 20, temperature=1.0).startswith("The")
    ids = padded.generate([1, known + 3], 20, repetition_penalty=1.3)
    assert ids[2:].max() < known

    small = type(model)(dataclasses.replace(model.config, vocab_size=40))
    small.tokenizer = tokenizer
    with pytest.raises(ValueError, match=r"token ids must lie in \[0, 40\)"):
        small.generate("The")


def test_messages_may_come_from_an_iterator(model):
    """They were looked at once, and then there were none."""
    messages = [{"role": "user", "content": "Hi"}, {"role": "user", "content": "you"}]
    assert models.Conversation(model, iter(messages)).messages == messages
    assert model.chat(iter(messages), 5) == model.chat(messages, 5)


@pytest.mark.parametrize("messages", [3, "Hi", {"role": "user", "content": "Hi"}, ["Hi"]])
def test_messages_that_are_none(model, messages):
    with pytest.raises(TypeError, match=r'messages: expected \[\{"role": "user"'):
        model.chat(messages)


@pytest.mark.parametrize("prompt", [None, 3, 1.5])
def test_a_prompt_that_is_none(model, prompt):
    with pytest.raises(TypeError, match="prompt: expected a text, token ids, or a list of either"):
        model.generate(prompt)


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("a", {"max_new_tokens": -1}, "max_new_tokens must be an int >= 0, got -1"),
        ("a", {"max_new_tokens": 2.5}, "max_new_tokens must be an int >= 0, got 2.5"),
        ("a", {"temperature": -1}, "temperature: expected a number in"),
        ("a", {"stop": ""}, "not empty, got ''"),
        ("a", {"stop": 1.5}, "strings and token ids, .*got 1.5"),
        ("a", {"stop": [1.5]}, "strings and token ids, .*got 1.5"),
        ([0.5], {}, "a sequence of at least one token"),
        ([[]], {}, "a sequence of at least one token"),
        ([300], {}, r"\[0, 300\), got 300 to 300"),
        ([-1], {}, r"\[0, 300\), got -1 to -1"),
    ],
)
def test_bad_prompts_are_named(model, prompt, options, message):
    with pytest.raises(ValueError, match=message):
        model.generate(prompt, **options)
    with pytest.raises(ValueError, match=r"one text or one sequence.* got several"):
        model.stream(["a", "b"])
    with pytest.raises(TypeError, match="temperatur"):
        model.stream("a", temperatur=1)
