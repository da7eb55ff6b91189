"""Optimizer: what all update rules over flat buffers share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .. import ops
from ..ops._check import shown

__all__ = ["Optimizer"]


class FlatBuffers(Protocol):
    """What `nn.flatten_` makes: all parameters in one array, all their gradients in another."""

    decay: int  # weight decay applies to the first `decay` elements

    @property
    def data(self) -> npt.NDArray[Any]: ...
    @property
    def grad(self) -> npt.NDArray[Any]: ...


class Optimizer:
    """Base of the optimizers.

    An optimizer sees no layers, only the two flat buffers: one call of a kernel updates the
    stretch that weight decay applies to, a second one the rest.

    Parameters
    ----------
    flat : FlatBuffers
        `model.flat`.
    lr : float
        Learning rate. A plain attribute: a schedule assigns it before each step.
    weight_decay : float
        Applied to `flat.data[:flat.decay]`, the matrices, alone.

    Attributes
    ----------
    steps : int
        Updates made.
    buffers : dict of str to ndarray
        State of the rule, arrays of `flat.data`'s length.

    Raises
    ------
    TypeError
        When flat is a model, its parameters, or anything else than flat buffers.
    ValueError
        When a setting is no number in its range: `lr`, `weight_decay` and `eps` are at least 0 and
        finite, decay rates lie in [0, 1).

    Examples
    --------
    >>> from evergrad import nn, optim
    >>> layer = nn.Linear(2, 3)
    >>> optimizer = optim.Adam(nn.flatten_(layer))
    >>> optimizer.step()
    >>> optimizer.state_dict()["steps"], optimizer.state_dict()["exp_avg"].shape
    (1, (9,))
    """

    def __init__(self, flat: FlatBuffers, lr: float, weight_decay: float) -> None:
        if not hasattr(flat, "decay"):
            raise TypeError(
                "flat: expected the flat buffers of a model (model.flat, or nn.flatten_(model)), "
                f"got {type(flat).__name__}"
            )
        self.flat = flat
        self.lr = number("lr", lr, 0.0)
        self.weight_decay = number("weight_decay", weight_decay, 0.0)
        self.steps = 0
        self.buffers: dict[str, npt.NDArray[Any]] = {}

    def step(self, grad_scale: float = 1.0) -> None:
        """Update all parameters from the gradients.

        Parameters
        ----------
        grad_scale : float, default 1.0
            The gradients are multiplied by it first: what clipping asks for, without a pass of
            its own.

        Raises
        ------
        ValueError
            When a setting left its range, or grad_scale is not finite; the step is not counted.
        """
        number("lr", self.lr, 0.0)
        number("weight_decay", self.weight_decay, 0.0)
        number("grad_scale", grad_scale)
        data, grad = self.flat.data, self.flat.grad
        for part, weight_decay in self._parts():
            buffers = {name: buffer[part] for name, buffer in self.buffers.items()}
            self._update(data[part], grad[part], buffers, weight_decay, grad_scale)
        self.steps += 1

    def zero_grad(self) -> None:
        """Set all gradients to 0."""
        ops.zero_(self.flat.grad)

    def state_dict(self) -> dict[str, Any]:
        """Return steps, learning rate, and the buffers (the memory itself: copy what you keep)."""
        return {"steps": self.steps, "lr": self.lr, **self.buffers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of an optimizer of the same kind over the same parameters.

        Raises
        ------
        ValueError
            When entries are missing or unknown, a buffer has another length or no real numbers,
            steps is no count, or lr no learning rate. The optimizer is as before.
        """
        expected = self.state_dict()
        if state.keys() != expected.keys():
            raise ValueError(
                f"state of {type(self).__name__} has entries {sorted(expected)}, "
                f"got {sorted(state)}"
            )
        for name, buffer in self.buffers.items():
            value = np.asarray(state[name])
            if value.shape != buffer.shape:
                raise ValueError(f"{name}: got shape {value.shape}, expected {buffer.shape}")
            if not np.can_cast(value.dtype, buffer.dtype, "same_kind"):
                raise ValueError(f"{name}: got {value.dtype}, expected {buffer.dtype}")
        steps = np.asarray(state["steps"])
        if steps.shape != () or steps.dtype.kind not in "iu" or steps < 0:
            raise ValueError(
                f"steps: expected an integer of at least 0, got {shown(state['steps'])}"
            )
        lr = number("lr", state["lr"], 0.0)
        for name, buffer in self.buffers.items():
            buffer[...] = state[name]
        self.steps, self.lr = int(steps), lr

    def _parts(self) -> Iterator[tuple[slice, float]]:
        size, decay = self.flat.data.size, self.flat.decay
        if self.weight_decay == 0 or decay == size:
            yield slice(0, size), self.weight_decay
        else:
            yield slice(0, decay), self.weight_decay
            yield slice(decay, size), 0.0

    def _update(
        self,
        data: npt.NDArray[Any],
        grad: npt.NDArray[Any],
        buffers: dict[str, npt.NDArray[Any]],
        weight_decay: float,
        grad_scale: float,
    ) -> None:
        raise NotImplementedError


def number(name: str, value: Any, least: float = -math.inf, limit: float = math.inf) -> float:
    """A finite number in [least, limit)."""
    try:
        checked = float(value)
    except (TypeError, ValueError, OverflowError):
        checked = math.nan
    if not (math.isfinite(checked) and least <= checked < limit):
        wanted = "a finite number"
        if limit < math.inf:
            wanted = f"a number in [{least:g}, {limit:g})"
        elif least > -math.inf:
            wanted += f" of at least {least:g}"
        raise ValueError(f"{name}: expected {wanted}, got {shown(value)}")
    return checked
