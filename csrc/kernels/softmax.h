// Softmax of rows, and its gradient.
#pragma once

#include "kernels/activation.h"

namespace evergrad {
namespace {

constexpr float infinity = __builtin_inff();

// Reductions over a row: four accumulators hide the latency of the add, the order is fixed.
template <class F>
EVG_INLINE float row_sum(i64 n, F f) {
  Vec acc[4] = {zero(), zero(), zero(), zero()};
  i64 j = 0;
  for (; j + 4 * Vec::width <= n; j += 4 * Vec::width)
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) acc[v] = acc[v] + f(j + v * Vec::width, Whole{});
  for_vectors(j, n,
              [&](i64 at, auto mask) { acc[0] = acc[0] + select(mask, f(at, mask), zero()); });
  return reduce_add((acc[0] + acc[1]) + (acc[2] + acc[3]));
}

EVG_INLINE float row_max(i64 n, const float* x) {
  const Vec lowest = set1(-infinity);
  Vec m[4] = {lowest, lowest, lowest, lowest};
  i64 j = 0;
  for (; j + 4 * Vec::width <= n; j += 4 * Vec::width)
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) m[v] = max(m[v], load(x + j + v * Vec::width));
  for_vectors(
      j, n, [&](i64 at, auto mask) { m[0] = max(m[0], select(mask, load(x + at, mask), lowest)); });
  return reduce_max(max(max(m[0], m[1]), max(m[2], m[3])));
}

// out = exp(x - max), returns the sum. A row of -inf keeps max = 0, so that it gives zeros. What
// comes `ahead` is fetched meanwhile: the other passes of a softmax only wait for memory.
EVG_INLINE float row_exp(i64 n, const float* x, float max_value, float* out, i64 ahead) {
  const Vec shift = set1(max_value == -infinity ? 0.0f : max_value);
  Vec acc[4] = {zero(), zero(), zero(), zero()};
  i64 j = 0;
  for (; j + 4 * Vec::width <= n; j += 4 * Vec::width)
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      if (Vec::width >= 8) __builtin_prefetch(x + ahead + j + v * Vec::width);
      const Vec e = exp(load(x + j + v * Vec::width) - shift);
      store(out + j + v * Vec::width, e);
      acc[v] = acc[v] + e;
    }
  for_vectors(j, n, [&](i64 at, auto mask) {
    const Vec e = select(mask, exp(load(x + at, mask) - shift), zero());
    store(out + at, e, mask);
    acc[0] = acc[0] + e;
  });
  return reduce_add((acc[0] + acc[1]) + (acc[2] + acc[3]));
}

EVG_INLINE float row_sum_exp(i64 n, const float* x, float max_value) {
  const Vec shift = set1(max_value == -infinity ? 0.0f : max_value);
  return row_sum(n, [=](i64 j, auto m) { return exp(load_passing(x + j, m) - shift); });
}

EVG_INLINE float log_scalar(float x) {
  alignas(64) float lanes[Vec::width];
  store(lanes, log(set1(x)));
  return lanes[0];
}

// Short rows go together, phase by phase: each reduction ends in a chain of dependent steps, and
// those of several rows overlap. Where the result goes past the caches, the exponentials wait in
// L1.
constexpr i64 rows_together = 8;
constexpr i64 row_buffer = 4096;

void softmax(i64 rows, i64 n, const float* x, float* out, bool past_caches) {
  alignas(64) float buffer[row_buffer];
  past_caches = past_caches && n <= row_buffer;
  const i64 step = max_of(1, min_of(rows_together, row_buffer / max_of(1, n)));
  for (i64 i = 0; i < rows; i += step, x += step * n, out += step * n) {
    const i64 count = min_of(step, rows - i);
    float* exps = past_caches ? buffer : out;
    float top[rows_together], scale[rows_together];
    for (i64 r = 0; r < count; ++r) top[r] = row_max(n, x + r * n);
    for (i64 r = 0; r < count; ++r) {
      const float sum = row_exp(n, x + r * n, top[r], exps + r * n, step * n);
      scale[r] = sum == 0.0f ? 0.0f : 1.0f / sum;
    }
    for (i64 r = 0; r < count; ++r) {
      const float* row = exps + r * n;
      const Vec by = set1(scale[r]);
      map(n, out + r * n, [=](i64 j, auto m) { return load(row + j, m) * by; }, past_caches);
    }
  }
  if (past_caches) fence();
}

// dx = out * (dout - sum(dout * out))
void softmax_backward(i64 rows, i64 n, const float* dout, const float* out, float* dx,
                      bool past_caches) {
  for (i64 i = 0; i < rows; ++i, dout += n, out += n, dx += n) {
    const Vec dot =
        set1(row_sum(n, [=](i64 j, auto m) { return load(dout + j, m) * load(out + j, m); }));
    map(
        n, dx, [=](i64 j, auto m) { return load(out + j, m) * (load(dout + j, m) - dot); },
        past_caches);
  }
  if (past_caches) fence();
}

// out = x - max - log(sum exp(x - max)); a row of -inf stays what it is
void log_softmax(i64 rows, i64 n, const float* x, float* out, bool past_caches) {
  for (i64 i = 0; i < rows; ++i, x += n, out += n) {
    const float m = row_max(n, x), sum = row_sum_exp(n, x, m);
    const Vec shift = set1(m == -infinity ? 0.0f : m);
    const Vec log_sum = set1(sum == 0.0f ? 0.0f : log_scalar(sum));
    map(n, out, [=](i64 j, auto k) { return load(x + j, k) - shift - log_sum; }, past_caches);
  }
  if (past_caches) fence();
}

// dx = dout - exp(out) * sum(dout)
void log_softmax_backward(i64 rows, i64 n, const float* dout, const float* out, float* dx,
                          bool past_caches) {
  for (i64 i = 0; i < rows; ++i, dout += n, out += n, dx += n) {
    const Vec sum = set1(row_sum(n, [=](i64 j, auto m) { return load(dout + j, m); }));
    map(
        n, dx, [=](i64 j, auto m) { return fnma(exp(load(out + j, m)), sum, load(dout + j, m)); },
        past_caches);
  }
  if (past_caches) fence();
}

}  // namespace
}  // namespace evergrad
