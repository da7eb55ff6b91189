"""Chat templates: from a list of messages to the text that a model was tuned on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

__all__ = ["Message", "render"]

Message = Mapping[str, Any]


def render(template: str, messages: Iterable[Message], **variables: Any) -> str:
    """Write a conversation the way a chat template says.

    Templates are Jinja programs that come with models, of which some come from strangers: they run
    in a sandbox, and see plain data alone.

    Parameters
    ----------
    template : str
        In the dialect of Hugging Face's ``chat_template``.
    messages : iterable of mapping
        Each with ``"role"`` (system, user, assistant ...) and ``"content"``; further keys are for
        the template. A key whose value is None is as good as none.
    **variables
        What else the template may ask for: ``add_generation_prompt``, ``bos_token`` ...; ``tools``
        and ``documents`` are None unless given, as in `transformers`.

    Returns
    -------
    str
        The conversation.

    Raises
    ------
    ImportError
        If the `jinja2` package is missing.
    TypeError
        If `messages` is not an iterable of mappings, or holds what JSON has not.
    ValueError
        If a message lacks its role, or the template is broken or refuses the messages; the message
        says why.

    Examples
    --------
    >>> template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    >>> render(template, [{"role": "user", "content": "Hello"}])
    '<user>Hello'
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise TypeError(
            'chat: messages must be a list of {"role": ..., "content": ...},'
            f" got {type(messages).__name__}"
        )
    messages = list(messages)  # an iterator gives them once
    for position, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise TypeError(
                f"chat: messages[{position}] must be a mapping with role and content,"
                f" got {type(message).__name__}"
            )
        if not isinstance(message.get("role"), str):
            raise ValueError(f"chat: messages[{position}] has no role: {dict(message)!r}")
    jinja2, compiled = _compiled(template)
    # Templates ask whether a key is there: beside tool calls, a content of None is nothing said.
    given = [{k: v for k, v in message.items() if v is not None} for message in messages]
    try:
        plain = json.loads(json.dumps(given))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"chat: messages must hold what JSON has: {error}") from error
    # Some templates ask whether there are tools, others whether they are none.
    known = {"tools": None, "documents": None, **variables}
    try:
        return str(compiled.render(messages=plain, **known))
    # A template is a program: it may fail in any way.
    except Exception as error:
        refused = isinstance(error, jinja2.exceptions.TemplateError)
        said = str(error) if refused else f"{type(error).__name__}: {error}"
        raise ValueError(f"chat: the template refuses these messages: {said}") from error


@lru_cache(maxsize=8)
def _compiled(template: str) -> tuple[Any, Any]:
    try:
        import jinja2
        import jinja2.ext
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise ImportError(
            "the package `jinja2` is needed for chats: pip install 'evergrad[chat]'"
        ) from error
    generation = type(
        "Generation", (jinja2.ext.Extension,), {"tags": {"generation"}, "parse": _as_it_is}
    )
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    try:
        return jinja2, environment.from_string(template)
    # Too deep or too large for Python, if not a mistake of its author.
    except (jinja2.exceptions.TemplateError, RecursionError, MemoryError) as error:
        said = str(error) or type(error).__name__
        raise ValueError(f"chat: the chat template is broken: {said}") from error


def _as_it_is(self: Any, parser: Any) -> Any:
    """The tag ``generation`` marks what an assistant said; the text is that without it."""
    next(parser.stream)
    return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> None:
    from jinja2.exceptions import TemplateError

    raise TemplateError(message)


def _now(form: str) -> str:
    from datetime import datetime

    return datetime.now().strftime(form)
