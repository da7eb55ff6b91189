"""What must be seen to hold, as numbers: each bar, what it asks for, and what was measured.

The rows of the results page that say how far the kernels have come. A bar on something that was
not measured in this run, or that nothing measures yet, says so rather than passing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evergrad.bench.cases import ATTENTION, MATMUL
from evergrad.bench.peers import OTHERS
from evergrad.bench.run import Result
from evergrad.bench.run_steps import COMPARED, StepResult
from evergrad.bench.steps import LAST_LAYER


@dataclass(frozen=True)
class Measured:
    """All that one run found out."""

    ops: Sequence[Result]
    steps: Mapping[str, StepResult]

    def calls(self, op: str, **dims: Any) -> list[Result]:
        """Those of an op at exactly these dimensions; without any, at all that were measured."""
        return [r for r in self.ops if r.op == op and (not dims or r.dims == dims)]

    def over_best(self, op: str, backward: bool = True, **dims: Any) -> float | None:
        """Time of the fastest of the others over ours; forward and backward together.

        None unless all of them were measured: over NumPy alone a bar would hold that does not.
        """
        calls = [r for r in self.calls(op, **dims) if backward or not r.backward]
        if len(calls) != 1 + backward:
            return None
        ours = sum(r.timings[r.ours].median for r in calls)
        if not all(peer in r.timings for peer in OTHERS for r in calls):
            return None
        return min(sum(r.timings[peer].median for r in calls) / ours for peer in OTHERS)

    def step(self, name: str, value: Callable[[StepResult], float | None]) -> float | None:
        return value(self.steps[name]) if name in self.steps else None


@dataclass(frozen=True)
class Bar:
    """Something that must be at least (or at most) so much; `aim` is what to hope for."""

    what: str
    value: Callable[[Measured], float | None]
    bar: float
    aim: float | None = None
    at_most: bool = False
    unit: str = "x"

    def holds(self, measured: Measured) -> bool | None:
        value = self.value(measured)
        if value is None or math.isnan(value):
            return None
        return value <= self.bar if self.at_most else value >= self.bar


def geometric_mean(ratios: Sequence[float]) -> float | None:
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None


def products(measured: Measured) -> list[float]:
    """Ratios to the best peer of every single product; none unless all were measured in all."""
    calls = [r for r in measured.calls("matmul") if not r.backward]
    measured_all = [r.best for r in calls if r.best is not None and {*OTHERS} <= {*r.timings}]
    complete = len(measured_all) == len([*MATMUL.bench, *MATMUL.bench_forward])
    return measured_all if complete else []


def smallest(values: Sequence[float | None]) -> float | None:
    """The worst of several; None where one is missing."""
    present = [value for value in values if value is not None]
    return min(present) if len(present) == len(values) else None


def _decoding(measured: Measured) -> float | None:
    calls = [
        r
        for r in measured.calls("matmul")
        if (r.dims["m"], r.dims["k"], r.dims["n"]) == (1, 576, 1536) and not r.backward
    ]
    ratios = [ratio for r in calls if (ratio := r.speedup("torch")) is not None]
    return min(ratios, default=None)


def _square(measured: Measured) -> float | None:
    calls = [r for r in measured.calls("matmul", m=1024, k=1024, n=1024) if not r.backward]
    shares = [r.limits and r.flops / r.limits.flops / r.timings[r.ours].median for r in calls]
    return max((share for share in shares if share), default=None)


def _causal(*shape: int) -> Callable[[Measured], float | None]:
    batch, heads, tokens, head_dim = shape
    dims: dict[str, Any] = dict(
        batch=batch, tokens=(tokens, tokens), heads=(heads, heads), head_dim=head_dim,
        is_causal=True,
    )  # fmt: skip
    return lambda m: m.over_best("attention", **dims)


def _not_causal(measured: Measured) -> float | None:
    wanted = [dims for dims in ATTENTION.bench if not dims.get("is_causal")]
    return smallest([measured.over_best("attention", **dims) for dims in wanted])


def _linear_gelu(measured: Measured) -> float | None:
    dims: dict[str, Any] = dict(rows=(1024,), inputs=768, outputs=3072)
    kinds = ("gelu", "gelu_tanh")
    return smallest([measured.over_best("linear", False, **dims, activation=a) for a in kinds])


def _tiny_call(measured: Measured) -> float | None:
    calls = [r for r in measured.calls("softmax", shape=(8,)) if not r.backward]
    return calls[0].timings[calls[0].ours].median * 1e6 if calls else None


def _over_torch(name: str) -> Callable[[Measured], float | None]:
    return lambda m: m.step(name, lambda s: s.speedup("torch"))


def _memory(name: str) -> Callable[[Measured], float | None]:
    return lambda m: m.step(name, lambda s: (pair := s.memory("torch")) and pair[0])


def _difference(name: str) -> Callable[[Measured], float | None]:
    def enough(step: StepResult) -> float | None:
        largest, compared = step.difference("torch") or (None, 0)
        return largest if compared == COMPARED else None

    return lambda m: m.step(name, enough)


def _scaling(name: str) -> Callable[[Measured], float | None]:
    return lambda m: m.step(name, lambda s: s.courses[s.ours].scaling)


def _last_layer_memory(step: StepResult) -> float | None:
    """Beside the inputs and the gradients, which both hold."""
    if "torch" not in step.courses:
        return None
    ours, torch = (step.courses[c].own_bytes - LAST_LAYER.held_bytes for c in (step.ours, "torch"))
    return ours / max(torch, 1)


TRAINED = {  # bar and aim of the speed of a training step
    "tiny": (1.6, 2.0),
    "char": (1.15, 1.25),
    "mid": (1.15, 1.25),
    "gpt2-T64": (1.3, 1.5),
    "gpt2-T256": (1.2, 1.35),
}


def _over(name: str, *peers: str) -> Callable[[Measured], float | None]:
    """Over the fastest of these, if all of them were measured."""
    return lambda m: m.step(name, lambda s: smallest([s.speedup(peer) for peer in peers]))


def _program_memory(name: str, peer: str) -> Callable[[Measured], float | None]:
    def ratio(step: StepResult) -> float | None:
        if peer not in step.courses:
            return None
        return step.courses[step.ours].given_median / step.courses[peer].given_median

    return lambda m: m.step(name, ratio)


def _both_ways(op: str, **dims: Any) -> Callable[[Measured], float | None]:
    return lambda m: m.over_best(op, **dims)


def bars() -> Iterator[Bar]:
    wide = dict(rows=(2048,), normalized_shape=(768,))
    elements = dict(shape=(2048, 3072))
    yield Bar("product, worst shape", lambda m: min(products(m), default=None), 0.90)
    yield Bar(
        "product, geometric mean over shapes", lambda m: geometric_mean(products(m)), 0.97, 1.05
    )
    yield Bar("product (1, 576, 1536) over PyTorch", _decoding, 1.5)
    yield Bar("product 1024^3, share of the peak", _square, 0.92, 0.95, unit="")
    yield Bar("linear + bias + GELU (1024, 768 to 3072), forward", _linear_gelu, 1.15, 1.3)
    yield Bar("feed-forward block, both ways", _over_torch("feed-forward"), 1.15, 1.25)
    yield Bar("attention causal (8, 6, 256, 64)", _causal(8, 6, 256, 64), 1.8, 2.4)
    yield Bar("attention causal (16, 12, 128, 32)", _causal(16, 12, 128, 32), 2.0, 3.0)
    yield Bar("attention causal (2, 12, 1024, 64)", _causal(2, 12, 1024, 64), 1.4, 1.7)
    yield Bar("attention causal (1, 8, 4096, 64)", _causal(1, 8, 4096, 64), 1.1, 1.3)
    yield Bar("attention not causal, worst shape", _not_causal, 1.0)
    yield Bar("attention packed, over padded PyTorch", _over_torch("packed"), 1.5)
    yield Bar("layer_norm 2048x768", _both_ways("layer_norm", **wide), 1.5, 2.0)
    yield Bar("rms_norm 2048x768", _both_ways("rms_norm", **wide), 1.5, 2.0)
    yield Bar("softmax 24576x256", _both_ways("softmax", shape=(24576, 256)), 1.5, 2.0)
    yield Bar("silu 2048x3072", _both_ways("silu", **elements), 1.5, 2.0)
    yield Bar("gelu 2048x3072", _both_ways("gelu", **elements, approximate="none"), 1.5, 2.0)
    yield Bar("gelu tanh 2048x3072", _both_ways("gelu", **elements, approximate="tanh"), 3.0, 4.0)
    yield Bar(
        "cross-entropy 256x50257", _both_ways("cross_entropy", rows=(256,), classes=50257), 5.0, 8.0
    )
    name = LAST_LAYER.name
    yield Bar("linear + cross-entropy (1024, 576 to 49152)", _over_torch(name), 1.2)
    yield Bar(
        "the same, peak memory beside inputs and gradients",
        lambda m: m.step(LAST_LAYER.name, _last_layer_memory),
        0.15,
        at_most=True,
    )
    yield Bar(
        "AdamW on 124 M parameters",
        lambda m: m.over_best("adam_step", False, n=124_439_808, weight_decay=0.1),
        1.0,
        1.2,
    )
    yield Bar("text classifier, whole step", _over_torch("classifier"), 5.0, 10.0)
    for name, (bar, aim) in TRAINED.items():
        yield Bar(f"training {name}, time", _over_torch(name), bar, aim)
    for name in TRAINED:
        yield Bar(f"training {name}, peak memory", _memory(name), 0.6, at_most=True)
    for name in TRAINED:
        yield Bar(
            f"training {name}, losses over 20 steps", _difference(name), 1e-4, at_most=True, unit=""
        )
    for name in TRAINED:
        yield Bar(f"training {name}, from one thread to two", _scaling(name), 1.85)
    yield Bar("SmolLM2, prompt of 512, over llama.cpp", _over("prefill", "llama.cpp"), 2.2, 2.7)
    yield Bar("SmolLM2, token by token, over llama.cpp", _over("decode", "llama.cpp"), 1.15, 1.6)
    yield Bar(
        "SmolLM2, answer to a prompt of 512, memory over llama.cpp's",
        _program_memory("answer", "llama.cpp"),
        1.0,
        at_most=True,
    )
    padding = ("torch", "onnxruntime")
    yield Bar("MiniLM, 512 film reviews as they come", _over("embed", *padding), 1.9, 2.3)
    yield Bar("MiniLM, 512 film reviews sorted", _over("embed-sorted", *padding), 1.2, 1.4)
    for peer, who in (("torch", "transformers"), ("llama.cpp", "llama.cpp")):
        yield Bar(f"first token of a cold process, over {who}", _over("first-token", peer), 2.0)
    yield Bar(
        "softmax of 8 numbers, from Python and back", _tiny_call, 2.0, at_most=True, unit=" us"
    )
