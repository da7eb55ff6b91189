"""Byte-level byte pair encoding: any text to ids and back, without loss."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

END_OF_TEXT = "<|endoftext|>"
_BYTES = 256


class Tokenizer:
    """Byte-level BPE tokenizer (Sennrich et al. 2016; over bytes as in Radford et al. 2019).

    Every byte is a token, so nothing is unknown: ``decode(encode(text)) == text`` for every text.
    Made with `train` or `load`; a wrapper around the `tokenizers` package.

    Attributes
    ----------
    vocab_size : int
        Number of tokens, the special one included.
    eot : int
        Id of ``<|endoftext|>``, which separates documents. `encode` never gives it: in a text that
        spells it out it is text like any other.

    Examples
    --------
    >>> tokenizer = Tokenizer.train(["a small text, a small vocabulary"], vocab_size=270)
    >>> ids = tokenizer.encode("a naïve text\\n")
    >>> ids.dtype, tokenizer.decode(ids)
    (dtype('int64'), 'a naïve text\\n')
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        inner.encode_special_tokens = True  # as ordinary text; the file does not store this
        inner.no_padding()  # files made elsewhere may pad and truncate
        inner.no_truncation()
        eot = inner.token_to_id(END_OF_TEXT)
        if eot is None:
            raise ValueError(f"Tokenizer: the vocabulary has no {END_OF_TEXT}")
        self.eot: int = eot

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Learn the merges from texts.

        Parameters
        ----------
        texts : iterable of str
            The training texts.
        vocab_size : int
            Tokens wanted, at least 257 (the bytes and the special token). Texts with little to
            merge give fewer.

        Returns
        -------
        Tokenizer
            The same one for the same texts.

        Raises
        ------
        ImportError
            If the `tokenizers` package is missing.
        TypeError
            If `texts` is a single string, or holds something else than strings.
        ValueError
            If `vocab_size` is too small.

        Examples
        --------
        >>> Tokenizer.train(["to be or not to be"] * 2, vocab_size=260).vocab_size
        260
        """
        package = _tokenizers()
        if isinstance(texts, str):
            raise TypeError("Tokenizer.train: texts must be an iterable of texts, got one string")
        if vocab_size < _BYTES + 1:
            raise ValueError(
                f"Tokenizer.train: vocab_size must be at least {_BYTES + 1}"
                f" (every byte and {END_OF_TEXT}), got {vocab_size}"
            )
        inner = package.Tokenizer(package.models.BPE())
        inner.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = package.decoders.ByteLevel()
        trainer = package.trainers.BpeTrainer(
            vocab_size=vocab_size,
            initial_alphabet=sorted(package.pre_tokenizers.ByteLevel.alphabet()),
            special_tokens=[END_OF_TEXT],
            show_progress=False,
        )
        inner.train_from_iterator(texts, trainer)
        return cls(inner)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """Read a tokenizer that `save` wrote (a ``tokenizer.json`` of Hugging Face's format).

        Parameters
        ----------
        path : path-like
            The file.

        Returns
        -------
        Tokenizer
            One that encodes as the saved one did.

        Raises
        ------
        ImportError
            If the `tokenizers` package is missing.
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is truncated, no tokenizer, or has no ``<|endoftext|>``; the message names it.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "tokenizer.json")
        ...     Tokenizer.train(["text"], vocab_size=257).save(file)
        ...     Tokenizer.load(file).vocab_size
        257
        """
        package = _tokenizers()
        data = Path(path).read_bytes()
        try:
            return cls(package.Tokenizer.from_buffer(data))
        except Exception as error:  # the package raises plain Exception
            raise ValueError(f"{path}: truncated or no tokenizer file: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tokenizer to a ``tokenizer.json``.

        Parameters
        ----------
        path : path-like
            The file; an existing one is replaced.
        """
        Path(path).write_bytes(self._inner.to_str().encode())

    @property
    def vocab_size(self) -> int:
        """Number of tokens, the special one included."""
        return int(self._inner.get_vocab_size())

    def encode(self, text: str) -> np.ndarray:
        """Turn a text into token ids.

        Parameters
        ----------
        text : str
            Any text that has a UTF-8 form (no lone surrogates: see `clean`).

        Returns
        -------
        ndarray, int64, [tokens]
            Its ids; empty for the empty text.

        Raises
        ------
        TypeError
            If `text` is not a string.
        ValueError
            If it holds lone surrogates.
        """
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Encode several texts, in parallel.

        Parameters
        ----------
        texts : sequence of str
            The texts.

        Returns
        -------
        list of ndarray, int64
            For each text what `encode` gives.
        """
        for position, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(
                    f"Tokenizer: a text must be str, got {type(text).__name__} at {position}"
                )
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"Tokenizer: text {position} holds a lone surrogate at character"
                    f" {error.start}; text.clean removes those"
                ) from error
        found = self._inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in found]

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """Turn token ids back into text.

        Parameters
        ----------
        ids : array-like of int, [tokens]
            Ids below `vocab_size`.

        Returns
        -------
        str
            The text; bytes that form no character (a sequence cut within one) become U+FFFD.

        Raises
        ------
        TypeError, ValueError
            If `ids` are not integers of one dimension.
        IndexError
            If an id is out of range.
        """
        array = np.asarray(ids)
        if array.size == 0:
            return ""
        if array.dtype.kind not in "iu":
            raise TypeError(f"Tokenizer.decode: ids must be integers, got {array.dtype}")
        if array.ndim != 1:
            raise ValueError(f"Tokenizer.decode: ids must have one dimension, got {array.shape}")
        if array.min() < 0 or array.max() >= self.vocab_size:
            raise IndexError(
                f"Tokenizer.decode: ids must lie in [0, {self.vocab_size}),"
                f" got {array.min()} to {array.max()}"
            )
        return str(self._inner.decode(array.tolist(), skip_special_tokens=False))


def _tokenizers() -> ModuleType:
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            "the package `tokenizers` is needed for text: pip install evergrad[train]"
        ) from error
    return tokenizers
