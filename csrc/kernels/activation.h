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

// tanh(u) with u = sqrt(2/pi) (x + 0.044715 x^3)
EVG_INLINE Vec gelu_tanh_inner(Vec x) {
  const Vec cubic = fma(x * x, set1(gelu_cubic * sqrt_two_over_pi), set1(sqrt_two_over_pi));
  return tanh(x * cubic);
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
template <>
EVG_INLINE Vec activate<Activation::gelu>(Vec x) {
  return x * normal(x).cdf;
}
template <>
EVG_INLINE Vec activate<Activation::gelu_tanh>(Vec x) {
  const Vec half = x * set1(0.5f);
  return fma(half, gelu_tanh_inner(x), half);
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

template <>
EVG_INLINE Slope with_slope<Activation::gelu>(Vec x) {
  const Normal n = normal(x);
  return {x * n.cdf, fma(x, n.pdf, n.cdf)};
}
template <>
EVG_INLINE Slope with_slope<Activation::gelu_tanh>(Vec x) {
  // (1 + t)/2 + x/2 (1 - t^2) u',  u' = sqrt(2/pi) (1 + 3 * 0.044715 x^2)
  const Vec t = gelu_tanh_inner(x);
  const Vec du = fma(x * x, set1(3.0f * gelu_cubic * sqrt_two_over_pi), set1(sqrt_two_over_pi));
  const Vec half = set1(0.5f), half_x = x * half;
  return {fma(half_x, t, half_x), fma(half_x * du, fnma(t, t, set1(1.0f)), fma(half, t, half))};
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
  const Mask all = first(Vec::width);
  if (past_caches) {
    constexpr i64 bytes = Vec::width * i64{sizeof(float)};
    const i64 before =
        (bytes - reinterpret_cast<intptr_t>(out) % bytes) % bytes / i64{sizeof(float)};
    if (before > 0) {
      i = min_of(before, n);
      const Mask mask = first(static_cast<int>(i));
      store(out, f(0, mask), mask);
    }
    for (; i + Vec::width <= n; i += Vec::width) stream(out + i, f(i, all));
  }
  for (; i + Vec::width <= n; i += Vec::width) store(out + i, f(i, all));
  if (i < n) {
    const Mask mask = first(static_cast<int>(n - i));
    store(out + i, f(i, mask), mask);
  }
}

// A load of a pass over memory, and the line some way behind it. The hardware's own prefetching
// starts from loads that miss, and with dozens of steps between two of them these come late.
constexpr i64 floats_ahead = 1024;
EVG_INLINE Vec load_passing(const float* p, Mask m) {
  if (Vec::width >= 8) __builtin_prefetch(p + floats_ahead);
  return load(p, m);
}

template <Activation kind>
void map_activation(i64 n, const float* x, float* out, bool past_caches) {
  map(
      n, out, [=](i64 i, Mask m) { return activate<kind>(load_passing(x + i, m)); }, past_caches);
  if (past_caches) fence();
}
template <Activation kind>
void map_derivative(i64 n, const float* dout, const float* saved, float* dx, bool past_caches) {
  map(
      n, dx,
      [=](i64 i, Mask m) {
        return load_passing(dout + i, m) * derivative<kind>(load_passing(saved + i, m));
      },
      past_caches);
  if (past_caches) fence();
}

void activation(Activation kind, i64 n, const float* x, float* out, bool past_caches) {
  switch (kind) {
    case Activation::none: return map_activation<Activation::none>(n, x, out, past_caches);
    case Activation::relu: return map_activation<Activation::relu>(n, x, out, past_caches);
    case Activation::sigmoid: return map_activation<Activation::sigmoid>(n, x, out, past_caches);
    case Activation::tanh: return map_activation<Activation::tanh>(n, x, out, past_caches);
    case Activation::gelu: return map_activation<Activation::gelu>(n, x, out, past_caches);
    case Activation::gelu_tanh:
      return map_activation<Activation::gelu_tanh>(n, x, out, past_caches);
    case Activation::silu: return map_activation<Activation::silu>(n, x, out, past_caches);
  }
}

void activation_backward(Activation kind, i64 n, const float* dout, const float* saved, float* dx,
                         bool past_caches) {
  switch (kind) {
    case Activation::none: return map_derivative<Activation::none>(n, dout, saved, dx, past_caches);
    case Activation::relu: return map_derivative<Activation::relu>(n, dout, saved, dx, past_caches);
    case Activation::sigmoid:
      return map_derivative<Activation::sigmoid>(n, dout, saved, dx, past_caches);
    case Activation::tanh: return map_derivative<Activation::tanh>(n, dout, saved, dx, past_caches);
    case Activation::gelu: return map_derivative<Activation::gelu>(n, dout, saved, dx, past_caches);
    case Activation::gelu_tanh:
      return map_derivative<Activation::gelu_tanh>(n, dout, saved, dx, past_caches);
    case Activation::silu: return map_derivative<Activation::silu>(n, dout, saved, dx, past_caches);
  }
}

}  // namespace
}  // namespace evergrad
