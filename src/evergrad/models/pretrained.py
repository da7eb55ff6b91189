"""Pretrained models, in whatever format they come, with their tokenizers."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from .. import io
from .folder import build, load
from .gguf import read_gguf

__all__ = ["from_pretrained"]

#: "owner/name", as models are called on the Hugging Face Hub.
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
#: What is fetched of it.
HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")


def from_pretrained(path: str | os.PathLike[str]) -> Any:
    """Load a model and its tokenizer, whatever the format.

    Parameters
    ----------
    path : str or path-like
        A folder as Hugging Face's tools write it (config.json, safetensors in one file or in
        shards, tokenizer.json); a GGUF file of a Llama, or a folder that holds just one; or the
        name "owner/name" of a model on the Hugging Face Hub, for which the extra `hub` is needed.

    Returns
    -------
    GPT2, Llama, Bert or T5
        In evaluation mode. Its `tokenizer` is None where the format holds none.

    Raises
    ------
    FileNotFoundError
        When there is nothing at `path`, or a file of the folder is missing.
    io.CorruptFileError
        When a file cannot be read.
    ValueError
        When the architecture is unknown, or the weights do not fit the configuration.
    ImportError
        When the package that the format needs is missing.

    Examples
    --------
    >>> import tempfile
    >>> from evergrad.models import GPT2, GPT2Config, save
    >>> model = GPT2(GPT2Config(vocab_size=50, context=16, layers=1, heads=2, dim=8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(model, folder)
    ...     from_pretrained(folder).config == model.config
    True
    """
    found = _locate(path)
    if found.is_dir():
        return load(found)
    try:
        settings, tensors = read_gguf(io.read_gguf(found))
        return build(settings, tensors)
    except io.CorruptFileError:
        raise
    except ValueError as error:
        raise ValueError(f"{found}: {error}") from None


def _locate(path: str | os.PathLike[str]) -> Path:
    """The folder, or the GGUF file."""
    found = Path(path)
    if not found.exists():
        name = os.fspath(path)
        if not HUB_NAME.fullmatch(name) or found.suffix in (".gguf", ".safetensors", ".json"):
            raise FileNotFoundError(f"{path}: no such file or folder")
        found = _download(name)
    if found.is_dir() and not (found / "config.json").exists():
        files = sorted(found.glob("*.gguf"))
        if len(files) != 1:
            raise FileNotFoundError(
                f"{found}: expected config.json or a single .gguf file, found"
                f" {len(files) or 'neither'}{' .gguf files' if files else ''}"
            )
        return files[0]
    return found


def _download(name: str) -> Path:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            f"{name}: no such file or folder; to fetch a model of that name, the package"
            " `huggingface_hub` is needed: pip install evergrad[hub]"
        ) from error
    return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(HUB_FILES)))
