"""Models as folders that Hugging Face's tools read too: config.json and model.safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import io
from .gpt2 import GPT2

__all__ = ["MODEL_TYPES", "load", "save"]

MODEL_TYPES = {model.model_type: model for model in (GPT2,)}


def save(model: GPT2, folder: str | Path) -> None:
    """Write a model's configuration and weights.

    Parameters
    ----------
    model : GPT2
        The model.
    folder : path
        Made where it is missing. Each file is replaced atomically.

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
    tensors = {}
    for name, array in model.state_dict().items():
        theirs, transposed = _file_name(name, model.weight_names)
        tensors[theirs] = np.ascontiguousarray(array.T) if transposed else array
    io.save_safetensors(folder / "model.safetensors", tensors, metadata={"format": "pt"})
    io.write_json(folder / "config.json", model.config.to_dict())


def load(folder: str | Path) -> GPT2:
    """Read a model that `save`, or Hugging Face's `save_pretrained`, wrote.

    Parameters
    ----------
    folder : path
        Holds config.json and model.safetensors.

    Returns
    -------
    GPT2
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
    kind = MODEL_TYPES.get(settings.get("model_type"))
    if kind is None:
        raise ValueError(
            f"{folder / 'config.json'}: model_type is {settings.get('model_type')!r}, "
            f"expected one of {sorted(MODEL_TYPES)}"
        )
    model = kind(kind.config_class.from_dict(settings), seed=None)
    tensors = io.load_safetensors(folder / "model.safetensors")
    state: dict[str, npt.NDArray[Any]] = {}
    for name in model.state_dict():
        theirs, transposed = _file_name(name, model.weight_names)
        # Checkpoints of the bare body, such as the original GPT-2, leave the prefix out.
        array = tensors.get(theirs, tensors.get(theirs.partition(".")[2]))
        if array is not None:
            state[name] = array.T if transposed else array
    model.load_state_dict(state)
    model.eval()
    return model


def _file_name(name: str, weight_names: Mapping[str, tuple[str, bool]]) -> tuple[str, bool]:
    """Our name of a weight -> the file's name for it, and whether it is stored transposed."""
    parts = name.split(".")
    index = next((part for part in parts if part.isdigit()), "")
    theirs, transposed = weight_names[".".join("{}" if p.isdigit() else p for p in parts)]
    return theirs.format(index), transposed
