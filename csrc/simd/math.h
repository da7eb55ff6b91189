// Elementary functions on Vec, written once: branch free, the same formula on every ISA.
// Include it after one vec_*.h.
//
// The largest error in ULP where the exact result is a normal number, measured over every seventh
// float32 against float64; csrc/tests/simd_check.cpp checks the bound, docs/accuracy.md lists ISAs:
//
//              with FMA   bound   scalar   bound
//   exp          0.88      1.0     1.17     1.2
//   exp2         0.94      1.0     1.21     1.3
//   log          0.85      1.0     0.84     1.0    subnormal arguments count in full
//   log1p        0.85      1.0     0.89     1.0
//   sigmoid      2.47      2.6     2.47     2.6
//   tanh         2.50      2.6     2.50     2.6
//   normal.cdf   5.53      6.0     5.45     6.0    scalar: for x >= -2, worse in the tail
//   normal.pdf   2.06      2.2     2.97     3.0    for |x| < 12.94, scalar: <= 2
//
// exp(-inf) = 0, exp(x > 88.72) = exp2(x >= 128) = inf, log(0) = -inf, log(x < 0) = NaN, and NaN
// gives NaN.
//
// Coefficients are minimax fits to the relative error of the whole function (Remez exchange for the
// polynomials, reweighted least squares for the quotient), rounded to float32.
#pragma once

namespace evergrad {
namespace {

// c0 + x c1 + x^2 c2 + ... by Horner's rule.
EVG_INLINE Vec poly(Vec, float c) { return set1(c); }
template <class... Rest>
EVG_INLINE Vec poly(Vec x, float c, Rest... rest) {
  return fma(x, poly(x, rest...), set1(c));
}

// ln 2 in two parts (Cody-Waite): the first has nine bits, so a multiple by an exponent is exact.
constexpr float ln2_high = 0.693359375f;
constexpr float ln2_low = -2.12194440e-4f;

// x = n ln 2 + r with |r| <= ln(2) / 2, so exp(x) = 2^n exp(r).
struct ExpParts {
  Vec r, n;
  VecI n_bits;  // n in the low nine bits; what stands above them is rubbish
};

// The ulp of 1.5 * 2^23 is 1: adding it rounds x / ln 2 to n and leaves n in the low bits.
constexpr float rounder = 12582912.0f, log2_e = 1.44269504f;

EVG_INLINE ExpParts exp_parts(Vec x) {
  const Vec shifted = fma(x, set1(log2_e), set1(rounder)), n = shifted - set1(rounder);
  return {fnma(n, set1(ln2_low), fnma(n, set1(ln2_high), x)), n, as_int(shifted)};
}

// (exp(u r) - 1 - u r) / r^2, u a power of two
EVG_INLINE Vec exp_rest(Vec r, float u = 1.0f) {
  const float u2 = u * u, u3 = u2 * u, u4 = u3 * u, u5 = u4 * u, u6 = u5 * u;
  return poly(r, 4.9999994e-1f * u2, 1.6666521e-1f * u3, 4.166839e-2f * u4, 8.368745e-3f * u5,
              1.381454e-3f * u6);
}

// y 2^n for y about 1, where that is a normal number. n goes straight into the exponent of y: 2^n
// alone may overflow before the result.
EVG_INLINE Vec with_exponent(Vec y, ExpParts parts) {
  return as_float(as_int(y) + shl<23>(parts.n_bits));
}

// The same, and 0 or infinity where x, the argument of the function, is below `tiny` or above
// `huge`: there the result is no normal number.
EVG_INLINE Vec times_power(Vec y, ExpParts parts, Vec x, float tiny, float huge) {
  if constexpr (Vec::has_scalef) {
    return scalef(y, parts.n, not_(lt(x, set1(tiny))));
  } else {
    return select(le(x, set1(huge)), select(lt(x, set1(tiny)), zero(), with_exponent(y, parts)),
                  x + set1(__builtin_inff()));  // inf, or NaN for NaN
  }
}

// exp(u r)
EVG_INLINE Vec exp_reduced(Vec r, float u = 1.0f) {
  return fma(r, fma(r, exp_rest(r, u), set1(u)), set1(1.0f));
}

EVG_INLINE Vec exp(Vec x) {
  // Infinity would cancel to NaN in r. At the bound the result is inf already.
  if constexpr (Vec::has_scalef) x = min(set1(89.0f), x);
  const ExpParts parts = exp_parts(x);
  return times_power(exp_reduced(parts.r), parts, x, -87.33654f, 88.72283f);
}

// 2^x. Who has a factor to spare for 1 / ln 2 takes this one: x = n + r without an operation.
EVG_INLINE Vec exp2_finite(Vec x) {  // for all but +inf
  const Vec shifted = x + set1(rounder), n = shifted - set1(rounder), r = x - n;
  const Vec y = poly(r, 1.0f, 6.9314718e-1f, 2.4022648e-1f, 5.5503324e-2f, 9.618437e-3f,
                     1.3398875e-3f, 1.5353362e-4f);
  return times_power(y, {r, n, as_int(shifted)}, x, -126.0f, 127.99999f);
}

EVG_INLINE Vec exp2(Vec x) {
  if constexpr (Vec::has_scalef) x = min(set1(129.0f), x);
  return exp2_finite(x);
}

// log(u) + tail: u = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), log(u) = e ln 2 + log(1 + f).
EVG_INLINE Vec log_plus(Vec u, Vec tail) {
  const Mask subnormal = lt(u, set1(1.17549435e-38f));
  const VecI sqrt_half = set1i(0x3f3504f3);
  const VecI shifted = as_int(select(subnormal, u * set1(8388608.0f), u)) - sqrt_half;
  const Vec e = to_float(sar<23>(shifted)) - select(subnormal, set1(23.0f), zero());
  const Vec f = as_float((shifted & set1i(0x007fffff)) + sqrt_half) - set1(1.0f);
  const Vec f2 = f * f;
  const Vec q = poly(f, 3.333333e-1f, -2.500082e-1f, 2.0001227e-1f, -1.6623357e-1f, 1.4201757e-1f,
                     -1.3160181e-1f, 1.2761578e-1f, -7.6345004e-2f);
  Vec low = fma(e, set1(ln2_low), tail);
  low = fma(f2 * f, q, low);
  low = fnma(f2, set1(0.5f), low);
  const Vec y = fma(e, set1(ln2_high), f + low);
  const Vec inf = set1(__builtin_inff());
  const Vec no_number = set1(__builtin_nanf(""));
  const Vec beyond = select(eq(u, zero()), neg(inf), select(eq(u, inf), inf, no_number));
  return select(and_(gt(u, zero()), lt(u, inf)), y, beyond);
}

EVG_INLINE Vec log(Vec x) { return log_plus(x, zero()); }

// 1 + x rounds to u; what the sum lost (exactly: Knuth's two-sum) adds lost / u to the logarithm.
EVG_INLINE Vec log1p(Vec x) {
  const Vec one = set1(1.0f);
  const Vec u = one + x;
  const Vec x_part = u - one;
  const Vec lost = (one - (u - x_part)) + (x - x_part);
  return log_plus(u, lost / u);
}

EVG_INLINE Vec sigmoid(Vec x) { return set1(1.0f) / (set1(1.0f) + exp(neg(x))); }

// tanh|x| = -m / (2 + m), m = expm1(-2|x|) = 2^n (exp(r) - 1) + (2^n - 1): it loses nothing near 0.
EVG_INLINE Vec tanh(Vec x) {
  const Vec a = min(set1(9.02f), abs(x));  // from there on tanh is 1
  const ExpParts parts = exp_parts(set1(-2.0f) * a);
  const Vec r = parts.r, expm1_r = fma(r * r, exp_rest(r), r);
  const Vec scale = as_float(shl<23>(parts.n_bits + set1i(127)));
  const Vec m = fma(scale, expm1_r, scale - set1(1.0f));
  return copysign(m / (set1(2.0f) + m), x);
}

// -a^2 / 2 = n ln 2 - r / 2. The square is never rounded by itself: in the exponent that would cost
// 40 ULP of the tail.
EVG_INLINE ExpParts half_square_parts(Vec a) {
  const Vec shifted = fma(a * a, set1(-0.5f * log2_e), set1(rounder)), n = shifted - set1(rounder);
  const Vec high = fma(a, a, n * set1(2.0f * ln2_high));  // the product is exact
  return {fma(n, set1(2.0f * ln2_low), high), n, as_int(shifted)};
}

// From here on cdf(-a) is no normal number and becomes 0, and the density with it: processors take
// a hundred cycles for a subnormal.
constexpr float normal_end = 12.949952f;

// The standard normal distribution at a = |x|: cdf(-a) = exp(-a^2 / 2) P(a) / Q(a). All
// coefficients are positive, so that the lower tail keeps its digits, where 1 + erf would cancel.
struct Normal {
  Vec tail, pdf;  // cdf(-a), and the density there
};

EVG_INLINE Normal normal(Vec x) {
  const Vec a = min(set1(normal_end), abs(x));
  const ExpParts parts = half_square_parts(a);
  const Vec y = exp_reduced(parts.r, -0.5f);
  Vec e;
  if constexpr (Vec::has_scalef)
    e = scalef(y, parts.n, not_(ge(a, set1(normal_end))));
  else
    e = select(lt(a, set1(normal_end)), with_exponent(y, parts), a - a);  // NaN for NaN
  const Vec p = poly(a, 0.5f, 4.3568644e-1f, 1.8130687e-1f, 3.998421e-2f, 4.0201973e-3f);
  const Vec q = poly(a, 1.0f, 1.6692579f, 1.1944846f, 4.6438062e-1f, 1.0023294e-1f, 1.0076997e-2f);
  return {e * p / q, e * set1(0.39894228f)};
}

}  // namespace
}  // namespace evergrad
