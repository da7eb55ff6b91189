"""The second half of a layer's answer: `out, backward = layer(x)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["NEITHER", "NOTHING", "NO_BACKWARD", "once"]


class once:
    """A backward function that runs once and lets go of what it saved.

    A closure keeps alive every array that it mentions. Composed layers keep the closures of
    their parts, so without further care all activations of a model would live until its whole
    backward pass is over. `once` holds the only reference to the closure and drops it during
    the call: each layer's activations return to the buffer pool as the pass goes by.

    A cotangent of None says that nothing below needs a gradient; it is passed on as `nothing`.

    Parameters
    ----------
    function : callable
        `function(dout, ...) -> dx`.
    again : callable, optional
        `again() -> out`: the forward's output once more, by one pass over what `function` keeps in
        any case. The layer that the output goes to may then let go of it (see `Linear`).
    nothing : optional
        What `function` returns where nothing needs a gradient: None, or one for each of several.

    Attributes
    ----------
    needed : bool
        Whether anything at or below the layer needs a gradient, and so the layer above it has to
        compute that of its input.

    Raises
    ------
    RuntimeError
        When called a second time.

    Examples
    --------
    >>> backward = once(lambda dout: 2 * dout)
    >>> backward(3)
    6
    >>> backward(3)
    Traceback (most recent call last):
        ...
    RuntimeError: backward ran already, and what it saved is gone; run the forward again
    """

    __slots__ = ("_function", "_nothing", "again")

    needed = True

    def __init__(
        self,
        function: Callable[..., Any],
        again: Callable[[], Any] | None = None,
        nothing: Any = None,
    ) -> None:
        self._function: Callable[..., Any] | None = function
        self._nothing = nothing
        self.again = again

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        function, self._function = self._function, None
        self.again = None
        if function is None:
            raise RuntimeError(
                "backward ran already, and what it saved is gone; run the forward again"
            )
        if args and args[0] is None:
            return self._nothing
        return function(*args, **kwargs)


class _Nothing(once):
    __slots__ = ()

    needed = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._nothing


#: Stands for the backward of every call where nothing needs a gradient.
NOTHING: once = _Nothing(lambda: None)

#: The same where a call has two inputs.
NEITHER: once = _Nothing(lambda: None, nothing=(None, None))


class _NoBackward(once):
    __slots__ = ()

    needed = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no backward through a cache: it forgets how its keys came about")


#: Stands for the backward of every call with a cache.
NO_BACKWARD: once = _NoBackward(lambda: None)
