"""``evergrad chat``: talk with a model."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from . import _options as options
from ._output import UserError, print_json
from ._verb import verb

EXAMPLES = (
    "evergrad chat --model SmolLM2.gguf",
    'evergrad chat --model SmolLM2.gguf --system "You answer in one sentence." --temperature 0',
    'echo "What is the capital of France?" | evergrad chat --model SmolLM2.gguf --temperature 0',
    "evergrad chat --model SmolLM2.gguf --json < questions.txt",
)
HINT = "Ask. /exit or Ctrl-D ends, Ctrl-C stops a reply."


def register(app: typer.Typer) -> None:
    """Join the command line."""
    verb(app, chat, EXAMPLES)


def chat(
    model: Annotated[
        str,
        typer.Option(
            help="A model tuned for chats: a GGUF file, a folder, or a name on Hugging Face's hub.",
            show_default=False,
        ),
    ],
    system: Annotated[
        str | None,
        typer.Option(callback=options.utf8, help="What the model is told before the conversation."),
    ] = None,
    max_new_tokens: options.NewTokensOption = 500,
    temperature: options.TemperatureOption = 0.7,
    top_k: options.TopKOption = None,
    top_p: options.TopPOption = 0.95,
    min_p: options.MinPOption = 0.0,
    repetition_penalty: options.PenaltyOption = 1.0,
    stop: options.StopOption = None,
    seed: options.DrawSeedOption = 0,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print a JSON object for each reply, one a line, and nothing else on standard"
            " output.",
            rich_help_panel="Output",
        ),
    ] = False,
) -> None:
    """Talk with a model in the terminal: a line is a message, and each is read only once.

    Where standard input is no terminal, its lines are the messages, and the replies alone are
    printed.
    """
    from evergrad.models import Conversation

    if sys.stdin is None or sys.stdout is None:
        raise UserError("standard input or output is closed, and a chat needs both")
    path, loaded = options.open_decoder(options.DEFAULT_STORE, None, model)
    if loaded.tokenizer.chat_template is None:
        raise UserError(f"{path}: no chat template: continue texts with `evergrad generate`")
    said: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
    conversation = Conversation(loaded, said)
    with_people = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    if with_people:
        typer.secho(HINT, dim=True, err=True)
    for turn, line in enumerate(_lines(with_people)):
        conversation.messages.append({"role": "user", "content": line})
        with options.usage():
            problem = _too_long(path, loaded, conversation.messages)
            if problem is None:
                pieces = conversation.reply(
                    max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
                    repetition_penalty=repetition_penalty, stop=stop, seed=seed + turn,
                )  # fmt: skip
        if problem is not None:
            _refuse(problem, with_people)
            conversation.messages.pop()
        elif as_json:
            *parts, rest = pieces  # one of each token, empty or not, and what was held back
            content = "".join(parts) + rest
            print_json({"role": "assistant", "content": content, "tokens": len(parts)}, indent=None)
        else:
            _print(pieces, with_people)


def _lines(with_people: bool) -> Iterator[str]:
    """What is asked, without empty lines, until /exit or the end."""
    if with_people:
        import readline  # noqa: F401  # input() then edits lines, and remembers them
    # Whatever the locale, bytes that are no text come as lone surrogates, and are told from it.
    sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    for number in itertools.count(1):
        try:
            line = input("> " if with_people else "").strip()
        except EOFError:
            if with_people:
                typer.echo()
            return
        except KeyboardInterrupt:
            if not with_people:
                raise
            typer.echo()  # what was typed is forgotten
            continue
        if line == "/exit":
            return
        if not options.is_unicode(line):
            _refuse(f"line {number} of the input is not {sys.stdin.encoding.upper()}", with_people)
        elif line:
            yield line


def _too_long(path: Path, model: Any, messages: Sequence[Mapping[str, Any]]) -> str | None:
    """Why a conversation leaves no room for a reply; None where it does."""
    ids = model.tokenizer.encode(model.tokenizer.chat(messages), parse_special=True)
    options.expect_known(path, model, ids)
    tokens = ids.size
    if tokens < model.config.context:
        return None
    return (
        f"with this message the conversation has {tokens:,} tokens, and no room for a reply in the"
        f" model's context of {model.config.context:,}"
    )


def _refuse(problem: str, with_people: bool) -> None:
    """The end, where nobody is there to say something else."""
    if not with_people:
        raise UserError(problem)
    from ._screen import err

    err.print(f"{problem}: the message is dropped", markup=False, soft_wrap=True)


def _print(pieces: Iterator[str], with_people: bool) -> None:
    try:
        for piece in pieces:
            typer.echo(piece, nl=False)
    except KeyboardInterrupt:
        if not with_people:
            raise
        pieces.close()  # type: ignore[attr-defined]  # what was said stays said
    typer.echo()
