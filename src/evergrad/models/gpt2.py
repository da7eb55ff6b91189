"""GPT-2: a pre-norm decoder with learned positions.

Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .. import nn
from ..nn import Array, once

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
    dropout : float, default 0.0
        Of the embeddings and of both residual branches.
    activation : str, default "gelu_tanh"
        Of the MLP.
    layer_norm_eps : float, default 1e-5
        Added to variances.
    tied : bool, default True
        Whether the output projection is the token embedding.

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

    def to_dict(self) -> dict[str, Any]:
        """Return what Hugging Face's config.json holds for this model."""
        settings = {theirs: getattr(self, ours) for ours, theirs in CONFIG_NAMES.items()}
        settings["activation_function"] = ACTIVATION_NAMES.get(self.activation, self.activation)
        return {
            "model_type": GPT2.model_type,
            "architectures": ["GPT2LMHeadModel"],
            **settings,
            "embd_pdrop": self.dropout,
            "attn_pdrop": 0.0,  # attention weights are never materialised, so none are dropped
        }

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> GPT2Config:
        """Read Hugging Face's config.json; settings that do not change the model are ignored.

        Raises
        ------
        ValueError
            When a setting asks for a variant that this model is not.
        """
        for name, value in FIXED_SETTINGS.items():
            if settings.get(name, value) != value:
                raise ValueError(f"{name}={settings[name]} is not supported, only {value}")
        ours = {o: settings[theirs] for o, theirs in CONFIG_NAMES.items() if theirs in settings}
        to_ours = {theirs: name for name, theirs in ACTIVATION_NAMES.items()}
        if "activation" in ours:
            ours["activation"] = to_ours.get(ours["activation"], ours["activation"])
        return cls(**ours)


CONFIG_NAMES = {  # ours: Hugging Face's
    "vocab_size": "vocab_size",
    "context": "n_positions",
    "layers": "n_layer",
    "heads": "n_head",
    "dim": "n_embd",
    "hidden": "n_inner",
    "dropout": "resid_pdrop",
    "activation": "activation_function",
    "layer_norm_eps": "layer_norm_epsilon",
    "tied": "tie_word_embeddings",
}

ACTIVATION_NAMES = {"gelu_tanh": "gelu_new"}

FIXED_SETTINGS = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}

# Ours: (Hugging Face's, whether it is stored [in, out], the transpose of ours).
WEIGHT_NAMES = {
    "wte.weight": ("transformer.wte.weight", False),
    "wpe.weight": ("transformer.wpe.weight", False),
    "blocks.{}.norm_1.weight": ("transformer.h.{}.ln_1.weight", False),
    "blocks.{}.norm_1.bias": ("transformer.h.{}.ln_1.bias", False),
    "blocks.{}.attention.qkv.weight": ("transformer.h.{}.attn.c_attn.weight", True),
    "blocks.{}.attention.qkv.bias": ("transformer.h.{}.attn.c_attn.bias", False),
    "blocks.{}.attention.proj.weight": ("transformer.h.{}.attn.c_proj.weight", True),
    "blocks.{}.attention.proj.bias": ("transformer.h.{}.attn.c_proj.bias", False),
    "blocks.{}.norm_2.weight": ("transformer.h.{}.ln_2.weight", False),
    "blocks.{}.norm_2.bias": ("transformer.h.{}.ln_2.bias", False),
    "blocks.{}.mlp.up.weight": ("transformer.h.{}.mlp.c_fc.weight", True),
    "blocks.{}.mlp.up.bias": ("transformer.h.{}.mlp.c_fc.bias", False),
    "blocks.{}.mlp.down.weight": ("transformer.h.{}.mlp.c_proj.weight", True),
    "blocks.{}.mlp.down.bias": ("transformer.h.{}.mlp.c_proj.bias", False),
    "norm.weight": ("transformer.ln_f.weight", False),
    "norm.bias": ("transformer.ln_f.bias", False),
    "head.weight": ("lm_head.weight", False),
}


class Batch(Protocol):
    """Sequences laid end to end: sequence s is tokens cu_seqlens[s] to cu_seqlens[s + 1]."""

    @property
    def input_ids(self) -> Array: ...  # int [total]
    @property
    def target(self) -> Array | None: ...  # int [total], -100 where nothing is to be predicted
    @property
    def cu_seqlens(self) -> Array: ...  # int [sequences + 1]


class Block(nn.Module):
    """One layer: attention, then MLP, each on a normalised copy of the residual stream."""

    def __init__(
        self, config: GPT2Config, stream: nn.RandomStream, std: float, rng: np.random.Generator
    ) -> None:
        # 2 layers branches add up in the residual stream: keep its variance.
        branch: dict[str, Any] = {
            "dropout": config.dropout,
            "stream": stream,
            "std": std,
            "out_std": std / math.sqrt(2 * config.layers),
            "rng": rng,
        }
        hidden = config.hidden or 4 * config.dim
        self.norm_1 = nn.LayerNorm(config.dim, config.layer_norm_eps)
        self.attention = nn.CausalSelfAttention(config.dim, config.heads, **branch)
        self.norm_2 = nn.LayerNorm(config.dim, config.layer_norm_eps)
        self.mlp = nn.MLP(config.dim, hidden, activation=config.activation, **branch)

    def __call__(self, x: Array, cu_seqlens: Array, *, need_dx: bool = True) -> tuple[Array, once]:
        need_dh = need_dx or self.norm_1.trainable
        h, norm_1_backward = self.norm_1(x, need_dx=need_dx)
        x, attention_backward = self.attention(
            h, cu_seqlens, residual=x, need_dx=need_dh, again=norm_1_backward.again
        )
        h, norm_2_backward = self.norm_2(x)
        x, mlp_backward = self.mlp(h, residual=x, again=norm_2_backward.again)

        def backward(dout: Array) -> Any:
            dx = norm_2_backward(mlp_backward(dout), dresidual=dout)
            return norm_1_backward(attention_backward(dx), dresidual=dx)

        return x, once(backward)


class GPT2(nn.Module):
    """A GPT-2 language model.

    Parameters
    ----------
    config : GPT2Config
        Its shape.
    seed : int or None, default 0
        Of the initial weights and the dropout masks. None: weights 0, for loading others.

    Examples
    --------
    >>> model = GPT2(GPT2Config(vocab_size=50, context=16, layers=2, heads=2, dim=8))
    >>> model.logits(np.array([1, 2, 3])).shape
    (3, 50)
    """

    model_type = "gpt2"
    weight_names = WEIGHT_NAMES
    config_class = GPT2Config

    def __init__(self, config: GPT2Config, seed: int | None = 0) -> None:
        self.config = config
        rng = np.random.default_rng(seed)
        std = 0.0 if seed is None else 0.02
        self.stream = nn.RandomStream(seed or 0)
        self.wte = nn.Embedding(config.vocab_size, config.dim, std=std, rng=rng)
        self.wpe = nn.Embedding(config.context, config.dim, std=std, rng=rng)
        self.dropout = nn.Dropout(config.dropout, stream=self.stream)
        self.blocks = [Block(config, self.stream, std, rng) for _ in range(config.layers)]
        self.norm = nn.LayerNorm(config.dim, config.layer_norm_eps)
        head_std = 0.0 if config.tied else std
        self.head = nn.Head(config.dim, config.vocab_size, False, std=head_std, rng=rng)
        if config.tied:
            self.head.weight = self.wte.weight
        nn.flatten_(self)

    def __call__(self, input_ids: Array, cu_seqlens: Array | None = None) -> tuple[Array, once]:
        """Run the blocks: everything but the output projection.

        Parameters
        ----------
        input_ids : ndarray of int
            [total]: sequences laid end to end.
        cu_seqlens : ndarray of int, optional
            [sequences + 1]: where each begins, and the total. Default: one sequence.

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
        if cu_seqlens is None:
            cu_seqlens = np.array([0, len(input_ids)])
        positions = self._positions(cu_seqlens)
        x, embedding_backward = nn.embedding_sum(self.wte, input_ids, self.wpe, positions)
        x, dropout_backward = self.dropout(x)

        # The way back ends at the lowest part that learns; what lies below keeps nothing.
        backwards: list[once] = []
        need_dx = self.wte.trainable or self.wpe.trainable
        for block in self.blocks:
            x, block_backward = block(x, cu_seqlens, need_dx=need_dx)
            need_dx = need_dx or block.trainable
            if need_dx:
                backwards.append(block_backward)
        x, norm_backward = self.norm(x, need_dx=need_dx)

        def backward(dx: Array) -> None:
            dx = norm_backward(dx)
            for block_backward in reversed(backwards):
                dx = block_backward(dx)
            embedding_backward(dropout_backward(dx))

        return x, once(backward)

    def loss(
        self, batch: Batch, normalizer: float | None = None
    ) -> tuple[float, Callable[..., None]]:
        """Sum of the cross-entropies of the counted targets, divided by `normalizer`.

        Micro-batches that share one normalizer (the counted targets of all of them) add up to
        the loss and the gradients of the full batch.

        Parameters
        ----------
        batch : Batch
            Packed sequences; targets of -100 are not counted.
        normalizer : float, optional
            Default: the number of counted targets, or 1 where there is none.

        Returns
        -------
        loss : float
            In nats.
        backward : callable
            (scale=1.0) -> None: adds the gradients of `scale * loss`. Runs once.

        Examples
        --------
        >>> from types import SimpleNamespace
        >>> model = GPT2(GPT2Config(vocab_size=50, context=16, layers=1, heads=2, dim=8))
        >>> batch = SimpleNamespace(
        ...     input_ids=np.array([1, 2, 3, 4, 5]),
        ...     target=np.array([2, 3, -100, 5, -100]),
        ...     cu_seqlens=np.array([0, 3, 5]),
        ... )
        >>> loss, backward = model.loss(batch)
        >>> backward()
        >>> bool(abs(loss - math.log(50)) < 0.1), bool(model.flat.grad.any())
        (True, True)
        """
        target, normalizer = _counted(batch, normalizer)
        hidden, hidden_backward = self(batch.input_ids, batch.cu_seqlens)
        total, head_backward = self.head.loss(hidden, target)

        def backward(scale: float = 1.0) -> None:
            hidden_backward(head_backward(scale / normalizer))

        return total / normalizer, once(backward)

    def loss_and_gradients(
        self, batch: Batch, normalizer: float | None = None, scale: float = 1.0
    ) -> float:
        """`loss` and its `backward(scale)` in one call, for a training step.

        That the gradients are wanted is known before the logits are made, so these become their
        own gradients at once, block by block, and need not be made a second time.

        Parameters
        ----------
        batch, normalizer
            As for `loss`.
        scale : float, default 1.0
            The gradients of `scale * loss` are added.

        Returns
        -------
        float
            The loss, in nats. Where it is not finite, neither are the gradients.

        Examples
        --------
        >>> from types import SimpleNamespace
        >>> model = GPT2(GPT2Config(vocab_size=50, context=16, layers=1, heads=2, dim=8))
        >>> batch = SimpleNamespace(
        ...     input_ids=np.array([1, 2]), target=np.array([2, 3]), cu_seqlens=np.array([0, 2])
        ... )
        >>> loss = model.loss_and_gradients(batch)
        >>> bool(abs(loss - math.log(50)) < 0.1), bool(model.flat.grad.any())
        (True, True)
        """
        target, normalizer = _counted(batch, normalizer)
        hidden, hidden_backward = self(batch.input_ids, batch.cu_seqlens)
        total, dhidden = self.head.loss_and_dx(hidden, target, scale / normalizer)
        hidden_backward(dhidden)
        return total / normalizer

    def logits(
        self, input_ids: Array, cu_seqlens: Array | None = None, *, rows: Array | None = None
    ) -> Array:
        """Score every next token.

        Parameters
        ----------
        input_ids, cu_seqlens
            As for `__call__`.
        rows : ndarray of int, optional
            The positions whose logits are wanted; default: all.

        Returns
        -------
        ndarray
            [total, vocab_size], or [len(rows), vocab_size].

        Examples
        --------
        >>> model = GPT2(GPT2Config(vocab_size=50, context=16, layers=1, heads=2, dim=8))
        >>> two_texts, cu_seqlens = np.array([1, 2, 3, 4, 5]), np.array([0, 3, 5])
        >>> model.logits(two_texts, cu_seqlens, rows=cu_seqlens[1:] - 1).shape
        (2, 50)
        """
        hidden, _ = self(input_ids, cu_seqlens)
        out, _ = self.head(hidden if rows is None else hidden[rows])
        return out

    def _positions(self, cu_seqlens: Array) -> Array:
        """Each token's position in its own sequence: [0, 1, 2, 0, 1] for cu_seqlens [0, 3, 5]."""
        lengths = np.diff(cu_seqlens)
        longest = lengths.max(initial=0)
        if longest > self.config.context:
            raise ValueError(
                f"a sequence has {longest} tokens, more than the context of {self.config.context}"
            )
        positions: Array = np.arange(cu_seqlens[-1]) - np.repeat(cu_seqlens[:-1], lengths)
        return positions


def _counted(batch: Batch, normalizer: float | None) -> tuple[Array, float]:
    """The targets, and what the sum of their losses is divided by."""
    if batch.target is None:
        raise ValueError("loss needs targets, got a batch with target None")
    if normalizer is None:
        normalizer = max(int(np.count_nonzero(batch.target != -100)), 1)
    return batch.target, normalizer
