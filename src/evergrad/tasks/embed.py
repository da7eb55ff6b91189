"""Texts to vectors that lie near each other where the texts mean the same."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import io, models, ops
from ..models import pretrained
from ..models.prompting import expect_count
from ..ops._check import choice, shown

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
    prompts : mapping of str to str, optional
        Beginnings for texts of one purpose or another, by name: "query", "passage" ...
    default_prompt_name : str, optional
        The one that texts get where `encode` is not told another.
    include_prompt : bool, default True
        Whether a prompt's tokens count in the mean. False: with "mean" no prompt is taken, since
        they always count here.
    lowercase : bool, default False
        Whether texts are turned to lower case, whatever the tokenizer does.

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
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        include_prompt: bool = True,
        lowercase: bool = False,
    ) -> None:
        choice("pooling", pooling, ("mean", "cls"))
        context = model.config.context
        max_tokens = context if max_tokens is None else max_tokens
        if not isinstance(max_tokens, (int, np.integer)) or not 1 <= max_tokens <= context:
            raise ValueError(
                f"max_tokens must be an int between 1 and the context of {context},"
                f" got {shown(max_tokens)}"
            )
        prompts = dict(prompts or {})
        if default_prompt_name is not None and default_prompt_name not in prompts:
            raise ValueError(
                f"default_prompt_name must be one of the prompts {sorted(prompts)},"
                f" got {shown(default_prompt_name)}"
            )
        model.freeze()
        model.eval()
        self.model, self.tokenizer = model, tokenizer
        self.pooling, self.normalize, self.max_tokens = pooling, normalize, max_tokens
        self.prompts, self.default_prompt_name = prompts, default_prompt_name
        self.include_prompt, self.lowercase = include_prompt, lowercase

    @classmethod
    def from_pretrained(
        cls, path: str | os.PathLike[str], dtype: str | None = None, **options: Any
    ) -> Embedder:
        """Load an encoder; pooling, normalisation, length and prompts as its folder says.

        Parameters
        ----------
        path : path-like
            What `evergrad.from_pretrained` takes. The files of Sentence-Transformers beside the
            model (modules.json and what it names) are heeded.
        dtype : str, optional
            How matrices are held, as for `evergrad.from_pretrained`: "int8", "bf16" ...
        **options
            `pooling`, `normalize` ...: instead of what the folder says.

        Raises
        ------
        FileNotFoundError
            When there is nothing at `path`, or a file of the folder is missing.
        io.CorruptFileError
            When a file cannot be read, or a value in it is of the wrong type.
        ValueError
            When the folder asks for what this class does not do, or has no tokenizer.

        Examples
        --------
        >>> Embedder.from_pretrained("no/such/folder")
        Traceback (most recent call last):
            ...
        FileNotFoundError: no/such/folder: no such file or folder
        """
        found = pretrained.locate(path)  # a name on the Hub has such files too
        settings = _settings(found)
        model = models.from_pretrained(found, dtype)
        if model.tokenizer is None:
            raise ValueError(f"{path}: has no tokenizer")
        if settings.get("max_tokens") is not None:
            settings["max_tokens"] = min(settings["max_tokens"], model.config.context)
        return cls(model, model.tokenizer, **{**settings, **options})

    def encode(
        self,
        texts: Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_tokens: int = 4096,
        progress: bool | None = None,
    ) -> Vectors:
        """Embed texts.

        Parameters
        ----------
        texts : iterable of str
            The texts.
        prompt_name : str, optional
            Which of `prompts` each text begins with. Default: `default_prompt_name`, if any.
        prompt : str, optional
            What each text begins with, instead; "" for nothing.
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
            When `texts` is a single string, or nothing to iterate over.
        ValueError
            When `batch_tokens` is below 1, there is no such prompt, or it cannot be left out of the
            mean.
        """
        if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
            got = "one string" if isinstance(texts, str) else type(texts).__name__
            raise TypeError(f"texts: expected an iterable of texts, got {got}")
        expect_count("batch_tokens", batch_tokens, 1)
        before = self._prompt(prompt_name, prompt)
        # What is no text is named by the tokenizer.
        texts = [before + text if isinstance(text, str) else text for text in texts]
        if self.lowercase:
            texts = [text.lower() if isinstance(text, str) else text for text in texts]
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

    def _prompt(self, name: str | None, prompt: str | None) -> str:
        """What texts begin with."""
        if prompt is None:
            name = self.default_prompt_name if name is None else name
            if name is not None and name not in self.prompts:
                raise ValueError(
                    f"prompt_name must be one of {sorted(self.prompts)}, got {shown(name)}"
                )
            prompt = "" if name is None else self.prompts[name]
        elif name is not None:
            raise ValueError(
                f"prompt_name={shown(name)} and prompt={shown(prompt)}: expected one of them"
            )
        if not isinstance(prompt, str):
            raise TypeError(f"prompt must be str, got {type(prompt).__name__}")
        if prompt and self.pooling == "mean" and not self.include_prompt:
            raise ValueError(
                f"the prompt {prompt!r} would count in the mean, but include_prompt is False:"
                ' take prompt="", or write it into the texts'
            )
        return prompt

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
    if progress is None and not (sys.stderr and sys.stderr.isatty()):
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
    """What the files of Sentence-Transformers say, as the arguments of `Embedder`."""
    path = folder / "modules.json"
    if not path.is_file():
        return {}
    modules = io.read_json(path)
    if not isinstance(modules, list) or not all(map(_is_module, modules)):
        raise io.CorruptFileError(f"{path}: expected a list of modules, each with type and path")
    kinds = {module["type"].rpartition(".")[2]: module["path"] for module in modules}
    if unknown := kinds.keys() - {"Transformer", "Pooling", "Normalize"}:
        raise ValueError(f"{path}: {sorted(unknown)} are not supported")
    settings: dict[str, Any] = {"normalize": "Normalize" in kinds}
    if "Pooling" in kinds:
        settings |= _pooling(io.JsonObject(folder / kinds["Pooling"] / "config.json"))
    settings |= _prompts(io.JsonObject(folder / "config_sentence_transformers.json", optional=True))
    sizes = io.JsonObject(folder / "sentence_bert_config.json", optional=True)
    settings["lowercase"] = sizes.get("do_lower_case", (bool,), "true or false") or False
    tokenizer = io.JsonObject(folder / "tokenizer_config.json", optional=True)
    length = _length(sizes, "max_seq_length")
    settings["max_tokens"] = length or _length(tokenizer, "model_max_length")
    return settings


def _length(file: io.JsonObject, name: str) -> int | None:
    value = file.values.get(name)
    if value is None:
        return None
    # Some files have 1e30 where there is no limit.
    if type(value) not in (int, float) or not 1 <= value < math.inf or value != int(value):
        raise file.error(name, "a positive integer")
    return int(value)


def _is_module(entry: Any) -> bool:
    return isinstance(entry, dict) and all(type(entry.get(k)) is str for k in ("type", "path"))


def _pooling(file: io.JsonObject) -> dict[str, Any]:
    known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    names = [name for name in file.values if name.startswith("pooling_mode_")]
    modes = [name for name in names if file.get(name, (bool,), "true or false")]
    # Instead of those, newer files may have the mode's own name.
    mode = file.get("pooling_mode", (str,), "the name of a mode")
    if mode is None and len(modes) == 1:
        mode = known.get(modes[0])
    if mode not in known.values():
        given = file.values.get("pooling_mode", modes)
        raise ValueError(f"{file.path}: {given} is not supported, only one of {sorted(known)}")
    include = file.get("include_prompt", (bool,), "true or false")
    return {"pooling": mode, "include_prompt": include is not False}


def _prompts(file: io.JsonObject) -> dict[str, Any]:
    prompts = file.get("prompts", (dict,), "an object of texts") or {}
    if not all(isinstance(text, str | None) for text in prompts.values()):
        raise file.error("prompts", "an object of texts")
    name = file.get("default_prompt_name", (str,), "the name of a prompt")
    if name is not None and name not in prompts:
        raise file.error("default_prompt_name", f"one of {sorted(prompts)}")
    return {
        "prompts": {each: text or "" for each, text in prompts.items()},
        "default_prompt_name": name,
    }
