"""Configurations in the words of Hugging Face's config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ACTIVATION_NAMES", "SPECIAL_TOKENS", "from_settings", "to_settings"]

#: Ours: Hugging Face's.
ACTIVATION_NAMES = {"gelu_tanh": "gelu_new"}
#: Theirs that mean the same as one of ours.
SYNONYMS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_python": "gelu",
    "swish": "silu",
}

#: What no family has: in its words, layers that differ from one another.
FIXED: dict[str, Any] = {"per_layer_config": {}}

#: Fields of every configuration.
SPECIAL_TOKENS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "pad_token": "pad_token_id",
}


def to_settings(config: Any, names: Mapping[str, str]) -> dict[str, Any]:
    """A configuration's fields under their names; `names` maps ours to theirs."""
    settings = {theirs: getattr(config, ours) for ours, theirs in names.items()}
    if "activation" in names:
        theirs = names["activation"]
        settings[theirs] = ACTIVATION_NAMES.get(settings[theirs], settings[theirs])
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()
    }


def from_settings(
    settings: Mapping[str, Any],
    names: Mapping[str, str],
    fixed: Mapping[str, Any],
    aliases: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The fields of ours that `settings` gives; `aliases` maps other names of theirs to those.

    Where both names are there the alias rules, as it does in transformers.

    Raises
    ------
    ValueError
        When a setting is not what `fixed` says: it asks for a variant that is not supported.
    """
    for name, value in {**FIXED, **fixed}.items():
        if settings.get(name) not in (None, value):
            raise ValueError(f"{name}={settings[name]!r} is not supported, only {value!r}")
    aliases = aliases or {}
    settings = {**settings, **{aliases[n]: value for n, value in settings.items() if n in aliases}}
    ours = {o: settings[theirs] for o, theirs in names.items() if theirs in settings}
    if "activation" in ours:
        ours["activation"] = SYNONYMS.get(ours["activation"], ours["activation"])
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in ours.items()
    }
