"""BERT: a post-norm encoder, which reads a text in both directions.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
2019, arXiv:1810.04805.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import nn
from ..nn import Array, once
from .language_model import TokenModel
from .settings import SPECIAL_TOKENS, from_settings, to_settings
from .weights import WeightNames, has_own_head

__all__ = ["Bert", "BertConfig", "MaskedBatch"]


@dataclass(frozen=True)
class BertConfig:
    """Shape of a BERT.

    Parameters
    ----------
    vocab_size : int
        Number of tokens.
    context : int, default 512
        Longest sequence: there are so many learned positions.
    layers, heads, dim, hidden : int, default 12, 12, 768, 3072
        Number of blocks, attention heads in each, size of a token's vector, of the MLP inside.
    segments : int, default 2
        Kinds of text in a sequence, each with a vector of its own.
    dropout, attention_dropout : float, default 0.0
        Of the embeddings and of both residual branches; of the attention weights.
    activation : str, default "gelu"
        Of the MLP and of the masked-LM head.
    layer_norm_eps : float, default 1e-12
        Added to variances.
    has_pooler, has_head : bool, default False and True
        Whether there is a map of the first token for classifiers; a head that predicts tokens.
    bos_token, eos_token, pad_token : int, or a tuple of them, optional
        What begins, ends and fills texts.

    Examples
    --------
    >>> config = BertConfig(vocab_size=100, layers=2, heads=2, dim=8, hidden=16)
    >>> BertConfig.from_dict(config.to_dict()) == config
    True
    """

    vocab_size: int
    context: int = 512
    layers: int = 12
    heads: int = 12
    dim: int = 768
    hidden: int = 3072
    segments: int = 2
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation: str = "gelu"
    layer_norm_eps: float = 1e-12
    has_pooler: bool = False
    has_head: bool = True
    bos_token: int | tuple[int, ...] | None = None
    eos_token: int | tuple[int, ...] | None = None
    pad_token: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what Hugging Face's config.json holds for this model."""
        return {
            "model_type": Bert.model_type,
            "architectures": ["BertForMaskedLM" if self.has_head else "BertModel"],
            **to_settings(self, CONFIG_NAMES),
        }

    @classmethod
    def from_dict(
        cls, settings: Mapping[str, Any], tensors: Mapping[str, Any] | None = None
    ) -> BertConfig:
        """Read Hugging Face's config.json; settings that do not change the model are ignored.

        Parameters
        ----------
        settings : mapping
            What is in config.json.
        tensors : mapping of str to array, optional
            What the file of weights holds: it tells whether there are a pooler and a head; without
            it the architecture does.

        Raises
        ------
        ValueError
            When a setting asks for a variant that this model is not.
        """
        kinds = settings.get("architectures") or ["BertModel"]
        if tensors:
            has_pooler = any(name.endswith("pooler.dense.weight") for name in tensors)
            has_head = any(name.startswith("cls.predictions.") for name in tensors)
        else:
            has_pooler = kinds[0] != "BertForMaskedLM"
            has_head = kinds[0] in ("BertForMaskedLM", "BertForPreTraining")
        ours = from_settings(settings, CONFIG_NAMES, FIXED_SETTINGS)
        head = "cls.predictions.decoder.weight"
        if has_own_head(tensors, "bert.embeddings.word_embeddings.weight", "bert.", head):
            raise ValueError(f"{head} is not the embedding: only a tied head is supported")
        return cls(**ours, has_pooler=has_pooler, has_head=has_head)


CONFIG_NAMES = {  # ours: Hugging Face's
    "vocab_size": "vocab_size",
    "context": "max_position_embeddings",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "dim": "hidden_size",
    "hidden": "intermediate_size",
    "segments": "type_vocab_size",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "activation": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
    **SPECIAL_TOKENS,
}

FIXED_SETTINGS = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}

# Ours: Hugging Face's; several of theirs lie one below the other in ours.
WEIGHT_NAMES: WeightNames = {
    "words.weight": "bert.embeddings.word_embeddings.weight",
    "positions.weight": "bert.embeddings.position_embeddings.weight",
    "segments.weight": "bert.embeddings.token_type_embeddings.weight",
    "norm.*": "bert.embeddings.LayerNorm.*",
    "blocks.{}.attention.qkv.*": (
        "bert.encoder.layer.{}.attention.self.query.*",
        "bert.encoder.layer.{}.attention.self.key.*",
        "bert.encoder.layer.{}.attention.self.value.*",
    ),
    "blocks.{}.attention.proj.*": "bert.encoder.layer.{}.attention.output.dense.*",
    "blocks.{}.norm_1.*": "bert.encoder.layer.{}.attention.output.LayerNorm.*",
    "blocks.{}.mlp.up.*": "bert.encoder.layer.{}.intermediate.dense.*",
    "blocks.{}.mlp.down.*": "bert.encoder.layer.{}.output.dense.*",
    "blocks.{}.norm_2.*": "bert.encoder.layer.{}.output.LayerNorm.*",
    "pooler.*": "bert.pooler.dense.*",
    "transform.*": "cls.predictions.transform.dense.*",
    "transform_norm.*": "cls.predictions.transform.LayerNorm.*",
    "head.bias": "cls.predictions.bias",
}


@dataclass(frozen=True)
class MaskedBatch:
    """Texts end to end, some of their tokens masked.

    Parameters
    ----------
    input_ids : ndarray of int
        [total]: what the model reads.
    target : ndarray of int or None
        [total]: the token that was there; -100 where it is not to be predicted.
    cu_seqlens : ndarray of int
        [sequences + 1]: where each begins, and the total.
    segments : ndarray of int, optional
        [total]: the kind of each token; default: 0.
    """

    input_ids: Array
    target: Array | None
    cu_seqlens: Array
    segments: Array | None = None


class PostNormBlock(nn.Module):
    """One layer: attention, then MLP; what each adds to is normalised afterwards."""

    def __init__(self, config: BertConfig, branch: dict[str, Any]) -> None:
        self.attention = nn.Attention(
            config.dim,
            config.heads,
            is_causal=False,
            attention_dropout=config.attention_dropout,
            **branch,
        )
        self.norm_1 = nn.LayerNorm(config.dim, config.layer_norm_eps)
        self.mlp = nn.MLP(config.dim, config.hidden, activation=config.activation, **branch)
        self.norm_2 = nn.LayerNorm(config.dim, config.layer_norm_eps)

    def __call__(
        self, x: Array, cu_seqlens: Array, *, need_dx: bool = True, again: Any = None
    ) -> tuple[Array, once]:
        """Apply to x [tokens, dim], `again() -> x`. Backward: dout -> dx, with `again`."""
        h, attention_backward = self.attention(
            x, cu_seqlens, residual=x, need_dx=need_dx, again=again
        )
        h, norm_1_backward = self.norm_1(h, need_dx=attention_backward.needed)
        out, mlp_backward = self.mlp(
            h, residual=h, need_dx=norm_1_backward.needed, again=norm_1_backward.again
        )
        out, norm_2_backward = self.norm_2(out, need_dx=mlp_backward.needed)
        if not norm_2_backward.needed:
            return out, nn.NOTHING

        def backward(dout: Array) -> Array | None:
            dsum = norm_2_backward(dout)
            dsum = norm_1_backward(_sum(mlp_backward(dsum), dsum))
            return _sum(attention_backward(dsum), dsum)

        return out, once(backward, norm_2_backward.again)


def _sum(dbranch: Array | None, dresidual: Array) -> Array | None:
    """The cotangents that meet at the beginning of a branch; None where nobody needs them."""
    return None if dbranch is None else np.add(dbranch, dresidual, out=dbranch)


class Bert(TokenModel):
    """A BERT: an encoder, with or without a pooler and a masked-LM head.

    Parameters
    ----------
    config : BertConfig
        Its shape.
    seed : int or None, default 0
        Of the initial weights and the dropout masks. None: weights 0, not yet in flat buffers, for
        loading others.

    Examples
    --------
    >>> model = Bert(BertConfig(vocab_size=50, layers=2, heads=2, dim=8, hidden=16))
    >>> hidden, backward = model(np.array([1, 2, 3, 4, 5]), np.array([0, 3, 5]))
    >>> hidden.shape
    (5, 8)
    """

    model_type = "bert"
    weight_names = WEIGHT_NAMES
    weight_prefix = "bert."
    config_class = BertConfig

    def __init__(self, config: BertConfig, seed: int | None = 0) -> None:
        self.config = config
        rng = None if seed is None else np.random.default_rng(seed)
        std = 0.0 if seed is None else 0.02
        drawn: dict[str, Any] = {"std": std, "rng": rng}
        self.random = nn.RandomStream(seed or 0)
        branch = {"dropout": config.dropout, "stream": self.random, "out_std": std, **drawn}
        self.words = nn.Embedding(config.vocab_size, config.dim, **drawn)
        self.positions = nn.Embedding(config.context, config.dim, is_quantizable=False, **drawn)
        self.segments = nn.Embedding(config.segments, config.dim, is_quantizable=False, **drawn)
        self.norm = nn.LayerNorm(config.dim, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout, stream=self.random)
        self.blocks = [PostNormBlock(config, branch) for _ in range(config.layers)]
        self.pooler = None
        if config.has_pooler:
            self.pooler = nn.Linear(config.dim, config.dim, activation="tanh", **drawn)
        if config.has_head:
            self.transform = nn.Linear(
                config.dim, config.dim, activation=config.activation, **drawn
            )
            self.transform_norm = nn.LayerNorm(config.dim, config.layer_norm_eps)
            self.head = nn.Head(config.dim, config.vocab_size, std=0.0)
            self.head.weight = self.words.weight
        if seed is not None:
            nn.flatten_(self)

    @property
    def is_bare(self) -> bool:
        """Whether this is a body alone, which files name without the prefix."""
        return not self.config.has_head

    @property
    def ignored_weights(self) -> tuple[str, ...]:
        """Patterns of tensors in files that tell this model nothing.

        The decoder is tied; what tells whether two sentences follow each other is not part of it.
        """
        return ("cls.predictions.decoder.*", "cls.seq_relationship.*")

    def __call__(
        self,
        input_ids: Array,
        cu_seqlens: Array | None = None,
        segments: Array | None = None,
    ) -> tuple[Array, once]:
        """Read texts.

        Parameters
        ----------
        input_ids : ndarray of int
            [total]: sequences laid end to end.
        cu_seqlens : ndarray of int, optional
            [sequences + 1]: where each begins, and the total. Default: one sequence.
        segments : ndarray of int, optional
            [total]: the kind of each token; default: 0.

        Returns
        -------
        hidden : ndarray
            [total, dim].
        backward : callable
            dhidden -> None.

        Raises
        ------
        ValueError
            When a sequence is longer than the context.
        """
        return self._run(input_ids, cu_seqlens, segments, learn=True)

    def encode(
        self,
        input_ids: Array,
        cu_seqlens: Array | None = None,
        segments: Array | None = None,
    ) -> Array:
        """As a call, without a way back: nothing is kept beyond a block.

        Examples
        --------
        >>> model = Bert(BertConfig(vocab_size=50, layers=2, heads=2, dim=8, hidden=16))
        >>> model.encode(np.array([1, 2, 3])).shape
        (3, 8)
        """
        return self._run(input_ids, cu_seqlens, segments, learn=False)[0]

    def _run(
        self, input_ids: Array, cu_seqlens: Array | None, segments: Array | None, learn: bool
    ) -> tuple[Array, once]:
        if cu_seqlens is None:
            cu_seqlens = np.array([0, len(input_ids)])
        if segments is None:
            segments = np.zeros(len(input_ids), np.int64)
        places = self._positions(cu_seqlens)
        x, sum_backward = nn.embedding_sum(
            self.words, input_ids, self.positions, places, self.segments, segments
        )
        tables = (self.words, self.positions, self.segments)
        need_dx = learn and any(table.trainable for table in tables)
        x, norm_backward = self.norm(x, need_dx=need_dx)
        x, dropout_backward = self.dropout(x)

        # The way back ends at the lowest part that learns; what lies below keeps nothing.
        backwards: list[once] = []
        need_dx = learn and norm_backward.needed
        again = None if self.dropout.active else norm_backward.again
        for block in self.blocks:
            x, block_backward = block(x, cu_seqlens, need_dx=need_dx, again=again)
            again = block_backward.again
            need_dx = learn and block_backward.needed
            if need_dx:
                backwards.append(block_backward)

        def backward(dx: Array) -> None:
            for block_backward in reversed(backwards):
                dx = block_backward(dx)
            dx = norm_backward(dropout_backward(dx))
            sum_backward(dx)

        return x, once(backward)

    def pool(self, hidden: Array, cu_seqlens: Array) -> tuple[Array, once]:
        """Map the first token of each text: what classifiers build on.

        Parameters
        ----------
        hidden : ndarray
            [total, dim], as a call returns it.
        cu_seqlens : ndarray of int
            [sequences + 1].

        Returns
        -------
        out : ndarray
            [sequences, dim].
        backward : callable
            dout -> dhidden.

        Raises
        ------
        ValueError
            When this model has no pooler.
        """
        if self.pooler is None:
            raise ValueError("this BERT has no pooler")
        first, first_backward = nn.Pool("cls")(hidden, cu_seqlens)
        out, pooler_backward = self.pooler(first)
        return out, once(lambda dout: first_backward(pooler_backward(dout)))

    def logits(
        self,
        input_ids: Array,
        cu_seqlens: Array | None = None,
        segments: Array | None = None,
        *,
        rows: Array | None = None,
    ) -> Array:
        """Score every token at every position.

        Parameters
        ----------
        input_ids, cu_seqlens, segments
            As for `__call__`.
        rows : ndarray of int, optional
            The positions whose logits are wanted; default: all.

        Returns
        -------
        ndarray
            [total, vocab_size], or [len(rows), vocab_size].

        Raises
        ------
        ValueError
            When this model has no head.

        Examples
        --------
        >>> model = Bert(BertConfig(vocab_size=50, layers=2, heads=2, dim=8, hidden=16))
        >>> model.logits(np.array([1, 2, 3]), rows=np.array([1])).shape
        (1, 50)
        """
        hidden = self.encode(input_ids, cu_seqlens, segments)
        states, _ = self._transform(hidden if rows is None else hidden[rows])
        out, _ = self.head(states, need_dx=False)
        return out

    def _transform(self, hidden: Array) -> tuple[Array, once]:
        if not self.config.has_head:
            raise ValueError("this BERT has no masked-LM head")
        h, transform_backward = self.transform(hidden)
        out, norm_backward = self.transform_norm(h)
        return out, once(lambda dout: transform_backward(norm_backward(dout)))

    def _states(self, batch: Any, target: Array) -> tuple[Array, Array, once]:
        segments = getattr(batch, "segments", None)
        hidden, hidden_backward = self(batch.input_ids, batch.cu_seqlens, segments)
        # Most tokens are not masked, and need no logits.
        rows = np.flatnonzero(target != -100)
        states, transform_backward = self._transform(hidden[rows])

        def backward(dstates: Array) -> None:
            dhidden = np.zeros_like(hidden)
            dhidden[rows] = transform_backward(dstates)
            hidden_backward(dhidden)

        return states, target[rows], once(backward)
