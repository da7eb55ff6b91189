"""Thousands of broken files: each loads whole, or is refused; none crashes or takes memory."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evergrad
from evergrad import io, models
from op_support import SEED

MUTATIONS = 2000


def tiny_llama() -> Any:
    config = models.LlamaConfig(
        vocab_size=64, context=32, layers=1, heads=2, kv_heads=1, dim=32, hidden=32
    )
    return models.Llama(config)


def safetensors_file(folder: Path) -> Path:
    models.save(tiny_llama(), folder)
    return folder / "model.safetensors"


def gguf_file(folder: Path) -> Path:
    gguf = pytest.importorskip("gguf")
    path = folder / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(32)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_array("some.words", ["alpha", "beta", "naïve"])
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_bool("some.flag", True)
    stems = {"embed_tokens": "token_embd", "lm_head": "output", "input_layernorm": "attn_norm"}
    stems |= {"post_attention_layernorm": "ffn_norm", "o_proj": "attn_output"}
    stems |= {f"{part}_proj": f"attn_{part}" for part in "qkv"}
    stems |= {f"{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")}
    stems["norm"] = "output_norm"
    for name, tensor in models.to_theirs(tiny_llama()).items():
        stem = stems[name.split(".")[-2]]
        theirs = f"blk.0.{stem}.weight" if ".layers." in name else f"{stem}.weight"
        if tensor.ndim == 2:
            kind = (
                gguf.GGMLQuantizationType.Q4_1 if "mlp" in name else gguf.GGMLQuantizationType.F16
            )
            writer.add_tensor(theirs, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
        else:
            writer.add_tensor(theirs, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def mutations(whole: bytes, structure: int) -> Iterator[bytes]:
    """Flips, runs of 0xff, splices and cuts; most of them where the structure is."""
    rng = np.random.default_rng(SEED)
    for i in range(MUTATIONS):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            end = structure if rng.random() < 0.9 else len(data)
            at = int(rng.integers(min(end, len(data))))
            length = int(rng.integers(1, 17))
            match i % 5:
                case 0:
                    data[at] ^= 1 << int(rng.integers(8))
                case 1:
                    data[at] = int(rng.integers(256))
                case 2:
                    data[at : at + length] = b"\xff" * length
                case 3:
                    other = int(rng.integers(len(data) - length))
                    data[at : at + int(rng.integers(17))] = data[other : other + length]
                case 4:
                    del data[at + 1 :]
        yield bytes(data)


def refused_or_whole(path: Path, load: Callable[[Path], Any], whole: int) -> bool:
    """Whether the file loads; it may then hold other numbers, but all of them."""
    try:
        model = load(path)
    except ValueError:
        return False
    assert sum(parameter.data.size for parameter in model.parameters()) == whole
    assert model.logits(np.arange(5)).shape == (5, 64)
    return True


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of weights that are noise
@pytest.mark.parametrize("make", [gguf_file, safetensors_file])
def test_mutations(tmp_path, make):
    path = make(tmp_path)
    load = evergrad.from_pretrained if make is gguf_file else lambda path: models.load(path.parent)
    content = path.read_bytes()
    if make is gguf_file:
        structure = len(content) - sum(t.nbytes for t in io.read_gguf(path).tensors.values())
    else:
        structure = 8 + struct.unpack("<Q", content[:8])[0]
    whole = sum(parameter.data.size for parameter in load(path).parameters())
    loaded, largest = 0, 0
    tracemalloc.start()
    try:
        for data in mutations(content, structure):
            path.unlink()  # never in place: a model that was loaded maps the old file
            path.write_bytes(data)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            loaded += refused_or_whole(path, load, whole)
            largest = max(largest, tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    assert 0 < loaded < MUTATIONS
    # Weights and gradients in float32, the logits' temporaries, the metadata as Python's objects.
    assert largest < 20 * len(content), f"{largest} bytes for a file of {len(content)}"


@pytest.mark.parametrize("make", [gguf_file, safetensors_file])
def test_truncated_anywhere(tmp_path, make):
    path = make(tmp_path)
    content = path.read_bytes()
    read: Callable[[Path], Any] = io.read_gguf if make is gguf_file else io.read_safetensors
    head = range(min(len(content), 3000))  # every byte of the structure
    for length in (*head, *range(3000, len(content), 997), len(content) - 32, len(content) - 1):
        path.unlink()
        path.write_bytes(content[:length])
        if make is gguf_file and length >= len(content) - 31:
            continue  # what pads the last tensor holds nothing
        with pytest.raises(io.CorruptFileError, match=r"model\.\w+: "):
            read(path)


MANY = 20_000
GREEDY = {
    "strings": struct.pack("<4sIQQ", b"GGUF", 3, 0, 1)
    + struct.pack("<Q1sIIQ", 1, b"a", 9, 8, MANY)
    + struct.pack("<Q1s", 1, b"b") * MANY,
    "pairs": struct.pack("<4sIQQ", b"GGUF", 3, 0, MANY)
    + b"".join(struct.pack("<Q5sIB", 5, b"%05d" % i, 0, 0) for i in range(MANY)),
    "tensors": struct.pack("<4sIQQ", b"GGUF", 3, MANY, 0)
    + b"".join(struct.pack("<Q5sIIQ", 5, b"%05d" % i, 0, 0, 0) for i in range(MANY)),
}


@pytest.mark.parametrize("name", GREEDY)
def test_structure_takes_a_small_multiple_of_the_file(tmp_path, name):
    path = tmp_path / "a.gguf"
    path.write_bytes(GREEDY[name])
    tracemalloc.start()
    try:
        io.read_gguf(path)
    except io.CorruptFileError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 25 * path.stat().st_size


# A header of safetensors that lies.


def header(entries: Any, data: int = 0) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


def entry(start: int, stop: int, shape: Any = (2,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


LYING = {
    "empty": (b"", "the file is empty"),
    "short": (b"1234", "truncated"),
    "header of 2^64 - 1": (b"\xff" * 16, "a header of 18446744073709551615 bytes"),
    "header beyond the file": (header({})[:-1], "a header of 2 bytes"),
    "no JSON": (header(b"{'a': 1}"), "not a safetensors file"),
    "no UTF-8": (header(b"\xff\xff"), "not a safetensors file"),
    "deep": (header(b"[" * 100_000), "not a safetensors file"),
    "long number": (header(b'{"a": ' + b"9" * 5000 + b"}"), "not a safetensors file"),
    "no object": (header([1, 2]), "no JSON object"),
    "twice": (header(b'{"a": 1, "a": 1}'), "occurs twice"),
    "no entry": (header({"a": 3}), "must have a dtype"),
    "nothing in it": (header({"a": {}}), "must have a dtype"),
    "type": (header({"a": entry(0, 8, dtype="F8_E4M3")}, 8), "unsupported type 'F8_E4M3'"),
    "type a list": (header({"a": entry(0, 8, dtype=["F32"])}, 8), "must have a dtype"),
    "negative shape": (header({"a": entry(0, 8, shape=[-2])}, 8), "must have a dtype"),
    "boolean shape": (header({"a": entry(0, 4, shape=[True])}, 8), "must have a dtype"),
    "real shape": (header({"a": entry(0, 8, shape=[2.0])}, 8), "must have a dtype"),
    "overflow": (header({"a": entry(0, 0, shape=[2**32, 2**32])}), "must have a dtype"),
    "overflow beside 0": (header({"a": entry(0, 0, shape=[2**62, 0])}), "must have a dtype"),
    "dimensions": (header({"a": entry(0, 4, shape=[1] * 33)}, 4), "must have a dtype"),
    "size": (header({"a": entry(0, 4)}, 4), r"takes 8 bytes"),
    "reversed": (header({"a": entry(8, 0)}, 8), r"takes 8 bytes"),
    "outside": (header({"a": entry(8, 16)}, 8), "truncated: 'a' ends at byte 16 of 8"),
    "overlap": (header({"a": entry(0, 8), "b": entry(4, 12)}, 12), "'a' and 'b' overlap"),
    "gap": (header({"a": entry(0, 8), "b": entry(12, 20)}, 20), "leave a gap"),
    "surplus": (header({"a": entry(0, 8)}, 12), "4 bytes too many"),
}


@pytest.mark.parametrize("name", LYING)
def test_headers_that_lie(tmp_path, name):
    content, problem = LYING[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(io.CorruptFileError, match=rf"model\.safetensors: .*{problem}"):
        io.read_safetensors(path)


# Folders whose files do not fit together.


def sharded(folder: Path) -> tuple[Path, dict[str, Any]]:
    models.save(tiny_llama(), folder, max_shard_bytes=8000)
    index = folder / "model.safetensors.index.json"
    return index, io.read_json(index)


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd", "..", "", "a\\b", "sub/model.safetensors"]
)
def test_an_index_that_leaves_the_folder(tmp_path, name):
    index, content = sharded(tmp_path)
    content["weight_map"]["lm_head.weight"] = name
    io.write_json(index, content)
    with pytest.raises(io.CorruptFileError, match=r"index\.json: .* is no name of a file in this"):
        evergrad.from_pretrained(tmp_path)


def test_a_shard_is_missing(tmp_path):
    sharded(tmp_path)
    next(tmp_path.glob("model-00002*")).unlink()
    with pytest.raises(FileNotFoundError, match=r"model-00002.*no such file, but .* names it"):
        evergrad.from_pretrained(tmp_path)


def test_a_shard_lacks_a_tensor_or_has_another(tmp_path):
    index, content = sharded(tmp_path)
    names = content["weight_map"]
    names["more.weight"] = names["lm_head.weight"]
    io.write_json(index, content)
    with pytest.raises(io.CorruptFileError, match=r"lacks tensors .*more\.weight"):
        evergrad.from_pretrained(tmp_path)
    del names["more.weight"], names["model.norm.weight"]
    io.write_json(index, content)
    with pytest.raises(io.CorruptFileError, match=r"holds tensors .*model\.norm\.weight"):
        evergrad.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", [[], {}, {"weight_map": 3}, {"weight_map": {"a": 3}}])
def test_an_index_that_is_none(tmp_path, content):
    index, _ = sharded(tmp_path)
    io.write_json(index, content)
    with pytest.raises(io.CorruptFileError, match="expected a weight_map"):
        evergrad.from_pretrained(tmp_path)


STRANGE = (None, True, -1, 0, 3, 2**31, 2**62, 0.5, 1e308, "llama", "", [], [1], {}, {"a": 1})


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "t5"])
def test_a_config_with_any_one_value_changed(tmp_path, family):
    """Whatever stands in config.json: the model is whole, or a ValueError says why not."""
    sizes: dict[str, Any] = {"vocab_size": 64, "layers": 1, "heads": 2, "dim": 32, "hidden": 32}
    kind = getattr(models, models.MODEL_TYPES[family])
    model = kind(kind.config_class(**sizes))
    models.save(model, tmp_path)
    settings = io.read_json(tmp_path / "config.json")
    tensors = io.read_weights(tmp_path)
    whole = sum(parameter.data.size for parameter in model.parameters())
    tracemalloc.start()
    # (Tied or not is a choice: files may hold the head of a tied model.)
    for name in sorted(settings.keys() - {"tie_word_embeddings"}):
        for value in STRANGE:
            try:
                made = models.build({**settings, name: value}, tensors)
            except ValueError:
                continue
            assert sum(parameter.data.size for parameter in made.parameters()) == whole
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * sum(tensor.nbytes for tensor in tensors.values()) + 2**20


@pytest.mark.parametrize("content", ["[]", "3", '"a"', "null", "{}", '{"model_type": [1]}'])
def test_a_config_that_is_none(tmp_path, content):
    models.save(tiny_llama(), tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"model_type is .*, expected one of"):
        evergrad.from_pretrained(tmp_path)


def test_missing_and_surplus_tensors(tmp_path):
    model = tiny_llama()
    models.save(model, tmp_path)
    tensors = models.to_theirs(model)
    lost = tensors.pop("model.layers.0.mlp.up_proj.weight")
    io.save_weights(tmp_path, tensors)
    with pytest.raises(ValueError, match=r"missing: model\.layers\.0\.mlp\.up_proj\.weight"):
        evergrad.from_pretrained(tmp_path)
    io.save_weights(tmp_path, {**tensors, "model.layers.0.mlp.up_proj.weight": lost, "more": lost})
    with pytest.raises(ValueError, match="unknown: more"):
        evergrad.from_pretrained(tmp_path)
