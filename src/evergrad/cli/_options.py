"""Options that several verbs share, and what they stand for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from evergrad import models, text
from evergrad.continual import Version, VersionStore

from ._output import UserError

DEFAULT_STORE = Path("evergrad-store")

TextArgument = Annotated[
    str,
    typer.Argument(
        metavar="TEXT",
        help="cpython-prose, cpython-code, or a file, folder or glob of text files.",
        show_default=False,
    ),
]
StoreOption = Annotated[
    Path,
    typer.Option(
        "--store",
        "-s",
        envvar="EVERGRAD_STORE",
        help="The folder that holds the versions.",
        show_default=True,
    ),
]
VersionOption = Annotated[
    str | None,
    typer.Option("--version", help="A version of the store; by default the current one."),
]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        help="Instead of a store: a folder with model.safetensors, config.json, tokenizer.json.",
    ),
]


def finite(value: float | None) -> float | None:
    """Refuse NaN and infinities, which pass every comparison with a minimum."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"expected a finite number, got {value}")
    return value


_BUDGET = "Budget (what runs out first ends the training)"
StepsOption = Annotated[
    int | None, typer.Option("--steps", min=1, help="Optimizer steps.", rich_help_panel=_BUDGET)
]
SecondsOption = Annotated[
    float | None,
    typer.Option(
        "--seconds",
        min=0.001,
        callback=finite,
        help="Time spent in steps.",
        rich_help_panel=_BUDGET,
    ),
]

_TRAINING = "Training"
BatchOption = Annotated[
    int,
    typer.Option("--batch-size", min=1, help="Sequences in a batch.", rich_help_panel=_TRAINING),
]
RateOption = Annotated[
    float,
    typer.Option("--lr", help="Peak learning rate.", rich_help_panel=_TRAINING),
]
WarmupOption = Annotated[
    float,
    typer.Option(
        "--warmup",
        help="Fraction of the budget over which the learning rate rises.",
        rich_help_panel=_TRAINING,
    ),
]
DecayOption = Annotated[
    float,
    typer.Option(
        "--weight-decay", min=0, help="Decoupled, on matrices.", rich_help_panel=_TRAINING
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed", min=0, help="Same seed, same steps: same model.", rich_help_panel=_TRAINING
    ),
]
EvalOption = Annotated[
    int | None,
    typer.Option(
        "--eval-every",
        min=1,
        help="Measure the held-out text every so many steps.",
        rich_help_panel=_TRAINING,
    ),
]
PatienceOption = Annotated[
    int | None,
    typer.Option(
        "--patience",
        min=1,
        help="Stop after so many measurements without a new best (needs --eval-every).",
        rich_help_panel=_TRAINING,
    ),
]


@contextmanager
def usage() -> Iterator[None]:
    """Settings that do not fit are wrong usage: exit code 2, and the message says which."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error


def budget(
    steps: int | None, seconds: float | None, otherwise: float
) -> tuple[int | None, float | None]:
    """Steps and seconds as given; without either, ``otherwise`` seconds."""
    return (steps, otherwise) if steps is None and seconds is None else (steps, seconds)


def open_version(store: Path, version: str | None) -> Version:
    """The named version of a store, or its current one."""
    opened = VersionStore(store)
    return opened.current() if version is None else opened.get(version)


def open_model(store: Path, version: str | None, folder: Path | None) -> tuple[Path, Any, Any]:
    """Path, model and tokenizer: from a folder, or else from a store."""
    path = folder if folder is not None else open_version(store, version).path
    if not path.is_dir():
        raise UserError(f"{path}: no such folder")
    tokenizer = load_tokenizer(path / "tokenizer.json")
    try:
        return path, models.load(path), tokenizer
    except ValueError as error:
        raise UserError(str(error)) from error


def count_parameters(model: Any) -> int:
    """Numbers that the model has learned."""
    return sum(parameter.data.size for parameter in model.parameters())


def load_tokenizer(path: Path) -> text.Tokenizer:
    """The tokenizer in a file."""
    try:
        return text.Tokenizer.load(path)
    except ValueError as error:
        raise UserError(str(error)) from error
