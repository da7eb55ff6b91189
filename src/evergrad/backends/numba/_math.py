"""Elementary functions of one float32, written so that loops over them become vector code.

Polynomials are minimax fits of the relative error (Lawson's iteration at Chebyshev nodes).

===========  ======================  ========================================================
function     range                   largest error, measured against float64
===========  ======================  ========================================================
exp          [-87.33, 88.72]         1.0 ulp
sigmoid      all                     2.5 ulp
tanh         all                     1.5 ulp
log1p        [0, 1]                  2.0 ulp
normal_tail  [0, 6]                  1.2e-6 relative, of which x^2 / 2 in float32 is the most
===========  ======================  ========================================================
"""

from __future__ import annotations

import numpy as np

from ._kernel import inline

_f = np.float32
_i = np.int32

ZERO = _f(0)
HALF = _f(0.5)
ONE = _f(1)
TWO = _f(2)

_LOG2_E = _f(1.4426950408889634)
_LN2_HIGH = _f(0.693359375)  # few bits, so n * _LN2_HIGH is exact
_LN2_LOW = _f(-2.12194440e-4)
_ROUND = _f(12582912.0)  # 1.5 * 2^23: adding it rounds to an integer, left in the low bits
_ROUND_BITS = _i(0x4B400000)
_EXP_MAX = _f(89.0)
_EXP_MIN = _f(-87.33654)
_E2, _E3, _E4, _E5, _E6 = (
    _f(c) for c in (0.49999994, 0.16666521, 0.041668389, 0.0083687454, 0.0013814540)
)


@inline
def exp(x: float) -> float:
    """2^n e^r with x = n ln 2 + r, |r| <= ln 2 / 2. Overflow gives inf, underflow 0.

    Subnormal numbers would come out right, but some cores take a hundred cycles for each.
    """
    x = _EXP_MAX if x > _EXP_MAX else x  # NaN compares false and passes
    vanishes = x < _EXP_MIN
    x = _EXP_MIN if vanishes else x
    shifted = x * _LOG2_E + _ROUND
    n = shifted - _ROUND
    k = _i(_f(shifted).view(_i) - _ROUND_BITS)
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = (((_E6 * r + _E5) * r + _E4) * r + _E3) * r + _E2
    p = p * (r * r) + r + ONE
    half = _i(k >> 1)  # 2^k as two factors: 2^128 is no number
    y = p * _i((half + 127) << 23).view(_f) * _i((k - half + 127) << 23).view(_f)
    return ZERO if vanishes else y


@inline
def sigmoid(x: float) -> float:
    return ONE / (ONE + exp(-x))


_T3, _T5, _T7, _T9, _T11 = (
    _f(c) for c in (-0.33333316, 0.13332586, -0.053852309, 0.021071680, -0.0062742401)
)
_TANH_SMALL = _f(0.55)


@inline
def tanh(x: float) -> float:
    """An odd polynomial near zero, where 1 - 2 / (e^2|x| + 1) would cancel."""
    a = abs(x)
    z = x * x
    small = ((((_T11 * z + _T9) * z + _T7) * z + _T5) * z + _T3) * (z * x) + x
    large = ONE - TWO / (exp(TWO * a) + ONE)
    return small if a < _TANH_SMALL else (-large if x < ZERO else large)


_L3, _L5, _L7, _L9, _L11 = (
    _f(c) for c in (0.33333337, 0.19999444, 0.14308298, 0.10715371, 0.12144777)
)


@inline
def log1p(x: float) -> float:
    """log(1 + x) for x in [0, 1]: 2 atanh(x / (2 + x)), an odd polynomial."""
    s = x / (TWO + x)
    z = s * s
    return TWO * (((((_L11 * z + _L9) * z + _L7) * z + _L5) * z + _L3) * (z * s) + s)


_TAIL_SCALE = _f(0.35)
_R0, _R1, _R2, _R3, _R4, _R5, _R6, _R7, _R8 = (
    _f(c)
    for c in (
        *(0.13962126, 0.13986433, 0.11981554, 0.10557463, -0.023263399),
        *(0.15939224, -0.25590125, 0.14406051, -0.029163864),
    )
)


@inline
def normal_tail(x: float, bell: float) -> float:
    """Phi(-x) for x >= 0, given bell = exp(-x^2 / 2): bell * t P(t), t = 1 / (1 + 0.35 x).

    t P(t) follows the Mills ratio (Phi(-x) over the density), whose 1 / x at infinity t shares.
    """
    t = ONE / (ONE + _TAIL_SCALE * x)
    p = (((_R8 * t + _R7) * t + _R6) * t + _R5) * t + _R4
    p = (((p * t + _R3) * t + _R2) * t + _R1) * t + _R0
    return bell * (t * p)


# Floats compare like the integers of their bits, once the negative ones are reversed, and a maximum
# of integers becomes vector code without a word about NaN. A (positive) NaN is above infinity.
@inline
def ordered(x: float) -> int:
    bits = _f(x).view(_i)
    return _i(bits ^ ((bits >> 31) & 0x7FFFFFFF))


@inline
def from_ordered(key: int) -> float:
    return _i(key ^ ((key >> 31) & 0x7FFFFFFF)).view(_f)
