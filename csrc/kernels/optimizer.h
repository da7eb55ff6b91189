// Optimizer steps: one pass over memory each, every element on its own.
#pragma once

#include "kernels/activation.h"
#include "simd/flush.h"

namespace evergrad {
namespace {

// g + decay * w. Without decay w must not enter at all: 0 * inf would be NaN.
EVG_INLINE Vec decayed(Vec g, Vec w, float decay) {
  return decay == 0.0f ? g : fma(set1(decay), w, g);
}

// Averages of gradients that no longer come fade to 0. But beside an eps smaller than this the root
// of a subnormal number counts.
constexpr float least_eps = 1e-12f;

void adam(i64 n, float* param, const float* grad, float* exp_avg, float* exp_avg_sq,
          const AdamParams* p) {
  const Vec beta2 = set1(p->beta2);
  const Vec rest1 = set1(p->rest1), rest2 = set1(p->rest2);
  const Vec step_size = set1(p->lr / p->correction1);
  const Vec inv_correction2 = set1(1.0f / p->correction2_sqrt), eps = set1(p->eps);
  const Vec grad_scale = set1(p->grad_scale);
  const Vec keep = set1(p->decoupled ? 1.0f - p->lr * p->weight_decay : 1.0f);
  const float l2 = p->decoupled ? 0.0f : p->weight_decay;
  flush_subnormals(p->eps >= least_eps, [&] {
    map(n, param, [=](i64 i, auto k) {
      const Vec w = load(param + i, k);
      const Vec g = decayed(load(grad + i, k) * grad_scale, w, l2);
      // As an interpolation, like the reference: an infinite average becomes NaN.
      const Vec m_old = load(exp_avg + i, k);
      const Vec m = fma(rest1, g - m_old, m_old);
      const Vec v = fma(rest2, g * g, beta2 * load(exp_avg_sq + i, k));
      store(exp_avg + i, m, k);
      store(exp_avg_sq + i, v, k);
      const Vec denominator = fma(sqrt(v), inv_correction2, eps);
      return fnma(step_size, m / denominator, w * keep);
    });
  });
}

void sgd(i64 n, float* param, const float* grad, float* buffer, const SgdParams* p) {
  const Vec lr = set1(p->lr), grad_scale = set1(p->grad_scale);
  const float decay = p->weight_decay;
  const Vec momentum = set1(p->momentum), rest = set1(p->rest);
  const bool first_step = p->first, nesterov = p->nesterov;
  flush_subnormals(true, [&] {
    map(n, param, [=](i64 i, auto k) {
      const Vec w = load(param + i, k);
      const Vec g = decayed(load(grad + i, k) * grad_scale, w, decay);
      Vec d = g;
      if (buffer) {
        const Vec b = first_step ? g : fma(momentum, load(buffer + i, k), rest * g);
        store(buffer + i, b, k);
        d = nesterov ? fma(momentum, b, g) : b;
      }
      return fnma(lr, d, w);
    });
  });
}

void rmsprop(i64 n, float* param, const float* grad, float* square_avg, const RmspropParams* p) {
  const Vec lr = set1(p->lr), grad_scale = set1(p->grad_scale);
  const float decay = p->weight_decay;
  const Vec alpha = set1(p->alpha), rest = set1(p->rest), eps = set1(p->eps);
  flush_subnormals(p->eps >= least_eps, [&] {
    map(n, param, [=](i64 i, auto k) {
      const Vec w = load(param + i, k);
      const Vec g = decayed(load(grad + i, k) * grad_scale, w, decay);
      const Vec v = fma(rest, g * g, alpha * load(square_avg + i, k));
      store(square_avg + i, v, k);
      return fnma(lr, g / (sqrt(v) + eps), w);
    });
  });
}

void scale(i64 n, float factor, float* x) {
  map(n, x, [=](i64 i, auto k) { return load(x + i, k) * set1(factor); });
}

// In float64, four chains: the norm of millions of gradients keeps its digits.
double sum_of_squares(i64 n, const float* x) {
  double acc[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  i64 i = 0;
  for (; i + 8 <= n; i += 8)
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j)
      acc[j] += static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]);
  for (int j = 0; i < n; ++i, ++j) acc[j] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return ((acc[0] + acc[4]) + (acc[2] + acc[6])) + ((acc[1] + acc[5]) + (acc[3] + acc[7]));
}

}  // namespace
}  // namespace evergrad
