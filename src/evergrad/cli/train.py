"""``evergrad train``: the first version of a store."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from evergrad import io, models, text
from evergrad import train as training
from evergrad.continual import VersionStore, begin

from . import _options as options
from ._output import JsonOption, print_json
from ._screen import note
from ._show import show_report
from ._texts import RUN, resolve
from ._verb import verb

_MODEL = "Model"

EXAMPLES = (
    "evergrad train cpython-prose --store run --seconds 60",
    "evergrad train notes/ --store run --steps 2000 --layers 6 --dim 256 --heads 8",
    "evergrad train 'books/*.txt' --store run --checkpoint-every 500",
    "evergrad train 'books/*.txt' --store run --checkpoint-every 500 --resume  (after a crash)",
)


def register(app: typer.Typer) -> None:
    """Join the command line."""
    verb(app, train, EXAMPLES)


def train(
    texts: options.TextArgument,
    store: options.StoreOption = options.DEFAULT_STORE,
    steps: options.StepsOption = None,
    seconds: options.SecondsOption = None,
    also_measure: Annotated[
        list[str] | None,
        typer.Option(
            "--also-measure",
            metavar="TEXT",
            help="Further text to measure, not to learn: shows later what it gained; may be given"
            " again.",
            show_default=False,
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="A tokenizer.json to use instead of learning one.", rich_help_panel=_MODEL
        ),
    ] = None,
    vocab_size: Annotated[
        int, typer.Option(min=257, help="Tokens to learn from the text.", rich_help_panel=_MODEL)
    ] = 1024,
    dim: Annotated[
        int, typer.Option(min=1, help="Size of a token's vector.", rich_help_panel=_MODEL)
    ] = 128,
    layers: Annotated[
        int, typer.Option(min=1, help="Transformer blocks.", rich_help_panel=_MODEL)
    ] = 3,
    heads: Annotated[
        int, typer.Option(min=1, help="Attention heads of a block.", rich_help_panel=_MODEL)
    ] = 4,
    window: Annotated[
        int, typer.Option(min=1, help="Longest context, in tokens.", rich_help_panel=_MODEL)
    ] = 128,
    dropout: Annotated[
        float, typer.Option(min=0, max=0.9, help="Dropout rate.", rich_help_panel=_MODEL)
    ] = 0.0,
    batch_size: options.BatchOption = 16,
    lr: options.RateOption = 3e-3,
    warmup: options.WarmupOption = 0.05,
    weight_decay: options.DecayOption = 0.1,
    seed: options.SeedOption = 0,
    eval_every: options.EvalOption = None,
    patience: options.PatienceOption = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(min=1, help="Steps between checkpoints.", rich_help_panel="Interruptions"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on from the last checkpoint of the same command.",
            rich_help_panel="Interruptions",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a small GPT on text: version 0001 of a new store.

    A tenth of the text is held out, always the same tenth, and measured before and after in
    [bold]bits per byte[/bold]: the bits that the model needs to encode a byte of text, 8 for
    knowing nothing, lower is better.
    """
    with options.usage():
        steps, seconds = options.budget(steps, seconds, otherwise=60.0)
        config = training.FitConfig(
            steps=steps,
            seconds=seconds,
            batch_size=batch_size,
            window=window,
            lr=lr,
            warmup=warmup,
            weight_decay=weight_decay,
            seed=seed,
            eval_every=eval_every,
            patience=patience,
            checkpoint_every=checkpoint_every,
        )
        if dim % heads:
            raise ValueError(f"--dim {dim} cannot be divided among --heads {heads}")

    opened = VersionStore(store)
    opened.expect_empty()
    names = dict.fromkeys([texts, *(also_measure or [])])
    domain, *others = [resolve(name) for name in names]
    learned = (
        text.Tokenizer.train(domain.train, vocab_size)
        if tokenizer is None
        else options.load_tokenizer(tokenizer)
    )
    shape = models.GPT2Config(
        vocab_size=learned.vocab_size,
        context=window,
        dim=dim,
        layers=layers,
        heads=heads,
        dropout=dropout,
    )
    model = models.GPT2(shape, seed=seed)
    encoded, *also = [training.encode_domain(each, learned) for each in (domain, *others)]
    note(
        f"{encoded.name}: {encoded.train_ids.size:,} tokens to learn, "
        f"{encoded.heldout_bytes:,} bytes held out; {options.count_parameters(model):,} parameters"
    )

    unfinished, checkpoint = store / "unfinished", None
    if checkpoint_every is not None or resume:
        checkpoint = unfinished / _digest(shape.to_dict(), encoded)
        if resume and training.latest_checkpoint(checkpoint) is None:
            note("no checkpoint of this model and this text yet: from the beginning")
    report = begin(
        opened,
        model,
        learned,
        encoded,
        config,
        also_measure=also,
        checkpoint=checkpoint,
        resume=resume,
    )
    _forget(unfinished)
    if as_json:
        print_json({**report.to_dict(), "history": None, "store": str(store)})
    else:
        show_report(report)


def _digest(shape: dict[str, object], domain: training.EncodedDomain) -> str:
    """The same for the same model and text: what makes a checkpoint fit to be resumed."""
    content = json.dumps(shape, sort_keys=True).encode() + domain.train_ids.tobytes()
    return hashlib.sha256(content).hexdigest()[:12]


def _forget(unfinished: Path) -> None:
    """Remove the checkpoints of all commands: a store has one first version.

    Nothing else, as a store may lie in a folder where somebody keeps what he has not finished.
    """
    for run in unfinished.glob(RUN):
        io.remove_folder(run)
    with suppress(OSError):
        unfinished.rmdir()
