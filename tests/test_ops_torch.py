"""The reference in float64 against PyTorch in float64: the same functions, to the last digits."""

from __future__ import annotations

import numpy as np
import pytest

import evergrad
from evergrad.bench.op import Case, cast
from evergrad.bench.peers import torch_arguments
from op_support import SEED, cotangent, each_case

torch = pytest.importorskip("torch")


@each_case(lambda case: case.op.torch and case.op.same_numbers)
def test_values_and_gradients(case: Case) -> None:
    problem = case.problem(SEED)
    dout = cast(cotangent(case, problem), np.float64)
    problem = problem.cast(np.float64)
    with evergrad.use_backend("reference"):
        ours = problem.forward()
        grads = problem.backward(ours, dout) if case.op.grads else {}

    tensors = torch_arguments(problem)
    theirs = case.op.torch(torch.nn.functional, tensors)()
    first = theirs[0] if isinstance(theirs, tuple) else theirs
    if case.op.updates:
        for name, tensor in zip(ours, theirs, strict=False):
            agree(name, ours[name], tensor)
        return
    agree("out", ours[case.op.returns[0]], first)
    if not grads:
        return
    first.backward(torch.as_tensor(dout, dtype=torch.float64).reshape(first.shape))
    for name, grad_name in case.op.grads.items():
        tensor = getattr(tensors, name)
        if tensor is None:
            continue
        expected = tensor.grad if tensor.grad is not None else torch.zeros_like(tensor)
        if name == "x" and problem.args.get("dresidual") is not None:
            expected = expected + torch.as_tensor(problem.args["dresidual"])
        agree(grad_name, grads[grad_name], expected)


def agree(name: str, ours: object, theirs: object) -> None:
    wanted = theirs.detach().numpy()
    np.testing.assert_allclose(
        np.asarray(ours).reshape(wanted.shape), wanted, rtol=1e-9, atol=1e-12, err_msg=name
    )
