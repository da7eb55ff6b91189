"""``evergrad eval``: measure a version on text."""

from __future__ import annotations

import math
from typing import Annotated

import typer
from rich.markup import escape

from evergrad import train as training

from . import _options as options
from ._output import JsonOption, UserError, print_json
from ._screen import note
from ._show import show, table
from ._texts import resolve
from ._verb import verb

EXAMPLES = (
    "evergrad eval cpython-prose cpython-code --store run",
    "evergrad eval letters.txt --store run --version 0001 --json",
    "evergrad eval cpython-prose --model SmolLM2.gguf",
)


def register(app: typer.Typer) -> None:
    """Join the command line."""
    verb(app, evaluate, EXAMPLES, name="eval")


def evaluate(
    context: typer.Context,
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT...",
            help="cpython-prose, cpython-code, or files, folders, globs of text files.",
            show_default=False,
        ),
    ],
    store: options.StoreOption = options.DEFAULT_STORE,
    version: options.VersionOption = None,
    model: options.ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a version or a pretrained model on held-out text, in bits per byte.

    8 is knowing nothing, lower is better. Held out is a tenth of the text, the one that
    [bold]train[/bold] and [bold]adapt[/bold] never learn from.
    """
    options.one_source(context)
    path, loaded = options.open_decoder(store, version, model)
    measured = {}
    for name in dict.fromkeys(texts):
        domain = training.encode_domain(resolve(name), loaded.tokenizer)
        options.expect_known(path, loaded, domain.heldout_ids)
        note(f"{name}: {domain.heldout_bytes:,} bytes held out")
        measured[name] = training.bits_per_byte(
            loaded, domain.heldout_ids, domain.heldout_bytes, loaded.config.context
        )
        if not math.isfinite(measured[name]):
            outcome = "NaN" if math.isnan(measured[name]) else "infinite"
            raise UserError(f"{path}: the outcome is {outcome}: the model's weights have diverged")
    if as_json:
        print_json({"model": path, "bits_per_byte": measured})
        return
    made = table("held-out text", "bits per byte", title=str(path))
    for name, value in measured.items():
        made.add_row(escape(name), f"{value:.3f}")
    show(made)
