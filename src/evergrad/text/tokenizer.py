"""Tokenizers: text to ids and back, evergrad's own and those of pretrained models."""

from __future__ import annotations

import copy
import itertools
import os
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .. import io
from . import vocabulary
from .byte_pairs import BytePairs
from .chat import Message, render

END_OF_TEXT = "<|endoftext|>"
_END_ROLES = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
_BYTES = 256
_HEX = "0123456789ABCDEFabcdef"
#: What is encoded by a piece of a vocabulary: so many times texts of so many characters. Beyond it,
#: making the whole takes less.
_PIECES, _SHORT = 4, 2000
# Special tokens that end a text or a turn, by the names that model families give them.
_ENDS = (
    END_OF_TEXT,
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endofturn|>",
)


class Tokenizer:
    """Text to token ids and back; a wrapper around the `tokenizers` package.

    Made with `train` (byte-level BPE, Sennrich et al. 2016, over bytes as in Radford et al. 2019:
    every byte is a token, so ``decode(encode(text)) == text`` for every text), with `load`, or from
    the files of a pretrained model with `from_folder` and `from_gguf`.

    Attributes
    ----------
    vocab_size : int
        Number of tokens, the special ones included.
    bos, eos, pad, unk : int or None
        Ids of the tokens that begin a text, end it, fill up, and stand for what is unknown.
    eot : int or None
        Id of ``<|endoftext|>``, which separates documents; where there is none, `eos`.
    ends : frozenset of int
        Every token that ends a text or a turn of a conversation.
    add_bos : bool
        Whether a text that the model continues begins with `bos`.
    chat_template : str or None
        How conversations are written, for `chat`.

    Examples
    --------
    >>> tokenizer = Tokenizer.train(["a small text, a small vocabulary"], vocab_size=270)
    >>> ids = tokenizer.encode("a naïve text\\n")
    >>> ids.dtype, tokenizer.decode(ids)
    (dtype('int64'), 'a naïve text\\n')
    """

    def __init__(
        self,
        inner: Any,
        special: Mapping[str, str] | None = None,
        *,
        ends: Collection[int] = (),
        add_bos: bool | None = None,
        chat_template: str | None = None,
    ) -> None:
        # Of byte pairs no more is made than the texts need that come, until they need much.
        self._rest = inner if isinstance(inner, BytePairs) else None
        self._pieces = 0
        if self._rest is not None:
            inner = self._rest.of("")
        self._made = inner
        self._size: int | None = None  # looked for once
        self._bytes: frozenset[int] | None = None  # likewise
        self._lock = threading.Lock()  # the package keeps what a call asks for as a setting
        inner.encode_special_tokens = True  # as ordinary text; the file does not store this
        # Files made elsewhere may pad and truncate; we do when asked to, at the end that they say.
        self._kept: dict[str, Any] = {}  # of tokenizer_config.json, for whoever reads it next
        if inner.truncation is not None:
            self._kept["truncation_side"] = inner.truncation["direction"]
        inner.no_padding()
        inner.no_truncation()
        if special is None and inner.token_to_id(END_OF_TEXT) is not None:
            # As evergrad trains: the one special token stands in front of every document.
            special, add_bos = _END_ROLES, True
        known = {
            name: token
            for name, token in (special or {}).items()
            if inner.token_to_id(token) is not None
        }
        self.bos, self.eos, self.pad, self.unk = (
            inner.token_to_id(known[name]) if name in known else None
            for name in ("bos_token", "eos_token", "pad_token", "unk_token")
        )
        eot = inner.token_to_id(END_OF_TEXT)
        self.eot: int | None = self.eos if eot is None else eot
        listed = inner.get_added_tokens_decoder().values()
        added = {token.content for token in listed}
        # A word of the vocabulary may end texts or fill up without being special.
        marked = {token.content for token in listed if token.special}
        self._special: dict[str, str] = {n: token for n, token in known.items() if token in marked}
        named = [known.get(name) for name in ("eot_token", "eom_token")]
        marks = [token for token in (*_ENDS, *named) if token in added]
        named_ends = [self.eos, self.eot, *map(inner.token_to_id, marks)]
        self._named_ends = frozenset(token for token in named_ends if token is not None)
        self.ends: frozenset[int] = self._named_ends.union(map(int, ends))
        if add_bos is None:
            around = inner.encode("", add_special_tokens=True).ids
            add_bos = self.bos is not None and around[:1] == [self.bos]
        self.add_bos: bool = add_bos and self.bos is not None
        if self.add_bos and inner.post_processor is None:
            # A tokenizer.json says by itself what begins texts: transformers asks nothing else.
            vocabulary.add_around(_tokenizers(), inner, known["bos_token"], None)
        # Where every text begins with `bos`, documents do. Elsewhere what separates them stands in
        # front of each, and `bos` may begin a turn of a conversation: SmolLM2's does.
        begins = [self.bos, eot, self.eos] if self.add_bos else [eot, self.bos, self.eos]
        self._begin: int | None = next((token for token in begins if token is not None), None)
        self.chat_template = chat_template

    def __getstate__(self) -> dict[str, Any]:
        # As a whole: what makes pieces of it keeps functions, which cannot be pickled.
        return {**vars(self), "_made": self._inner, "_rest": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.Lock()
        self._made.encode_special_tokens = True  # as in __init__
        self._made.no_truncation()  # another thread may have been encoding

    def __copy__(self) -> Tokenizer:
        return copy.deepcopy(self)  # two with one package's tokenizer would set it for each other

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
            One that encodes as the saved one did. Which side of long texts is cut stands in a
            folder alone.

        Raises
        ------
        ImportError
            If the `tokenizers` package is missing.
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is truncated or no tokenizer; the message names it.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "tokenizer.json")
        ...     Tokenizer.train(["text"], vocab_size=257).save(file)
        ...     Tokenizer.load(file).vocab_size
        257
        """
        return cls(_read(Path(path)))

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str]) -> Tokenizer:
        """Read the tokenizer of a pretrained model.

        Parameters
        ----------
        folder : path-like
            Holds a tokenizer.json, and beside it what there is of tokenizer_config.json,
            special_tokens_map.json, generation_config.json, config.json and chat_template.jinja:
            they say which tokens begin and end a text, and how conversations are written. Where the
            class is BERT's, GPT-2's or Llama's, what tokenizer_config.json says of lower case,
            accents, Chinese characters and a blank in front rules over tokenizer.json.

        Returns
        -------
        Tokenizer
            One that encodes as the model was trained, without the padding and the truncation that
            its file may ask for.

        Raises
        ------
        ImportError
            If the `tokenizers` package is missing.
        FileNotFoundError
            If there is no tokenizer.json; the message says how to make one of older files.
        ValueError
            If a file is truncated, or holds what its name or its keys do not promise.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Tokenizer.train(["text"], vocab_size=257).save_folder(folder)
        ...     Tokenizer.from_folder(folder).eos
        0
        """
        from . import overrides  # a GGUF file needs none

        folder = Path(folder)
        if not (folder / "tokenizer.json").exists():
            raise FileNotFoundError(f"{folder}: {missing(folder)}")
        inner = _read(folder / "tokenizer.json")
        names = ("special_tokens_map", "tokenizer_config", "generation_config", "config")
        roles, settings, generation, config = (_Settings(folder / f"{n}.json") for n in names)
        overrides.apply(_tokenizers(), inner, settings, config)
        overrides.mark(_tokenizers(), inner, settings, roles)
        tokens = {**roles.tokens(), **settings.tokens()}
        special = {name: token for name, token in tokens.items() if token is not None}
        # How texts are searched for them stays what it is.
        found = {token.content: token for token in inner.get_added_tokens_decoder().values()}
        inner.add_special_tokens(
            [
                found.get(token, token)
                for token in special.values()
                if inner.token_to_id(token) is not None
            ]
        )
        # What a model's files name by its id alone has a role, but stays the token that it was: an
        # ordinary one fills up where there is no other, and is in many texts.
        ends: set[int] = set()
        for each in (generation, config):
            for name in ("bos", "eos", "pad"):
                ids = [i for i in each.ids(f"{name}_token_id") if inner.id_to_token(i)]
                if name == "eos":
                    ends.update(ids)
                if ids:
                    special.setdefault(f"{name}_token", inner.id_to_token(ids[0]))
        add_bos = settings.get("add_bos_token", (bool,), "true or false")
        # What the tokenizer itself puts around texts is all that transformers heeds, but it does so
        # in none of the first folders of evergrad.
        if inner.post_processor is not None or not settings.is_ours():
            add_bos = None
            # As ours have them, but nothing stands in front of texts unless the tokenizer says so.
            if not special and settings.values:
                special = {**_END_ROLES}
        template = folder / "chat_template.jinja"
        made = cls(
            inner,
            special or None,
            ends=ends,
            add_bos=add_bos,
            chat_template=template.read_text("utf-8")
            if template.exists()
            else settings.default_template(),
        )
        made._kept |= {name: settings.values[name] for name in _KEPT if name in settings.values}
        if made._kept.get("truncation_side", "right") not in ("left", "right"):
            raise settings.error("truncation_side", '"left" or "right"')
        return made

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """Make the tokenizer that a GGUF file holds.

        Parameters
        ----------
        metadata : mapping
            The file's keys and values: ``"tokenizer.ggml.tokens"`` ...

        Returns
        -------
        Tokenizer
            Of the kind gpt2 (byte-level BPE), llama (SentencePiece's BPE with bytes for unknown
            characters) or bert (WordPiece). Control tokens are special; tokens that a user defined
            are found in every text.

        Raises
        ------
        ImportError
            If the `tokenizers` package is missing.
        ValueError
            If the file holds no tokenizer, or one of a kind that is not supported; the message
            names it.

        Examples
        --------
        >>> tokens = ["<s>", "</s>", "a", "b", "ab"]
        >>> tokenizer = Tokenizer.from_gguf(
        ...     {
        ...         "tokenizer.ggml.model": "gpt2",
        ...         "tokenizer.ggml.pre": "gpt-2",
        ...         "tokenizer.ggml.tokens": tokens,
        ...         "tokenizer.ggml.token_type": [3, 3, 1, 1, 1],
        ...         "tokenizer.ggml.merges": ["a b"],
        ...         "tokenizer.ggml.eos_token_id": 1,
        ...     }
        ... )
        >>> tokenizer.encode("abb"), tokenizer.eos
        (array([4, 3]), 1)
        """
        inner, special, add_bos = vocabulary.from_gguf(_tokenizers(), metadata, _ENDS)
        template = metadata.get("tokenizer.chat_template")
        made = cls(inner, special, add_bos=add_bos, chat_template=template)
        made._size = len(metadata["tokenizer.ggml.tokens"])
        return made

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tokenizer to a ``tokenizer.json``.

        Parameters
        ----------
        path : path-like
            The file; an existing one is replaced.
        """
        io.write_atomic(path, self._inner.to_str().encode())

    def save_folder(self, folder: str | os.PathLike[str]) -> None:
        """Write the files that `from_folder` and transformers' ``AutoTokenizer`` read.

        Parameters
        ----------
        folder : path-like
            Gets a tokenizer.json, a tokenizer_config.json, a generation_config.json with the tokens
            that begin, end and fill up texts, and, where there is a chat template, a
            chat_template.jinja. Made where it is missing. What else a generation_config.json says
            stays there; a special_tokens_map.json, an added_tokens.json and a chat template of
            another tokenizer do not. What answers begin with, and whether a model wants to know
            which text of a pair a token is of, comes from the model's config.json in the folder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.save(folder / "tokenizer.json")
        settings = {
            **_OURS,
            "add_bos_token": self.add_bos,
            **self._kept,
            **self._special,
        }
        # A model of pairs of texts is to be told which of them a token is of.
        if _Settings(folder / "config.json").values.get("type_vocab_size"):
            names = ["input_ids", "token_type_ids", "attention_mask"]
            settings.setdefault("model_input_names", names)
        io.write_json(folder / "tokenizer_config.json", settings)
        self._save_ids(folder / "generation_config.json")
        # What another tokenizer left there would be read as this one's.
        for name in _OLDER_SETTINGS:
            (folder / name).unlink(missing_ok=True)
        template = folder / "chat_template.jinja"
        if self.chat_template is None:
            template.unlink(missing_ok=True)
        else:
            io.write_atomic(template, self.chat_template.encode())

    def _save_ids(self, path: Path) -> None:
        """Write which tokens begin, end and fill up, among them ends that no other file tells."""
        ends = sorted(self.ends - {self.eos})
        if self.eos is not None:
            ends = [self.eos, *ends]
        elif self.ends == self._named_ends:
            ends = []  # a reader knows them by their names, and would take the first for `eos`
        ids = {
            "bos_token_id": self.bos,
            "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
            "pad_token_id": self.pad,
        }
        # Who finds this file does not look into the model's for what its answers begin with.
        start = "decoder_start_token_id"
        if given := _Settings(path.with_name("config.json")).ids(start):
            ids[start] = given[0]
        found = {name: value for name, value in _Settings(path).values.items() if name not in ids}
        found |= {name: value for name, value in ids.items() if value is not None}
        if found or path.exists():
            io.write_json(path, found)

    @property
    def byte_tokens(self) -> frozenset[int]:
        """Ids of SentencePiece's tokens for single bytes, which decode together or not at all."""
        if self._bytes is None:
            self._bytes = frozenset() if self._rest is not None else _byte_tokens(self._inner)
        return self._bytes

    @property
    def vocab_size(self) -> int:
        """Number of ids, those of special tokens included: the largest and all below it."""
        if self._size is None:  # ids may have gaps
            self._size = 1 + max(self._inner.get_vocab().values(), default=-1)
        return self._size

    def encode(
        self,
        text: str,
        add_special_tokens: bool = False,
        *,
        parse_special: bool = False,
        max_tokens: int | None = None,
    ) -> np.ndarray:
        """Turn a text into token ids.

        Parameters
        ----------
        text : str
            Any text that has a UTF-8 form (no lone surrogates: see `clean`).
        add_special_tokens : bool, default False
            With those that the model puts around a text: BERT's [CLS] and [SEP], Llama's <s>, the
            <|endoftext|> of our own tokenizers.
        parse_special : bool, default False
            Take special tokens that the text spells out as such. Otherwise they are text like any
            other: what a user writes cannot end a document.
        max_tokens : int, optional
            Cut longer texts at their end, or at their beginning where the tokenizer's files say
            so (``truncation_side``); the special tokens around them stay.

        Returns
        -------
        ndarray, int64, [tokens]
            Its ids; empty for the empty text.

        Raises
        ------
        TypeError
            If `text` is not a string.
        ValueError
            If it holds lone surrogates, or `max_tokens` leaves no room beside special tokens.
        """
        return self.encode_many(
            [text], add_special_tokens, parse_special=parse_special, max_tokens=max_tokens
        )[0]

    def encode_many(
        self,
        texts: Iterable[str],
        add_special_tokens: bool = False,
        *,
        parse_special: bool = False,
        max_tokens: int | None = None,
    ) -> list[np.ndarray]:
        """Encode several texts, in parallel.

        Parameters
        ----------
        texts : iterable of str
            The texts; asked for once.
        add_special_tokens, parse_special, max_tokens
            As for `encode`.

        Returns
        -------
        list of ndarray, int64
            For each text what `encode` gives.

        Raises
        ------
        TypeError
            If `texts` is a single string, or holds something else than strings.
        ValueError
            As for `encode`.

        Examples
        --------
        >>> tokenizer = Tokenizer.train(["text"], vocab_size=257)
        >>> [ids.size for ids in tokenizer.encode_many(["a text", ""], max_tokens=4)]
        [4, 0]
        """
        if isinstance(texts, str):
            raise TypeError("Tokenizer: texts must be an iterable of texts, got one string")
        texts = list(texts)
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
        inner = self._for(texts)
        around = inner.num_special_tokens_to_add(False) if add_special_tokens else 0
        if max_tokens is not None and max_tokens <= around:
            raise ValueError(
                f"Tokenizer: max_tokens must be at least {around + 1}"
                f" ({around} special tokens and one of the text), got {max_tokens}"
            )
        with self._settings(inner, parse_special, max_tokens):
            found = inner.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in found]

    @contextmanager
    def _settings(self, inner: Any, parse_special: bool, max_tokens: int | None) -> Iterator[None]:
        with self._lock:
            try:
                inner.encode_special_tokens = not parse_special
                if max_tokens is not None:
                    side = self._kept.get("truncation_side", "right")
                    inner.enable_truncation(max_tokens, direction=side)
                yield
            finally:
                inner.encode_special_tokens = True
                inner.no_truncation()

    def _for(self, texts: Sequence[str]) -> Any:
        """What encodes these texts as the whole tokenizer does."""
        rest = self._rest
        if (
            rest is not None
            and self._pieces < _PIECES
            and sum(map(len, texts)) + len(texts) <= _SHORT
        ):
            self._pieces += 1
            inner = rest.of("\n".join(texts))
            if inner is not None:
                return inner
        return self._inner

    @property
    def _inner(self) -> Any:
        """The package's tokenizer, as a whole."""
        if self._rest is not None:
            with self._lock:
                if self._rest is not None:
                    whole = self._rest.whole()
                    whole.encode_special_tokens = True  # as in __init__
                    self._made, self._rest = whole, None
        return self._made

    def prompt(self, text: str) -> np.ndarray:
        """Ids of a text that a model is to continue: never empty.

        Parameters
        ----------
        text : str
            Its beginning.

        Returns
        -------
        ndarray, int64, [tokens]
            Its ids, behind `bos` where `add_bos`. Where not, an empty text begins with what
            separates documents, ``<|endoftext|>``; or else with `bos`, or with `eos`.

        Raises
        ------
        ValueError
            If the text is empty, and there is no token to begin with.

        Examples
        --------
        >>> Tokenizer.train(["text"], vocab_size=257).prompt("")
        array([0])
        """
        ids = self.encode(text)
        if ids.size and not self.add_bos:
            return ids
        if self._begin is None:
            raise ValueError(
                "the prompt is empty, and the tokenizer has no token that begins a text"
            )
        return np.concatenate([np.array([self._begin], np.int64), ids])

    def chat(
        self, messages: Iterable[Message], add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """Write a conversation the way the model was tuned on.

        Parameters
        ----------
        messages : iterable of mapping
            Each ``{"role": "user", "content": "..."}``; roles are system, user and assistant.
        add_generation_prompt : bool, default True
            End with what begins the assistant's next message.
        **variables
            What else the template asks for, such as ``tools``.

        Returns
        -------
        str
            For ``encode(..., parse_special=True)``: it holds its special tokens.

        Raises
        ------
        ImportError
            If the `jinja2` package is missing.
        TypeError, ValueError
            If there is no chat template, or it does not take these messages; the message says why.

        Examples
        --------
        >>> tokenizer = Tokenizer.train(["text"], vocab_size=257)
        >>> tokenizer.chat_template = "{{ messages[0].content }}{{ eos_token }}"
        >>> tokenizer.chat([{"role": "user", "content": "Hello"}])
        'Hello<|endoftext|>'
        """
        if self.chat_template is None:
            raise ValueError("chat: the tokenizer has no chat template: no model tuned for chats")
        names = {"add_generation_prompt": add_generation_prompt, **self._special, **variables}
        return render(self.chat_template, messages, **names)

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
            If there is no such token.
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
        rest = self._rest
        if rest is not None:
            return rest.decode(array.tolist())
        return str(self._inner.decode(array.tolist(), skip_special_tokens=False))


#: What tokenizer_config.json calls the roles of tokens.
_ROLES = tuple(
    f"{name}_token" for name in ("bos", "eos", "unk", "pad", "sep", "cls", "mask", "eot", "eom")
)

#: What every one of ours says.
_OURS = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}

#: What else it says that changes what others make of texts.
_KEPT = ("model_input_names", "model_max_length", "padding_side", "truncation_side")


def _read(path: Path) -> Any:
    """The `tokenizers` package's reading of a tokenizer.json."""
    package = _tokenizers()
    data = path.read_bytes()
    try:
        return package.Tokenizer.from_buffer(data)
    except Exception as error:  # the package raises plain Exception
        raise ValueError(f"{path}: truncated or no tokenizer file: {error}") from error


def _byte_tokens(inner: Any) -> frozenset[int]:
    found = {}
    for digits in itertools.product(_HEX, _HEX):
        token = f"<0x{''.join(digits)}>"
        if (token_id := inner.token_to_id(token)) is not None:
            found[token_id] = token
    # Where the decoder does not take them for bytes they are words like any other.
    return frozenset(i for i, token in found.items() if inner.decode([i], False) != token)


class _Settings(io.JsonObject):
    """What a JSON file says of tokens; nothing if there is no file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, optional=True)

    def is_ours(self) -> bool:
        """Whether this is a tokenizer_config.json as `save_folder` writes it, and no other does."""
        told = {name: self.values.get(name) for name in _OURS}
        return told == _OURS and "added_tokens_decoder" not in self.values

    def tokens(self) -> dict[str, str | None]:
        """Those with a role that are given, as texts or as objects that hold one."""
        from .overrides import token_text

        found = {}
        for name in _ROLES:
            if name in self.values:
                token = self.get(name, (str, dict), "a token")
                found[name] = token_text(token)
                if token is not None and found[name] is None:
                    raise self.error(name, "a token")
        return found

    def default_template(self) -> str | None:
        """The one template, or that named "default" of several."""
        name, expected = "chat_template", "a text, or a list of names and templates"
        found = self.get(name, (str, list), expected)
        try:
            if isinstance(found, list):
                found = {each["name"]: each["template"] for each in found}.get("default")
        except (TypeError, KeyError):
            raise self.error(name, expected) from None
        if found is not None and not isinstance(found, str):
            raise self.error(name, expected)
        return found


#: Vocabularies in older formats, without what the tokenizer does to a text around them.
_OLDER = (
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)

#: What tokenizer.json and tokenizer_config.json have come to hold.
_OLDER_SETTINGS = ("special_tokens_map.json", "added_tokens.json")


def missing(folder: Path) -> str:
    """What is said where there is no tokenizer.json: with how to make one of older files."""
    older = [name for name in _OLDER if (folder / name).is_file()]
    if not older:
        return "expected a tokenizer.json, found none"
    path = str(folder)
    return (
        f"expected a tokenizer.json, found {', '.join(older)}; to make one, in Python:"
        " import transformers;"
        f" transformers.AutoTokenizer.from_pretrained({path!r}).save_pretrained({path!r})"
    )


def _tokenizers() -> ModuleType:
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            "the package `tokenizers` is needed for text: pip install 'evergrad[text]'"
        ) from error
    return tokenizers
