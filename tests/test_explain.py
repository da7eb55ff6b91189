"""What is shown of a model is what transformers shows of it."""

from __future__ import annotations

import json
import re
import warnings

import numpy as np
import pytest
import torch
import transformers
from typer.testing import CliRunner

from evergrad import models
from evergrad.cli._app import app
from evergrad.models import GPT2, T5, Bert, BertConfig, GPT2Config, T5Config
from evergrad.text import Tokenizer, pieces

IDS = [5, 9, 12, 7, 1, 30, 31, 9]
FAMILIES = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=3, n_head=4)
    ),
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2,
        )
    ),
    "bert": lambda: transformers.BertModel(
        transformers.BertConfig(
            vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=4,
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_and_likelihoods_are_those_of_transformers(family, tmp_path):
    torch.manual_seed(1)
    theirs = FAMILIES[family]().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    theirs.set_attn_implementation("eager")
    theirs.save_pretrained(tmp_path)
    ours = models.load(tmp_path)
    with torch.no_grad():
        out = theirs(torch.tensor([IDS]), output_attentions=True)
    found = models.explain(ours, IDS, alternatives=2)
    expected = np.stack([layer[0].numpy() for layer in out.attentions])
    np.testing.assert_allclose(found.attention, expected, atol=2e-5)
    if family == "bert":
        assert np.isnan(found.log_likelihood).all()
        return
    log_probs = torch.log_softmax(out.logits[0], -1)[:-1]
    by_token = log_probs[range(len(IDS) - 1), IDS[1:]].numpy()
    np.testing.assert_allclose(found.log_likelihood[1:], by_token, atol=1e-4)
    best = log_probs.topk(2)
    np.testing.assert_array_equal(found.likeliest[1:], best.indices.numpy())
    np.testing.assert_allclose(found.likeliest_log_likelihood[1:], best.values.numpy(), atol=1e-4)
    assert np.isnan(found.log_likelihood[0])


def test_the_model_is_left_as_it_was():
    model = GPT2(GPT2Config(vocab_size=50, context=16, layers=2, heads=2, dim=8))
    models.explain(model, [1, 2])
    assert model.training
    assert all(block.attention.observer is None for block in model.blocks)
    with pytest.raises(IndexError):
        models.explain(model, [99])
    assert all(block.attention.observer is None for block in model.blocks)
    for bad in ([], [[1]]):
        with pytest.raises(ValueError, match="expected 1 to 1024 tokens"):
            models.explain(model, bad)
    with pytest.raises(ValueError, match="ids: expected integers, got float64"):
        models.explain(model, [1.5, 2.0])
    for count in (-1, 1.5, None):
        with pytest.raises(ValueError, match=f"alternatives must be an int >= 0, got {count}"):
            models.explain(model, [1, 2], alternatives=count)
    assert models.explain(model, [1, 2], 10**6).likeliest.shape == (2, model.config.vocab_size)
    with pytest.raises(TypeError, match="must be a GPT2, Llama or Bert, got a T5"):
        models.explain(T5(T5_CONFIG), IDS)


@pytest.fixture
def folder(tmp_path):
    tokenizer = Tokenizer.train(["a small text"], vocab_size=262)
    model = GPT2(GPT2Config(vocab_size=262, context=64, layers=2, heads=2, dim=8))
    models.save(model, tmp_path / "model")
    tokenizer.save(tmp_path / "model" / "tokenizer.json")
    return tmp_path / "model"


def run(*arguments):
    from evergrad.cli import explain

    if not any(command.callback is explain.explain for command in app.registered_commands):
        explain.register(app)
    return CliRunner().invoke(app, ["explain", *map(str, arguments)])


def test_the_command_shows_and_draws(folder, tmp_path):
    picture = tmp_path / "attention.png"
    shown = run("a small\ntext", "--model", folder, "--plot", picture, "--layer", 0, "--head", 1)
    assert shown.exit_code == 0, shown.output
    assert "bits per token" in shown.output
    assert "layer 0 of 2, head 1" in shown.output
    assert picture.read_bytes()[:4] == b"\x89PNG"
    told = json.loads(run("a small\ntext", "--model", folder, "--json").stdout)
    assert len(told["tokens"]) == len(told["attention"]) == len(told["log_likelihood"])
    np.testing.assert_allclose(np.sum(told["attention"], axis=1), 1, atol=1e-5)
    assert told["log_likelihood"][0] is None


STRANGE = "Käse € 日本語🙂\t—\nnaïve ↵"


def test_characters_of_several_tokens_come_whole(folder, tmp_path):
    """The tokenizer knows bytes alone: every character beyond ASCII has two to four tokens."""
    ids = Tokenizer.load(folder / "tokenizer.json").encode(STRANGE)
    told = json.loads(run(STRANGE, "--model", folder, "--json").stdout)
    assert told["tokens"][0] == "<|endoftext|>"
    assert len(told["tokens"]) == 1 + len(ids) == 1 + len(STRANGE.encode())
    assert "".join(told["tokens"][1:]) == STRANGE
    assert told["tokens"][2:4] == ["", "ä"]

    shown = run(STRANGE, "--model", folder)
    assert shown.exit_code == 0, shown.output
    assert "<|endoftext|>Käse € 日本語🙂⇥—↵\nnaïve ↵\n" in shown.output
    assert "\ufffd" not in shown.output
    rows = shown.output.split("mean of heads\n")[1].split("\n")
    labels = [re.split("[ ·░▒▓█]{2,}$", row)[0].strip() for row in rows[: 1 + len(ids)]]
    assert labels[1:9] == ["K", "…", "ä", "s", "e", "", "…", "…"]

    picture = tmp_path / "attention.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = run(STRANGE + "$x$", "--model", folder, "--plot", picture)
    assert drawn.exit_code == 0, drawn.exception
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_pieces_are_the_text_wherever_it_is_cut(folder):
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    ids = tokenizer.encode(STRANGE).tolist()
    for end in range(len(ids) + 1):
        for start in (0, end // 2):
            found = pieces(tokenizer, ids[start:end])
            assert len(found) == end - start
            assert "".join(found) == tokenizer.decode(ids[start:end])


BERT = BertConfig(vocab_size=9, context=16, layers=2, heads=2, dim=8, hidden=16)
T5_CONFIG = T5Config(vocab_size=262, layers=1, heads=2, dim=8, hidden=16)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "small", "text", "##s"]


@pytest.fixture
def encoder(tmp_path):
    """A BERT, and its words as transformers' slow tokenizers stored them."""
    models.save(Bert(BERT, seed=3), tmp_path / "bert")
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(WORDS))
    return tmp_path / "bert"


def written_by_transformers(folder):
    transformers.BertTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    return folder


def test_the_command_shows_attention_of_an_encoder(encoder):
    written_by_transformers(encoder)
    told = json.loads(run("small texts", "--model", encoder, "--json", "--head", 1).stdout)
    assert told["ids"] == [2, 6, 7, 8, 3]
    assert told["tokens"] == ["[CLS]", " small", " text", "s", " [SEP]"]
    assert told["log_likelihood"] is told["bits_per_token"] is None
    expected = models.explain(models.load(encoder), told["ids"]).attention[1, 1]
    np.testing.assert_allclose(told["attention"], expected, atol=1e-6)
    shown = run("small texts", "--model", encoder)
    assert shown.exit_code == 0, shown.output
    assert "bits per token" not in shown.output
    assert "layer 1 of 2, mean of heads" in shown.output
    assert run("text " * 20, "--model", encoder).exit_code == 2


def test_the_command_refuses_a_t5(folder, tmp_path):
    models.save(T5(T5_CONFIG), tmp_path / "t5")
    (folder / "tokenizer.json").rename(tmp_path / "t5" / "tokenizer.json")
    result = run("a text", "--model", tmp_path / "t5")
    assert result.exit_code == 1
    assert "expected a GPT2, Llama or Bert; a T5 reads one text" in str(result.exception)


def test_a_tokenizer_in_another_form_is_named_and_what_converts_it(encoder):
    result = run("small texts", "--model", encoder)
    message = str(result.exception)
    assert "expected a tokenizer.json, found vocab.txt" in message
    exec(message.partition("in Python: ")[2])
    assert run("small texts", "--model", encoder).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "missing/a.png"], "cannot write missing/a.png"),
        (["--layer", 2], "must lie below 2"),
        (["--head", 2], "must lie below 2"),
        (["--plot", "a.txt"], "ends in .png"),
    ],
    ids=str,
)
def test_the_command_names_bad_options(folder, arguments, message):
    result = run("a text", "--model", folder, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())
