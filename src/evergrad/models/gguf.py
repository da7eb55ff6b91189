"""GGUF files as Hugging Face would have them: settings and tensors under its names.

Names of keys and tensors: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import io, nn
from ..ops.quant import BLOCKS
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

#: Maps that have a bias all together or not at all, by the setting that says so.
BIASES = {
    "attention_bias": ("attn_q", "attn_k", "attn_v", "attn_output"),
    "mlp_bias": ("ffn_gate", "ffn_up", "ffn_down"),
}

#: Keys that tell of the file's making, or of what a Llama has not.
INFORMATION = {
    "attention.layer_norm_epsilon",
    "pooling_type",
    "rope.scaling.finetuned",
    "tensor_data_layout",
}

#: Keys of models that are nearly Llamas, and the values that make them Llamas.
NEUTRAL: dict[str, tuple[float, ...]] = {
    "attention.causal": (1,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.sliding_window": (0,),
    "attn_logit_softcapping": (0,),
    "embedding_scale": (0, 1),
    "expert_count": (0,),
    "expert_shared_count": (0,),
    "expert_used_count": (0,),
    "final_logit_softcapping": (0,),
    "leading_dense_block_count": (0,),
    "logit_scale": (0, 1),
    "nextn_predict_layers": (0,),
    "residual_scale": (0, 1),
    "rope.scaling.yarn_attn_factor": (1,),
    "rope.scaling.yarn_log_multiplier": (0,),
    "use_parallel_residual": (0,),
}

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
        When the architecture is not a Llama, a number is missing or impossible, a key asks for
        what a Llama does not do, or a tensor has no place.
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
    theta = keys.number("rope.freq_base", 10000.0)
    biased = {
        name.removesuffix(".bias").rpartition(".")[2] for name in tensors if name.endswith(".bias")
    }
    settings = {
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
        **{name: not biased.isdisjoint(maps) for name, maps in BIASES.items()},
        "tie_word_embeddings": "output.weight" not in tensors,
        **{
            name: int(file.metadata[key])
            for name, key in SPECIAL_TOKENS.items()
            if type(file.metadata.get(key)) is int
        },
    }
    _check_others(keys, settings)
    return settings


def _check_others(keys: _Keys, settings: Mapping[str, Any]) -> None:
    """Refuse keys that nobody reads, unless they change nothing."""
    yarn = keys.get("rope.scaling.type") == "yarn"
    neutral = NEUTRAL | {
        "attention.scale": (0, settings["head_dim"] ** -0.5),
        "rope.scaling.yarn_ext_factor": (-1, int(yarn)),  # -1: whatever is usual
    }
    context = settings["max_position_embeddings"]
    for name in keys.unread():
        value, allowed = keys.get(name), neutral.get(name, ())
        if not isinstance(value, (bool, int, float)):
            fits = False
        elif name == "attention.sliding_window" and value >= context:
            fits = True  # no token looks back beyond the context
        else:  # float32 in the file
            fits = any(math.isclose(value, each, rel_tol=1e-6) for each in allowed)
        if not fits:
            only = f", only {' or '.join(f'{each:g}' for each in allowed)}" if allowed else ""
            raise ValueError(f"{keys.prefix}{name}={value!r:.80} is not supported{only}")


def llama_tensors(file: io.GGUF, settings: Mapping[str, Any]) -> dict[str, io.StoredTensor]:
    """Give a Llama's tensors under Hugging Face's names."""
    heads = {
        "q_proj": settings["num_attention_heads"],
        "k_proj": settings["num_key_value_heads"],
    }
    found: dict[str, io.StoredTensor] = {}
    order: dict[str, int] = {}
    for theirs, tensor in file.tensors.items():
        if theirs == ROPE_FACTORS:
            continue
        name = _name(theirs)
        part = name.split(".")[-2]
        if part in heads:
            _check_heads(theirs, tensor, heads[part])
            order[name] = heads[part]
        found[name] = tensor
    _put_in_order(found, order)
    # A bias of 0 where others have one: Hugging Face's Llamas have all of them or none.
    for setting, maps in BIASES.items():
        parts = [TENSORS[f"blk.{{}}.{each}"].rpartition(".")[2] for each in maps]
        for name in list(found) if settings[setting] else ():
            stem, _, last = name.rpartition(".")
            if last == "weight" and stem.rpartition(".")[2] in parts:
                size = math.prod(found[name].shape[:1])
                zeros = io.StoredTensor("f32", (size,), np.zeros((1, 4 * size), np.uint8))
                found.setdefault(f"{stem}.bias", zeros)
    return found


def _put_in_order(found: dict[str, io.StoredTensor], heads: Mapping[str, int]) -> None:
    """Give the rows of queries and keys our order.

    Row 2 i + h of a head there is row i + h d/2 here: llama.cpp turns neighbours (0, 1), (2, 3) ...
    as a pair, where we turn halves, (0, d/2), (1, d/2 + 1) ... Those that stay in few bits, and
    alike, are put below one another, with the values: as one matrix they are not copied again.
    """
    together = [names for names in map(_with_key_and_value, heads) if _are_alike(found, names)]
    memory = np.empty(sum(found[name].nbytes for names in together for name in names), np.uint8)
    start = 0
    for name in itertools.chain(*together):
        tensor = found[name]
        source, width = tensor.data, tensor.data.shape[1]
        data = memory[start : start + tensor.nbytes].reshape(source.shape)
        start += tensor.nbytes
        if name in heads:
            pairs = source.reshape(heads[name], -1, 2, width)
            data.reshape(heads[name], 2, -1, width)[...] = pairs.swapaxes(1, 2)
        else:
            data[...] = source
        found[name] = io.StoredTensor(tensor.kind, tensor.shape, data)
        io.release(tensor)
    for name in heads.keys() - set(itertools.chain(*together)):
        rows = np.arange(found[name].shape[0]).reshape(heads[name], -1, 2)
        taken = found[name].take_rows(rows.swapaxes(1, 2).reshape(-1))
        io.release(found[name])
        found[name] = taken


def _with_key_and_value(query: str) -> list[str]:
    """Three names for that of a query's weight, else what is no name."""
    stem, _, last = query.rpartition(".q_proj.")
    return [f"{stem}.{part}.{last}" for part in ("q_proj", "k_proj", "v_proj")]


def _are_alike(found: Mapping[str, io.StoredTensor], names: Sequence[str]) -> bool:
    """Whether they are matrices of one kind, in few bits."""
    tensors = [found[name] for name in names if name in found]
    kinds = {(tensor.kind, len(tensor.shape)) for tensor in tensors}
    return len(tensors) == 3 and len(kinds) == 1 and kinds <= {(kind, 2) for kind in BLOCKS}


def _name(theirs: str) -> str:
    words = theirs.split(".")
    number = next((word for word in words if word.isdigit()), "")
    stem = ".".join("{}" if word == number else word for word in words[:-1])
    if stem not in TENSORS or words[-1] not in ("weight", "bias"):
        raise ValueError(f"unknown: {theirs!r}, no tensor of a Llama")
    return f"{TENSORS[stem].format(number)}.{words[-1]}"


def _check_heads(name: str, tensor: io.StoredTensor, heads: int) -> None:
    size = math.prod(tensor.shape[:1])
    if size % (2 * heads) or not tensor.shape:
        raise ValueError(f"the rows of {name!r}, {size}, are not {heads} even heads")


def _rope_scaling(file: io.GGUF, keys: _Keys, theta: float, head_dim: int) -> dict[str, Any] | None:
    """How the context was stretched, in Hugging Face's words."""
    kind = keys.get("rope.scaling.type", "linear")
    if not isinstance(kind, str) or kind not in ("none", "linear", "yarn"):
        raise ValueError(f"llama.rope.scaling.type={kind!r:.80} is not supported")
    # Old files have the second key instead of the first.
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 1.0))
    attention = keys.number("rope.scaling.attn_factor", 1.0)
    yarn = {
        "original_max_position_embeddings": keys.count(
            "rope.scaling.original_context_length", keys.count("context_length")
        ),
        "beta_fast": keys.number("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": keys.number("rope.scaling.yarn_beta_slow", 1.0),
    }
    scaling: dict[str, Any] | None = None
    if kind == "yarn":
        scaling = {"rope_type": kind, "factor": factor, **yarn}
        if attention != 1:  # a multiple of YaRN's own there, the whole here
            scaling["attention_factor"] = attention * (0.1 * max(math.log(factor), 0.0) + 1)
    elif attention != 1:
        raise ValueError(f"llama.rope.scaling.attn_factor={attention} is only supported with YaRN")
    elif kind == "linear" and factor != 1:
        scaling = {"rope_type": kind, "factor": factor}
    if ROPE_FACTORS not in file.tensors:
        return scaling
    if scaling is not None:
        raise ValueError(
            f"{ROPE_FACTORS!r} beside llama.rope.scaling.type={kind!r}, factor={factor}"
        )
    return _llama3(file.tensors[ROPE_FACTORS].numpy().astype(np.float64), theta, head_dim)


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
        self._read: set[str] = set()

    def count(self, name: str, default: int | None = None) -> int:
        value = self._wanted(name, default)
        if type(value) is not int or not 0 < value < 2**31:
            raise ValueError(f"{self.prefix}{name} must be a positive number, is {value!r:.80}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._wanted(name, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise ValueError(f"{self.prefix}{name} must be a positive number, is {value!r:.80}")
        # Stored as float32: 1e-5 comes as 9.99999974e-06, and its shortest name is 1e-05.
        return float(str(np.float32(value)))

    def get(self, name: str, default: Any = None) -> Any:
        self._read.add(name)
        return self.metadata.get(self.prefix + name, default)

    def unread(self) -> list[str]:
        """Names that nobody asked for, and that may change something."""
        names = [
            key.removeprefix(self.prefix) for key in self.metadata if key.startswith(self.prefix)
        ]
        return [name for name in names if name not in self._read | INFORMATION]

    def _wanted(self, name: str, default: Any) -> Any:
        value = self.get(name, default)
        if value is None:
            raise ValueError(f"the key '{self.prefix}{name}' is missing")
        return value
