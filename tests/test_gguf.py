"""GGUF files: what the `gguf` package writes is read, what lies is refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evergrad import io, models
from evergrad.io import gguf_file
from evergrad.io.stored import FORMATS
from evergrad.models.gguf import TENSORS
from op_support import SEED

gguf = pytest.importorskip("gguf")

QUANTISED = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k")


def stored(kind: str, rows: int, columns: int) -> np.ndarray:
    """Bytes of a quantised matrix, whose scales are finite."""
    form = FORMATS[kind]
    size = rows * columns // form.block * form.size
    data = np.random.default_rng(SEED).integers(0, 64, size, np.uint8)
    return data.reshape(rows, -1)


def write(path: Path, tensors: dict[str, Any], *, endian: Any = None, **metadata: Any) -> Path:
    """A file by the package's own writer; a tensor is an array, or (bytes, kind)."""
    endian = gguf.GGUFEndian.LITTLE if endian is None else endian
    writer = gguf.GGUFWriter(path, "llama", endianess=endian)
    for key, value in metadata.items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
        add |= {str: writer.add_string, list: writer.add_array}
        add[type(value)](key.replace("__", "."), value)
    for name, tensor in tensors.items():
        data, kind = tensor if isinstance(tensor, tuple) else (tensor, None)
        raw = None if kind is None else gguf.GGMLQuantizationType[kind.upper()]
        writer.add_tensor(name, data, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_metadata_and_tensors_round_trip(tmp_path):
    rng = np.random.default_rng(SEED)
    tensors = {
        "f32": rng.standard_normal((3, 5), np.float32),
        "f16": rng.standard_normal((2, 3, 4)).astype(np.float16),
        "f64": rng.standard_normal(7),
        "i8": np.arange(-3, 4, dtype=np.int8),
        "i64": np.array([2**40, -1]),
    }
    path = write(
        tmp_path / "a.gguf",
        tensors,
        flag=True,
        number=7,
        real=0.5,
        text="naïve 中",
        words=["", "a", "中"],
        numbers=[1, -2, 3],
        reals=[0.5, 1.5],
        flags=[True, False],
    )
    metadata, found = io.read_gguf(path)
    assert metadata["general.architecture"] == "llama"
    assert (metadata["flag"], metadata["number"], metadata["real"]) == (True, 7, 0.5)
    assert (metadata["text"], metadata["words"]) == ("naïve 中", ["", "a", "中"])
    assert metadata["numbers"].tolist() == [1, -2, 3]
    assert metadata["reals"].tolist() == [0.5, 1.5]
    assert list(metadata["flags"]) == [True, False]
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].kind, found[name].shape) == (name, tensor.shape)
        np.testing.assert_array_equal(found[name].numpy(), tensor)
        assert not found[name].numpy().flags.owndata  # a view of the file


@pytest.mark.parametrize("kind", QUANTISED)
def test_dequantises_as_the_package_does(tmp_path, kind):
    data = stored(kind, 3, 512)
    path = write(tmp_path / "a.gguf", {"w": (data, kind), "v": np.ones(2, np.float32)})
    tensor = io.read_gguf(path).tensors["w"]
    assert (tensor.kind, tensor.shape, tensor.dtype) == (kind, (3, 512), np.float32)
    np.testing.assert_array_equal(tensor.data, data)
    expected = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind.upper()])
    np.testing.assert_array_equal(tensor.numpy(), expected)


def test_bfloat16(tmp_path):
    values = np.random.default_rng(SEED).standard_normal((4, 6), np.float32)
    data = gguf.quants.quantize(values, gguf.GGMLQuantizationType.BF16)
    tensor = io.read_gguf(write(tmp_path / "a.gguf", {"w": (data, "bf16")})).tensors["w"]
    expected = gguf.quants.dequantize(data, gguf.GGMLQuantizationType.BF16)
    np.testing.assert_array_equal(tensor.numpy(), expected)


def test_formats_are_those_of_the_package():
    for number, kind in gguf_file.KINDS.items():
        known = gguf.GGMLQuantizationType(number)
        assert known.name.lower() == kind
        assert FORMATS[kind][:2] == gguf.GGML_QUANT_SIZES[known]
    for number in (*gguf_file.SCALARS, gguf_file.BOOL, gguf_file.STRING, gguf_file.ARRAY):
        gguf.GGUFValueType(number)
    others = gguf_file.UNSUPPORTED
    for known in gguf.GGMLQuantizationType:
        assert (
            known in gguf_file.KINDS or known not in others or others[known].upper() == known.name
        )


def test_types_that_are_known_but_not_supported_are_named(tmp_path):
    path = write(tmp_path / "a.gguf", {"w": (np.zeros((2, 18), np.uint8), "iq4_nl")})
    with pytest.raises(
        ValueError, match=r"a\.gguf: the tensor 'w' is of the type IQ4_NL"
    ) as caught:
        io.read_gguf(path)
    assert not isinstance(caught.value, io.CorruptFileError)
    assert "expected one of F32, F16, Q4_0" in str(caught.value)


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
def test_some_rows_of_matrices_and_vectors(tmp_path, kind):
    values = np.random.default_rng(SEED).standard_normal((4, 64), np.float32)
    known = gguf.GGMLQuantizationType[kind.upper()]
    tensors = {
        "matrix": (gguf.quants.quantize(values, known), kind),
        "vector": (gguf.quants.quantize(values[:1], known)[0], kind),
    }
    found = io.read_gguf(write(tmp_path / "a.gguf", tensors)).tensors
    for tensor, rows in ((found["matrix"], [3, 0]), (found["vector"], [63, 0, 40])):
        some = tensor.take_rows(np.array(rows))
        assert some.shape == (len(rows), *tensor.shape[1:])
        np.testing.assert_array_equal(some.numpy(), tensor.numpy()[rows])


# Files made by hand, a field at a time, so that each can lie.


def string(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


def pair(key: bytes, kind: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + value


def info(name: bytes, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return string(name) + dims + struct.pack("<IQ", kind, offset)


def file(
    *parts: bytes,
    magic: bytes = b"GGUF",
    version: int = 3,
    tensors: int = 0,
    pairs: int = 0,
    data: int = 0,
) -> bytes:
    head = magic + struct.pack("<IQQ", version, tensors, pairs) + b"".join(parts)
    return head + bytes(-len(head) % 32 + data)


HUGE = 2**63
BROKEN = {
    "empty": (b"", "truncated: the file is empty"),
    "magic": (file(magic=b"GGML"), "not a GGUF file"),
    "version 1": (file(version=1), "version 1 is not supported"),
    "version 99": (file(version=99), "version 99 is not supported"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "count of tensors": (file(tensors=HUGE), "do not fit"),
    "count of pairs": (file(pairs=HUGE), "do not fit"),
    "length of a key": (file(string(b"a", HUGE), bytes(99), pairs=1), "do not fit"),
    "empty key": (file(pair(b"", 0, b"\0"), pairs=1), "0 bytes long"),
    "key not UTF-8": (file(pair(b"\xff", 0, b"\0"), pairs=1), "not UTF-8"),
    "key twice": (file(*[pair(b"a", 0, b"\0")] * 2, pairs=2), "the key 'a' occurs twice"),
    "type of a value": (file(pair(b"a", 13, bytes(16)), pairs=1), "unknown type 13"),
    "boolean": (file(pair(b"a", 7, b"\x02"), pairs=1), "no boolean"),
    "length of a value": (file(pair(b"a", 8, string(b"b", HUGE)), pairs=1), "do not fit"),
    "value not UTF-8": (file(pair(b"a", 8, string(b"\xc3")), pairs=1), "not UTF-8"),
    "array in an array": (file(pair(b"a", 9, struct.pack("<IQ", 9, 0)), pairs=1), "unknown type 9"),
    "length of an array": (
        file(pair(b"a", 9, struct.pack("<IQ", 6, HUGE)), pairs=1),
        "do not fit",
    ),
    "length of strings": (file(pair(b"a", 9, struct.pack("<IQ", 8, HUGE)), pairs=1), "do not fit"),
    "string in an array": (
        file(pair(b"a", 9, struct.pack("<IQ", 8, 2) + string(b"b") + string(b"c", HUGE)), pairs=1),
        "bytes of element 1 of the value of 'a' do not fit",
    ),
    "alignment": (
        file(pair(b"general.alignment", 4, struct.pack("<I", 24)), pairs=1),
        "power of two, is 24",
    ),
    "alignment of 0": (
        file(pair(b"general.alignment", 4, struct.pack("<I", 0)), pairs=1),
        "power of two, is 0",
    ),
    "alignment a text": (
        file(pair(b"general.alignment", 8, string(b"32")), pairs=1),
        "power of two, is '32'",
    ),
    "name of a tensor": (file(string(b"w", HUGE), bytes(99), tensors=1), "do not fit"),
    "tensor twice": (file(*[info(b"w", (8,), 0, 0)] * 2, tensors=2, data=32), "'w' occurs twice"),
    "dimensions": (file(info(b"w", (1,) * 5, 0, 0), tensors=1, data=32), "5 dimensions"),
    "dimension of 0": (file(info(b"w", (8, 0), 0, 0), tensors=1, data=32), "is empty"),
    "type of a tensor": (file(info(b"w", (32,), 99, 0), tensors=1, data=32), "unknown type 99"),
    "unaligned": (file(info(b"w", (1,), 0, 4), tensors=1, data=64), "no multiple of 32"),
    "offset": (file(info(b"w", (8,), 0, 2**40), tensors=1, data=32), "truncated: the tensor 'w'"),
    "overflowing offset": (
        file(info(b"w", (8,), 0, 2**64 - 32), tensors=1, data=32),
        "truncated: the tensor 'w'",
    ),
    "overflowing size": (
        file(info(b"w", (2**32, 2**32), 0, 0), tensors=1, data=32),
        "truncated: the tensor 'w'",
    ),
    "half a block": (file(info(b"w", (33, 2), 8, 0), tensors=1, data=96), "whole q8_0 blocks"),
    "overlap": (
        file(info(b"v", (16,), 0, 0), info(b"w", (8,), 0, 32), tensors=2, data=64),
        "'v' and 'w' overlap",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused(tmp_path, name):
    content, problem = BROKEN[name]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(io.CorruptFileError, match=rf"model\.gguf: .*{problem}"):
        io.read_gguf(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        io.read_gguf(tmp_path / "a.gguf")


# Llamas.

SIZES = {"block_count": 2, "embedding_length": 32, "feed_forward_length": 64, "context_length": 48}
SIZES |= {"attention__head_count": 4, "attention__head_count_kv": 2}


def llama_file(path: Path, *, tied: bool = False, vocabulary: int = 40, **changes: Any) -> Path:
    """A small Llama; `changes` are keys of the metadata (None: left out) or tensors."""
    rng = np.random.default_rng(SEED)
    metadata: dict[str, Any] = {f"llama__{name}": value for name, value in SIZES.items()}
    metadata["llama__attention__layer_norm_rms_epsilon"] = 1e-5
    shapes = {"token_embd": (vocabulary, 32), "output_norm": (32,)}
    if not tied:
        shapes["output"] = (vocabulary, 32)
    for i in range(2):
        shapes |= {
            f"blk.{i}.attn_norm": (32,),
            f"blk.{i}.attn_q": (32, 32),
            f"blk.{i}.attn_k": (16, 32),
            f"blk.{i}.attn_v": (16, 32),
            f"blk.{i}.attn_output": (32, 32),
            f"blk.{i}.ffn_norm": (32,),
            f"blk.{i}.ffn_gate": (64, 32),
            f"blk.{i}.ffn_up": (64, 32),
            f"blk.{i}.ffn_down": (32, 64),
        }
    tensors: dict[str, Any] = {}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape, np.float32)
        tensors[name + ".weight"] = (
            values
            if len(shape) == 1
            else (gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0), "q8_0")
        )
    for name, value in changes.items():
        (metadata if isinstance(value, (bool, int, float, str)) else tensors)[name] = value
    metadata = {name: value for name, value in metadata.items() if value is not None}
    tensors = {name: value for name, value in tensors.items() if value is not None}
    return write(path, tensors, **metadata)


@pytest.mark.parametrize("tied", [False, True])
def test_a_llama(tmp_path, tied):
    path = llama_file(tmp_path / "a.gguf", tied=tied)
    model = models.from_pretrained(path)
    config = model.config
    assert (config.vocab_size, config.context, config.layers) == (40, 48, 2)
    assert (config.heads, config.kv_heads, config.head_dim, config.dim) == (4, 2, 8, 32)
    assert (config.rms_norm_eps, config.tied) == (1e-5, tied)
    tensors = io.read_gguf(path).tensors
    theirs = models.to_theirs(model)
    np.testing.assert_array_equal(
        theirs["model.layers.1.mlp.down_proj.weight"], tensors["blk.1.ffn_down.weight"].numpy()
    )
    # Neighbours of a head there are halves here.
    query = tensors["blk.0.attn_q.weight"].numpy().reshape(4, 4, 2, 32)
    ours = theirs["model.layers.0.self_attn.q_proj.weight"].reshape(4, 2, 4, 32)
    np.testing.assert_array_equal(ours, query.swapaxes(1, 2))


@pytest.mark.parametrize("name", ["none", "no_vocab"])
def test_a_llama_whose_tokenizer_is_said_to_be_none(tmp_path, name):
    path = llama_file(tmp_path / "a.gguf", tokenizer__ggml__model=name)
    assert models.from_pretrained(path).tokenizer is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"llama__block_count": 3}, "missing: model.layers.2"),
        ({"llama__block_count": 1}, "unknown: model.layers.1"),
        ({"llama__block_count": 2**31 - 1}, "layers cannot be filled"),
        ({"llama__embedding_length": 64}, "expected the shape"),
        ({"llama__feed_forward_length": 48}, "shape of model.layers.0.mlp"),
        ({"llama__feed_forward_length": 96}, "a size of 96 is more than any tensor has"),
        ({"llama__attention__head_count": 8, "llama__attention__key_length": 8}, "shape of"),
        ({"llama__attention__head_count": 0}, "positive number, is 0"),
        ({"llama__vocab_size": 41}, "vocab_size=41"),
        ({"llama__rope__dimension_count": 4}, "dimension_count=4"),
        ({"llama__expert_count": 4}, r"expert_count=4 is not supported, only 0"),
        ({"llama__rope__scaling__type": "longrope"}, "longrope"),
        ({"llama__rope__freq_base": float("nan")}, "freq_base must be a positive number"),
        ({"extra.weight": np.ones(2, np.float32)}, "unknown: 'extra.weight'"),
        ({"blk.0.attn_q.weight": np.ones((31, 32), np.float32)}, "not 4 even heads"),
        ({"blk.0.attn_q.weight": np.float32(1)}, "not 4 even heads"),
        ({"blk.0.attn_q.bias": np.ones(31, np.float32)}, "not 4 even heads"),
        ({"blk.0.attn_v.bias": np.ones(8, np.float32)}, "shape of"),
        ({"blk.0.attn_v.weight": np.ones((16, 31), np.float32)}, "shape of"),
        ({"token_embd.weight": np.ones(32, np.float32)}, "'token_embd.weight' is missing"),
        ({"rope_freqs.weight": np.full(4, 3, np.float32)}, "not those of Llama 3"),
    ],
)
def test_llamas_that_do_not_fit(tmp_path, changes, problem):
    path = llama_file(tmp_path / "a.gguf", **changes)
    with pytest.raises(ValueError, match=rf"(?s)a\.gguf: .*{problem}"):
        models.from_pretrained(path)


def test_the_factors_of_llama_3(tmp_path):
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0}
    scaling |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    from evergrad import nn

    plain = nn.Rotary(8, 500000.0)
    stretched = nn.Rotary(8, 500000.0, scaling)
    factors = (plain.inv_freq / stretched.inv_freq).astype(np.float32)
    path = llama_file(
        tmp_path / "a.gguf", llama__rope__freq_base=500000.0, **{"rope_freqs.weight": factors}
    )
    model = models.from_pretrained(path)
    assert model.config.rope_scaling == scaling
    np.testing.assert_allclose(model.rotary.inv_freq, stretched.inv_freq)


def test_other_architectures_are_refused_by_name(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(file(pair(b"general.architecture", 8, string(b"mamba")), pairs=1))
    with pytest.raises(ValueError, match=r"a\.gguf: the architecture 'mamba' is not supported"):
        models.from_pretrained(path)


# Keys that change the numbers.

SCALING = "llama__rope__scaling__"
YARN = {SCALING + "type": "yarn", SCALING + "factor": 4.0, SCALING + "original_context_length": 12}


@pytest.mark.parametrize(
    ("key", "value", "only"),
    [
        ("attention__causal", False, 1),
        ("attention__clamp_kqv", 8.0, 0),
        ("attention__max_alibi_bias", 8.0, 0),
        ("attention__scale", 0.5, "0 or 0.353553"),
        ("attention__sliding_window", 47, 0),
        ("attn_logit_softcapping", 50.0, 0),
        ("embedding_scale", 12.0, "0 or 1"),
        ("expert_used_count", 2, 0),
        ("final_logit_softcapping", 30.0, 0),
        ("logit_scale", float("nan"), "0 or 1"),
        ("logit_scale", "1", "0 or 1"),
        ("residual_scale", 0.25, "0 or 1"),
        ("rope__scaling__yarn_attn_factor", 0.5, 1),
        ("rope__scaling__yarn_ext_factor", 1.0, "-1 or 0"),
        ("rope__scaling__yarn_log_multiplier", 0.125, 0),
        ("use_parallel_residual", True, 0),
    ],
)
def test_keys_that_change_the_numbers_are_refused(tmp_path, key, value, only):
    name = f"llama.{key.replace('__', '.')}"
    path = llama_file(tmp_path / "a.gguf", **{f"llama__{key}": value})
    with pytest.raises(ValueError, match=rf"a\.gguf: {name}='?{value}'? .* only {only}$"):
        models.from_pretrained(path)


@pytest.mark.parametrize("key", ["altup__num_inputs", "rope__scaling__alpha", "new__in__2030"])
def test_unknown_keys_are_refused(tmp_path, key):
    path = llama_file(tmp_path / "a.gguf", **{f"llama__{key}": 2})
    name = key.replace("__", ".")
    with pytest.raises(ValueError, match=rf"a\.gguf: llama\.{name}=2 is not supported$"):
        models.from_pretrained(path)


def test_keys_that_change_nothing_are_taken(tmp_path):
    plain = models.from_pretrained(llama_file(tmp_path / "a.gguf"))
    neutral = {
        "attention__causal": True,
        "attention__clamp_kqv": 0.0,
        "attention__scale": 8**-0.5,
        "attention__sliding_window": 48,
        "embedding_scale": 1.0,
        "expert_count": 0,
        "expert_used_count": 0,
        "logit_scale": 0.0,
        "pooling_type": 1,
        "rope__dimension_count": 8,
        "rope__scaling__attn_factor": 1.0,
        "rope__scaling__finetuned": True,
        "rope__scaling__type": "none",
        "rope__scaling__factor": 8.0,  # of none
        "rope__scaling__yarn_beta_fast": 16.0,
        "rope__scaling__yarn_ext_factor": -1.0,
        "tensor_data_layout": "Meta AI original pth",
        "use_parallel_residual": False,
    }
    changes = {f"llama__{key}": value for key, value in neutral.items()}
    others = {"general__file_type": 7, "quantize__imatrix__file": "a", "llamas__logit_scale": 2.0}
    model = models.from_pretrained(llama_file(tmp_path / "b.gguf", **changes, **others))
    assert model.config == plain.config
    np.testing.assert_array_equal(model.logits(np.arange(9)), plain.logits(np.arange(9)))


@pytest.mark.parametrize(
    "keys", [{"scale_linear": 4.0}, {"scaling__factor": 4.0}, {"scaling__type": "linear"}]
)
def test_linear_is_what_a_factor_alone_means(tmp_path, keys):
    # As for llama.cpp, of which the old key is.
    keys = {"scale_linear": 4.0, **keys} if "scaling__type" in keys else keys
    changes = {f"llama__rope__{key}": value for key, value in keys.items()}
    model = models.from_pretrained(llama_file(tmp_path / "a.gguf", **changes))
    assert model.config.rope_scaling == {"rope_type": "linear", "factor": 4.0}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({SCALING + "attn_factor": 0.5}, "attn_factor=0.5 is only supported with YaRN"),
        (YARN | {SCALING + "yarn_ext_factor": 0.0}, "yarn_ext_factor=0.0 .* only -1 or 1"),
        (YARN | {SCALING + "yarn_beta_fast": "x"}, "yarn_beta_fast must be a positive number"),
        (YARN | {"rope_freqs.weight": np.ones(4, np.float32)}, "'rope_freqs.weight' beside"),
    ],
)
def test_ways_to_stretch_that_are_refused(tmp_path, changes, problem):
    path = llama_file(tmp_path / "a.gguf", **changes)
    with pytest.raises(ValueError, match=rf"a\.gguf: .*{problem}"):
        models.from_pretrained(path)


# The same model in transformers.


def hugging_face(
    path: Path, left_out: tuple[str, ...] = (), keys: Any = (), **settings: Any
) -> Any:
    """transformers' Llama with random biases, also written as GGUF; biases left out are 0 there."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=48,
        rms_norm_eps=1e-5,
        initializer_range=0.3,
        tie_word_embeddings=False,
        **settings,
    )
    torch.manual_seed(SEED)
    model = transformers.LlamaForCausalLM(config).eval()
    names = {theirs: ours for ours, theirs in TENSORS.items()}
    tensors: dict[str, Any] = {}
    for name, parameter in model.named_parameters():
        words = name.split(".")
        number = next((word for word in words if word.isdigit()), "")
        stem = ".".join("{}" if word == number else word for word in words[:-1])
        ours = f"{names[stem].format(number)}.{words[-1]}"
        with torch.no_grad():
            if words[-1] == "bias":
                parameter.normal_()
                if ours in left_out:
                    parameter.zero_()
                    continue
        values = parameter.detach().numpy()
        if words[-2] in ("q_proj", "k_proj"):  # neighbours there, halves here
            heads = 4 if words[-2] == "q_proj" else 2
            halves = values.reshape(heads, 2, 4, *values.shape[1:])
            values = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
        tensors[ours] = values
    metadata = {f"llama__{name}": value for name, value in SIZES.items()}
    metadata["llama__attention__layer_norm_rms_epsilon"] = 1e-5
    write(path, tensors, **metadata, **dict(keys))

    def logits(ids: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(model(torch.from_numpy(ids)[None]).logits[0])

    return logits


IDS = np.random.default_rng(SEED).integers(0, 40, 30)


@pytest.mark.parametrize(
    ("biased", "left_out"),
    [
        (("attention_bias",), ()),
        (("attention_bias", "mlp_bias"), ()),
        (("attention_bias",), ("blk.0.attn_output.bias", "blk.1.attn_output.bias")),  # as Qwen's
        (("attention_bias",), ("blk.0.attn_q.bias", "blk.0.attn_k.bias", "blk.1.attn_v.bias")),
        (("mlp_bias",), ("blk.0.ffn_up.bias", "blk.1.ffn_gate.bias")),
    ],
)
def test_biases_are_those_of_transformers(tmp_path, biased, left_out):
    path = tmp_path / "a.gguf"
    logits = hugging_face(path, left_out, **dict.fromkeys(biased, True))
    model = models.from_pretrained(path)
    assert model.config.attention_bias == ("attention_bias" in biased)
    assert model.config.mlp_bias == ("mlp_bias" in biased)
    np.testing.assert_allclose(model.logits(IDS), logits(IDS), atol=1e-4)


@pytest.mark.parametrize(
    ("keys", "settings"),
    [
        ({}, {}),
        ({"yarn_beta_fast": 2.0, "yarn_beta_slow": 0.125}, {"beta_fast": 2, "beta_slow": 0.125}),
        # llama.cpp multiplies YaRN's own factor, in place of which Hugging Face takes the other.
        ({"attn_factor": 0.5}, {"attention_factor": 0.5 * (0.1 * np.log(4.0) + 1)}),
    ],
)
def test_yarn_is_that_of_transformers(tmp_path, keys, settings):
    path = tmp_path / "a.gguf"
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 12, **settings}
    logits = hugging_face(
        path,
        keys={**YARN, **{SCALING + key: value for key, value in keys.items()}},
        rope_parameters={"rope_theta": 10000.0, **rope},
    )
    model = models.from_pretrained(path)
    np.testing.assert_allclose(model.logits(IDS), logits(IDS), atol=1e-4)


def test_the_context_of_yarn_is_by_default_the_model_s(tmp_path):
    keys = {key: value for key, value in YARN.items() if "original" not in key}
    model = models.from_pretrained(llama_file(tmp_path / "a.gguf", **keys))
    assert model.config.rope_scaling["original_max_position_embeddings"] == 48
