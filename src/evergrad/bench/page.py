"""The results page: one run, written down whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from evergrad import io
from evergrad.bench import report, roofline
from evergrad.bench.bars import Measured
from evergrad.bench.measure import Limits
from evergrad.bench.run import Result
from evergrad.bench.run_steps import StepResult
from evergrad.bench.steps import INFERENCE, STEPS

PAGE, PICTURE = "RESULTS.md", "roofline.png"


def write(
    folder: Path,
    measured: Measured,
    limits: Limits,
    facts: Mapping[str, str],
    peers: Sequence[str],
    command: str,
) -> list[Path]:
    """Write the page and its picture into a folder; returns their paths.

    Whatever happens, each is whole, or what it was before. A link stays one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page, picture = folder / PAGE, folder / PICTURE
    threads = f"{limits.threads} thread{'s' * (limits.threads > 1)}"
    roofline.draw(measured.ops, f"evergrad, {threads}, {facts['processor']}", picture)
    facts = {
        **facts,
        "limits": f"{limits.flops / 1e9:.0f} Gflop/s, {limits.bandwidth / 1e9:.1f} GB/s"
        f" with {threads}",
    }
    if limits.round_trip:
        facts["cores"] = (
            f"a cache line from one to the other and back took {limits.round_trip * 1e9:.0f} ns"
            " as the run began"
        )
    steps = list(measured.steps.values())
    parts = [
        "# Results",
        f"Measured on {date.today()} by `{command}` in one run, which also wrote this page."
        " [How](README.md).",
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
        "## What must hold",
        report.bar_table(measured).markdown(),
        "## Training steps",
        report.step_table([r for r in steps if r.name in STEPS], "").markdown(),
        *_pretrained([r for r in steps if r.name in INFERENCE]),
        "\n".join(f"- {line}" for line in report.left_out(steps)),
        "## Ops, by family",
        report.family_table(measured.ops).markdown(),
        "## Roofline",
        f"![What each op reaches beneath the limits of the machine]({PICTURE})",
        "## Ops",
        *_ops(measured.ops, peers),
    ]
    io.write_atomic(
        page.resolve(),
        ("\n\n".join(part.strip() for part in parts if part.strip()) + "\n").encode(),
    )
    return [page, picture]


def _pretrained(results: list[StepResult]) -> list[str]:
    return ["## Pretrained models", report.work_table(results, "").markdown()] if results else []


def _ops(results: Sequence[Result], peers: Sequence[str]) -> list[str]:
    parts: list[str] = []
    for family in dict.fromkeys(r.family for r in results):
        grid = report.op_table([r for r in results if r.family == family], "", peers)
        if parts:
            grid.note = ""  # once is enough
        parts += [f"### {family}", grid.markdown()]
    return parts
