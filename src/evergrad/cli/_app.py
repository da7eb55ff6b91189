"""Puts the verbs together, and turns what goes wrong into a line and an exit code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Annotated

import typer

from .._version import __version__
from ._lasting import lasting
from ._output import FAILURE, INTERRUPTED, USAGE, UserError, print_json
from ._verb import listed, unwrapped

VERBS = (
    "train", "adapt", "generate", "chat", "explain", "eval", "versions", "rollback", "info",
    "bench", "demo",
)  # fmt: skip

ABOUT = """
Small language models on the CPU that keep learning, with their progress and their forgetting
measured.

A [bold]store[/bold] is a folder of numbered versions, one of them current. [bold]train[/bold] makes
the first. [bold]adapt[/bold] learns new text from the current one, and the outcome becomes current
only if it learned and did not forget more than allowed. [bold]rollback[/bold] goes back.

[bold]generate[/bold], [bold]chat[/bold], [bold]explain[/bold] and [bold]eval[/bold] also take
pretrained models, with [bold]--model[/bold].
"""
TOUR = (
    "evergrad demo                     (all of it, in three minutes)",
    "evergrad train cpython-prose --store run --seconds 60",
    "evergrad adapt cpython-code --store run --seconds 30",
    "evergrad versions --store run",
    'evergrad generate "The statement" --store run',
    "evergrad chat --model SmolLM2.gguf",
    'evergrad explain "The capital of France is Rome." --model SmolLM2.gguf',
)
#: Those that an interruption leaves without effect. A demo replaces its store as it begins.
ATOMIC = ("train", "adapt", "rollback")
CODES = ("0 done, 1 failed, 2 wrong usage, 3 rejected by the gate, 130 interrupted",)

app = typer.Typer(
    name="evergrad",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=unwrapped(ABOUT),
    epilog=listed(TOUR, "A first tour") + "\n\n" + listed(CODES, "Exit codes"),
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"evergrad {__version__}")
        raise typer.Exit


@app.callback()
def _group(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version of evergrad and exit.",
        ),
    ] = False,
) -> None:
    # Makes the verb a part of the command line even where only one is registered.
    pass


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    # A verb needs few rooms of the package, and a text should begin at once.
    verb = arguments[0] if arguments and arguments[0] in VERBS else None
    try:
        with lasting():
            import evergrad.backends  # noqa: F401  # reads the environment
    except (ValueError, ImportError) as error:
        return _fail(error, arguments, USAGE if isinstance(error, ValueError) else FAILURE)
    try:
        with lasting():
            for each in VERBS if verb is None else (verb,):
                import_module(f".{each}", __package__).register(app)
        app(args=list(arguments), prog_name="evergrad")
    except (SystemExit, KeyboardInterrupt) as stop:
        code = INTERRUPTED
        if isinstance(stop, SystemExit):
            code = stop.code if isinstance(stop.code, int) else FAILURE
        if code == INTERRUPTED:
            from ._screen import err

            kept = "; the current version is as it was" if verb in ATOMIC else ""
            line = "\n" if err.is_terminal else ""  # below what was being written, and ^C
            err.print(f"{line}evergrad: interrupted{kept}")
        elif code == USAGE:  # said in words already, by what raised the exit
            problem = getattr(stop.__context__, "format_message", None)
            if problem is not None:
                _print_json_error(problem(), arguments)
        return code
    except Exception as error:
        if os.environ.get("EVERGRAD_DEBUG") or not isinstance(error, _expected()):
            raise
        return _fail(error, arguments, FAILURE)
    return 0


def _fail(error: Exception, arguments: Sequence[str], code: int) -> int:
    """Say what is wrong in a line."""
    from rich.markup import escape

    from ._screen import err

    _print_json_error(str(error), arguments)
    err.print(f"[red]evergrad:[/red] {escape(str(error))}", soft_wrap=True)
    return code


def _print_json_error(message: str, arguments: Sequence[str]) -> None:
    """For machines, where they are to read the result; people are told on standard error."""
    if "--json" in arguments:
        with suppress(OSError):  # the error may be that nothing can be written there
            print_json({"error": message}, indent=None)  # one of `chat`'s lines, too


def _expected() -> tuple[type[Exception], ...]:
    """What a user can put right. Anything else is a bug, and shows its traceback."""
    from evergrad import io
    from evergrad.continual import StoreError
    from evergrad.train import CheckpointMismatchError, TrainingDiverged

    return (
        UserError, StoreError, TrainingDiverged, CheckpointMismatchError, io.CorruptFileError,
        OSError, ImportError,
        FloatingPointError,  # of weights that hold NaN
    )  # fmt: skip
