"""What is shown of a model is what transformers shows of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from typer.testing import CliRunner

from evergrad import models
from evergrad.cli._app import app
from evergrad.models import GPT2, GPT2Config
from evergrad.text import Tokenizer

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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer", 2], "must lie below 2"),
        (["--head", 2], "must lie below 2"),
        (["--plot", "a.txt"], "ends in .png"),
    ],
    ids=str,
)
def test_the_command_names_bad_options(folder, arguments, message):
    result = run("a text", "--model", folder, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
