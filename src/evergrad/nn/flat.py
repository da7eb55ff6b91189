"""Flat buffers: all trainable parameters in one array, all their gradients in another."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._buffer import empty
from .parameter import Parameter

if TYPE_CHECKING:
    from .module import Module

__all__ = ["FlatParameters", "flatten_"]


class FlatParameters:
    """The two flat buffers of a module; made by `flatten_`.

    A copy, or what was pickled, has buffers of its own, and its parameters lie in them.

    Attributes
    ----------
    data, grad : ndarray
        1-D, of equal length: values and gradients of all trainable parameters. One call clips,
        one steps, one reduces, one saves.
    decay : int
        Weight decay applies to the first `decay` elements.

    Raises
    ------
    RuntimeError
        By `data` and `grad`, once a parameter lies elsewhere: frozen, in few bits, assigned, or
        flattened with another module. A step over these buffers would not reach it.
    """

    __slots__ = ("_data", "_grad", "_views", "decay")

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self._lay_out(list(parameters))

    def _lay_out(self, parameters: list[Parameter]) -> None:
        dtypes = {parameter.data.dtype for parameter in parameters} or {np.dtype(np.float32)}
        if len(dtypes) > 1:
            raise TypeError(f"parameters must share one dtype, got {sorted(map(str, dtypes))}")
        dtype = dtypes.pop()
        matrices = [parameter for parameter in parameters if parameter.data.ndim >= 2]
        vectors = [parameter for parameter in parameters if parameter.data.ndim < 2]
        size = sum(parameter.data.size for parameter in parameters)
        self.decay = sum(parameter.data.size for parameter in matrices)
        self._data, self._grad = empty((size,), dtype), empty((size,), dtype)
        #: Each parameter, and where its values and gradient were laid.
        self._views: list[tuple[Parameter, npt.NDArray[Any], npt.NDArray[Any]]] | None = []
        start = 0
        for parameter in matrices + vectors:
            shape = parameter.data.shape
            stop = start + math.prod(shape)
            values = self._data[start:stop].reshape(shape)
            gradient = self._grad[start:stop].reshape(shape)
            values[...], gradient[...] = parameter.data, parameter.grad
            parameter.data, parameter.grad = values, gradient
            self._views.append((parameter, values, gradient))
            start = stop

    def __copy__(self) -> FlatParameters:
        return self  # the parameters are the same, and lie here

    def __getstate__(self) -> tuple[bool, list[Parameter]]:
        whole = self._is_whole()
        return whole, [parameter for parameter, _, _ in self._views or []] if whole else []

    def __setstate__(self, state: tuple[bool, list[Parameter]]) -> None:
        whole, parameters = state
        self._lay_out(parameters)
        if not whole:
            self.release()

    @property
    def data(self) -> npt.NDArray[Any]:
        self._check()
        return self._data

    @property
    def grad(self) -> npt.NDArray[Any]:
        self._check()
        return self._grad

    def release(self) -> None:
        """Let go of the buffers: the parameters have moved elsewhere."""
        self._data = self._grad = self._data[:0]
        self._views = None

    def _is_whole(self) -> bool:
        if self._views is None:
            return False
        for parameter, values, gradient in self._views:
            if parameter.data is not values or parameter.grad is not gradient:
                return False
        return True

    def _check(self) -> None:
        if not self._is_whole():
            raise RuntimeError(
                "these flat buffers are gone: a parameter was frozen, quantized, assigned or "
                "flattened anew; call nn.flatten_(model), and make a new optimizer"
            )


def flatten_(module: Module) -> FlatParameters:
    """Move a module's trainable parameters and gradients into two flat buffers, in place.

    Each parameter's `data` and `grad` become views into them. Matrices come first, then vectors
    (biases, norms), each in definition order: weight decay is for the former alone, so it covers
    one leading stretch. Frozen parameters keep memory of their own. Values and accumulated
    gradients stay as they are.

    Parameters
    ----------
    module : Module
        Its `flat` attribute is set; buffers of an earlier call, here or below, are released, and
        so is the use of any that shares a parameter.

    Returns
    -------
    FlatParameters
        `module.flat`.

    Raises
    ------
    TypeError
        When trainable parameters differ in dtype.

    Examples
    --------
    >>> from evergrad import nn
    >>> layer = nn.Linear(2, 3)
    >>> flat = nn.flatten_(layer)
    >>> flat.data.size, flat.decay
    (9, 6)
    >>> flat.data[:] = 0
    >>> layer.weight.data.any()
    np.False_
    """
    parameters = list(module.parameters())
    flat = FlatParameters(parameter for parameter in parameters if parameter.requires_grad)
    for _, part in module.named_modules():
        if part._flat is not None:
            part._flat.release()
            part._flat = None
    for parameter in parameters:
        # A view would keep a whole former flat buffer alive.
        values = parameter.data
        if not parameter.requires_grad and getattr(values, "base", None) is not None:
            parameter.data = values.copy()
    module._flat = flat
    return flat
