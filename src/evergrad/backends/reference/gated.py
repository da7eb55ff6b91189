"""Gated activations over rows (Shazeer 2020): f(gate) * up."""

from __future__ import annotations

from ._common import Array, emit, ieee
from .activation import activate, activate_backward


@ieee
def gated(gate: Array, up: Array, activation: str, out: Array | None) -> Array:
    """f(gate) * up (Shazeer 2020), f = "silu", "gelu" or "gelu_tanh"; all [rows, n]."""
    return emit(activate(gate, activation) * up, out)


@ieee
def gated_backward(
    dout: Array,
    gate: Array,
    up: Array,
    activation: str,
    dgate: Array | None,
    dup: Array | None,
) -> tuple[Array, Array]:
    """dgate = dout * up * f'(gate),  dup = dout * f(gate)."""
    from_gate = activate_backward(dout * up, gate, activation)
    from_up = dout * activate(gate, activation)
    return emit(from_gate, dgate), emit(from_up, dup)
