"""The weights of a model under Hugging Face's names: ours to theirs and back.

A model's `weight_names` maps the name of each of our parameters to theirs: a name; a tuple of
names, whose tensors lie one below the other in ours (`nn.PackedLinear`); or `Transposed(name)`.
"{}" stands for the number of a layer, and "*" at the end for "weight" and "bias" alike.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import io, nn, ops
from ..nn import Array

if TYPE_CHECKING:
    from ..text import Tokenizer

__all__ = [
    "Pretrained",
    "Transposed",
    "WeightNames",
    "fill",
    "has_own_head",
    "to_ours",
    "to_theirs",
]

#: Buffers that files hold beside the weights, and tensors that tell nothing new.
IGNORED = ("*.rotary_emb.inv_freq", "*.attn.bias", "*.attn.masked_bias", "*.position_ids")

#: Rows that are compared at a time.
COMPARED = 1024

#: How many problems an error message lists.
LISTED = 20


class Transposed(NamedTuple):
    """A name whose tensor is stored [in, out]."""

    name: str


WeightNames = Mapping[str, "str | tuple[str, ...] | Transposed"]


class Pretrained(nn.Module):
    """A model that files of Hugging Face can hold."""

    model_type: str  # in config.json
    config_class: Any
    config: Any
    weight_names: WeightNames
    weight_prefix: str  # of the body's names; files of the bare body leave it out
    tokenizer: Tokenizer | None = None  # from_pretrained sets it, save_pretrained saves it

    @property
    def is_bare(self) -> bool:
        """Whether this is a body alone, which files name without the prefix."""
        return False

    @property
    def ignored_weights(self) -> tuple[str, ...]:
        """Patterns of tensors in files that tell this model nothing."""
        return ()

    def save_pretrained(
        self, folder: str | os.PathLike[str], max_shard_bytes: int | None = None
    ) -> None:
        """Write a folder that `from_pretrained` and Hugging Face's tools read.

        It holds config.json, the weights as safetensors, and the tokenizer's files. Weights in few
        bits are written dequantised, in float32. A tokenizer that lies there already stays where
        the model has none.

        Parameters
        ----------
        folder : path-like
            Made where it is missing. Each file is replaced atomically.
        max_shard_bytes : int, optional
            Cut the weights into files of at most this size, with an index. Default: a single file.

        Examples
        --------
        >>> import tempfile
        >>> from evergrad.models import Llama, LlamaConfig, from_pretrained
        >>> model = Llama(LlamaConfig(vocab_size=9, layers=1, heads=2, dim=8, hidden=4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_pretrained(folder)
        ...     from_pretrained(folder).config == model.config
        True
        """
        from .folder import save  # it knows all families, which know this class

        save(self, folder, max_shard_bytes)
        if self.tokenizer is not None:
            self.tokenizer.save_folder(folder)


class Source(NamedTuple):
    """Where a parameter of ours lies in a file."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]  # of the tensors in the file
    transposed: bool


def sources(model: Pretrained) -> dict[str, Source]:
    """For each parameter of ours: its tensors in a file."""
    modules: dict[str, Any] = dict(model.named_modules())
    table = {}
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.data.shape)
        theirs = _theirs(name, model.weight_names)
        if isinstance(theirs, Transposed):
            table[name] = Source((theirs.name,), (shape[::-1],), True)
        elif isinstance(theirs, tuple):
            parts = modules[name.rpartition(".")[0]].parts
            table[name] = Source(theirs, tuple((rows, *shape[1:]) for rows in parts), False)
        else:
            table[name] = Source((theirs,), (shape,), False)
    return table


def _theirs(name: str, weight_names: WeightNames) -> Any:
    """Look a name of ours up, and put the layer's number and the last word in."""
    words = name.split(".")
    number = next((word for word in words if word.isdigit()), "")
    words = ["{}" if word.isdigit() else word for word in words]
    entry = weight_names.get(".".join(words)) or weight_names[".".join([*words[:-1], "*"])]

    def filled(theirs: str) -> str:
        if theirs.endswith(".*"):
            theirs = theirs[:-1] + words[-1]
        return theirs.format(number)

    if isinstance(entry, Transposed):
        return Transposed(filled(entry.name))
    return filled(entry) if isinstance(entry, str) else tuple(map(filled, entry))


def to_ours(model: Pretrained, tensors: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Find each of a model's parameters among tensors under Hugging Face's names.

    Parameters
    ----------
    model : GPT2, Llama, Bert or T5
        Its parameters' shapes are what is expected; their values are not touched.
    tensors : mapping of str to array
        Anything with a `shape`; the prefix of the body ("model.", "bert." ...) may be missing.

    Returns
    -------
    dict of str to list of array
        For each parameter its parts, to be laid one below the other: views, nothing is copied.

    Raises
    ------
    ValueError
        When tensors are missing or left over, or a shape is not that of the configuration; lists
        them.

    Examples
    --------
    >>> from evergrad.models import Llama, LlamaConfig
    >>> model = Llama(LlamaConfig(vocab_size=9, layers=1, heads=2, kv_heads=1, dim=8, hidden=4))
    >>> parts = to_ours(model, to_theirs(model))
    >>> [part.shape for part in parts["blocks.0.attention.qkv.weight"]]
    [(8, 8), (4, 8), (4, 8)]
    """
    prefix = model.weight_prefix
    found: dict[str, list[Any]] = {}
    used, problems = set(), []
    for ours, source in sources(model).items():
        parts = []
        for theirs, shape in zip(source.names, source.shapes, strict=True):
            name = _found(theirs, prefix, tensors)
            if name is None:
                problems.append(f"missing: {theirs}")
                continue
            used.add(name)
            tensor = tensors[name]
            if tuple(tensor.shape) != shape:
                problems.append(f"shape of {name}: got {tuple(tensor.shape)}, expected {shape}")
            parts.append(tensor.T if source.transposed else tensor)
        found[ours] = parts
    ignored = (*IGNORED, *model.ignored_weights)
    problems += [
        f"unknown: {name}"
        for name in tensors
        if name not in used and not any(fnmatchcase(f".{name}", f"*.{each}") for each in ignored)
    ]
    if problems:
        more = [f"... and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        raise ValueError(
            f"the weights do not fit {type(model).__name__}'s configuration:\n  "
            + "\n  ".join(problems[:LISTED] + more)
        )
    return found


def _found(theirs: str, prefix: str, tensors: Mapping[str, Any]) -> str | None:
    """The name that a tensor has in this file: bare, or in the first BERTs' words."""
    for name in (theirs, theirs.removeprefix(prefix)):
        norm, _, last = name.rpartition(".LayerNorm.")
        older = f"{norm}.LayerNorm.{ {'weight': 'gamma', 'bias': 'beta'}.get(last) }"
        for each in (name, older):
            if each in tensors:
                return each
    return None


def has_own_head(
    tensors: Mapping[str, Any] | None, table: str, prefix: str, head: str = "lm_head.weight"
) -> bool:
    """Whether a file holds an output projection that is not the embedding.

    What the configuration says of tied weights is then wrong, as it is for transformers.

    Parameters
    ----------
    tensors : mapping of str to array, optional
        Under Hugging Face's names.
    table : str
        Name of the embedding.
    prefix : str
        Of that name, which may be missing.
    head : str, default "lm_head.weight"
        Name of the projection.
    """
    tensors = tensors or {}
    own = tensors.get(head)
    words = tensors.get(table, tensors.get(table.removeprefix(prefix)))
    if own is None or words is None:
        return False
    if tuple(own.shape) != tuple(words.shape):
        return True
    for start in range(0, own.shape[0], COMPARED):
        rows = np.arange(start, min(start + COMPARED, own.shape[0]))
        if not np.array_equal(_rows(own, rows), _rows(words, rows)):
            return True
    return False


def _rows(tensor: Any, rows: Array) -> Array:
    """Some rows of an array, or of one that is stored in another way."""
    for method in ("take_rows", "rows"):
        if hasattr(tensor, method):
            return np.asarray(getattr(tensor, method)(rows))
    found: Array = tensor[rows]
    return found


def to_theirs(model: Pretrained) -> dict[str, Array]:
    """Give a model's weights under Hugging Face's names.

    Parameters
    ----------
    model : GPT2, Llama, Bert or T5

    Returns
    -------
    dict of str to ndarray
        The model's own memory where nothing is transposed, so copy what you keep.

    Examples
    --------
    >>> from evergrad.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=50, context=16, layers=1, heads=2, dim=8))
    >>> to_theirs(model)["transformer.h.0.attn.c_attn.weight"].shape
    (8, 24)
    """
    parameters = dict(model.named_parameters())
    prefix = model.weight_prefix if model.is_bare else ""
    tensors = {}
    for ours, source in sources(model).items():
        data, start = np.asarray(parameters[ours].data), 0  # decoded, where it is in few bits
        for name, shape in zip(source.names, source.shapes, strict=True):
            theirs = name.removeprefix(prefix)
            if source.transposed:
                tensors[theirs] = np.ascontiguousarray(data.T)
            else:
                tensors[theirs] = data[start : start + shape[0]]
                start += shape[0]
    return tensors


def fill(model: Pretrained, tensors: Mapping[str, Any], few_bits: bool = True) -> None:
    """Give a model the weights of `tensors`, under Hugging Face's names.

    All names, shapes and dtypes are checked before anything changes.

    Parameters
    ----------
    model : GPT2, Llama, Bert or T5
    tensors : mapping of str to ndarray, io.StoredTensor or ops.QuantizedWeight
        Floating point; as for `to_ours`. They are copied, or dequantised, once, into the model's
        flat buffers. A QuantizedWeight stays what it is (and where it is), unless it is stacked
        with another kind.
    few_bits : bool, default True
        False: dequantise every QuantizedWeight.

    Raises
    ------
    ValueError
        As `to_ours`.
    TypeError
        When a tensor is not floating point.
    """
    found = to_ours(model, tensors)
    for name, parts in found.items():
        for part in parts:
            if not np.issubdtype(part.dtype, np.floating):
                raise TypeError(f"{name} must be floating point, got {part.dtype}")
    parameters = dict(model.named_parameters())
    for name, parts in found.items():
        whole = _in_few_bits(parts) if few_bits else None
        if whole is not None:
            parameters[name].requires_grad = False
            parameters[name].data = whole
    nn.flatten_(model)  # before the others come: each is then read into its place
    for name, parts in found.items():
        if isinstance(parameters[name].data, ops.QuantizedWeight):
            continue
        start = 0
        for part in parts:
            stop = start + part.shape[0]
            parameters[name].data[start:stop] = part
            io.release(part)
            start = stop


def _in_few_bits(parts: Sequence[Any]) -> ops.QuantizedWeight | None:
    """Parts one below the other, where all of them are in few bits, and alike."""
    kinds = {part.kind if isinstance(part, ops.QuantizedWeight) else None for part in parts}
    if None in kinds or len(kinds) > 1:
        return None
    if len(parts) == 1:
        return parts[0]
    whole = ops.QuantizedWeight.concatenate(parts)
    if not np.may_share_memory(whole.data, parts[0].data):
        for part in parts:
            io.release(part)
    return whole
