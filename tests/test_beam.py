"""Answers of encoder-decoders are those of transformers, token by token."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from evergrad import models
from evergrad.models import T5, T5Config
from evergrad.text import Tokenizer

PROMPTS = [[5, 9, 12, 7, 1], [30, 1], [8, 8, 21, 33, 4, 17, 2, 1], [40, 11, 1]]


@pytest.fixture(scope="module", params=[True, False], ids=["gated", "plain"])
def pair(request, tmp_path_factory):
    torch.manual_seed(3)
    config = transformers.T5Config(
        vocab_size=48, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu" if request.param else "relu",
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, initializer_factor=6.0,
    )  # fmt: skip
    theirs = transformers.T5ForConditionalGeneration(config).eval()
    folder = tmp_path_factory.mktemp("t5")
    theirs.save_pretrained(folder)
    ours = models.load(folder)
    # A token that answers without an end come to, but not at once: so some end, at many lengths.
    free = np.concatenate([answer[2:] for answer in models.beam_search(ours, PROMPTS, 12, 3)])
    return ours, theirs, int(np.bincount(free).argmax())


def by_transformers(theirs, prompt, count, stop, **options):
    with torch.no_grad():
        out = theirs.generate(
            torch.tensor([prompt]),
            max_new_tokens=count,
            do_sample=False,
            eos_token_id=stop,
            **options,
        )
    ids = out[0, 1:].tolist()
    return ids[: ids.index(stop)] if stop in ids else ids


@pytest.mark.parametrize("length_penalty", [1.0, 2.0, -1.0])
@pytest.mark.parametrize("num_beams", [1, 2, 4, 7])
def test_answers_are_those_of_transformers(pair, num_beams, length_penalty):
    ours, theirs, stop = pair
    options = {"num_beams": num_beams}
    if num_beams > 1:
        options["length_penalty"] = length_penalty
    expected = [by_transformers(theirs, prompt, 12, stop, **options) for prompt in PROMPTS]
    answers = models.beam_search(ours, PROMPTS, 12, num_beams, length_penalty, {stop})
    assert [answer.tolist() for answer in answers] == expected


def test_some_answers_end_and_some_are_cut(pair):
    ours, _, stop = pair
    lengths = {
        answer.size
        for beams in (1, 2, 4, 7)
        for answer in models.beam_search(ours, PROMPTS, 12, beams, stop={stop})
    }
    assert len(lengths) > 1


def test_generate_takes_texts_and_ids():
    tokenizer = Tokenizer.train(["a small text, and another"], vocab_size=270)
    config = T5Config(
        vocab_size=270, layers=1, heads=2, head_dim=4, dim=8, hidden=16, eos_token=tokenizer.eot
    )
    model = T5(config)
    with pytest.raises(ValueError, match="needs a model with a tokenizer"):
        model.generate("a text")
    model.tokenizer = tokenizer
    ids = model.generate(tokenizer.encode("a text"), max_new_tokens=6, num_beams=2)
    assert isinstance(model.generate("a text", 6, num_beams=2), str)
    assert model.generate(["a text"], 6, num_beams=2) == [tokenizer.decode(ids)]
    assert model.training


def test_a_generation_config_is_heeded_and_saved(pair, tmp_path):
    """Its ends, and a start that stands nowhere else; transformers reads what we save of both."""
    ours, theirs, stop = pair
    theirs.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings["decoder_start_token_id"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    told = {"decoder_start_token_id": 6, "eos_token_id": [1, stop], "pad_token_id": 0}
    (tmp_path / "generation_config.json").write_text(json.dumps(told))
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({f"w{token}": token for token in range(48)}, unk_token="w0")
    )
    inner.save(str(tmp_path / "tokenizer.json"))
    kind = transformers.T5ForConditionalGeneration
    reference = kind.from_pretrained(tmp_path)
    ours = models.from_pretrained(tmp_path)
    ours.save_pretrained(tmp_path / "again")
    again = kind.from_pretrained(tmp_path / "again")
    ended = 0
    for prompt in PROMPTS:
        expected = reference.generate(torch.tensor([prompt]), max_new_tokens=12)[0].tolist()
        assert expected[0] == 6
        answer = ours.generate(prompt, 12).tolist()
        ended += len(answer) < 12
        assert answer == [token for token in expected[1:] if token not in (1, stop)]
        assert again.generate(torch.tensor([prompt]), max_new_tokens=12)[0].tolist() == expected
    assert ended


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "num_beams must be an int >= 1, got 0"),
        ({"num_beams": "2"}, "num_beams must be an int >= 1, got '2'"),
        ({"max_new_tokens": -1}, "max_new_tokens must be an int >= 0, got -1"),
        ({"length_penalty": np.inf}, r"length_penalty must be a number in \[-50, 50\], got inf"),
        ({"length_penalty": 1e3}, "length_penalty must be a number .*, got 1000.0"),
        ({"length_penalty": None}, "length_penalty must be a number .*, got None"),
        ({"prompts": [[]]}, "ids must be"),
        ({"prompts": [[0.5]]}, "ids must be"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(pair, options, message):
    with pytest.raises(ValueError, match=message):
        models.beam_search(pair[0], **{"prompts": [[1]], "max_new_tokens": 3, **options})
