"""The same op with the same arguments in each peer: our backends, and PyTorch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

import evergrad
from evergrad.bench.op import Problem, call_backward, call_forward
from evergrad.bench.steps import Step, Work

#: Name of a contestant to the backend that stands for it; PyTorch is none of ours.
BACKENDS = {"native": "native", "numba": "numba", "numpy": "reference"}
PEERS = ("torch", "numba", "numpy")
#: Those that are not made of our kernels: what the best of them needs is what we are held against.
OTHERS = ("torch", "numpy")
#: Those that run whole models: the module that must be there, and the side of a step.
RUNNERS = {
    "torch": ("torch", "torch_step"),
    "llama.cpp": ("llama_cpp", "llama_step"),
    "onnxruntime": ("onnxruntime", "onnxruntime_step"),
}


def installed() -> list[str]:
    """Who can be measured here: ours first, native where it is built."""
    present = evergrad.available_backends()
    names = [name for name, backend in BACKENDS.items() if backend in present]
    return names + [n for n, (module, _) in RUNNERS.items() if importlib.util.find_spec(module)]


def can_compute(name: str, problem: Problem) -> bool:
    return name in BACKENDS or problem.op.torch is not None


def call_of(name: str, problem: Problem, backward: bool) -> Callable[[], Any]:
    """One call with everything bound. A backend of ours has to be active around it."""
    if name == "numpy" and problem.op.numpy is not None and not backward:
        return problem.op.numpy(SimpleNamespace(**problem.args))
    outputs = problem.forward()
    dout = problem.cotangent(np.random.default_rng(1), outputs) if backward else None
    if name == "torch":
        return torch_call(problem, dout)
    return call_backward(problem, outputs, dout) if backward else call_forward(problem)


def _side(name: str) -> str:
    return RUNNERS[name][1] if name in RUNNERS else "evergrad_step"


def has_side(name: str, step: Step | Work) -> bool:
    return hasattr(step, _side(name))


def step_of(name: str, step: Step | Work) -> Callable[[], float]:
    return getattr(step, _side(name))()


def set_threads(name: str, count: int) -> None:
    if name == "torch":
        import torch

        torch.set_num_threads(count)
    elif name not in RUNNERS:  # the others are told when they start
        evergrad.set_num_threads(count)


def torch_arguments(problem: Problem, recorded: bool = True) -> SimpleNamespace:
    """The arguments with arrays as tensors; if `recorded`, those with a gradient ask for it."""
    import torch

    def tensor(name: str, value: Any) -> Any:
        if not isinstance(value, np.ndarray) or name.startswith("cu_seqlens"):
            return value
        return torch.as_tensor(value).requires_grad_(recorded and name in problem.op.grads)

    return SimpleNamespace(**{name: tensor(name, value) for name, value in problem.args.items()})


def torch_call(problem: Problem, dout: Any) -> Callable[[], Any]:
    """Forward, or with `dout` backward alone.

    Forward keeps what backward needs where ours has to keep something for it; elsewhere ours is the
    same in training as without, and PyTorch does not record.
    """
    import torch

    assert problem.op.torch is not None
    tensors = torch_arguments(problem, recorded=dout is not None or bool(problem.op.keep))
    forward = problem.op.torch(torch.nn.functional, tensors)
    if dout is None:
        return forward
    out = forward()
    if isinstance(out, tuple):  # the first output is the one with a cotangent
        out = out[0]
    inputs = [getattr(tensors, name) for name in problem.op.grads]
    return partial(
        torch.autograd.grad,
        out,
        [x for x in inputs if x is not None],
        torch.as_tensor(dout, dtype=out.dtype).reshape(out.shape),
        retain_graph=True,
    )
