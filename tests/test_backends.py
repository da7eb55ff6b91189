"""Every backend has the same functions and parameters, and the registry tells who serves."""

from __future__ import annotations

import importlib
import inspect
import re
from types import ModuleType
from typing import Any

import pytest

import evergrad
from evergrad import backends, ops
from evergrad.bench import cases
from op_support import python, succeeds

FAMILIES = (
    "activation",
    "attention",
    "dropout",
    "embedding",
    "gated",
    "gemm",
    "linear_cross_entropy",
    "loss",
    "norm",
    "optimizer",
    "pooling",
    "position",
    "quant",
    "rotary",
    "sampling",
    "softmax",
)

# Public without being ops: memory, a weight's layout, and the constants that rotary takes.
NOT_OPS = {
    "PackedWeight",
    "QuantizedWeight",
    "empty",
    "pack_weight",
    "quantize",
    "rotary_table",
    "trim",
    "zero_",
}
# Backends have these as one function, the activation being an argument of it.
ONE_FUNCTION = {"geglu": "gated", "swiglu": "gated"}
PYTHON = [name for name in evergrad.available_backends() if name != "native"]
native = pytest.mark.skipif("native" not in evergrad.available_backends(), reason="not built")


def module(backend: str, family: str) -> ModuleType:
    return importlib.import_module(f"evergrad.backends.{backend}.{family}")


def signature(function: object) -> list[str]:
    """Parameter names in order; no defaults, for the public functions have them."""
    parameters = inspect.signature(getattr(function, "py_func", function)).parameters.values()
    assert all(p.default is p.empty for p in parameters), f"{function} has defaults"
    return [p.name for p in parameters]


def functions(family: str) -> dict[str, Any]:
    """The ops that the reference defines in this file (an import may be named like one)."""
    of = module("reference", family)
    return {
        name: value
        for name, value in vars(of).items()
        if name in backends.OPS and value.__module__ == of.__name__
    }


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", PYTHON)
def test_same_names_and_parameters(backend: str, family: str) -> None:
    for name, function in functions(family).items():
        assert signature(getattr(module(backend, family), name)) == signature(function), name


@native
@pytest.mark.parametrize("family", FAMILIES)
def test_native_has_the_parameters_too(family: str) -> None:
    """pybind11 states them in the docstring."""
    from evergrad import _native

    for name, function in functions(family).items():
        stated = re.search(rf"{name}\((.*?)\) ->", getattr(_native, name).__doc__, re.DOTALL)
        assert stated, name
        assert re.findall(r"(\w+): ", stated[1]) == signature(function), name


def test_families_cover_the_registry() -> None:
    found = {name for family in FAMILIES for name in functions(family)}
    assert found == set(backends.OPS)


def test_every_public_op_is_in_the_table() -> None:
    described = {op.name for op in cases.OPS}
    described |= {f"{op.name}_backward" for op in cases.OPS if op.grads}
    assert described == set(ops.__all__) - NOT_OPS


def test_files_are_named_alike() -> None:
    for op in cases.OPS:
        assert op.family in FAMILIES
        assert ONE_FUNCTION.get(op.name, op.name) in functions(op.family)


@pytest.mark.parametrize("op", cases.OPS, ids=lambda op: op.label)
def test_the_table_describes_every_array(op: cases.Op) -> None:
    """An array argument without a symbolic shape would escape the bad-input tests."""
    described = {name for entry in cases.OPS if entry.name == op.name for name in entry.shapes}
    for function in [op.forward, *([op.backward] if op.grads else [])]:
        for name, parameter in inspect.signature(function).parameters.items():
            if "np.ndarray" in str(parameter.annotation) and name != "dout":
                assert name in described, f"{function.__name__}: {name}"


@pytest.mark.parametrize("op", cases.OPS, ids=lambda op: op.label)
def test_contract_of_names(op: cases.Op) -> None:
    """The cotangent first, gradients named after their inputs, buffers by keyword."""
    if not op.grads:
        return
    parameters = list(inspect.signature(op.backward).parameters.values())
    assert parameters[0].name == "dout"
    for name in op.grads.values():
        keyword = inspect.signature(op.backward).parameters.get(name)
        assert keyword is None or keyword.kind is keyword.KEYWORD_ONLY


class TestRegistry:
    @pytest.mark.parametrize("backend", evergrad.available_backends())
    def test_use_backend(self, backend: str) -> None:
        before = evergrad.show_config()["backend"]
        with evergrad.use_backend(backend):
            config = evergrad.show_config()
            assert config["backend"] == backend
            assert set(config["ops"].values()) == {backend}, "nothing falls back in silence"
        assert evergrad.show_config()["backend"] == before

    def test_back_after_an_error(self) -> None:
        before = evergrad.show_config()["backend"]
        with pytest.raises(KeyError), evergrad.use_backend("reference"):
            raise KeyError
        assert evergrad.show_config()["backend"] == before

    def test_unknown(self) -> None:
        with pytest.raises(ValueError, match=r"backend: expected one of .*, got 'cuda'"):
            evergrad.use_backend("cuda")

    @pytest.mark.parametrize("backend", evergrad.available_backends())
    def test_environment_chooses(self, backend: str) -> None:
        code = "import evergrad; print(evergrad.show_config()['backend'])"
        assert succeeds(code, EVERGRAD_BACKEND=backend) == backend

    def test_environment_is_checked(self) -> None:
        child = python("import evergrad", EVERGRAD_BACKEND="cuda")
        assert child.returncode != 0
        expected = "EVERGRAD_BACKEND: expected one of native, numba, reference, got 'cuda'"
        assert expected in child.stderr
