"""From a domain of text to batches of token windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from evergrad.datasets import Domain
from evergrad.text import Batch, Tokenizer

# (random generator, sequences, tokens of a sequence) -> batch
Sampler = Callable[[np.random.Generator, int, int], Batch]


@dataclass(frozen=True)
class EncodedDomain:
    """A domain as token streams: ``eot document eot document ...``.

    Parameters
    ----------
    name : str
        Name of the domain.
    train_ids, heldout_ids : ndarray, int64, [tokens]
        The two parts.
    heldout_bytes : int
        UTF-8 bytes of the held-out documents, which `bits_per_byte` divides by.

    Examples
    --------
    >>> import numpy as np
    >>> EncodedDomain("tiny", np.array([0, 5, 6]), np.array([0, 7]), heldout_bytes=3).name
    'tiny'
    """

    name: str
    train_ids: np.ndarray
    heldout_ids: np.ndarray
    heldout_bytes: int


def encode_domain(
    domain: Domain, tokenizer: Tokenizer, *, max_heldout_bytes: int | None = None
) -> EncodedDomain:
    """Encode both parts of a domain.

    Parameters
    ----------
    domain : Domain
        The texts.
    tokenizer : Tokenizer
        Its ``eot`` is put before every document.
    max_heldout_bytes : int, optional
        Use held-out documents only up to this size, for evaluations that cost less. The last one
        is cut.

    Returns
    -------
    EncodedDomain
        The token streams.

    Raises
    ------
    ValueError
        If either part is empty, or `max_heldout_bytes` is below 1.

    Examples
    --------
    >>> domain = Domain("tiny", train=["some text"], heldout=["more text"])
    >>> encoded = encode_domain(domain, Tokenizer.train(domain.train, vocab_size=257))
    >>> len(encoded.train_ids), encoded.heldout_bytes
    (10, 9)
    """
    heldout = domain.heldout
    if max_heldout_bytes is not None:
        if max_heldout_bytes < 1:
            raise ValueError(
                f"encode_domain: max_heldout_bytes must be at least 1, got {max_heldout_bytes}"
            )
        heldout = _first_bytes(heldout, max_heldout_bytes)
    for part, texts in (("train", domain.train), ("heldout", heldout)):
        if not any(texts):
            raise ValueError(f"encode_domain: the {part} part of {domain.name!r} is empty")
    return EncodedDomain(
        domain.name,
        _stream(domain.train, tokenizer),
        _stream(heldout, tokenizer),
        sum(len(text.encode()) for text in heldout),
    )


def window_sampler(ids: np.ndarray) -> Sampler:
    """Draw windows that start anywhere in a token stream, each with equal probability.

    Parameters
    ----------
    ids : ndarray, integer, [tokens]
        The stream, at least two tokens.

    Returns
    -------
    callable
        ``sample(rng, batch_size, window) -> Batch`` of `batch_size` sequences of `window` tokens
        (fewer when the stream is shorter than that).

    Raises
    ------
    TypeError, ValueError
        If `ids` is not an integer array of one dimension with two tokens or more.

    Examples
    --------
    >>> import numpy as np
    >>> sample = window_sampler(np.arange(100))
    >>> batch = sample(np.random.default_rng(0), 4, 8)
    >>> batch.input_ids.shape, batch.cu_seqlens, (batch.target == batch.input_ids + 1).all()
    ((32,), array([ 0,  8, 16, 24, 32]), np.True_)
    """
    if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "iu":
        kind = getattr(ids, "dtype", type(ids).__name__)
        raise TypeError(f"window_sampler: ids must be an integer array, got {kind}")
    if ids.ndim != 1 or ids.size < 2:
        raise ValueError(
            f"window_sampler: ids must have one dimension and two tokens, got shape {ids.shape}"
        )

    def sample(rng: np.random.Generator, batch_size: int, window: int) -> Batch:
        window = min(window, ids.size - 1)
        spans = np.lib.stride_tricks.sliding_window_view(ids, window + 1)
        chosen = spans[rng.integers(len(spans), size=batch_size)].astype(np.int64, copy=False)
        return Batch(
            chosen[:, :-1].ravel(),
            chosen[:, 1:].ravel(),
            np.arange(0, batch_size * window + 1, window, dtype=np.int64),
        )

    return sample


def _stream(texts: Sequence[str], tokenizer: Tokenizer) -> np.ndarray:
    eot = np.array([tokenizer.eot], np.int64)
    return np.concatenate([part for ids in tokenizer.encode_many(texts) for part in (eot, ids)])


def _first_bytes(texts: Sequence[str], limit: int) -> list[str]:
    kept = []
    for text in texts:
        data = text.encode()[:limit]
        limit -= len(data)
        kept.append(data.decode(errors="ignore"))  # the limit may cut a character
        if limit <= 0:
            break
    return kept
