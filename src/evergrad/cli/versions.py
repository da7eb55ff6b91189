"""``evergrad versions``: what a store holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.markup import escape

from evergrad import io
from evergrad.continual import StoreError, Version, VersionStore

from . import _options as options
from ._output import FAILURE, JsonOption, UserError, print_json
from ._screen import out
from ._show import percent, show, table
from ._verb import verb

EXAMPLES = (
    "evergrad versions --store run",
    "evergrad versions --store run --verify --json",
)


#: What else is told of a version, and what it is where it is known.
SHOWN: dict[str, Any] = {
    "domain": str,
    "strategy": dict,
    "progress_percent": float | int,
    "forgetting_percent": dict,
    "before": dict,
    "after": dict,
    "reasons": list,
}


def register(app: typer.Typer) -> None:
    """Join the command line."""
    verb(app, versions, EXAMPLES)


def versions(
    store: options.StoreOption = options.DEFAULT_STORE,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compare every file with the checksum in its report."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the versions of a store: where each came from, what it gained, what it forgot."""
    opened = VersionStore(store)
    found = opened.list()
    if not found:
        raise UserError(f"{store}: no versions here; train a first one with `evergrad train`")
    try:
        current = opened.current().name
    except StoreError:
        current = None
    rows = [{"current": version.name == current, **_row(version, verify)} for version in found]
    if as_json:
        print_json({"store": store, "current": current, "versions": rows})
    else:
        _show(rows, verify)
    if any(row["problem"] for row in rows):
        raise typer.Exit(FAILURE)


def _row(version: Version, verify: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"version": version.name, "problem": None}
    try:
        if verify:
            version.verify()
        report = version.report
        told = {name: report[name] for name in ("accepted", "parent", "created")}
        _check(version, report)
    except (io.CorruptFileError, OSError, KeyError, TypeError) as error:
        return {**row, "problem": str(error)}
    row |= told
    for name in SHOWN:
        row[name] = report.get(name)
    return row


def _check(version: Version, report: Mapping[str, Any]) -> None:
    """Somebody may have edited a report: one line of the table is lost then, not the table."""
    for name, kind in {"parent": str, **SHOWN}.items():
        value = report.get(name)
        fits = isinstance(value, kind | None)
        if fits and name == "forgetting_percent":
            fits = all(isinstance(item, float | int | None) for item in (value or {}).values())
        if not fits:
            raise io.CorruptFileError(
                f"{version.path / 'report.json'}: {name} must not be {value!r:.40}"
            )


def _show(rows: list[dict[str, Any]], verify: bool) -> None:
    columns = ["version", "from", "learned", "strategy", "progress", "forgetting", "verdict"]
    made = table(*columns, *(["files"] if verify else []))
    made.columns[0].no_wrap = True
    for column in (made.columns[2], made.columns[5]):  # paths, and a number per retained text
        column.no_wrap, column.justify = False, "left"
    for row in rows:
        name = f"{row['version']} [green]current[/green]" if row["current"] else row["version"]
        if "created" not in row:
            made.add_row(name, *[""] * 5, "[red]unreadable[/red]")
            continue
        forgetting = row["forgetting_percent"] or {}
        cells = [
            name,
            row["parent"] or "-",
            escape(row["domain"] or "-"),
            (row["strategy"] or {}).get("name", "-"),
            "-" if row["after"] is None else _change(row["progress_percent"]),
            ", ".join(_change(value) for value in forgetting.values()) or "-",
            "accepted" if row["accepted"] else "[yellow]rejected[/yellow]",
        ]
        made.add_row(*cells, *(["[green]intact[/green]"] if verify else []))
    show(made)
    for row in rows:
        if row["problem"]:
            out.print(f"[red]{row['version']}:[/red] {escape(row['problem'])}", soft_wrap=True)
        for reason in row.get("reasons") or []:
            out.print(f"[dim]{row['version']} rejected: {escape(reason)}[/dim]", soft_wrap=True)


def _change(value: float | None) -> str:
    """Of what was measured: null stands for what JSON cannot write."""
    return "not finite" if value is None else percent(value / 100)
