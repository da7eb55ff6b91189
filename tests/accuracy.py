"""docs/accuracy.md: the errors of csrc/simd/math.h on every ISA that runs here, native or emulated.

python tests/accuracy.py            measures, minutes, and writes the page
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "accuracy.md"
STRIDE = 101

FUNCTIONS = {
    "exp": "`exp(x)`",
    "exp2": "`exp2(x)`",
    "log": "`log(x)`",
    "log1p": "`log1p(x)`",
    "sigmoid": "`sigmoid(x)`",
    "tanh": "`tanh(x)`",
    "cdf": "standard normal, `cdf(x)`",
    "pdf": "standard normal, `pdf(x)`",
}
DOMAIN = {"log": 0.0, "log1p": -1.0}  # where it begins
HOW = {
    "native": "on the processor itself",
    "qemu": "cross-compiled, under qemu",
    "emulated": "its source on AVX2, through SIMDe",
}


TEXT = """\
# Accuracy of the vector functions

Written by `make accuracy`, not by hand. Every kernel takes its elementary functions from
[csrc/simd/math.h](../csrc/simd/math.h), which has one formula for all ISAs.

A cell: the largest error against float64 in units in the last place of the exact result, *of* the
bound that is stated and tested, and the argument where it was found. Every {stride}st float32 was
tried. An exact result that is subnormal may come out as anything from 0 to the smallest normal
number, of the right sign; zeros, infinities, NaN and overflow are checked as well.

{table}

Scalar code has no fused multiply-add. Without it the square in the exponent of the normal
distribution is rounded, and the relative error in the far tails grows with it: hence its ranges.
The density becomes 0 where the distribution's tail is no normal number any more, from 12.95 on.

Where measured:

{where}

`csrc/tests/simd_check.cpp` measures, and fails when a bound does not hold:
`make -C csrc/tests check-native check-neon check-avx512-emulated`.
"""


class Error(NamedTuple):
    """The largest error of a function on an ISA, in ULP, and what is stated of it."""

    ulp: float
    at: float
    stated: float
    low: float
    high: float


MEASURED = re.compile(
    r"(?P<name>\w+) +(?P<ulp>\S+) ULP at (?P<at>\S+), stated (?P<stated>\S+),"
    r" x in \[(?P<low>\S+), (?P<high>\S+)\]"
)


def parsed(lines: Iterable[str]) -> dict[tuple[str, str], dict[str, Error]]:
    """By ISA and how it ran: what simd_check found of each function."""
    found: dict[tuple[str, str], dict[str, Error]] = {}
    errors: dict[str, Error] = {}
    for line in lines:
        if match := MEASURED.match(line):
            name, *numbers = match.groups()
            errors[name] = Error(*map(float, numbers))
        elif len(words := line.split()) == 2 and words[1] in HOW:
            errors = found[words[0], words[1]] = {}
    return found


def cell(name: str, error: Error) -> str:
    bounds = [f"x ≥ {error.low:g}"] if error.low > DOMAIN.get(name, -math.inf) else []
    bounds += [f"x ≤ {error.high:g}"] if error.high < math.inf else []
    within = f" ({' and '.join(bounds)})" if bounds else ""
    return f"{error.ulp:.2f} of {error.stated:.1f}, at {error.at:.6g}{within}"


def page(found: dict[tuple[str, str], dict[str, Error]]) -> str:
    rows = [
        "| | " + " | ".join(isa for isa, _ in found) + " |",
        "|---|" + "---|" * len(found),
        *(
            f"| {text} | {' | '.join(cell(name, e[name]) for e in found.values())} |"
            for name, text in FUNCTIONS.items()
        ),
    ]
    where = [f"- {isa}: {HOW[how]}" for isa, how in found]
    return TEXT.format(stride=STRIDE, table="\n".join(rows), where="\n".join(where))


def main() -> int:
    command = ["make", "-s", "-C", str(ROOT / "csrc" / "tests"), "accuracy", f"STRIDE={STRIDE}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    if done.returncode != 0:
        return done.returncode
    PAGE.write_text(page(parsed(done.stdout.splitlines())), encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
