"""Texts to vectors that lie near each other where the texts mean the same."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import io, models, ops

__all__ = ["Embedder"]

Vectors = npt.NDArray[np.float32]
#: Seconds after which a bar shows how far the work has come.
PATIENCE = 1.0


class Embedder:
    """An encoder, its tokenizer, and how the vectors of the tokens become one.

    Texts lie end to end in packed batches, so that no padding is computed and the order of the
    texts makes no difference.

    Parameters
    ----------
    model : Bert
        Encodes tokens. It is frozen: nothing is learned here, and gradients would cost memory.
    tokenizer : Tokenizer
        Of the model.
    pooling : {"mean", "cls"}
        The mean of the tokens' vectors, or the first one's.
    normalize : bool, default True
        Whether vectors get length 1, so that their dot products are cosines.
    max_tokens : int, optional
        Longer texts are cut, special tokens included; default, and at most: the model's context.

    Raises
    ------
    ValueError
        When an argument is out of range.

    References
    ----------
    Reimers & Gurevych, "Sentence-BERT", 2019, arXiv:1908.10084.

    Examples
    --------
    >>> from evergrad.models import Bert, BertConfig
    >>> from evergrad.text import Tokenizer
    >>> tokenizer = Tokenizer.train(["a small text"], vocab_size=270)
    >>> model = Bert(BertConfig(vocab_size=270, context=16, layers=1, heads=2, dim=8))
    >>> embedder = Embedder(model, tokenizer)
    >>> vectors = embedder.encode(["a text", "another small one"])
    >>> vectors.shape, np.linalg.norm(vectors, axis=1).round(5).tolist()
    ((2, 8), [1.0, 1.0])
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        pooling: str = "mean",
        normalize: bool = True,
        max_tokens: int | None = None,
    ) -> None:
        if pooling not in ("mean", "cls"):
            raise ValueError(f"pooling must be 'mean' or 'cls', got {pooling!r}")
        context = model.config.context
        max_tokens = context if max_tokens is None else max_tokens
        if not 1 <= max_tokens <= context:
            raise ValueError(
                f"max_tokens must lie between 1 and the context of {context}, got {max_tokens}"
            )
        model.freeze()
        model.eval()
        self.model, self.tokenizer = model, tokenizer
        self.pooling, self.normalize, self.max_tokens = pooling, normalize, max_tokens

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], **options: Any) -> Embedder:
        """Load an encoder; pooling, normalisation and length as its folder says.

        Parameters
        ----------
        path : path-like
            What `evergrad.from_pretrained` takes. The files of Sentence-Transformers beside the
            model (modules.json and what it names) are heeded.
        **options
            `pooling`, `normalize`, `max_tokens`: instead of what the folder says.

        Raises
        ------
        ValueError
            When the folder asks for what this class does not do, or has no tokenizer.

        Examples
        --------
        >>> Embedder.from_pretrained("no/such/folder")
        Traceback (most recent call last):
            ...
        FileNotFoundError: no/such/folder: no such file or folder
        """
        model = models.from_pretrained(path)
        if model.tokenizer is None:
            raise ValueError(f"{path}: has no tokenizer")
        settings = _settings(Path(path))
        if settings.get("max_tokens") is not None:
            settings["max_tokens"] = min(settings["max_tokens"], model.config.context)
        return cls(model, model.tokenizer, **{**settings, **options})

    def encode(
        self,
        texts: Sequence[str],
        *,
        batch_tokens: int = 4096,
        progress: bool | None = None,
    ) -> Vectors:
        """Embed texts.

        Parameters
        ----------
        texts : sequence of str
            The texts.
        batch_tokens : int, default 4096
            About so many tokens are computed at once.
        progress : bool, optional
            Whether to show a bar; default: on a terminal, after a second.

        Returns
        -------
        ndarray
            float32, [texts, dim].

        Raises
        ------
        TypeError
            When `texts` is a single string.
        ValueError
            When `batch_tokens` is below 1.
        """
        if isinstance(texts, str):
            raise TypeError("texts: expected a sequence of texts, got one string")
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens must be >= 1, got {batch_tokens}")
        sequences = self.tokenizer.encode_many(
            texts, add_special_tokens=True, max_tokens=self.max_tokens
        )
        vectors = np.zeros((len(sequences), self.model.config.dim), np.float32)
        for batch in _watched(list(_batches(sequences, batch_tokens)), progress):
            vectors[batch] = self._encode(sequences[batch])
        if self.normalize:
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors /= np.maximum(norms, np.finfo(np.float32).tiny)
        return vectors

    def _encode(self, sequences: Sequence[npt.NDArray[np.int64]]) -> Vectors:
        cu_seqlens = np.zeros(len(sequences) + 1, np.int64)
        np.cumsum([len(ids) for ids in sequences], out=cu_seqlens[1:])
        hidden, _ = self.model(np.concatenate(sequences), cu_seqlens)
        return ops.pool(hidden, cu_seqlens, self.pooling)


def _batches(sequences: Sequence[npt.NDArray[np.int64]], batch_tokens: int) -> Iterator[slice]:
    """Runs of texts of at most so many tokens together, or of one text that has more."""
    begin = tokens = 0
    for i, ids in enumerate(sequences):
        if i > begin and tokens + len(ids) > batch_tokens:
            yield slice(begin, i)
            begin, tokens = i, 0
        tokens += len(ids)
    if begin < len(sequences):
        yield slice(begin, len(sequences))


def _watched(batches: Sequence[slice], progress: bool | None) -> Iterator[slice]:
    """The batches, with a bar where somebody looks and it takes a while."""
    begin = time.monotonic()
    bar = None
    try:
        for done, batch in enumerate(batches):
            yield batch
            late = progress or (progress is None and time.monotonic() - begin > PATIENCE)
            if bar is None and late:
                bar = _bar(batches[-1].stop, progress)
            if bar is not None:
                bar.update(0, completed=batches[done].stop)
    finally:
        if bar is not None:
            bar.stop()


def _bar(texts: int, progress: bool | None) -> Any:
    if progress is None and not sys.stderr.isatty():
        return None
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        if progress:
            raise ImportError("a progress bar needs rich: pip install 'evergrad[cli]'") from None
        return None
    bar = Progress(console=Console(stderr=True), transient=True)
    bar.add_task("texts", total=texts)
    bar.start()
    return bar


def _settings(folder: Path) -> dict[str, Any]:
    """What the files of Sentence-Transformers say of pooling, normalisation and length."""
    settings: dict[str, Any] = {}
    if not (folder / "modules.json").is_file():
        return settings
    modules: Any = io.read_json(folder / "modules.json")
    kinds = {str(module["type"]).rpartition(".")[2]: module["path"] for module in modules}
    if unknown := kinds.keys() - {"Transformer", "Pooling", "Normalize"}:
        raise ValueError(f"{folder / 'modules.json'}: {sorted(unknown)} are not supported")
    settings["normalize"] = "Normalize" in kinds
    if "Pooling" in kinds:
        path = folder / kinds["Pooling"] / "config.json"
        modes = [name for name, value in io.read_json(path).items() if value is True]
        modes = [name for name in modes if name.startswith("pooling_mode_")]
        known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
        if len(modes) != 1 or modes[0] not in known:
            raise ValueError(f"{path}: {modes} is not supported, only one of {sorted(known)}")
        settings["pooling"] = known[modes[0]]
    sizes = folder / "sentence_bert_config.json"
    if sizes.is_file():
        settings["max_tokens"] = io.read_json(sizes).get("max_seq_length")
    return settings
