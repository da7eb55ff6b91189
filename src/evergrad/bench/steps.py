"""The tables of steps: training steps and the larger pieces of one, and pretrained models at work.

What an op at a time cannot show: what is left between the kernels, how much memory a step needs,
and whether training goes the way that it goes in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from evergrad.bench.classifier import TextClassifier
from evergrad.bench.inference import Decode, Embedding, Prefill
from evergrad.bench.measure import StepEffort
from evergrad.bench.pieces import FeedForward, LinearCrossEntropy, PackedAttention
from evergrad.bench.programs import Program
from evergrad.bench.training import Training


class Step(Protocol):
    """Something to do again and again, on both sides from the same numbers."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> str: ...
    @property
    def flops(self) -> float: ...  # useful ones, of one call
    def evergrad_step(self) -> Callable[[], float]: ...  # a call gives a number to compare
    def torch_step(self) -> Callable[[], float]: ...


class Work(Protocol):
    """What is done with a pretrained model; sides of peers as a step has them, where they can."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> str: ...
    @property
    def unit(self) -> str: ...  # of what is done
    @property
    def amount(self) -> int: ...  # how much of it in a call
    @property
    def effort(self) -> StepEffort: ...
    @property
    def packages(self) -> tuple[str, ...]: ...  # with models and data
    def evergrad_step(self) -> Callable[[], float]: ...


LAST_LAYER = LinearCrossEntropy("linear-cross-entropy", rows=1024, dim=576, classes=49152)

STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Training("tiny", vocab=65, tokens=64, dim=128, heads=4, layers=4, batch_size=16),
        Training("char", vocab=65, tokens=256, dim=384, heads=6, layers=6, batch_size=16),
        Training("mid", vocab=8192, tokens=256, dim=512, heads=8, layers=8, batch_size=8),
        Training("gpt2-T64", vocab=50257, tokens=64, dim=768, heads=12, layers=12, batch_size=4),
        Training("gpt2-T256", vocab=50257, tokens=256, dim=768, heads=12, layers=12, batch_size=4),
        FeedForward("feed-forward", rows=1024, dim=768, hidden=3072),
        PackedAttention("packed", sequences=16, longest=256, heads=6, head_dim=64),
        LAST_LAYER,
        TextClassifier("classifier", vocab=10_000, dim=16, hidden=24, batch_size=32, tokens=50),
    )
}

INFERENCE: dict[str, Work] = {
    work.name: work
    for work in (
        Prefill("prefill", count=512),
        Decode("decode"),
        Embedding("embed", count=512, in_order=True),
        Embedding("embed-sorted", count=512, in_order=False),
        Program("first-token", prompt_tokens=16, count=1),
        Program("answer", prompt_tokens=512, count=64),
    )
}
