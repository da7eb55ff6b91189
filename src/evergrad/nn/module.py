"""Module: what layers and models share. Names, modes, state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .. import ops
from .flat import FlatParameters, flatten_
from .parameter import Parameter
from .random import RandomStream

__all__ = ["Module", "below"]

T = TypeVar("T")


class Module:
    """Base of layers and models.

    A module is a plain object whose attributes may be parameters, other modules, and lists of
    modules; these are found by looking, in the order in which they were assigned. Calling it
    returns the output and a function for the way back:

        out, backward = layer(x)      # forward
        dx = backward(dout)           # adds to every Parameter.grad; once per forward

    Layers take `need_dx=False` where the input needs no gradient; backward then returns None.

    Attributes
    ----------
    training : bool
        Dropout drops in training mode only. Set by `train` and `eval`.
    flat : FlatParameters
        The flat buffers; `flatten_` makes them, and so do `freeze` and every model with weights of
        its own. An AttributeError before that.

    Examples
    --------
    >>> class Scale(Module):
    ...     def __init__(self):
    ...         self.weight = Parameter([1.0, 2.0])
    ...     def __call__(self, x):
    ...         def backward(dout):
    ...             self.weight.grad += (dout * x).sum(0)
    ...             return dout * self.weight.data
    ...         return x * self.weight.data, backward
    >>> scale = Scale()
    >>> out, backward = scale(np.ones((3, 2), np.float32))
    >>> dx = backward(np.ones((3, 2), np.float32))
    >>> dict(scale.named_parameters())["weight"].grad
    array([3., 3.], dtype=float32)
    """

    training: bool = True
    _flat: FlatParameters | None = None

    @property
    def flat(self) -> FlatParameters:
        if self._flat is None:
            raise AttributeError(  # hasattr and inspect pass over nothing else
                f"{type(self).__name__} has no flat buffers: call nn.flatten_ on the model first"
            )
        return self._flat

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """Yield this module (under the name "") and all below it, each once."""
        return _walk(self, Module)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield dotted names and parameters in definition order; a shared one only once."""
        return _walk(self, Parameter)

    def parameters(self) -> Iterator[Parameter]:
        """Yield the parameters in definition order."""
        return (parameter for _, parameter in self.named_parameters())

    @property
    def trainable(self) -> bool:
        """Whether any parameter of this module is to be learned."""
        return any(isinstance(x, Parameter) and x.requires_grad for x in below(self))

    def train(self, mode: bool = True) -> None:
        """Switch this module and all below it to training mode."""
        for _, module in self.named_modules():
            module.training = mode

    def eval(self) -> None:
        """Switch this module and all below it to evaluation mode."""
        self.train(False)

    def freeze(self, *prefixes: str) -> None:
        """Stop learning the named parts, and lay the flat buffers out anew.

        Frozen parameters get no gradients and cost no backward work. Optimizers made before
        hold buffers that are gone: make a new one.

        Parameters
        ----------
        *prefixes : str
            Dotted names of parameters or modules; none at all means everything.

        Raises
        ------
        ValueError
            When a prefix names nothing.

        Examples
        --------
        >>> from evergrad import nn
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> net.freeze("layers.0")
        >>> net.flat.data.size
        4
        """
        self._set_requires_grad(prefixes, False)

    def unfreeze(self, *prefixes: str) -> None:
        """Learn the named parts again; the counterpart of `freeze`."""
        self._set_requires_grad(prefixes, True)

    def _set_requires_grad(self, prefixes: tuple[str, ...], value: bool) -> None:
        parameters = dict(self.named_parameters())
        chosen = set() if prefixes else set(parameters)
        for prefix in prefixes:
            names = {name for name in parameters if f"{name}.".startswith(f"{prefix}.")}
            if not names:
                raise ValueError(f"{prefix!r} names no parameter of {type(self).__name__}")
            chosen |= names
        few_bits = [n for n in chosen if isinstance(parameters[n].data, ops.QuantizedWeight)]
        if value and few_bits:
            raise ValueError(f"parameters in few bits cannot learn: {', '.join(sorted(few_bits))}")
        for name in chosen:
            parameters[name].requires_grad = value
        flatten_(self)

    def state_dict(self) -> dict[str, npt.NDArray[Any]]:
        """Return the parameters' arrays by name: the memory itself, so copy what you keep."""
        return {name: parameter.data for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, npt.ArrayLike]) -> None:
        """Copy arrays into the parameters. All names and shapes are checked before any is written.

        Parameters
        ----------
        state : mapping of str to array_like
            As from `state_dict`. Any float dtype; converted to the parameter's.

        Raises
        ------
        ValueError
            When names are missing or unknown, or shapes differ; lists all of them.
        TypeError
            When an array is not floating point.

        Examples
        --------
        >>> from evergrad import nn
        >>> first, second = nn.Linear(2, 3), nn.Linear(2, 3)
        >>> second.load_state_dict(first.state_dict())
        >>> bool((first.weight.data == second.weight.data).all())
        True
        """
        parameters = dict(self.named_parameters())
        arrays = {name: np.asarray(value) for name, value in state.items()}
        problems = [f"missing: {name}" for name in parameters if name not in arrays]
        for name, array in arrays.items():
            if name not in parameters:
                problems.append(f"unknown: {name}")
            elif array.shape != (expected := parameters[name].data.shape):
                problems.append(f"shape of {name}: got {array.shape}, expected {expected}")
            elif isinstance(parameters[name].data, ops.QuantizedWeight):
                problems.append(f"{name} is in few bits ({parameters[name].data.kind}): read-only")
        if problems:
            raise ValueError(
                f"state does not fit {type(self).__name__}:\n  " + "\n  ".join(problems)
            )
        for name, array in arrays.items():
            if not np.issubdtype(array.dtype, np.floating):
                raise TypeError(f"{name} must be floating point, got {array.dtype}")
        for name, parameter in parameters.items():
            parameter.data[...] = arrays[name]

    def random_state(self) -> dict[str, list[int]]:
        """Return `[seed, offset]` of every random stream: what dropout needs to resume exactly.

        Examples
        --------
        >>> from evergrad import nn
        >>> dropout = nn.Dropout(0.5, stream=nn.RandomStream(seed=7))
        >>> _ = dropout(np.ones(100, np.float32))
        >>> dropout.random_state()
        {'stream': [7, 100]}
        """
        return {name: [stream.seed, stream.offset] for name, stream in self._streams().items()}

    def load_random_state(self, state: Mapping[str, list[int]]) -> None:
        """Set the random streams to what `random_state` returned."""
        streams = self._streams()
        if streams.keys() != state.keys():
            raise ValueError(
                f"random state has streams {sorted(state)}, "
                f"{type(self).__name__} has {sorted(streams)}"
            )
        for name, stream in streams.items():
            stream.seed, stream.offset = state[name]

    def _streams(self) -> dict[str, RandomStream]:
        return dict(_walk(self, RandomStream))


def below(value: Any) -> Iterator[Any]:
    """Yield the modules and parameters at and below `value`, without their names, which cost more.

    What is shared may come again if it is a parameter.
    """
    waiting, seen = [value], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Parameter):
            yield value
        elif isinstance(value, (Module, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, Module):
                yield value
                waiting += list(vars(value).values())  # another thread may set one meanwhile
            else:
                waiting += value


def _walk(value: Any, kind: type[T]) -> Iterator[tuple[str, T]]:
    """Yield the objects of class `kind` at and below `value`, depth first, with dotted names."""
    seen: set[int] = set()  # what is below one of them has its name already
    waiting = [("", value)]
    while waiting:
        name, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, kind):
            yield name, value
        members: Iterable[tuple[Any, Any]]
        if isinstance(value, Module):
            members = list(vars(value).items())  # another thread may set one meanwhile
        elif isinstance(value, (list, tuple)):
            members = enumerate(value)
        else:
            continue
        below = [
            (f"{name}.{key}" if name else str(key), member)
            for key, member in members
            if isinstance(member, (kind, Module, list, tuple))
        ]
        waiting += reversed(below)
