"""Pretrained models, in whatever format they come, with their tokenizers."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from .. import io, nn, ops
from ..ops._check import choice
from ..ops.quant import ALIASES, BLOCKS, CODED
from ..text import Tokenizer
from .folder import build, load
from .gguf import read_gguf

__all__ = ["from_pretrained", "locate"]

#: How matrices can be held.
DTYPES = ("float32", *ALIASES, *CODED)
#: What a GGUF file calls its tokenizer where there is none.
NO_TOKENIZER = ("none", "no_vocab")
#: "owner/name", as models are called on the Hugging Face Hub.
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
#: What is fetched of it.
HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")


def from_pretrained(path: str | os.PathLike[str], dtype: str | None = None) -> Any:
    """Load a model and its tokenizer, whatever the format.

    Parameters
    ----------
    path : str or path-like
        A folder as Hugging Face's tools write it (config.json, safetensors in one file or in
        shards, tokenizer.json); a GGUF file of a Llama, or a folder that holds just one; or the
        name "owner/name" of a model on the Hugging Face Hub, for which the extra `hub` is needed.
    dtype : str, optional
        How matrices are held: "float32", "int8", "int4", "bf16", "f16", or a layout of
        GGUF files as `ops.quantize` takes it. Those in few bits do not learn. Default: a folder's
        in float32; a GGUF file's as they lie in the file, mapped and not copied (but for stacked
        ones), as far as kernels read them.

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
    choice("dtype", dtype, (None, *DTYPES))
    found = locate(path)
    if found.is_dir():
        model = load(found)
        if (found / "tokenizer.json").exists():
            model.tokenizer = Tokenizer.from_folder(found)
    else:
        model = _load_gguf(found, dtype)
    if dtype not in (None, "float32"):
        nn.quantize(model, dtype)
    return model


def _load_gguf(path: Path, dtype: str | None) -> Any:
    file = io.read_gguf(path)
    try:
        settings, stored = read_gguf(file)
        tensors = {name: _weight(tensor) for name, tensor in stored.items()}
        model = build(settings, tensors, few_bits=dtype is None)
        if file.metadata.get("tokenizer.ggml.model", "none") not in NO_TOKENIZER:
            model.tokenizer = Tokenizer.from_gguf(file.metadata)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return model


def _weight(tensor: io.StoredTensor) -> Any:
    """A matrix that products read as it lies in the file, or else the tensor."""
    if len(tensor.shape) == 2 and tensor.kind in BLOCKS:
        return ops.QuantizedWeight(tensor.data, tensor.kind, tensor.shape[1])
    return tensor


def locate(path: str | os.PathLike[str]) -> Path:
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
            " `huggingface_hub` is needed: pip install 'evergrad[hub]'"
        ) from error
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(HUB_FILES)))
    # Of the network, of a name that nobody has, and of one that nobody may have.
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise FileNotFoundError(f"{name}: no such folder, nor fetched: {reason}") from error
