// Activations and their derivatives, element by element.
//
// What backward is written in (`saved`): the output for relu, sigmoid and tanh, the input for the
// gelus and silu.
#pragma once

#include "kernels/gemm.h"

namespace evergrad {
namespace {

constexpr float sqrt_two_over_pi = 0.79788456f;  // sqrt(2 / pi)
constexpr float gelu_cubic = 0.044715f;

// The tanh form of GELU takes cdf(x) = (1 + tanh u) / 2 = sigmoid(2 u), u = sqrt(2/pi) (x +
// 0.044715 x^3). This is 2^e = exp(-2 u) of it: 1 / ln 2 comes with the other factors.
constexpr float twice_factor = 2.0f * sqrt_two_over_pi;
EVG_INLINE Vec tanh_form_exponent(Vec x, Vec square) {
  return x * fma(square, set1(-log2_e * twice_factor * gelu_cubic), set1(-log2_e * twice_factor));
}

// That distribution: both tails to their last digits, and 2 u' sigmoid(2 u) sigmoid(-2 u).
EVG_INLINE Normal tanh_form(Vec x) {
  const Vec a = abs(x), square = min(set1(1e12f), a * a);  // finite: far out it is multiplied by 0
  const Vec e = exp2_finite(tanh_form_exponent(a, square));
  const Vec most = set1(1.0f) / (set1(1.0f) + e), tail = e * most;
  const Vec slope = fma(square, set1(3.0f * gelu_cubic * twice_factor), set1(twice_factor));
  return {tail, most * tail * slope};
}

template <>
EVG_INLINE Vec activate<Activation::none>(Vec x) {
  return x;
}
template <>
EVG_INLINE Vec activate<Activation::relu>(Vec x) {
  return select(le(x, zero()), zero(), x);  // NaN compares false and passes
}
template <>
EVG_INLINE Vec activate<Activation::sigmoid>(Vec x) {
  return sigmoid(x);
}
template <>
EVG_INLINE Vec activate<Activation::tanh>(Vec x) {
  return tanh(x);
}
// x cdf(x), which is x - x cdf(-x). NaN stays, and -inf gives it, but inf does not.
EVG_INLINE Vec gelu_of(Vec x, Normal n) {
  return fnma(abs(min(set1(normal_end), x)), n.tail, max(zero(), x));
}
template <>
EVG_INLINE Vec activate<Activation::gelu>(Vec x) {
  return gelu_of(x, normal(x));
}
template <>
EVG_INLINE Vec activate<Activation::gelu_tanh>(Vec x) {
  return x / (set1(1.0f) + exp2(tanh_form_exponent(x, x * x)));
}

template <>
EVG_INLINE Vec activate<Activation::silu>(Vec x) {
  return x / (set1(1.0f) + exp(neg(x)));  // -0 where exp(-x) overflows, from -88.73 down
}

// act(x) and its derivative, for those that are written in their input: they share the exponential.
struct Slope {
  Vec value, slope;
};

template <Activation kind>
EVG_INLINE Slope with_slope(Vec x);

EVG_INLINE Slope gelu_with_slope(Vec x, Normal n) {
  const Vec left = fnma(abs(x), n.pdf, n.tail);  // at -|x|; at |x| it is what lacks to 1
  return {gelu_of(x, n), select(lt(x, zero()), left, set1(1.0f) - left)};
}
template <>
EVG_INLINE Slope with_slope<Activation::gelu>(Vec x) {
  return gelu_with_slope(x, normal(x));
}
template <>
EVG_INLINE Slope with_slope<Activation::gelu_tanh>(Vec x) {
  return gelu_with_slope(x, tanh_form(x));
}
template <>
EVG_INLINE Slope with_slope<Activation::silu>(Vec x) {
  const Vec s = sigmoid(x), y = x * s;
  return {y, fma(y, set1(1.0f) - s, s)};
}

// d act / dx, from what was saved.
template <Activation kind>
EVG_INLINE Vec derivative(Vec saved);

template <>
EVG_INLINE Vec derivative<Activation::none>(Vec) {
  return set1(1.0f);
}
template <>
EVG_INLINE Vec derivative<Activation::relu>(Vec out) {
  return select(gt(out, zero()), set1(1.0f), zero());
}
template <>
EVG_INLINE Vec derivative<Activation::sigmoid>(Vec out) {
  return fnma(out, out, out);  // y - y^2
}
template <>
EVG_INLINE Vec derivative<Activation::tanh>(Vec out) {
  return fnma(out, out, set1(1.0f));
}
template <>
EVG_INLINE Vec derivative<Activation::gelu>(Vec x) {
  return with_slope<Activation::gelu>(x).slope;
}
template <>
EVG_INLINE Vec derivative<Activation::gelu_tanh>(Vec x) {
  return with_slope<Activation::gelu_tanh>(x).slope;
}
template <>
EVG_INLINE Vec derivative<Activation::silu>(Vec x) {
  return with_slope<Activation::silu>(x).slope;
}

// out[i] = f(x[i] ...): whole vectors, then one masked vector. The masked lanes run the same
// instructions, so an element's bits do not depend on its place.
//
// `past_caches`: what will have left the caches before anybody reads it need not enter them either.
// A plain store first reads the line that it overwrites. Whoever asks for it ends with `fence`,
// once: it waits until all of those stores are out.
template <class F>
EVG_INLINE void map(i64 n, float* out, F f, bool past_caches = false) {
  i64 i = 0;
  if (past_caches) {
    constexpr i64 bytes = Vec::width * i64{sizeof(float)};
    const i64 before =
        (bytes - reinterpret_cast<intptr_t>(out) % bytes) % bytes / i64{sizeof(float)};
    if (before > 0) {
      i = min_of(before, n);
      const Mask mask = first(static_cast<int>(i));
      store(out, f(0, mask), mask);
    }
    for (; i + Vec::width <= n; i += Vec::width) stream(out + i, f(i, Whole{}));
  }
  for_vectors(i, n, [=](i64 at, auto mask) { store(out + at, f(at, mask), mask); });
}

// A load of a pass over memory, and the line some way behind it. The hardware's own prefetching
// starts from loads that miss, and with dozens of steps between two of them these come late.
constexpr i64 floats_ahead = 1024;
template <class M>
EVG_INLINE Vec load_passing(const float* p, M mask) {
  if (Vec::width >= 8) __builtin_prefetch(p + floats_ahead);
  return load(p, mask);
}

void activation(Activation activation, i64 n, const float* x, float* out, bool past_caches) {
  with_activation(activation, [=](auto kind) {
    map(
        n, out, [=](i64 i, auto m) { return activate<kind.value>(load_passing(x + i, m)); },
        past_caches);
  });
  if (past_caches) fence();
}

void activation_backward(Activation activation, i64 n, const float* dout, const float* saved,
                         float* dx, bool past_caches) {
  with_activation(activation, [=](auto kind) {
    map(
        n, dx,
        [=](i64 i, auto m) {
          return load_passing(dout + i, m) * derivative<kind.value>(load_passing(saved + i, m));
        },
        past_caches);
  });
  if (past_caches) fence();
}

}  // namespace
}  // namespace evergrad
