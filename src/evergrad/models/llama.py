"""Llama: a pre-norm decoder with rotary positions, gated MLP and grouped-query attention.

Touvron et al., "LLaMA", 2023, arXiv:2302.13971; "Llama 2", 2023, arXiv:2307.09288.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import nn
from ..nn import Array, once
from .language_model import CausalLM, PreNormBlock
from .settings import SPECIAL_TOKENS, from_settings, to_settings
from .weights import WeightNames, has_own_head

__all__ = ["Llama", "LlamaConfig"]


@dataclass(frozen=True)
class LlamaConfig:
    """Shape of a Llama.

    Parameters
    ----------
    vocab_size : int
        Number of tokens.
    context : int, default 2048
        Longest sequence.
    layers, heads, dim : int, default 32, 32, 4096
        Number of blocks, query heads in each, size of a token's vector.
    kv_heads : int, optional
        Key and value heads; default: heads.
    head_dim : int, optional
        Size of a head; default: dim / heads.
    hidden : int, default 11008
        Inner size of the MLP.
    activation : str, default "silu"
        Of the MLP's gate.
    rms_norm_eps : float, default 1e-6
        Added to mean squares.
    rope_theta : float, default 10000.0
        Base of the rotary frequencies.
    rope_scaling : dict, optional
        How the context was stretched, as `nn.Rotary` takes it.
    attention_bias, mlp_bias : bool, default False
        Whether their maps add one.
    attention_dropout : float, default 0.0
        Of the attention weights.
    tied : bool, default False
        Whether the output projection is the token embedding.
    bos_token, eos_token, pad_token : int, or a tuple of them, optional
        What begins, ends and fills texts.

    Examples
    --------
    >>> config = LlamaConfig(vocab_size=100, layers=2, heads=4, kv_heads=2, dim=16, hidden=24)
    >>> LlamaConfig.from_dict(config.to_dict()) == config
    True
    """

    vocab_size: int
    context: int = 2048
    layers: int = 32
    heads: int = 32
    dim: int = 4096
    kv_heads: int = None  # type: ignore[assignment]  # filled in below, like head_dim
    head_dim: int = None  # type: ignore[assignment]
    hidden: int = 11008
    activation: str = "silu"
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: Mapping[str, Any] | None = field(default=None, hash=False)
    attention_bias: bool = False
    mlp_bias: bool = False
    attention_dropout: float = 0.0
    tied: bool = False
    bos_token: int | tuple[int, ...] | None = None
    eos_token: int | tuple[int, ...] | None = None
    pad_token: int | None = None

    def __post_init__(self) -> None:
        if self.kv_heads is None:
            object.__setattr__(self, "kv_heads", self.heads)
        if self.head_dim is None:
            object.__setattr__(self, "head_dim", self.dim // self.heads)

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        """Layers, key/value heads, size of a head."""
        return self.layers, self.kv_heads, self.head_dim

    def to_dict(self) -> dict[str, Any]:
        """Return what Hugging Face's config.json holds for this model."""
        # Version 5 of transformers reads rope_parameters, those before it the other two.
        scaling = None if self.rope_scaling is None else dict(self.rope_scaling)
        rope = {"rope_type": "default", **(scaling or {}), "rope_theta": self.rope_theta}
        return {
            "model_type": Llama.model_type,
            "architectures": ["LlamaForCausalLM"],
            **to_settings(self, CONFIG_NAMES),
            "rope_theta": self.rope_theta,
            "rope_scaling": scaling,
            "rope_parameters": rope,
        }

    @classmethod
    def from_dict(
        cls, settings: Mapping[str, Any], tensors: Mapping[str, Any] | None = None
    ) -> LlamaConfig:
        """Read Hugging Face's config.json; settings that do not change the model are ignored.

        Parameters
        ----------
        settings : mapping
            What is in config.json.
        tensors : mapping of str to array, optional
            What the file of weights holds: a head that is not the embedding is not tied.

        Raises
        ------
        ValueError
            When a setting asks for a variant that this model is not.
        """
        # As transformers does: the older of the two names rules where both are given.
        name = "rope_scaling" if settings.get("rope_scaling") else "rope_parameters"
        given = settings.get(name) or {}
        if not isinstance(given, Mapping):
            raise ValueError(f"{name} must be an object, is {given!r:.80}")
        rope = dict(given)
        theta = rope.pop("rope_theta", None)
        if theta is None:
            theta = settings.get("rope_theta")
        kind = rope.setdefault("rope_type", rope.pop("type", "default"))
        rope.pop("type", None)
        length = "original_max_position_embeddings"
        if kind in ("llama3", "yarn") and settings.get(length) is not None:
            rope[length] = settings[length]
        if kind == "llama3":
            rope.setdefault(length, settings.get("max_position_embeddings", LlamaConfig.context))
        if kind == "yarn" and "factor" in rope and rope["factor"] is None:
            context = settings.get("max_position_embeddings", LlamaConfig.context)
            rope["factor"] = context / (rope.get(length) or context)
        ours = from_settings({**settings, **rope}, CONFIG_NAMES, FIXED_SETTINGS)
        if ours.get("attention_dropout", 0.0) is None:  # none, as in transformers
            del ours["attention_dropout"]
        if theta is not None:
            ours["rope_theta"] = theta
        if has_own_head(tensors, "model.embed_tokens.weight", "model."):
            ours["tied"] = False
        return cls(**ours, rope_scaling=None if kind == "default" else rope)


CONFIG_NAMES = {  # ours: Hugging Face's
    "vocab_size": "vocab_size",
    "context": "max_position_embeddings",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "dim": "hidden_size",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "hidden": "intermediate_size",
    "activation": "hidden_act",
    "rms_norm_eps": "rms_norm_eps",
    "attention_bias": "attention_bias",
    "mlp_bias": "mlp_bias",
    "attention_dropout": "attention_dropout",
    "tied": "tie_word_embeddings",
    **SPECIAL_TOKENS,
}

FIXED_SETTINGS = {
    "partial_rotary_factor": 1.0,
    "is_causal": True,
    "is_encoder_decoder": False,
}

# Ours: Hugging Face's; several of theirs lie one below the other in ours.
WEIGHT_NAMES: WeightNames = {
    "embedding.weight": "model.embed_tokens.weight",
    "blocks.{}.norm_1.weight": "model.layers.{}.input_layernorm.weight",
    "blocks.{}.attention.qkv.*": (
        "model.layers.{}.self_attn.q_proj.*",
        "model.layers.{}.self_attn.k_proj.*",
        "model.layers.{}.self_attn.v_proj.*",
    ),
    "blocks.{}.attention.proj.*": "model.layers.{}.self_attn.o_proj.*",
    "blocks.{}.norm_2.weight": "model.layers.{}.post_attention_layernorm.weight",
    "blocks.{}.mlp.gate_up.*": (
        "model.layers.{}.mlp.gate_proj.*",
        "model.layers.{}.mlp.up_proj.*",
    ),
    "blocks.{}.mlp.down.*": "model.layers.{}.mlp.down_proj.*",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}


class Llama(CausalLM):
    """A Llama language model.

    Parameters
    ----------
    config : LlamaConfig
        Its shape.
    seed : int or None, default 0
        Of the initial weights and the dropout masks. None: weights 0, not yet in flat buffers, for
        loading others.

    Examples
    --------
    >>> model = Llama(LlamaConfig(vocab_size=50, layers=2, heads=2, kv_heads=1, dim=8, hidden=16))
    >>> model.logits(np.array([1, 2, 3])).shape
    (3, 50)
    """

    model_type = "llama"
    weight_names = WEIGHT_NAMES
    weight_prefix = "model."
    config_class = LlamaConfig

    def __init__(self, config: LlamaConfig, seed: int | None = 0) -> None:
        self.config = config
        rng = None if seed is None else np.random.default_rng(seed)
        std = 0.0 if seed is None else 0.02
        self.random = nn.RandomStream(seed or 0)
        self.rotary = nn.Rotary(
            config.head_dim, config.rope_theta, config.rope_scaling, config.context
        )
        self.embedding = nn.Embedding(config.vocab_size, config.dim, std=std, rng=rng)
        self.blocks = [self._block(std, rng) for _ in range(config.layers)]
        self.norm = nn.RMSNorm(config.dim, config.rms_norm_eps)
        head_std = 0.0 if config.tied else std
        self.head = nn.Head(config.dim, config.vocab_size, False, std=head_std, rng=rng)
        if config.tied:
            self.head.weight = self.embedding.weight
        if seed is not None:
            nn.flatten_(self)

    @property
    def ignored_weights(self) -> tuple[str, ...]:
        """Patterns of tensors in files that tell this model nothing."""
        return ("lm_head.weight",) if self.config.tied else ()

    def _block(self, std: float, rng: np.random.Generator | None) -> PreNormBlock:
        config = self.config
        drawn: dict[str, Any] = {"std": std, "out_std": std, "rng": rng}
        return PreNormBlock(
            nn.RMSNorm(config.dim, config.rms_norm_eps),
            nn.Attention(
                config.dim,
                config.heads,
                kv_heads=config.kv_heads,
                head_dim=config.head_dim,
                bias=config.attention_bias,
                attention_dropout=config.attention_dropout,
                stream=self.random,
                **drawn,
            ),
            nn.RMSNorm(config.dim, config.rms_norm_eps),
            nn.GatedMLP(
                config.dim,
                config.hidden,
                activation=config.activation,
                bias=config.mlp_bias,
                stream=self.random,
                **drawn,
            ),
        )

    def _embed(self, input_ids: Array, positions: Array) -> tuple[Array, once, bool]:
        x, backward = self.embedding(input_ids)
        return x, backward, self.embedding.trainable

    def _rotation(self, positions: Array) -> nn.Rotation:
        return self.rotary(positions, self.norm.weight.data.dtype)
