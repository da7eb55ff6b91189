// Layer and root-mean-square normalisation of rows.
//
// Forward saves mean and rstd = 1 / sqrt(var + eps); the row is in L1 after the first pass, so the
// second pass for the variance (never E[x^2] - mean^2, which cancels) costs no memory traffic.
// RMS norm is layer norm whose mean is taken to be 0.
#pragma once

#include "kernels/softmax.h"

namespace evergrad {
namespace {

template <bool centred>
EVG_INLINE void norm_rows(i64 rows, i64 n, const float* x, const float* residual,
                          const float* weight, const float* bias, float eps, float* total,
                          float* out, float* mean, float* rstd) {
  const float inv_n = 1.0f / static_cast<float>(n);
  for (i64 i = 0; i < rows; ++i, out += n) {
    const float* row = x + i * n;
    if (residual) {
      const float* skip = residual + i * n;
      map(n, total + i * n, [=](i64 j, auto k) { return load(row + j, k) + load(skip + j, k); });
      row = total + i * n;
    }
    float m = 0.0f;
    if (centred) {
      m = row_sum(n, [=](i64 j, auto k) { return load(row + j, k); }) * inv_n;
      mean[i] = m;
    }
    const auto deviation = [=](i64 j, auto k) {
      return centred ? load(row + j, k) - set1(m) : load(row + j, k);
    };
    const float squares = row_sum(n, [=](i64 j, auto k) {
      const Vec d = deviation(j, k);
      return d * d;
    });
    const float r = 1.0f / __builtin_sqrtf(squares * inv_n + eps);
    rstd[i] = r;
    map(n, out, [=](i64 j, auto k) {
      Vec y = deviation(j, k) * set1(r);
      if (weight) y = y * load(weight + j, k);
      if (bias) y = y + load(bias + j, k);
      return y;
    });
  }
}

void layer_norm(i64 rows, i64 n, const float* x, const float* residual, const float* weight,
                const float* bias, float eps, float* total, float* out, float* mean, float* rstd) {
  norm_rows<true>(rows, n, x, residual, weight, bias, eps, total, out, mean, rstd);
}

void rms_norm(i64 rows, i64 n, const float* x, const float* residual, const float* weight,
              float eps, float* total, float* out, float* rstd) {
  norm_rows<false>(rows, n, x, residual, weight, nullptr, eps, total, out, nullptr, rstd);
}

// Into L2 what is needed when the rows at hand, which fill L1, are done: several rows of two arrays
// are more streams than the hardware's own prefetching follows.
EVG_INLINE void fetch_later(const float* p) {
  if (Vec::width >= 8) __builtin_prefetch(p, 0, 2);
}

// With xhat = (x - mean) rstd and g = dout * weight:
//   dx = rstd (g - mean(g) - xhat mean(g xhat)) + dresidual, without mean(g) for RMS norm
//   dweight += sum of rows dout * xhat,  dbias += sum of rows dout
// Any of dx, dweight, dbias may be null.
//
// Several rows together: the parameter gradients, read and written for each of them, would cost as
// much as all else. They are added row by row all the same, so the bits do not depend on `rows`.
template <bool centred, int rows>
EVG_INLINE void norm_backward_rows(i64 n, const float* dout, const float* x, const float* mean,
                                   const float* rstd, const float* weight, const float* dresidual,
                                   float* dx, float* dweight, float* dbias) {
  const auto normalized = [=](int i, i64 j, auto k) {
    const Vec v = load(x + i * n + j, k);
    return (centred ? v - set1(mean[i]) : v) * set1(rstd[i]);
  };
  Vec sum_g[rows], sum_gx[rows];
  for (int i = 0; i < rows; ++i) sum_g[i] = sum_gx[i] = zero();
  const auto gather = [&](i64 j, auto k) {
    const Vec w = weight ? load(weight + j, k) : set1(1.0f);
    Vec dw = dweight ? load(dweight + j, k) : zero(), db = dbias ? load(dbias + j, k) : zero();
#pragma GCC unroll 4
    for (int i = 0; i < rows; ++i) {
      fetch_later(dout + (i + rows) * n + j);
      fetch_later(x + (i + rows) * n + j);
      const Vec d = load(dout + i * n + j, k), xhat = select(k, normalized(i, j, k), zero());
      const Vec g = d * w;
      if (centred) sum_g[i] = sum_g[i] + g;
      sum_gx[i] = fma(g, xhat, sum_gx[i]);
      dw = fma(d, xhat, dw);
      db = db + d;
    }
    if (dweight) store(dweight + j, dw, k);
    if (dbias) store(dbias + j, db, k);
  };
  for_vectors(0, n, gather);
  if (!dx) return;

  const float inv_n = 1.0f / static_cast<float>(n);
  for (int i = 0; i < rows; ++i) {
    const Vec mean_g = set1(centred ? reduce_add(sum_g[i]) * inv_n : 0.0f);
    const Vec mean_gx = set1(reduce_add(sum_gx[i]) * inv_n), r = set1(rstd[i]);
    map(n, dx + i * n, [=](i64 c, auto k) {
      const Vec d = load(dout + i * n + c, k);
      Vec g = weight ? d * load(weight + c, k) : d;
      if (centred) g = g - mean_g;
      const Vec y = r * fnma(normalized(i, c, k), mean_gx, g);
      return dresidual ? y + load(dresidual + i * n + c, k) : y;
    });
  }
}

template <bool centred>
EVG_INLINE void norm_backward(i64 rows, i64 n, const float* dout, const float* x, const float* mean,
                              const float* rstd, const float* weight, const float* dresidual,
                              float* dx, float* dweight, float* dbias) {
  const auto from = [](auto* p, i64 offset) { return p ? p + offset : nullptr; };
  i64 i = 0;
  for (; i + 4 <= rows; i += 4)
    norm_backward_rows<centred, 4>(n, dout + i * n, x + i * n, from(mean, i), rstd + i, weight,
                                   from(dresidual, i * n), from(dx, i * n), dweight, dbias);
  for (; i < rows; ++i)
    norm_backward_rows<centred, 1>(n, dout + i * n, x + i * n, from(mean, i), rstd + i, weight,
                                   from(dresidual, i * n), from(dx, i * n), dweight, dbias);
}

void layer_norm_backward(i64 rows, i64 n, const float* dout, const float* x, const float* mean,
                         const float* rstd, const float* weight, const float* dresidual, float* dx,
                         float* dweight, float* dbias) {
  norm_backward<true>(rows, n, dout, x, mean, rstd, weight, dresidual, dx, dweight, dbias);
}

void rms_norm_backward(i64 rows, i64 n, const float* dout, const float* x, const float* rstd,
                       const float* weight, const float* dresidual, float* dx, float* dweight) {
  norm_backward<false>(rows, n, dout, x, nullptr, rstd, weight, dresidual, dx, dweight, nullptr);
}

}  // namespace
}  // namespace evergrad
