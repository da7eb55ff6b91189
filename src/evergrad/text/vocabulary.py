"""Tokenizers from the vocabularies inside GGUF files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import ModuleType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .byte_pairs import BytePairs, Pairs, strings

__all__ = ["MODELS", "PRE_TOKENIZERS", "from_gguf"]

_PREFIX = "tokenizer.ggml."
# Kinds of tokens. Control tokens are special; those a user defined are found in every text.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4
_SPACE = "\u2581"

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ONE_DIGIT, _GPT2_DIGITS = (r"\p{N}", _GPT2), (_GPT2,)
_LLAMA3 = (_WORDS % "{1,3}",)
#: ``tokenizer.ggml.pre``: the patterns that cut a text before merges, one after the other.
PRE_TOKENIZERS: dict[str, tuple[str, ...]] = {
    "gpt-2": _GPT2_DIGITS,
    "smollm": _ONE_DIGIT,
    "starcoder": _ONE_DIGIT,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": (_WORDS % "",),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
}


def from_gguf(
    package: ModuleType, metadata: Mapping[str, Any], known: Collection[str] = ()
) -> tuple[Any, dict[str, str], bool]:
    """Make a tokenizer of the `tokenizers` package from the metadata of a GGUF file.

    Returns
    -------
    inner : tokenizers.Tokenizer or BytePairs
        The tokenizer; or what makes it, as far as it is needed. Special tokens, those that a user
        defined, and those of `known` that there are, are then always part of it.
    special : dict of str to str
        ``"bos_token"``, ``"eos_token"`` ...: the tokens with a role.
    add_bos : bool
        Whether texts begin with the first of them.

    Raises
    ------
    ValueError
        If there is no tokenizer, or one of a kind that is not supported; the message names it.
    """
    kind = _get(metadata, "model")
    tokens = _get(metadata, "tokens")
    if kind is None or tokens is None:
        raise ValueError("the GGUF file holds no tokenizer: tokenizer.ggml.tokens is missing")
    if not isinstance(kind, str) or kind not in MODELS:
        raise ValueError(
            f"tokenizer.ggml.model is {kind!r:.80}, supported are {', '.join(sorted(MODELS))}"
        )
    tokens = strings("tokenizer.ggml.tokens", tokens)
    given = _get(metadata, "token_type")
    types = np.full(len(tokens), _NORMAL) if given is None else np.asarray(given)
    if types.ndim == 1 and len(types) != len(tokens):
        raise ValueError(
            f"tokenizer.ggml.token_type has {len(types)} entries for {len(tokens)} tokens"
        )
    if types.ndim != 1 or not np.issubdtype(types.dtype, np.integer):
        raise ValueError(f"tokenizer.ggml.token_type: expected integers, got {given!r:.100}")
    special: dict[str, str] = {}
    marked = []
    for name, keys in _ROLES.items():
        for key in keys:
            token_id = _get(metadata, f"{key}_token_id")
            if token_id is None:
                continue
            if not isinstance(token_id, (int, np.integer)):
                raise ValueError(
                    f"tokenizer.ggml.{key}_token_id: expected an integer, got {token_id!r:.80}"
                )
            if 0 <= token_id < len(tokens) and name not in special:
                special[name] = token = tokens[int(token_id)]
                # A word of the vocabulary may fill up and stay a word; what begins and ends texts
                # is special even where a converter typed it as one.
                if name != "pad_token" or given is None or types[int(token_id)] != _NORMAL:
                    marked.append(token)
    added = {
        tokens[i]: bool(types[i] == _CONTROL)
        for i in np.flatnonzero((types == _CONTROL) | (types == _USER_DEFINED)).tolist()
    }
    add_bos = bool(_get(metadata, "add_bos_token", kind == "llama" or _pre(metadata) in _BEGIN))

    def complete(inner: Any) -> Any:
        inner.add_tokens(
            [package.AddedToken(token, special=s, normalized=False) for token, s in added.items()]
        )
        inner.add_special_tokens(
            [package.AddedToken(token, special=True, normalized=False) for token in marked]
        )
        if kind != "bert":
            first = special.get("bos_token") if add_bos else None
            last = special.get("eos_token") if _get(metadata, "add_eos_token", False) else None
            add_around(package, inner, first, last)
        return inner

    inner = MODELS[kind](package, metadata, tokens, types, special)
    if isinstance(inner, BytePairs):
        inner.complete = complete
        named = (token for token in known if token in inner.tokens)
        inner.always = {*added, *special.values(), *named}
    else:
        complete(inner)
    return inner, special, add_bos and "bos_token" in special


def add_around(package: ModuleType, inner: Any, first: str | None, last: str | None) -> None:
    """Let `inner` add a token in front of a text and one behind it, where they are given."""
    around = [token for token in (first, last) if token is not None]
    if around:
        pattern = [token for token in (first, "$A", last) if token is not None]
        inner.post_processor = package.processors.TemplateProcessing(
            single=pattern,
            pair=[*pattern, "$B:1", *([] if last is None else [f"{last}:1"])],
            special_tokens=[(token, inner.token_to_id(token)) for token in dict.fromkeys(around)],
        )


#: Roles in the words of tokenizer_config.json: in the words of GGUF, in order of preference.
_ROLES = {
    "bos_token": ("bos",),
    "eos_token": ("eos",),
    "unk_token": ("unknown",),
    "pad_token": ("padding",),
    "sep_token": ("seperator", "separator"),  # the format spells it so
    "cls_token": ("cls",),
    "mask_token": ("mask",),
    "eot_token": ("eot",),
    "eom_token": ("eom",),
}
_BEGIN = ("llama-bpe", "llama3", "llama-v3")


def _get(metadata: Mapping[str, Any], name: str, otherwise: Any = None) -> Any:
    return metadata.get(_PREFIX + name, otherwise)


def _pre(metadata: Mapping[str, Any]) -> str:
    return str(_get(metadata, "pre", "default"))


def _byte_level(
    package: ModuleType,
    metadata: Mapping[str, Any],
    tokens: Sequence[str],
    types: npt.NDArray[Any],
    special: Mapping[str, str],
) -> Any:
    """BPE over bytes."""
    pre, merges = _pre(metadata), _get(metadata, "merges")
    if pre not in PRE_TOKENIZERS:
        raise ValueError(
            f"tokenizer.ggml.pre is {pre!r}, supported are {', '.join(sorted(PRE_TOKENIZERS))}"
        )
    if merges is None:
        raise ValueError("tokenizer.ggml.merges is missing")
    normal_form: Literal["NFC"] | None = "NFC" if pre == "qwen2" else None

    def make(ids: dict[str, int], pairs: Pairs) -> Any:
        model = package.models.BPE(
            vocab=ids, merges=pairs, ignore_merges=PRE_TOKENIZERS[pre] is _LLAMA3
        )
        inner = package.Tokenizer(model)
        pre_tokenizers = package.pre_tokenizers
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                *(
                    pre_tokenizers.Split(package.Regex(pattern), behavior="isolated")
                    for pattern in PRE_TOKENIZERS[pre]
                ),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        if normal_form:
            inner.normalizer = package.normalizers.NFC()
        inner.decoder = package.decoders.ByteLevel()
        return inner

    return BytePairs(package, tokens, merges, make, normal_form)


def _sentence_piece(
    package: ModuleType,
    metadata: Mapping[str, Any],
    tokens: Sequence[str],
    types: npt.NDArray[Any],
    special: Mapping[str, str],
) -> Any:
    """BPE over characters, bytes for those it lacks (Kudo & Richardson 2018, `sentencepiece`).

    The file orders tokens by score instead of listing merges: two neighbours merge where their
    text is a token, that of the highest score first.
    """
    scores = _get(metadata, "scores")
    if scores is None or np.shape(scores) != (len(tokens),):
        raise ValueError("tokenizer.ggml.scores is missing, or not one for each token")
    ids = _ids(tokens)
    merges = [
        (-float(scores[token_id]), ids[token[:cut]], ids[token[cut:]])
        for token, token_id in ids.items()
        for cut in range(1, len(token))
        if token[:cut] in ids and token[cut:] in ids
    ]
    unknown = next((tokens[i] for i in np.flatnonzero(types == _UNKNOWN).tolist()), None)
    model = package.models.BPE(
        vocab=ids,
        merges=[(tokens[left], tokens[right]) for _, left, right in sorted(merges)],
        unk_token=special.get("unk_token", unknown),
        fuse_unk=True,
        byte_fallback=True,
    )
    inner = package.Tokenizer(model)
    prefix = bool(_get(metadata, "add_space_prefix", True))
    normalizers, decoders = package.normalizers, package.decoders
    inner.normalizer = normalizers.Sequence(
        [
            *([normalizers.Prepend(_SPACE)] if prefix else []),
            normalizers.Replace(" ", _SPACE),
        ]
    )
    inner.decoder = decoders.Sequence(
        [
            decoders.Replace(_SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if prefix else []),
        ]
    )
    return inner


def _word_piece(
    package: ModuleType,
    metadata: Mapping[str, Any],
    tokens: Sequence[str],
    types: npt.NDArray[Any],
    special: Mapping[str, str],
) -> Any:
    """WordPiece (Schuster & Nakajima 2012; Devlin et al. 2019)."""
    # GGUF marks the beginnings of words, BERT's own vocabulary what continues them.
    words = [
        token
        if which in (_CONTROL, _UNKNOWN) or (token.startswith("[") and token.endswith("]"))
        else token[1:]
        if token.startswith(_SPACE)
        else f"##{token}"
        for token, which in zip(tokens, types.tolist(), strict=True)
    ]
    unknown = special.get("unk_token", "[UNK]")
    first, last = special.get("cls_token", "[CLS]"), special.get("sep_token", "[SEP]")
    ids = _ids(words)
    for token in (unknown, first, last):
        if token not in ids:
            raise ValueError(f"a tokenizer of the kind 'bert' needs the token {token}")
    # The file does not say whether the vocabulary is lower case, but its words do.
    cased = any(word != word.lower() for word in words if not word.startswith("["))
    inner = package.Tokenizer(package.models.WordPiece(vocab=ids, unk_token=unknown))
    inner.normalizer = package.normalizers.BertNormalizer(lowercase=not cased)
    inner.pre_tokenizer = package.pre_tokenizers.BertPreTokenizer()
    inner.decoder = package.decoders.WordPiece()
    add_around(package, inner, first, last)
    return inner


def _ids(tokens: Sequence[str]) -> dict[str, int]:
    ids = dict(zip(tokens, range(len(tokens)), strict=True))
    if len(ids) < len(tokens):
        raise ValueError("tokenizer.ggml.tokens holds a token twice")
    return ids


Make = Callable[
    [ModuleType, Mapping[str, Any], Sequence[str], npt.NDArray[Any], Mapping[str, str]], Any
]
#: ``tokenizer.ggml.model``: what makes such a tokenizer.
MODELS: dict[str, Make] = {"gpt2": _byte_level, "llama": _sentence_piece, "bert": _word_piece}
