"""``evergrad info``: what this machine runs, or what a model holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

import evergrad
from evergrad import continual

from . import _options as options
from ._output import JsonOption, print_json
from ._screen import out
from ._show import show, table
from ._verb import verb

EXAMPLES = (
    "evergrad info",
    "EVERGRAD_NUM_THREADS=1 evergrad info",
    "evergrad info run  (a store: its current version)",
    "evergrad info run/versions/0002 --json",
    "evergrad info SmolLM2-135M-Instruct.Q4_1.gguf",
)


def register(app: typer.Typer) -> None:
    """Join the command line."""
    verb(app, info, EXAMPLES)


def info(
    model: Annotated[
        Path | None,
        typer.Argument(
            help="A store, a model folder, a GGUF file, or a name on the Hugging Face Hub;"
            " without it, this installation."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which kernels, instruction set and threads are in use, or what a model holds.

    For every command, EVERGRAD_BACKEND chooses native, numba or reference, EVERGRAD_ISA one of the
    instruction sets shown, and EVERGRAD_NUM_THREADS the number of threads.
    """
    if model is None:
        config = evergrad.show_config()
        if as_json:
            print_json(config)
        else:
            _show_config(config)
        return
    facts = _model(model)
    if as_json:
        print_json(facts)
    else:
        _show_facts(facts, str(facts.pop("path")))


def _show_config(config: Mapping[str, Any]) -> None:
    facts = {name: value for name, value in config.items() if name not in ("ops", "notes")}
    _show_facts(facts, "evergrad")
    by_backend: dict[str, list[str]] = {}
    for op, backend in config["ops"].items():
        by_backend.setdefault(backend, []).append(op)
    out.print()
    for backend, ops in by_backend.items():
        out.print(f"[bold]{backend}[/bold] runs {len(ops)} ops: {', '.join(ops)}")
    for note in config["notes"]:
        out.print(f"[yellow]note:[/yellow] {escape(note)}", soft_wrap=True)


def _model(path: Path) -> dict[str, Any]:
    if (path / "current").is_file():
        path = continual.VersionStore(path).current().path
    model = options.load_model(path)
    tokenizer, config = model.tokenizer, model.config
    facts: dict[str, Any] = {
        "path": path,
        "architecture": f"{type(model).__name__}, {config.layers} layers",
        "parameters": options.count_parameters(model),
        "memory": _memory(model),
        "context": config.context,
        "tokenizer": "none" if tokenizer is None else f"{tokenizer.vocab_size} tokens",
        **config.to_dict(),
    }
    if (path / "report.json").is_file():
        report = continual.Version(path).report
        for name in ("version", "parent", "created", "accepted", "domain", "after"):
            facts[name] = report.get(name)
    return facts


def _memory(model: Any) -> dict[str, int]:
    """Bytes of the weights by how they are stored, and together."""
    memory: dict[str, int] = {}
    for parameter in model.parameters():
        kind = getattr(parameter.data, "kind", "float32")
        memory[kind] = memory.get(kind, 0) + parameter.data.nbytes
    return {**memory, "total": sum(memory.values())}


def _show_facts(facts: Mapping[str, Any], title: str) -> None:
    made = table("", "", title=title)
    made.show_header = False
    made.columns[1].justify = "left"
    made.columns[1].no_wrap = False
    for name, value in facts.items():
        made.add_row(f"[dim]{escape(name)}[/dim]", escape(_text(value)))
    show(made)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_text(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
