"""GGUF files as Hugging Face would have them: settings and tensors under its names.

Names of keys and tensors: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import io, nn
from .llama import Llama

__all__ = ["llama_settings", "llama_tensors", "read_gguf"]

# Theirs: Hugging Face's. "{}" stands for the number of a layer; ".weight" or ".bias" follows.
TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.{}.attn_norm": "model.layers.{}.input_layernorm",
    "blk.{}.attn_q": "model.layers.{}.self_attn.q_proj",
    "blk.{}.attn_k": "model.layers.{}.self_attn.k_proj",
    "blk.{}.attn_v": "model.layers.{}.self_attn.v_proj",
    "blk.{}.attn_output": "model.layers.{}.self_attn.o_proj",
    "blk.{}.ffn_norm": "model.layers.{}.post_attention_layernorm",
    "blk.{}.ffn_gate": "model.layers.{}.mlp.gate_proj",
    "blk.{}.ffn_up": "model.layers.{}.mlp.up_proj",
    "blk.{}.ffn_down": "model.layers.{}.mlp.down_proj",
}

#: One factor per frequency, by which the angles are divided: how Llama 3 stretches its context.
ROPE_FACTORS = "rope_freqs.weight"

SPECIAL_TOKENS = {
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "pad_token_id": "tokenizer.ggml.padding_token_id",
}


def read_gguf(file: io.GGUF) -> tuple[dict[str, Any], dict[str, io.StoredTensor]]:
    """Give settings and tensors of a model as `build` takes them.

    Parameters
    ----------
    file : io.GGUF
        What `io.read_gguf` returned.

    Returns
    -------
    settings : dict
        What Hugging Face's config.json would hold.
    tensors : dict of str to io.StoredTensor
        Under Hugging Face's names, stored as they are in the file.

    Raises
    ------
    ValueError
        When the architecture is not a Llama, a number is missing or impossible, or a tensor has
        no place.
    """
    architecture = file.metadata.get("general.architecture")
    if architecture != Llama.model_type:
        raise ValueError(f"the architecture {architecture!r} is not supported, only 'llama'")
    settings = llama_settings(file)
    return settings, llama_tensors(file, settings)


def llama_settings(file: io.GGUF) -> dict[str, Any]:
    """Read a Llama's settings from the metadata."""
    keys = _Keys(file.metadata, "llama.")
    tensors = file.tensors
    if "token_embd.weight" not in tensors or len(tensors["token_embd.weight"].shape) != 2:
        raise ValueError("the matrix 'token_embd.weight' is missing")
    vocabulary = tensors["token_embd.weight"].shape[0]
    heads, dim = keys.count("attention.head_count"), keys.count("embedding_length")
    head_dim = keys.count("attention.key_length", dim // heads)
    for name, default, expected in (
        ("vocab_size", vocabulary, vocabulary),
        ("attention.value_length", head_dim, head_dim),
        ("rope.dimension_count", head_dim, head_dim),
    ):
        if (got := keys.count(name, default)) != expected:
            raise ValueError(f"llama.{name}={got} is not supported, only {expected}")
    if file.metadata.get("llama.expert_count", 0) != 0:
        raise ValueError("mixtures of experts (llama.expert_count) are not supported")
    theta = keys.number("rope.freq_base", 10000.0)
    return {
        "model_type": Llama.model_type,
        "vocab_size": vocabulary,
        "max_position_embeddings": keys.count("context_length"),
        "num_hidden_layers": keys.count("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": keys.count("attention.head_count_kv", heads),
        "hidden_size": dim,
        "head_dim": head_dim,
        "intermediate_size": keys.count("feed_forward_length"),
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": theta,
        "rope_scaling": _rope_scaling(file, keys, theta, head_dim),
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in tensors,
        "tie_word_embeddings": "output.weight" not in tensors,
        **{
            name: int(file.metadata[key])
            for name, key in SPECIAL_TOKENS.items()
            if type(file.metadata.get(key)) is int
        },
    }


def llama_tensors(file: io.GGUF, settings: Mapping[str, Any]) -> dict[str, io.StoredTensor]:
    """Give a Llama's tensors under Hugging Face's names."""
    heads = {
        "q_proj": settings["num_attention_heads"],
        "k_proj": settings["num_key_value_heads"],
    }
    found = {}
    for theirs, tensor in file.tensors.items():
        if theirs == ROPE_FACTORS:
            continue
        name = _name(theirs)
        part = name.split(".")[-2]
        if part in heads:
            tensor = _halves(theirs, tensor, heads[part])
        found[name] = tensor
    return found


def _name(theirs: str) -> str:
    words = theirs.split(".")
    number = next((word for word in words if word.isdigit()), "")
    stem = ".".join("{}" if word == number else word for word in words[:-1])
    if stem not in TENSORS or words[-1] not in ("weight", "bias"):
        raise ValueError(f"unknown: {theirs!r}, no tensor of a Llama")
    return f"{TENSORS[stem].format(number)}.{words[-1]}"


def _halves(name: str, tensor: io.StoredTensor, heads: int) -> io.StoredTensor:
    """Undo the order of rows by which llama.cpp turns neighbours (0, 1), (2, 3) ... as a pair.

    Row 2 i + h of a head there is row i + h d/2 here, where halves turn: (0, d/2), (1, d/2 + 1) ...
    """
    if tensor.shape[0] % (2 * heads):
        raise ValueError(f"the rows of {name!r}, {tensor.shape[0]}, are not {heads} even heads")
    rows = np.arange(tensor.shape[0]).reshape(heads, -1, 2)
    return tensor.take_rows(rows.swapaxes(1, 2).reshape(-1))


def _rope_scaling(file: io.GGUF, keys: _Keys, theta: float, head_dim: int) -> dict[str, Any] | None:
    """How the context was stretched, in Hugging Face's words."""
    if ROPE_FACTORS in file.tensors:
        return _llama3(file.tensors[ROPE_FACTORS].numpy().astype(np.float64), theta, head_dim)
    kind = file.metadata.get("llama.rope.scaling.type", "none")
    if kind == "none":
        # The key of old files: 1 there means that nothing is stretched.
        factor = keys.number("rope.scale_linear", 1.0)
        return None if factor == 1 else {"rope_type": "linear", "factor": factor}
    if kind not in ("linear", "yarn"):
        raise ValueError(f"llama.rope.scaling.type={kind!r} is not supported")
    scaling = {"rope_type": kind, "factor": keys.number("rope.scaling.factor")}
    if kind == "yarn":
        length = keys.count("rope.scaling.original_context_length")
        scaling["original_max_position_embeddings"] = length
    return scaling


def _llama3(factors: Any, theta: float, head_dim: int) -> dict[str, Any]:
    """The numbers of Llama 3 from which a table of factors was made.

    Every model of that family has the same but for the factor, which is the largest of the table.
    """
    scaling = {
        "rope_type": "llama3",
        "factor": float(factors.max(initial=1)),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    plain, stretched = (nn.Rotary(head_dim, theta, each).inv_freq for each in (None, scaling))
    if factors.shape != plain.shape or not np.allclose(plain / factors, stretched, rtol=1e-4):
        raise ValueError(f"the factors of {ROPE_FACTORS!r} are not those of Llama 3")
    return scaling


class _Keys:
    """Numbers of the metadata, checked."""

    def __init__(self, metadata: Mapping[str, Any], prefix: str) -> None:
        self.metadata, self.prefix = metadata, prefix

    def count(self, name: str, default: int | None = None) -> int:
        value = self._get(name, default)
        if type(value) is not int or not 0 < value < 2**31:
            raise ValueError(f"{self.prefix}{name} must be a positive number, is {value!r:.80}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._get(name, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise ValueError(f"{self.prefix}{name} must be a positive number, is {value!r:.80}")
        # Stored as float32: 1e-5 comes as 9.99999974e-06, and its shortest name is 1e-05.
        return float(str(np.float32(value)))

    def _get(self, name: str, default: Any) -> Any:
        value = self.metadata.get(self.prefix + name, default)
        if value is None:
            raise ValueError(f"the key '{self.prefix}{name}' is missing")
        return value
