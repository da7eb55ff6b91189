// Layer normalisation of rows.
//
// Forward saves mean and rstd = 1 / sqrt(var + eps); the row is in L1 after the first pass, so the
// second pass for the variance (never E[x^2] - mean^2, which cancels) costs no memory traffic.
#pragma once

#include "kernels/softmax.h"

namespace evergrad {
namespace {

void layer_norm(i64 rows, i64 n, const float* x, const float* weight, const float* bias, float eps,
                float* out, float* mean, float* rstd) {
  const float inv_n = 1.0f / static_cast<float>(n);
  for (i64 i = 0; i < rows; ++i, x += n, out += n) {
    const float m = row_sum(n, [=](i64 j, Mask k) { return load(x + j, k); }) * inv_n;
    const float var = inv_n * row_sum(n, [=](i64 j, Mask k) {
                        const Vec d = load(x + j, k) - set1(m);
                        return d * d;
                      });
    const float r = 1.0f / __builtin_sqrtf(var + eps);
    map(n, out, [=](i64 j, Mask k) {
      Vec y = (load(x + j, k) - set1(m)) * set1(r);
      if (weight) y = y * load(weight + j, k);
      if (bias) y = y + load(bias + j, k);
      return y;
    });
    mean[i] = m;
    rstd[i] = r;
  }
}

// With xhat = (x - mean) rstd and g = dout * weight:
//   dx = rstd (g - mean(g) - xhat mean(g xhat)) + dresidual
//   dweight += sum of rows dout * xhat,  dbias += sum of rows dout
// Any of dx, dweight, dbias may be null.
void layer_norm_backward(i64 rows, i64 n, const float* dout, const float* x, const float* mean,
                         const float* rstd, const float* weight, const float* dresidual, float* dx,
                         float* dweight, float* dbias) {
  const float inv_n = 1.0f / static_cast<float>(n);
  for (i64 i = 0; i < rows; ++i) {
    const float* dy = dout + i * n;
    const float* row = x + i * n;
    const Vec m = set1(mean[i]), r = set1(rstd[i]);
    // One pass gathers both sums and both parameter gradients.
    Vec sum_g = zero(), sum_gx = zero();
    for (i64 j = 0; j < n; j += Vec::width) {
      const Mask k = first(static_cast<int>(min_of(Vec::width, n - j)));
      const Vec d = load(dy + j, k);
      const Vec xhat = select(k, (load(row + j, k) - m) * r, zero());
      const Vec g = weight ? d * load(weight + j, k) : d;
      sum_g = sum_g + g;
      sum_gx = fma(g, xhat, sum_gx);
      if (dweight) store(dweight + j, fma(d, xhat, load(dweight + j, k)), k);
      if (dbias) store(dbias + j, load(dbias + j, k) + d, k);
    }
    if (!dx) continue;
    const Vec mean_g = set1(reduce_add(sum_g) * inv_n), mean_gx = set1(reduce_add(sum_gx) * inv_n);
    const float* skip = dresidual ? dresidual + i * n : nullptr;
    map(n, dx + i * n, [=](i64 j, Mask k) {
      const Vec xhat = (load(row + j, k) - m) * r;
      const Vec d = load(dy + j, k);
      const Vec g = weight ? d * load(weight + j, k) : d;
      const Vec y = r * fnma(xhat, mean_gx, g - mean_g);
      return skip ? y + load(skip + j, k) : y;
    });
  }
}

}  // namespace
}  // namespace evergrad
