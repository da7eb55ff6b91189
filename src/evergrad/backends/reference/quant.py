"""Weights of few bits: decoding, coding, and the linear layer on top of them."""

from __future__ import annotations

import math

import numpy as np

from ._common import Array, emit, ieee
from .gemm import linear

__all__ = ["linear_quantized", "pack_bits", "unpack"]


@ieee
def unpack(
    weight: Array, kind: str, columns: int, indices: Array | None, out: Array | None
) -> Array:
    """weight uint8 [rows, bytes] -> float32 [rows or indices, columns]: d q + m group by group."""
    chosen = weight if indices is None else weight[indices]
    return emit(DECODERS[kind](chosen).reshape(len(chosen), columns), out)


def linear_quantized(
    x: Array,
    weight: Array,
    kind: str,
    bias: Array | None,
    activation: str | None,
    residual: Array | None,
    return_pre: bool,
    out: Array | None,
) -> tuple[Array, Array | None]:
    """``linear`` with the decoded weight."""
    decoded = unpack(weight, kind, x.shape[1], None, None).astype(x.dtype, copy=False)
    return linear(x, decoded, bias, activation, residual, return_pre, out)


def pack_bits(weight: Array, kind: str) -> Array:
    """weight float32 [rows, columns] -> uint8 [rows, bytes], rounded as ggml does."""
    return CODERS[kind](weight)


def _blocks(weight: Array, size: int) -> Array:
    return weight.reshape(len(weight), weight.shape[1] // size, size)


def _half(blocks: Array, at: int) -> Array:
    """The half at a byte of each block, as [rows, blocks, 1]."""
    return np.ascontiguousarray(blocks[..., at : at + 2]).view(np.float16).astype(np.float32)


def _nibbles(packed: Array) -> Array:
    """Low halves of the bytes, then the high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1).astype(np.int32)


def _fifth_bits(packed: Array) -> Array:
    """Four bytes -> 32 numbers of 16 or 0."""
    return np.unpackbits(packed, axis=-1, bitorder="little").astype(np.int32) << 4


def _decode_f16(weight: Array) -> Array:
    return np.ascontiguousarray(weight).view(np.float16).astype(np.float32)


def _decode_bf16(weight: Array) -> Array:
    return (np.ascontiguousarray(weight).view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _decode_q8_0(weight: Array) -> Array:
    b = _blocks(weight, 34)
    return _half(b, 0) * b[..., 2:].view(np.int8).astype(np.float32)


def _decode_q4_0(weight: Array) -> Array:
    b = _blocks(weight, 18)
    return _half(b, 0) * (_nibbles(b[..., 2:]) - 8).astype(np.float32)


def _decode_q4_1(weight: Array) -> Array:
    b = _blocks(weight, 20)
    return _half(b, 0) * _nibbles(b[..., 4:]).astype(np.float32) + _half(b, 2)


def _decode_q5_0(weight: Array) -> Array:
    b = _blocks(weight, 22)
    q = (_nibbles(b[..., 6:]) | _fifth_bits(b[..., 2:6])) - 16
    return _half(b, 0) * q.astype(np.float32)


def _decode_q5_1(weight: Array) -> Array:
    b = _blocks(weight, 24)
    q = _nibbles(b[..., 8:]) | _fifth_bits(b[..., 4:8])
    return _half(b, 0) * q.astype(np.float32) + _half(b, 2)


def _decode_q4_k(weight: Array) -> Array:
    b = _blocks(weight, 144)
    s = b[..., 4:16]
    first, second, third = s[..., :4], s[..., 4:8], s[..., 8:]
    scale = np.concatenate([first & 63, (third & 15) | (first >> 6) << 4], axis=-1)
    minimum = np.concatenate([second & 63, third >> 4 | (second >> 6) << 4], axis=-1)
    d = (_half(b, 0) * scale.astype(np.float32))[..., None]
    m = (_half(b, 2) * minimum.astype(np.float32))[..., None]
    # Two groups share 32 bytes.
    shared = b[..., 16:].reshape(*b.shape[:-1], 4, 32)
    q = np.stack([shared & 15, shared >> 4], axis=-2).reshape(*b.shape[:-1], 8, 32)
    return d * q.astype(np.float32) - m


def _decode_q6_k(weight: Array) -> Array:
    b = _blocks(weight, 210)
    low = b[..., :128].reshape(*b.shape[:-1], 2, 1, 64) >> np.array([[0], [4]], np.uint8) & 15
    high = b[..., 128:192].reshape(*b.shape[:-1], 2, 1, 32)
    high = high >> np.array([[0], [2], [4], [6]], np.uint8) & 3
    lead = b.shape[:-1]
    q = low.reshape(*lead, 16, 16).astype(np.int32) | high.reshape(*lead, 16, 16).astype(
        np.int32
    ) << np.int32(4)
    scale = _half(b, 208) * b[..., 192:208].view(np.int8).astype(np.float32)
    return scale[..., None] * (q - 32).astype(np.float32)


DECODERS = {
    "f16": _decode_f16,
    "bf16": _decode_bf16,
    "q8_0": _decode_q8_0,
    "q4_0": _decode_q4_0,
    "q4_1": _decode_q4_1,
    "q5_0": _decode_q5_0,
    "q5_1": _decode_q5_1,
    "q4_k": _decode_q4_k,
    "q6_k": _decode_q6_k,
}


def _coded(x: Array, *parts: Array) -> Array:
    """Bytes of the parts of each block, side by side."""
    sides = [np.ascontiguousarray(part).view(np.uint8) for part in parts]
    coded = np.concatenate(sides, axis=-1)
    return coded.reshape(len(x), math.prod(coded.shape[1:]))


def _inverse(d: Array) -> Array:
    """1 / d; 0 for what is so small that all of its block decodes to nothing."""
    large = np.abs(d) > np.finfo(np.float32).tiny
    return np.where(large, np.float32(1) / np.where(large, d, np.float32(1)), np.float32(0))


def _code_f16(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return _coded(x, x.astype(np.float16))


def _code_bf16(x: Array) -> Array:
    """To nearest even; a NaN stays one."""
    bits = x.view(np.uint32)
    rounded = (bits + (0x7FFF + (bits >> 16 & 1))) >> 16
    quiet = bits >> 16 | 64
    return _coded(x, np.where(np.isnan(x), quiet, rounded).astype(np.uint16))


def _code_q8_0(x: Array) -> Array:
    b = _blocks(x, 32)
    d = np.abs(b).max(axis=-1, keepdims=True) / np.float32(127)
    scaled = b * _inverse(d)
    size = np.abs(scaled)
    whole = np.floor(size)
    q = np.copysign(whole + (size - whole >= 0.5), scaled)  # ties away from 0
    return _coded(x, d.astype(np.float16), q.astype(np.int8))


def _halves(q: Array) -> Array:
    q = q.astype(np.uint8)
    return q[..., :16] | q[..., 16:] << 4


def _code_q4_0(x: Array) -> Array:
    b = _blocks(x, 32)
    largest = np.abs(b).argmax(axis=-1, keepdims=True)
    d = np.take_along_axis(b, largest, axis=-1) / np.float32(-8)
    q = np.trunc(b * _inverse(d) + np.float32(8.5)).clip(0, 15)
    return _coded(x, d.astype(np.float16), _halves(q))


def _code_q4_1(x: Array) -> Array:
    b = _blocks(x, 32)
    low = b.min(axis=-1, keepdims=True)
    d = (b.max(axis=-1, keepdims=True) - low) / np.float32(15)
    q = np.trunc((b - low) * _inverse(d) + np.float32(0.5)).clip(0, 15)
    return _coded(x, d.astype(np.float16), low.astype(np.float16), _halves(q))


CODERS = {
    "f16": _code_f16,
    "bf16": _code_bf16,
    "q8_0": _code_q8_0,
    "q4_0": _code_q4_0,
    "q4_1": _code_q4_1,
}
