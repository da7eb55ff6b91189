"""Models as folders that Hugging Face's tools read too: config.json and model.safetensors."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from .. import io
from .weights import Pretrained, fill, to_theirs

__all__ = ["MODEL_TYPES", "build", "load", "save"]

#: The "model_type" of config.json, which is the name of a family's file, and the class in there.
MODEL_TYPES = {"bert": "Bert", "gpt2": "GPT2", "llama": "Llama", "t5": "T5"}

#: Of a generation_config.json, and of config.json, which it overrides.
GENERATION = "generation_config.json"
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def save(
    model: Pretrained, folder: str | os.PathLike[str], max_shard_bytes: int | None = None
) -> None:
    """Write a model's configuration and weights.

    Parameters
    ----------
    model : GPT2, Llama, Bert or T5
        The model.
    folder : path
        Made where it is missing. Each file is replaced atomically. A tokenizer that lies there
        stays, and the generation_config.json beside it; one without a tokenizer would rule over
        the model's own tokens, and gets these.
    max_shard_bytes : int, optional
        Cut the weights into files of at most this size, with an index, as `io.save_weights` says.
        Default: a single file.

    Examples
    --------
    >>> import tempfile
    >>> from evergrad.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=50, context=16, layers=1, heads=2, dim=8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(model, folder)
    ...     load(folder).config == model.config
    True
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    io.save_weights(folder, to_theirs(model), max_shard_bytes)
    settings = model.config.to_dict()
    io.write_json(folder / "config.json", settings)
    path = folder / GENERATION
    if path.exists() and not (folder / "tokenizer.json").exists():
        kept = {name: v for name, v in io.JsonObject(path).values.items() if name not in TOKENS}
        told = {name: settings[name] for name in TOKENS if settings.get(name) is not None}
        io.write_json(path, kept | told)


def load(folder: str | Path) -> Any:
    """Read a model that `save`, or Hugging Face's `save_pretrained`, wrote.

    Parameters
    ----------
    folder : path
        Holds config.json, and model.safetensors or the shards of its index. Of a
        generation_config.json, which tokens end a text goes before what config.json says, as in
        transformers; and what an encoder-decoder's answers begin with, where that says nothing.

    Returns
    -------
    GPT2, Llama, Bert or T5
        Of the class that config.json's "model_type" names; in evaluation mode, as from Hugging
        Face: call `train` to have dropout.

    Raises
    ------
    FileNotFoundError
        When a file is missing.
    io.CorruptFileError
        When a file cannot be read.
    ValueError
        When the model type is unknown, or the weights do not fit the configuration.

    Examples
    --------
    >>> load("no/such/folder")
    Traceback (most recent call last):
        ...
    FileNotFoundError: [Errno 2] No such file or directory: 'no/such/folder/config.json'
    """
    folder = Path(folder)
    settings = io.read_json(folder / "config.json")
    try:
        _kind(settings)
        return build(settings | _of_generation(folder, settings), io.read_weights(folder))
    except io.CorruptFileError:
        raise
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None


def _of_generation(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What generation_config.json, if there is one, says in the place of config.json."""
    told = io.JsonObject(folder / GENERATION, optional=True)
    found: dict[str, Any] = {}
    name = "decoder_start_token_id"
    if settings.get("is_encoder_decoder") and settings.get(name) is None:
        token = told.get(name, (int,), "an integer")
        found |= {} if token is None else {name: token}
    name = "eos_token_id"
    if ends := told.ids(name):
        found[name] = ends[0] if len(ends) == 1 else ends
    return found


def build(settings: Mapping[str, Any], tensors: Mapping[str, Any], few_bits: bool = True) -> Any:
    """Make a model from what Hugging Face's files hold.

    Parameters
    ----------
    settings : mapping
        What is in config.json.
    tensors : mapping of str to ndarray, io.StoredTensor or ops.QuantizedWeight
        The weights under Hugging Face's names.
    few_bits : bool, default True
        Whether a QuantizedWeight stays what it is, and does not learn.

    Returns
    -------
    GPT2, Llama, Bert or T5
        In evaluation mode.

    Raises
    ------
    ValueError
        When the model type is unknown, or the weights do not fit the configuration.

    Examples
    --------
    >>> from evergrad.models import GPT2, GPT2Config
    >>> model = GPT2(GPT2Config(vocab_size=50, context=16, layers=1, heads=2, dim=8))
    >>> build(model.config.to_dict(), to_theirs(model)).config == model.config
    True
    """
    model = outline(settings, tensors)
    fill(model, tensors, few_bits)
    model.eval()
    return model


def outline(settings: Mapping[str, Any], tensors: Mapping[str, Any]) -> Any:
    """Make a model of the shape that `settings` say, its weights still 0.

    A configuration that asks for more than `tensors` can fill is refused before it takes memory.

    Raises
    ------
    ValueError
        When the model type is unknown, or the configuration is out of proportion.
    """
    kind = _kind(settings)
    try:
        config = kind.config_class.from_dict(settings, tensors)
    except (TypeError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(
            f"the configuration of a {kind.model_type} is incomplete or impossible: {error}"
        ) from None
    _check_fields(config)
    name = kind.weight_names[next(iter(kind.weight_names))]
    table = tensors.get(name)
    if table is None:
        table = tensors.get(name.removeprefix(kind.weight_prefix))
    expected = (config.vocab_size, config.dim)
    if table is None or tuple(table.shape) != expected:
        got = "missing" if table is None else f"of shape {tuple(table.shape)}"
        raise ValueError(f"{name}: expected the shape {expected} of the configuration, is {got}")
    if config.layers > len(tensors):
        raise ValueError(f"{config.layers} layers cannot be filled by {len(tensors)} tensors")
    # No inner size goes beyond what some tensor has: more would take memory that nothing fills.
    largest = max(max(tensor.shape, default=1) for tensor in tensors.values())
    inner = config.heads * (getattr(config, "head_dim", None) or 1)
    for size in (config.dim, getattr(config, "hidden", None) or 1, inner):
        if size > largest:
            raise ValueError(f"a size of {size} is more than any tensor has ({largest})")
    try:
        return kind(config, seed=None)
    except (MemoryError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"the configuration is impossible: {error}") from None


def _check_fields(config: Any) -> None:
    """Counts are positive integers, other numbers finite, whatever the file says."""
    for field in fields(config):
        value = getattr(config, field.name)
        if value is None and field.default is None:
            continue
        kind = str(field.type)
        if field.name.endswith("_token"):  # some files say -1 where there is none
            fits = all(type(each) is int for each in (value if type(value) is tuple else [value]))
            expected = "a token id"
        elif field.name.endswith("dropout"):
            fits, expected = type(value) in (int, float) and 0 <= value < 1, "a number in [0, 1)"
        elif kind.startswith("int"):
            fits, expected = type(value) is int and 0 < value < 2**31, "a positive integer"
        elif kind == "float":
            fits = type(value) in (int, float) and 0 <= value < math.inf
            expected = "a finite number"
        else:
            fits, expected = kind != "bool" or type(value) is bool, "true or false"
        if not fits:
            raise ValueError(
                f"the configuration's {field.name} must be {expected}, is {value!r:.80}"
            )


def _kind(settings: Mapping[str, Any]) -> type[Any]:
    name = settings.get("model_type") if isinstance(settings, Mapping) else None
    if not isinstance(name, str) or name not in MODEL_TYPES:
        raise ValueError(f"model_type is {name!r:.100}, expected one of {sorted(MODEL_TYPES)}")
    # No more than the one is loaded: a text should begin at once.
    kind: type[Any] = getattr(importlib.import_module(f".{name}", __package__), MODEL_TYPES[name])
    return kind
