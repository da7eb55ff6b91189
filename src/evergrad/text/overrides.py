"""What tokenizer_config.json says that a tokenizer.json beside it says otherwise.

The classes of transformers that the older file names take some of its fields for the word on parts
of the tokenizer, whatever the newer file holds. Other parts stay as the newer file has them: it is
what the model was trained with. (Version 5 builds some of them anew, and so loses the rule that
cuts SmolLM2's digits, and a blank that begins a text for Llama.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from .. import io
from .vocabulary import add_around

__all__ = ["apply", "mark", "token_text"]

_SPACE = "\u2581"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def apply(package: ModuleType, inner: Any, settings: io.JsonObject, config: io.JsonObject) -> None:
    """Change a tokenizer as transformers does, in place.

    Parameters
    ----------
    package : module
        `tokenizers`.
    inner : tokenizers.Tokenizer
        As tokenizer.json has it.
    settings : JsonObject
        tokenizer_config.json.
    config : JsonObject
        The model's config.json, whose type tells the class where nothing names one.

    Raises
    ------
    CorruptFileError
        If a field has another type than its own.
    """
    name = None
    for each in (settings, config):
        name = name or each.get("tokenizer_class", (str,), "the name of a class")
    if name is None:
        name = _OF_MODELS.get(str(config.values.get("model_type")), "")
    kind = _KINDS.get(name.removesuffix("Fast"))
    if kind is not None:
        kind(package, inner, settings)


def mark(package: ModuleType, inner: Any, settings: io.JsonObject, older: io.JsonObject) -> None:
    """Let tokens be found in texts, and be special, as files beside a tokenizer.json say.

    Tokens that it does not have are not made: the model has no rows for them.

    Parameters
    ----------
    package, inner, settings
        As for `apply`.
    older : JsonObject
        special_tokens_map.json, which speaks where tokenizer_config.json lists no added tokens.

    Raises
    ------
    CorruptFileError
        If a list of tokens is something else.
    """
    name = "added_tokens_decoder"
    listed = settings.get(name, (dict,), "an object of tokens by their ids")
    found = []
    for each in (listed or {}).values():
        text = token_text(each)
        if text is None or not isinstance(each, dict):
            raise settings.error(name, "an object of tokens by their ids")
        flags = {flag: each[flag] for flag in _FLAGS if type(each.get(flag)) is bool}
        found.append(package.AddedToken(text, **flags))
    for file in (settings,) if listed is not None else (settings, older):
        for name in ("additional_special_tokens", "extra_special_tokens"):
            tokens = file.get(name, (list, dict), "a list of tokens") or []
            for each in tokens.values() if isinstance(tokens, dict) else tokens:
                text = token_text(each)
                if text is None:
                    raise file.error(name, "a list of tokens")
                if not any(token.content == text for token in found):
                    found.append(package.AddedToken(text, special=True))
    already = {token.content for token in inner.get_added_tokens_decoder().values()}
    # Without flags of their own, those that are found already stay as they are.
    given = len(listed or {})
    inner.add_tokens(
        [
            token
            for at, token in enumerate(found)
            if inner.token_to_id(token.content) is not None
            and (at < given or token.content not in already)
        ]
    )


def token_text(value: Any) -> str | None:
    """Of a token that a JSON file gives as its text, or as an object that holds it; else None."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _flag(settings: io.JsonObject, name: str, otherwise: bool | None) -> bool | None:
    value: bool | None = settings.get(name, (bool,), "true or false")
    return otherwise if value is None else value


def _bert(package: ModuleType, inner: Any, settings: io.JsonObject) -> None:
    if not isinstance(inner.model, package.models.WordPiece):
        return
    told = {
        "lowercase": _flag(settings, "do_lower_case", True),
        "strip_accents": _flag(settings, "strip_accents", None),  # as `lowercase`
        "handle_chinese_chars": _flag(settings, "tokenize_chinese_chars", True),
    }
    if inner.normalizer is None:
        inner.normalizer = package.normalizers.BertNormalizer(**told)
    elif isinstance(inner.normalizer, package.normalizers.BertNormalizer):
        for name, value in told.items():
            setattr(inner.normalizer, name, value)
    if inner.pre_tokenizer is None:
        inner.pre_tokenizer = package.pre_tokenizers.BertPreTokenizer()
    if inner.decoder is None:
        inner.decoder = package.decoders.WordPiece()
    if inner.post_processor is None:
        first, last = (_token(settings, *each) for each in (("cls", "[CLS]"), ("sep", "[SEP]")))
        if None not in map(inner.token_to_id, (first, last)):
            add_around(package, inner, first, last)


def _token(settings: io.JsonObject, role: str, otherwise: str) -> str:
    token = token_text(settings.values.get(f"{role}_token"))
    return otherwise if token is None else token


def _gpt2(package: ModuleType, inner: Any, settings: io.JsonObject) -> None:
    if not isinstance(inner.model, package.models.BPE):
        return
    prefix = _flag(settings, "add_prefix_space", False)
    kind = package.pre_tokenizers.ByteLevel
    if inner.pre_tokenizer is None:
        inner.pre_tokenizer = kind(add_prefix_space=prefix)
    for part in _parts(inner.pre_tokenizer, package.pre_tokenizers.Sequence):
        if isinstance(part, kind):
            part.add_prefix_space = prefix
    if inner.decoder is None:
        inner.decoder = package.decoders.ByteLevel()


def _llama(package: ModuleType, inner: Any, settings: io.JsonObject) -> None:
    """SentencePiece's blank in front of a text, which one of two parts may put there."""
    prefix = _flag(settings, "add_prefix_space", None)
    legacy = _flag(settings, "legacy", False)
    metaspace = package.pre_tokenizers.Metaspace
    normalizers, decoders = package.normalizers, package.decoders
    steps = list(_parts(inner.normalizer, normalizers.Sequence))
    if (
        prefix is None
        or not isinstance(inner.model, package.models.BPE)
        or not isinstance(inner.pre_tokenizer, metaspace | None)
        or not all(isinstance(step, normalizers.Prepend | normalizers.Replace) for step in steps)
    ):
        return
    scheme = "never" if inner.pre_tokenizer is None else inner.pre_tokenizer.prepend_scheme
    prepends = any(isinstance(step, normalizers.Prepend) for step in steps)
    if prefix == (prepends or scheme != "never"):
        return
    inner.normalizer = None
    scheme = "never" if not prefix else "always" if legacy else "first"
    inner.pre_tokenizer = metaspace(_SPACE, scheme, split=False)
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    inner.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )


def _parts(whole: Any, sequence: type) -> Iterator[Any]:
    """What a part of a tokenizer is made of, itself where it is simple."""
    if isinstance(whole, sequence):
        for part in whole:  # type: ignore[attr-defined]
            yield from _parts(part, sequence)
    elif whole is not None:
        yield whole


#: By the names of classes in transformers, all of which may end in "Fast".
_KINDS: dict[str, Callable[[ModuleType, Any, io.JsonObject], None]] = {
    "BertTokenizer": _bert,
    "DistilBertTokenizer": _bert,
    "ElectraTokenizer": _bert,
    "GPT2Tokenizer": _gpt2,
    "LlamaTokenizer": _llama,
}

#: Those that a model's type stands for.
_OF_MODELS = {"bert": "BertTokenizer", "gpt2": "GPT2Tokenizer"}
