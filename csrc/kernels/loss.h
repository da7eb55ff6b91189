// Losses: cross-entropy of rows of logits, squared error, binary cross-entropy.
#pragma once

#include "kernels/softmax.h"

namespace evergrad {
namespace {

EVG_INLINE float log_scalar(float x) {
  alignas(64) float lanes[Vec::width];
  store(lanes, log(set1(x)));
  return lanes[0];
}

// losses = lse - (1 - s) z_t - s / n sum(z);  ignored rows: 0
void cross_entropy(i64 rows, i64 n, const float* logits, const i64* target, i64 ignore_index,
                   float smoothing, float* losses, float* lse) {
  for (i64 i = 0; i < rows; ++i) {
    const float* z = logits + i * n;
    const float m = row_max(n, z);
    // An infinite maximum is the answer itself, and NaN passes through the sum.
    const float sum = row_sum_exp(n, z, m);
    lse[i] = (m == -infinity ? 0.0f : m) + log_scalar(sum);
    if (target[i] == ignore_index) {
      losses[i] = 0.0f;
      continue;
    }
    float loss = lse[i] - z[target[i]];
    if (smoothing != 0.0f) {
      const float mean =
          row_sum(n, [=](i64 j, Mask k) { return load(z + j, k); }) / static_cast<float>(n);
      loss = (1.0f - smoothing) * loss + smoothing * (lse[i] - mean);
    }
    losses[i] = loss;
  }
}

// dz_j = d (exp(z_j - lse) - (1 - s) [j = t] - s / n);  dlogits may be logits itself
void cross_entropy_backward(i64 rows, i64 n, const float* drows, const float* logits,
                            const i64* target, const float* lse, i64 ignore_index, float smoothing,
                            float* dlogits) {
  for (i64 i = 0; i < rows; ++i) {
    const float* z = logits + i * n;
    float* dz = dlogits + i * n;
    if (target[i] == ignore_index) {
      map(n, dz, [](i64, Mask) { return zero(); });
      continue;
    }
    const float d = drows[i];
    const Vec shift = set1(lse[i]), scale = set1(d);
    const Vec uniform = set1(smoothing / static_cast<float>(n));
    map(n, dz, [=](i64 j, Mask k) { return scale * (exp(load(z + j, k) - shift) - uniform); });
    dz[target[i]] -= d * (1.0f - smoothing);
  }
}

void mse(i64 n, const float* x, const float* target, float* out) {
  map(n, out, [=](i64 i, Mask m) {
    const Vec d = load(x + i, m) - load(target + i, m);
    return d * d;
  });
}

// dout_stride: 1 for a cotangent per element, 0 for one number
EVG_INLINE Vec cotangent(const float* dout, i64 stride, i64 i, Mask m) {
  return stride ? load(dout + i, m) : set1(dout[0]);
}

void mse_backward(i64 n, const float* dout, i64 dout_stride, const float* x, const float* target,
                  float* dx) {
  map(n, dx, [=](i64 i, Mask m) {
    const Vec d = load(x + i, m) - load(target + i, m);
    return (d + d) * cotangent(dout, dout_stride, i, m);
  });
}

// max(x, 0) - x t + log(1 + exp(-|x|)): no overflow on either side
void bce(i64 n, const float* x, const float* target, float* out) {
  map(n, out, [=](i64 i, Mask m) {
    const Vec z = load(x + i, m), t = load(target + i, m);
    const Vec positive = select(le(z, zero()), zero(), z);
    return fnma(z, t, positive) + log1p(exp(neg(abs(z))));
  });
}

void bce_backward(i64 n, const float* dout, i64 dout_stride, const float* x, const float* target,
                  float* dx) {
  map(n, dx, [=](i64 i, Mask m) {
    return (sigmoid(load(x + i, m)) - load(target + i, m)) * cotangent(dout, dout_stride, i, m);
  });
}

}  // namespace
}  // namespace evergrad
