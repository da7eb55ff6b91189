"""One seed for every draw: ``EVERGRAD_SEED`` sets it, and a failure prints it."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from op_support import SEED


def pytest_report_header() -> str:
    return f"EVERGRAD_SEED={SEED}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections.append(("seed", f"EVERGRAD_SEED={SEED}"))
    return report
