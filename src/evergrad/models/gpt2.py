"""GPT-2: a pre-norm decoder with learned positions.

Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import nn
from ..nn import Array, once
from .language_model import CausalLM, PreNormBlock
from .settings import SPECIAL_TOKENS, from_settings, to_settings
from .weights import Transposed, WeightNames, has_own_head

__all__ = ["GPT2", "GPT2Config"]


@dataclass(frozen=True)
class GPT2Config:
    """Shape of a GPT-2.

    Parameters
    ----------
    vocab_size : int
        Number of tokens.
    context : int, default 1024
        Longest sequence: there are so many learned positions.
    layers, heads, dim : int, default 12, 12, 768
        Number of blocks, attention heads in each, size of a token's vector.
    hidden : int, optional
        Inner size of the MLP; default 4 dim.
    dropout, attention_dropout : float, default 0.0
        Of the embeddings and of both residual branches; of the attention weights.
    activation : str, default "gelu_tanh"
        Of the MLP.
    layer_norm_eps : float, default 1e-5
        Added to variances.
    tied : bool, default True
        Whether the output projection is the token embedding.
    bos_token, eos_token, pad_token : int, or a tuple of them, optional
        What begins, ends and fills texts.

    Examples
    --------
    >>> config = GPT2Config(vocab_size=100, layers=2, heads=2, dim=8)
    >>> GPT2Config.from_dict(config.to_dict()) == config
    True
    """

    vocab_size: int
    context: int = 1024
    layers: int = 12
    heads: int = 12
    dim: int = 768
    hidden: int | None = None
    dropout: float = 0.0
    activation: str = "gelu_tanh"
    layer_norm_eps: float = 1e-5
    tied: bool = True
    attention_dropout: float = 0.0
    bos_token: int | tuple[int, ...] | None = None
    eos_token: int | tuple[int, ...] | None = None
    pad_token: int | None = None

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        """Layers, key/value heads, size of a head."""
        return self.layers, self.heads, self.dim // self.heads

    def to_dict(self) -> dict[str, Any]:
        """Return what Hugging Face's config.json holds for this model."""
        return {
            "model_type": GPT2.model_type,
            "architectures": ["GPT2LMHeadModel"],
            **to_settings(self, CONFIG_NAMES),
            "embd_pdrop": self.dropout,
        }

    @classmethod
    def from_dict(
        cls, settings: Mapping[str, Any], tensors: Mapping[str, Any] | None = None
    ) -> GPT2Config:
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
        ours = from_settings(settings, CONFIG_NAMES, FIXED_SETTINGS, ALIASES)
        if has_own_head(tensors, "transformer.wte.weight", "transformer."):
            ours["tied"] = False
        return cls(**ours)


CONFIG_NAMES = {  # ours: Hugging Face's
    "vocab_size": "vocab_size",
    "context": "n_positions",
    "layers": "n_layer",
    "heads": "n_head",
    "dim": "n_embd",
    "hidden": "n_inner",
    "dropout": "resid_pdrop",
    "attention_dropout": "attn_pdrop",
    "activation": "activation_function",
    "layer_norm_eps": "layer_norm_epsilon",
    "tied": "tie_word_embeddings",
    **SPECIAL_TOKENS,
}

FIXED_SETTINGS = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "is_causal": True,
    "is_encoder_decoder": False,
}

ALIASES = {
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
}

# Ours: Hugging Face's, whose linear maps are stored [in, out].
WEIGHT_NAMES: WeightNames = {
    "wte.weight": "transformer.wte.weight",
    "wpe.weight": "transformer.wpe.weight",
    "blocks.{}.norm_1.*": "transformer.h.{}.ln_1.*",
    "blocks.{}.attention.qkv.weight": Transposed("transformer.h.{}.attn.c_attn.weight"),
    "blocks.{}.attention.qkv.bias": "transformer.h.{}.attn.c_attn.bias",
    "blocks.{}.attention.proj.weight": Transposed("transformer.h.{}.attn.c_proj.weight"),
    "blocks.{}.attention.proj.bias": "transformer.h.{}.attn.c_proj.bias",
    "blocks.{}.norm_2.*": "transformer.h.{}.ln_2.*",
    "blocks.{}.mlp.up.weight": Transposed("transformer.h.{}.mlp.c_fc.weight"),
    "blocks.{}.mlp.up.bias": "transformer.h.{}.mlp.c_fc.bias",
    "blocks.{}.mlp.down.weight": Transposed("transformer.h.{}.mlp.c_proj.weight"),
    "blocks.{}.mlp.down.bias": "transformer.h.{}.mlp.c_proj.bias",
    "norm.*": "transformer.ln_f.*",
    "head.weight": "lm_head.weight",
}


class GPT2(CausalLM):
    """A GPT-2 language model.

    Parameters
    ----------
    config : GPT2Config
        Its shape.
    seed : int or None, default 0
        Of the initial weights and the dropout masks. None: weights 0, not yet in flat buffers, for
        loading others.

    Examples
    --------
    >>> model = GPT2(GPT2Config(vocab_size=50, context=16, layers=2, heads=2, dim=8))
    >>> model.logits(np.array([1, 2, 3])).shape
    (3, 50)
    """

    model_type = "gpt2"
    weight_names = WEIGHT_NAMES
    weight_prefix = "transformer."
    config_class = GPT2Config

    def __init__(self, config: GPT2Config, seed: int | None = 0) -> None:
        self.config = config
        rng = None if seed is None else np.random.default_rng(seed)
        std = 0.0 if seed is None else 0.02
        self.random = nn.RandomStream(seed or 0)
        self.wte = nn.Embedding(config.vocab_size, config.dim, std=std, rng=rng)
        self.wpe = nn.Embedding(config.context, config.dim, std=std, rng=rng, is_quantizable=False)
        self.dropout = nn.Dropout(config.dropout, stream=self.random)
        self.blocks = [self._block(std, rng) for _ in range(config.layers)]
        self.norm = nn.LayerNorm(config.dim, config.layer_norm_eps)
        head_std = 0.0 if config.tied else std
        self.head = nn.Head(config.dim, config.vocab_size, False, std=head_std, rng=rng)
        if config.tied:
            self.head.weight = self.wte.weight
        if seed is not None:
            nn.flatten_(self)

    @property
    def ignored_weights(self) -> tuple[str, ...]:
        """Patterns of tensors in files that tell this model nothing."""
        return ("lm_head.weight",) if self.config.tied else ()

    def _block(self, std: float, rng: np.random.Generator | None) -> PreNormBlock:
        config = self.config
        # 2 layers branches add up in the residual stream: keep its variance.
        branch: dict[str, Any] = {
            "dropout": config.dropout,
            "stream": self.random,
            "std": std,
            "out_std": std / math.sqrt(2 * config.layers),
            "rng": rng,
        }
        hidden = config.hidden or 4 * config.dim
        return PreNormBlock(
            nn.LayerNorm(config.dim, config.layer_norm_eps),
            nn.Attention(
                config.dim, config.heads, attention_dropout=config.attention_dropout, **branch
            ),
            nn.LayerNorm(config.dim, config.layer_norm_eps),
            nn.MLP(config.dim, hidden, activation=config.activation, **branch),
        )

    def _embed(self, input_ids: Array, positions: Array) -> tuple[Array, once, bool]:
        x, embedding_backward = nn.embedding_sum(self.wte, input_ids, self.wpe, positions)
        x, dropout_backward = self.dropout(x)
        learns = self.wte.trainable or self.wpe.trainable
        return x, once(lambda dx: embedding_backward(dropout_backward(dx))), learns
