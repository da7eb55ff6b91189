"""T5: an encoder reads a text, a decoder writes another; positions are biases of attention.

Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
2020, arXiv:1910.10683.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import nn
from ..nn import Array, once
from .beam import Answering
from .cache import CrossCache
from .language_model import PreNormBlock, TokenModel, check_rows
from .settings import ACTIVATION_NAMES, SPECIAL_TOKENS, SYNONYMS, from_settings, to_settings
from .weights import WeightNames, has_own_head

__all__ = ["T5", "Encoded", "Seq2SeqBatch", "T5Config"]


@dataclass(frozen=True)
class T5Config:
    """Shape of a T5.

    Parameters
    ----------
    vocab_size : int
        Number of tokens.
    layers : int, default 6
        Blocks of the encoder.
    decoder_layers : int, optional
        Blocks of the decoder; default: layers.
    heads, head_dim, dim, hidden : int, default 8, 64, 512, 2048
        Attention heads of each block, their size, size of a token's vector, of the MLP inside.
    buckets, max_distance : int, default 32, 128
        Of the relative positions.
    activation : str, default "relu"
        Of the MLP, or of its gate.
    gated : bool, default False
        Whether the MLP has a gate.
    dropout : float, default 0.0
        Of embeddings, attention weights, residual branches, inside of the MLP, and of the output.
    rms_norm_eps : float, default 1e-6
        Added to mean squares.
    tied : bool, default True
        Whether the output projection is the token embedding.
    scaled : bool, optional
        Whether what it projects is divided by sqrt(dim) first; default: tied.
    start_token : int, default 0
        What decoding begins with.
    bos_token, eos_token, pad_token : int, or a tuple of them, optional
        What begins, ends and fills texts.

    Examples
    --------
    >>> config = T5Config(vocab_size=100, layers=2, heads=2, head_dim=4, dim=8, hidden=16)
    >>> T5Config.from_dict(config.to_dict()) == config
    True
    """

    vocab_size: int
    layers: int = 6
    decoder_layers: int = None  # type: ignore[assignment]  # filled in below
    heads: int = 8
    head_dim: int = 64
    dim: int = 512
    hidden: int = 2048
    buckets: int = 32
    max_distance: int = 128
    activation: str = "relu"
    gated: bool = False
    dropout: float = 0.0
    rms_norm_eps: float = 1e-6
    tied: bool = True
    scaled: bool = None  # type: ignore[assignment]
    start_token: int = 0
    bos_token: int | tuple[int, ...] | None = None
    eos_token: int | tuple[int, ...] | None = None
    pad_token: int | None = None

    def __post_init__(self) -> None:
        if self.decoder_layers is None:
            object.__setattr__(self, "decoder_layers", self.layers)
        if self.scaled is None:
            object.__setattr__(self, "scaled", self.tied)

    @property
    def context(self) -> int:
        """Relative positions have no end; caches do."""
        return 2**20

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        """Layers, key/value heads, size of a head."""
        return self.decoder_layers, self.heads, self.head_dim

    def to_dict(self) -> dict[str, Any]:
        """Return what Hugging Face's config.json holds for this model."""
        activation = ACTIVATION_NAMES.get(self.activation, self.activation)
        # "gated-gelu" has always meant the approximation by tanh.
        projection = {"gelu_new": "gelu"}.get(activation, activation) if self.gated else activation
        return {
            "model_type": T5.model_type,
            "architectures": ["T5ForConditionalGeneration"],
            **to_settings(self, CONFIG_NAMES),
            "feed_forward_proj": f"gated-{projection}" if self.gated else projection,
            "tie_word_embeddings": self.tied,
            "scale_decoder_outputs": self.scaled,
            "is_encoder_decoder": True,
        }

    @classmethod
    def from_dict(
        cls, settings: Mapping[str, Any], tensors: Mapping[str, Any] | None = None
    ) -> T5Config:
        """Read Hugging Face's config.json; settings that do not change the model are ignored.

        Parameters
        ----------
        settings : mapping
            What is in config.json.
        tensors : mapping of str to array, optional
            What the file of weights holds: it tells whether there is a head of its own.

        Raises
        ------
        ValueError
            When a setting asks for a variant that this model is not.
        """
        ours = from_settings(settings, CONFIG_NAMES, FIXED_SETTINGS, ALIASES)
        first, _, last = settings.get("feed_forward_proj", "relu").rpartition("-")
        if first not in ("", "gated"):
            raise ValueError(
                f"feed_forward_proj={settings['feed_forward_proj']!r} is not supported"
            )
        gated = first == "gated"
        activation = "gelu_tanh" if gated and last == "gelu" else SYNONYMS.get(last, last)
        for name, value in (("is_gated_act", gated), ("dense_act_fn", activation)):
            given = settings.get(name, value)
            # A null of the first is "not gated", one of the second says nothing.
            means = bool(given) if name == "is_gated_act" else SYNONYMS.get(given, given)
            if means not in (value, None):
                raise ValueError(
                    f"{name}={given!r} contradicts"
                    f" feed_forward_proj={settings.get('feed_forward_proj', 'relu')!r}"
                )
        if ours.get("decoder_layers") is None:  # its default is of this name, not of the alias
            ours["decoder_layers"] = settings.get("num_layers", T5Config.layers)
        # Version 5 of transformers says "tied" of all, and keeps apart whether logits are scaled.
        # A null of the first is not "apart", one of the second is not "scaled".
        tied = settings.get("tie_word_embeddings")
        tied = True if tied is None else tied
        scaled = settings.get("scale_decoder_outputs", tied)
        scaled = False if scaled is None else scaled
        if tensors and (tied or not scaled or "lm_head.weight" not in tensors):
            tied = not has_own_head(tensors, "shared.weight", "")
        for stack in ("encoder", "decoder"):
            if has_own_head(tensors, "shared.weight", "", f"{stack}.embed_tokens.weight"):
                raise ValueError(f"{stack}.embed_tokens.weight is not shared.weight")
        return cls(**ours, gated=gated, activation=activation, tied=tied, scaled=scaled)


CONFIG_NAMES = {  # ours: Hugging Face's
    "vocab_size": "vocab_size",
    "layers": "num_layers",
    "decoder_layers": "num_decoder_layers",
    "heads": "num_heads",
    "head_dim": "d_kv",
    "dim": "d_model",
    "hidden": "d_ff",
    "buckets": "relative_attention_num_buckets",
    "max_distance": "relative_attention_max_distance",
    "dropout": "dropout_rate",
    "rms_norm_eps": "layer_norm_epsilon",
    "start_token": "decoder_start_token_id",
    **SPECIAL_TOKENS,
}

FIXED_SETTINGS = {"is_encoder_decoder": True}

ALIASES = {
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "hidden_size": "d_model",
    "head_dim": "d_kv",
}


def _stack_names(stack: str, mlp: int) -> dict[str, str | tuple[str, ...]]:
    """Names in the encoder or decoder, whose MLP is the layer of this number."""
    theirs = f"{stack}.block.{{}}.layer"
    return {
        f"{stack}.position_bias.table.weight": f"{stack}.block.0.layer.0.SelfAttention"
        ".relative_attention_bias.weight",
        f"{stack}.blocks.{{}}.norm_1.weight": f"{theirs}.0.layer_norm.weight",
        f"{stack}.blocks.{{}}.attention.qkv.weight": (
            f"{theirs}.0.SelfAttention.q.weight",
            f"{theirs}.0.SelfAttention.k.weight",
            f"{theirs}.0.SelfAttention.v.weight",
        ),
        f"{stack}.blocks.{{}}.attention.proj.weight": f"{theirs}.0.SelfAttention.o.weight",
        f"{stack}.blocks.{{}}.norm_2.weight": f"{theirs}.{mlp}.layer_norm.weight",
        f"{stack}.blocks.{{}}.mlp.up.weight": f"{theirs}.{mlp}.DenseReluDense.wi.weight",
        f"{stack}.blocks.{{}}.mlp.gate_up.weight": (
            f"{theirs}.{mlp}.DenseReluDense.wi_0.weight",
            f"{theirs}.{mlp}.DenseReluDense.wi_1.weight",
        ),
        f"{stack}.blocks.{{}}.mlp.down.weight": f"{theirs}.{mlp}.DenseReluDense.wo.weight",
        f"{stack}.norm.weight": f"{stack}.final_layer_norm.weight",
    }


# Ours: Hugging Face's; several of theirs lie one below the other in ours.
WEIGHT_NAMES: WeightNames = {
    "embedding.weight": "shared.weight",
    **_stack_names("encoder", mlp=1),
    **_stack_names("decoder", mlp=2),
    "decoder.blocks.{}.norm_cross.weight": "decoder.block.{}.layer.1.layer_norm.weight",
    "decoder.blocks.{}.cross.query.weight": "decoder.block.{}.layer.1.EncDecAttention.q.weight",
    "decoder.blocks.{}.cross.key_value.weight": (
        "decoder.block.{}.layer.1.EncDecAttention.k.weight",
        "decoder.block.{}.layer.1.EncDecAttention.v.weight",
    ),
    "decoder.blocks.{}.cross.proj.weight": "decoder.block.{}.layer.1.EncDecAttention.o.weight",
    "head.weight": "lm_head.weight",
}


@dataclass(frozen=True)
class Seq2SeqBatch:
    """Pairs of texts: sources end to end, and what is to be written for each, likewise.

    Parameters
    ----------
    input_ids, cu_seqlens : ndarray of int
        [total], [pairs + 1]: the sources, and where each begins.
    decoder_ids, target : ndarray of int
        [decoder_total]: what the decoder reads, and what follows it; -100: not counted.
    decoder_cu_seqlens : ndarray of int
        [pairs + 1]: where each begins.
    """

    input_ids: Array
    cu_seqlens: Array
    decoder_ids: Array
    target: Array | Any
    decoder_cu_seqlens: Array

    @property
    def counted(self) -> int:
        """Number of targets that the loss counts."""
        return 0 if self.target is None else int(np.count_nonzero(self.target != -100))

    @classmethod
    def pack(
        cls, sources: Sequence[Array], targets: Sequence[Array], start_token: int
    ) -> Seq2SeqBatch:
        """Pack pairs: the decoder reads each target shifted right, behind `start_token`.

        Examples
        --------
        >>> batch = Seq2SeqBatch.pack([np.array([5, 6, 1])], [np.array([7, 8, 1])], start_token=0)
        >>> batch.decoder_ids.tolist(), batch.target.tolist()
        ([0, 7, 8], [7, 8, 1])
        """
        if len(sources) != len(targets):
            raise ValueError(f"expected a target for each of {len(sources)}, got {len(targets)}")
        shifted = [np.concatenate([[start_token], target])[: len(target)] for target in targets]
        return cls(*_packed(sources), _packed(shifted)[0].astype(np.int64), *_packed(targets))


def _packed(sequences: Sequence[Array]) -> tuple[Array, Array]:
    lengths = [len(sequence) for sequence in sequences]
    joined = np.concatenate(sequences) if sequences else np.zeros(0, np.int64)
    return joined, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


class Encoded(NamedTuple):
    """What the decoder looks at: the encoder's states of texts laid end to end."""

    states: Array  # [total, dim]
    cu_seqlens: Array  # int [texts + 1]


class Builder:
    """The parts of the blocks, all drawn from one generator."""

    def __init__(
        self,
        config: T5Config,
        stream: nn.RandomStream,
        seed: int | None,
        rng: np.random.Generator | None,
    ) -> None:
        self.config, self.rng = config, rng
        self.drawn = 0.0 if seed is None else 1.0
        self.common: dict[str, Any] = {"dropout": config.dropout, "stream": stream, "rng": rng}

    def norm(self) -> nn.RMSNorm:
        return nn.RMSNorm(self.config.dim, self.config.rms_norm_eps)

    def position_bias(self, bidirectional: bool) -> nn.RelativePositionBias:
        config = self.config
        return nn.RelativePositionBias(
            config.buckets,
            config.heads,
            config.max_distance,
            bidirectional,
            std=self.drawn * config.dim**-0.5,
            rng=self.rng,
        )

    def _attention_options(self) -> dict[str, Any]:
        config = self.config
        return {
            "head_dim": config.head_dim,
            "bias": False,
            "scale": 1.0,
            "attention_dropout": config.dropout,
            "std": self.drawn * config.dim**-0.5,
            "out_std": self.drawn * (config.heads * config.head_dim) ** -0.5,
            **self.common,
        }

    def attention(self, is_causal: bool) -> nn.Attention:
        config = self.config
        layer = nn.Attention(
            config.dim, config.heads, is_causal=is_causal, **self._attention_options()
        )
        # Scores are not scaled: the queries' weights begin smaller instead.
        layer.qkv.weight.data[: config.heads * config.head_dim] *= config.head_dim**-0.5
        return layer

    def cross(self) -> nn.CrossAttention:
        config = self.config
        layer = nn.CrossAttention(config.dim, config.heads, **self._attention_options())
        layer.query.weight.data *= config.head_dim**-0.5
        return layer

    def mlp(self) -> nn.MLP | nn.GatedMLP:
        config = self.config
        kind: Any = nn.GatedMLP if config.gated else nn.MLP
        return kind(
            config.dim,
            config.hidden,
            activation=config.activation,
            bias=False,
            hidden_dropout=config.dropout,
            std=self.drawn * config.dim**-0.5,
            out_std=self.drawn * config.hidden**-0.5,
            **self.common,
        )


class DecoderBlock(nn.Module):
    """One layer: attention to what is written, attention to what was read, MLP; pre-norm."""

    def __init__(self, build: Builder) -> None:
        self.norm_1, self.attention = build.norm(), build.attention(is_causal=True)
        self.norm_cross, self.cross = build.norm(), build.cross()
        self.norm_2, self.mlp = build.norm(), build.mlp()

    def __call__(
        self,
        x: Array,
        encoded: Encoded,
        cu_seqlens: Array,
        *,
        need_dx: bool = True,
        need_dstates: bool = True,
        **options: Any,
    ) -> tuple[Array, once]:
        """Apply to x [tokens, dim]; `options` are for the self-attention.

        Backward: dout -> (dx, dstates).
        """
        h, norm_1_backward = self.norm_1(x, need_dx=need_dx)
        x, attention_backward = self.attention(
            h,
            cu_seqlens,
            residual=x,
            need_dx=norm_1_backward.needed,
            again=norm_1_backward.again,
            **options,
        )
        h, norm_cross_backward = self.norm_cross(x, need_dx=attention_backward.needed)
        x, cross_backward = self.cross(
            h,
            encoded.states,
            cu_seqlens,
            encoded.cu_seqlens,
            residual=x,
            need_dx=norm_cross_backward.needed,
            need_dstates=need_dstates,
            again=norm_cross_backward.again,
        )
        h, norm_2_backward = self.norm_2(x, need_dx=cross_backward.needed)
        x, mlp_backward = self.mlp(
            h, residual=x, need_dx=norm_2_backward.needed, again=norm_2_backward.again
        )
        if not mlp_backward.needed:
            return x, nn.NEITHER

        def backward(dout: Array) -> tuple[Any, Any]:
            dx = norm_2_backward(mlp_backward(dout), dresidual=dout)
            dh, dstates = cross_backward(dx)
            dx = norm_cross_backward(dh, dresidual=dx)
            return norm_1_backward(attention_backward(dx), dresidual=dx), dstates

        return x, once(backward, nothing=(None, None))

    def cached(self, x: Array, cache: CrossCache, layer: int, bias: list[Array]) -> Array:
        """As a call, behind what the cache holds; there is no way back."""
        h, _ = self.norm_1(x, need_dx=False)
        x, _ = self.attention(h, bias=bias, cache=cache[layer], residual=x)
        h, _ = self.norm_cross(x, need_dx=False)
        x = self.cross.cached(
            h, cache.cross[layer], cache.cu_seqlens_q, cache.cu_seqlens_k, residual=x
        )
        h, _ = self.norm_2(x, need_dx=False)
        x, _ = self.mlp(h, residual=x, need_dx=False)
        return x


class Stack(nn.Module):
    """The encoder or the decoder: blocks that share a position bias, and a norm behind them."""

    def __init__(self, position_bias: nn.RelativePositionBias, blocks: Any, norm: Any) -> None:
        self.position_bias = position_bias
        self.blocks = blocks
        self.norm = norm

    def bias(self, cu_seqlens: Array, learn: bool) -> tuple[Array, Array | None, once]:
        """Bias of the longest sequence, the buffer of its gradient, and the way back from it."""
        longest = int(np.diff(cu_seqlens).max(initial=0))
        bias, backward = self.position_bias(longest, longest)
        dbias = np.zeros_like(bias) if learn and self.position_bias.trainable else None
        return bias, dbias, backward


class T5(Answering, TokenModel):
    """A T5: encoder and decoder.

    Parameters
    ----------
    config : T5Config
        Its shape.
    seed : int or None, default 0
        Of the initial weights and the dropout masks. None: weights 0, not yet in flat buffers, for
        loading others.

    Examples
    --------
    >>> model = T5(T5Config(vocab_size=50, layers=2, heads=2, head_dim=4, dim=8, hidden=16))
    >>> encoded = model.encode(np.array([5, 6, 7, 1]))
    >>> cache = model.new_cache(encoded)
    >>> model.logits(np.array([0]), cache=cache).shape
    (1, 50)
    """

    model_type = "t5"
    weight_names = WEIGHT_NAMES
    weight_prefix = ""
    config_class = T5Config

    def __init__(self, config: T5Config, seed: int | None = 0) -> None:
        self.config = config
        rng = None if seed is None else np.random.default_rng(seed)
        self.random = nn.RandomStream(seed or 0)
        build = Builder(config, self.random, seed, rng)
        self.embedding = nn.Embedding(config.vocab_size, config.dim, std=build.drawn, rng=rng)
        self.dropout = nn.Dropout(config.dropout, stream=self.random)
        self.encoder = Stack(
            build.position_bias(bidirectional=True),
            [
                PreNormBlock(
                    build.norm(), build.attention(is_causal=False), build.norm(), build.mlp()
                )
                for _ in range(config.layers)
            ],
            build.norm(),
        )
        self.decoder = Stack(
            build.position_bias(bidirectional=False),
            [DecoderBlock(build) for _ in range(config.decoder_layers)],
            build.norm(),
        )
        head_std = 0.0 if config.tied else build.drawn * config.dim**-0.5
        self.head = nn.Head(config.dim, config.vocab_size, False, std=head_std, rng=rng)
        if config.tied:
            self.head.weight = self.embedding.weight
        if seed is not None:
            nn.flatten_(self)

    @property
    def ignored_weights(self) -> tuple[str, ...]:
        """Patterns of tensors in files that tell this model nothing."""
        tied = ("lm_head.weight",) if self.config.tied else ()
        return ("embed_tokens.weight", "EncDecAttention.relative_attention_bias.weight", *tied)

    def encode(self, input_ids: Array, cu_seqlens: Array | None = None) -> Encoded:
        """Read texts, without a way back.

        Parameters
        ----------
        input_ids : ndarray of int
            [total]: sequences laid end to end.
        cu_seqlens : ndarray of int, optional
            [sequences + 1]: where each begins, and the total. Default: one sequence.

        Returns
        -------
        Encoded
            For `logits` and `new_cache`.
        """
        if cu_seqlens is None:
            cu_seqlens = np.array([0, len(input_ids)])
        return Encoded(self._encode(input_ids, cu_seqlens, learn=False)[0], cu_seqlens)

    def _encode(self, input_ids: Array, cu_seqlens: Array, learn: bool) -> tuple[Array, once, bool]:
        """The encoder's states, the way back, and whether anything of it learns."""
        stack = self.encoder
        bias, dbias, bias_backward = stack.bias(cu_seqlens, learn)
        x, embedding_backward = self._embed(input_ids)
        backwards: list[once] = []
        need_dx = learn and self.embedding.trainable
        for block in stack.blocks:
            x, block_backward = block(x, cu_seqlens, need_dx=need_dx, bias=bias, dbias=dbias)
            need_dx = learn and block_backward.needed
            if need_dx:
                backwards.append(block_backward)
        x, norm_backward = stack.norm(x, need_dx=need_dx)
        x, dropout_backward = self.dropout(x)

        def backward(dstates: Array) -> None:
            dx = norm_backward(dropout_backward(dstates))
            for block_backward in reversed(backwards):
                dx = block_backward(dx)
            embedding_backward(dx)
            bias_backward(dbias)

        return x, once(backward), learn and (need_dx or stack.norm.trainable)

    def _decode(
        self,
        decoder_ids: Array,
        cu_seqlens: Array,
        encoded: Encoded,
        learn: bool,
        encoder_learns: bool,
    ) -> tuple[Array, once]:
        """What the head sees; backward -> dstates."""
        stack = self.decoder
        bias, dbias, bias_backward = stack.bias(cu_seqlens, learn)
        x, embedding_backward = self._embed(decoder_ids)
        backwards: list[once] = []
        need_dx = learn and self.embedding.trainable
        for block in stack.blocks:
            x, block_backward = block(
                x,
                encoded,
                cu_seqlens,
                need_dx=need_dx,
                need_dstates=encoder_learns,
                bias=bias,
                dbias=dbias,
            )
            need_dx = learn and block_backward.needed
            if need_dx:
                backwards.append(block_backward)
        x, out_backward = self._out(x, need_dx)

        def backward(dout: Array) -> Array | None:
            dx, dstates = out_backward(dout), None
            for block_backward in reversed(backwards):
                dx, more = block_backward(dx)
                dstates = more if dstates is None else np.add(dstates, more, out=dstates)
            embedding_backward(dx)
            bias_backward(dbias)
            return dstates

        return x, once(backward)

    def _embed(self, ids: Array) -> tuple[Array, once]:
        x, embedding_backward = self.embedding(ids)
        x, dropout_backward = self.dropout(x)
        return x, once(lambda dx: embedding_backward(dropout_backward(dx)))

    def _out(self, x: Array, need_dx: bool) -> tuple[Array, once]:
        """From the last block to the head."""
        scale = self.config.dim**-0.5 if self.config.scaled else 1.0
        x, norm_backward = self.decoder.norm(x, need_dx=need_dx)
        x, dropout_backward = self.dropout(x)
        return scale * x, once(lambda dx: norm_backward(dropout_backward(scale * dx)))

    def __call__(
        self, input_ids: Array, cu_seqlens: Array, decoder_ids: Array, decoder_cu_seqlens: Array
    ) -> tuple[Array, once]:
        """Read texts, and what is written for each: everything but the output projection.

        Parameters
        ----------
        input_ids, cu_seqlens : ndarray of int
            [total], [pairs + 1]: the sources end to end, and where each begins.
        decoder_ids, decoder_cu_seqlens : ndarray of int
            [decoder_total], [pairs + 1]: what the decoder reads, likewise.

        Returns
        -------
        hidden : ndarray
            [decoder_total, dim].
        backward : callable
            dhidden -> None.
        """
        states, encoder_backward, learns = self._encode(input_ids, cu_seqlens, learn=True)
        hidden, decoder_backward = self._decode(
            decoder_ids, decoder_cu_seqlens, Encoded(states, cu_seqlens), True, learns
        )
        return hidden, once(lambda dhidden: encoder_backward(decoder_backward(dhidden)))

    def _states(self, batch: Any, target: Array) -> tuple[Array, Array, once]:
        hidden, backward = self(
            batch.input_ids, batch.cu_seqlens, batch.decoder_ids, batch.decoder_cu_seqlens
        )
        return hidden, target, backward

    def new_cache(self, encoded: Encoded, capacity: int = 512) -> CrossCache:
        """Make a cache for writing one text for each that was read.

        Keys and values of what was read are computed here, once.

        Parameters
        ----------
        encoded : Encoded
            As from `encode`.
        capacity : int, default 512
            Tokens that can be written for each.

        Returns
        -------
        CrossCache
            For `logits`.
        """
        cross = [
            block.cross.key_value(encoded.states, need_dx=False)[0] for block in self.decoder.blocks
        ]
        return CrossCache(self.config, cross, encoded.cu_seqlens, capacity)

    def logits(
        self,
        decoder_ids: Array,
        cu_seqlens: Array | None = None,
        *,
        rows: Array | None = None,
        cache: CrossCache | None = None,
        encoded: Encoded | None = None,
    ) -> Array:
        """Score every next token.

        Parameters
        ----------
        decoder_ids : ndarray of int
            [total]: what the decoder reads, sequences laid end to end.
        cu_seqlens : ndarray of int, optional
            [sequences + 1]: where each begins, and the total. Default: one sequence.
        rows : ndarray of int, optional
            The positions whose logits are wanted; default: all.
        cache : CrossCache, optional
            What each sequence began with, and what was read; it grows by `decoder_ids`.
        encoded : Encoded, optional
            Without a cache: what was read.

        Returns
        -------
        ndarray
            [total, vocab_size], or [len(rows), vocab_size].

        Raises
        ------
        ValueError
            When neither or both of cache and encoded are given.
        IndexError
            When there is no such row. Nothing has been read then.
        """
        if (cache is None) == (encoded is None):
            raise ValueError("logits needs either a cache, or what `encode` returned")
        if cu_seqlens is None:
            cu_seqlens = np.array([0, len(decoder_ids)])
        check_rows(rows, len(decoder_ids))
        if encoded is not None:
            hidden, _ = self._decode(decoder_ids, cu_seqlens, encoded, False, False)
        else:
            hidden = self._decode_cached(decoder_ids, cu_seqlens, cache)
        out, _ = self.head(hidden if rows is None else hidden[rows], need_dx=False)
        return out

    def _decode_cached(self, decoder_ids: Array, cu_seqlens: Array, cache: Any) -> Array:
        cache.begin(cu_seqlens)
        stack = self.decoder
        bias = [stack.position_bias(span.end - span.start, span.end)[0] for span in cache.spans]
        x, _ = self._embed(decoder_ids)
        for layer, block in enumerate(stack.blocks):
            x = block.cached(x, cache, layer, bias)
        cache.end()
        return self._out(x, need_dx=False)[0]
