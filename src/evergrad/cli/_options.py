"""Options that several verbs share, and what they stand for."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._lasting import lasting
from ._output import UserError

# Rooms are opened when a verb needs them: a text should begin at once.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from evergrad.continual import Version
    from evergrad.text import Tokenizer

DEFAULT_STORE = Path("evergrad-store")
PICTURES = (".png", ".svg", ".pdf")
#: Logits divided by more, or multiplied, leave the range of float32.
LARGEST = 1e30

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
    str | None,
    typer.Option(
        "--model",
        help="Instead of a store: a GGUF file, a folder with config.json, safetensors and"
        " tokenizer.json, or a name on Hugging Face's hub.",
    ),
]


def finite(value: float | None) -> float | None:
    """Refuse NaN and infinities, which pass every comparison with a minimum."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"expected a finite number, got {value}")
    return value


def utf8(value: str | None) -> str | None:
    """Refuse what is not UTF-8: Python hands such bytes on as lone surrogates."""
    if value is not None and not is_unicode(value):
        raise typer.BadParameter("expected text in UTF-8, got bytes that are not")
    return value


def is_unicode(value: str) -> bool:
    """Whether a text holds no bytes that could not be decoded."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def picture(path: Path | None) -> Path | None:
    """Refuse a picture that could not be written, before the work rather than after it."""
    if path is None:
        return None
    if path.suffix.lower() not in PICTURES:
        raise typer.BadParameter(f"expected a name that ends in .png, .svg or .pdf, got {path}")
    is_new = not (path.exists() or path.is_symlink())
    try:
        path.open("ab").close()
        if is_new:
            path.unlink()
        _try_folder(os.path.dirname(os.path.realpath(path)))  # drawn there, it takes the name then
    except OSError as error:
        raise typer.BadParameter(f"cannot write {path}: {error.strerror}") from error
    _expect_matplotlib()
    return path


def folder_of_pictures(path: Path | None) -> Path | None:
    """Refuse a folder that could not be written into, before the work; none is left behind."""
    if path is None:
        return None
    made = [each for each in (path, *path.parents) if not each.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        _try_folder(path)
    except OSError as error:
        raise typer.BadParameter(f"cannot write into {path}: {error.strerror}") from error
    finally:
        for each in made:
            with suppress(OSError):  # it could not be made
                each.rmdir()
    _expect_matplotlib()
    return path


def _try_folder(path: str | os.PathLike[str]) -> None:
    from tempfile import TemporaryFile  # no other command has to wait for it

    TemporaryFile(dir=path).close()


def _expect_matplotlib() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(
            "the package `matplotlib` is needed for the picture: pip install 'evergrad[plot]'"
        )


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

_SAMPLING = "Sampling"
NewTokensOption = Annotated[
    int, typer.Option(min=0, help="Most tokens to add.", rich_help_panel=_SAMPLING)
]
TemperatureOption = Annotated[
    float,
    typer.Option(
        min=0,
        max=LARGEST,
        callback=finite,
        help="0: always the likeliest token; 1: as learned.",
        rich_help_panel=_SAMPLING,
    ),
]
TopKOption = Annotated[
    int | None,
    typer.Option(
        min=1, max=2**31 - 1, help="Draw from so many likeliest.", rich_help_panel=_SAMPLING
    ),
]
TopPOption = Annotated[
    float | None,
    typer.Option(
        min=0.0001,
        max=1,
        help="Draw from the fewest likeliest that have this probability together.",
        rich_help_panel=_SAMPLING,
    ),
]
MinPOption = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="Never draw what is less likely than so many times the likeliest.",
        rich_help_panel=_SAMPLING,
    ),
]
PenaltyOption = Annotated[
    float,
    typer.Option(
        min=0.01,
        max=LARGEST,
        callback=finite,
        help="Above 1: make what the text holds already less likely.",
        rich_help_panel=_SAMPLING,
    ),
]
StopOption = Annotated[
    list[str] | None,
    typer.Option(help="End before this text; may be given again.", rich_help_panel=_SAMPLING),
]
DrawSeedOption = Annotated[
    int, typer.Option(min=0, help="Same seed, same text.", rich_help_panel=_SAMPLING)
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
    from evergrad.continual import VersionStore

    return VersionStore(store).find(version)


def one_source(context: typer.Context) -> None:
    """Refuse --model beside --store or --version: one of them would go unheard.

    A store from the environment is where models usually come from, and may stand beside --model.
    """
    given = [
        f"--{name}"
        for name in ("model", "store", "version")
        if getattr(context.get_parameter_source(name), "name", None) == "COMMANDLINE"
    ]
    if len(given) > 1 and given[0] == "--model":
        raise typer.BadParameter(
            f"expected either --model, or a version of a store, got {' and '.join(given)}"
        )


def load_model(path: Path) -> Any:
    """The model at a path, whatever its format."""
    try:
        with lasting():
            from evergrad import models

            return models.from_pretrained(path)
    except ValueError as error:
        raise UserError(str(error)) from error
    except TypeError as error:  # of a tensor or a setting that is of the wrong kind
        raise UserError(f"{path}: {error}") from error


def open_model(store: Path, version: str | None, model: str | Path | None) -> tuple[Path, Any, Any]:
    """Path, model and tokenizer: wherever `model` is, or else from a store."""
    path = Path(model) if model is not None else open_version(store, version).path
    loaded = load_model(path)
    if loaded.tokenizer is None:
        raise UserError(_no_tokenizer(path))
    return path, loaded, loaded.tokenizer


def _no_tokenizer(path: Path) -> str:
    if path.is_file():
        return f"{path}: no tokenizer in it, which texts need"
    from evergrad.text.tokenizer import missing

    return f"{path}: texts need a tokenizer: {missing(path)}"


def open_decoder(store: Path, version: str | None, model: str | Path | None) -> tuple[Path, Any]:
    """Path and model, as of `open_model`, of a model that continues texts."""
    path, loaded, _ = open_model(store, version, model)
    if not hasattr(loaded, "stream"):
        raise UserError(f"{path}: {type(loaded).__name__} is no model that continues texts")
    return path, loaded


def expect_known(path: Path, model: Any, ids: npt.NDArray[np.integer]) -> None:
    """Refuse tokens that the model lacks: its tokenizer is that of another."""
    largest, size = int(ids.max(initial=0)), model.config.vocab_size
    if largest >= size:
        raise UserError(
            f"{path}: its tokenizer makes token {largest} of this text, but the model has only"
            f" {size}: the two do not belong together"
        )


def count_parameters(model: Any) -> int:
    """Numbers that the model has learned."""
    return sum(parameter.data.size for parameter in model.parameters())


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a file."""
    from evergrad.text import Tokenizer

    try:
        return Tokenizer.load(path)
    except ValueError as error:
        raise UserError(str(error)) from error
