// Losses: cross-entropy of rows of logits, squared error, binary cross-entropy.
#pragma once

#include "kernels/softmax.h"

namespace evergrad {
namespace {

EVG_INLINE float exp_scalar(float x) {
  alignas(64) float lanes[Vec::width];
  store(lanes, exp(set1(x)));
  return lanes[0];
}

// A row of logits passes by in pieces, which may be cut anywhere: sum is that of exp(z - peak) over
// what came so far (Milakov & Gimelshein 2018). Inside, a piece is as much as stays in L1, so that
// memory is read once. The cut shows in the bits.
EVG_INLINE void scan_row(i64 n, const float* z, i64 label, bool totalled, RowOfLogits& row) {
  constexpr i64 piece = 2048;
  if (label >= 0 && label < n) row.label = z[label];
  for (i64 j = 0; j < n; j += piece) {
    const i64 size = min_of(piece, n - j);
    // An infinite peak is the answer itself, and NaN passes through the sum.
    const float peak = reduce_max(max(set1(row.peak), set1(row_max(size, z + j))));
    if (peak != row.peak) {
      row.sum *= exp_scalar(row.peak - (peak == -infinity ? 0.0f : peak));
      row.peak = peak;
    }
    row.sum += row_sum_exp(size, z + j, peak);
    if (totalled) row.total += row_sum(size, [=](i64 i, auto k) { return load(z + j + i, k); });
  }
}

// loss = lse - (1 - s) z_t - s / classes sum(z);  ignored rows: 0
EVG_INLINE void finish_row(const RowOfLogits& row, bool ignored, const CrossEntropy& p, float* loss,
                           float* lse) {
  *lse = (row.peak == -infinity ? 0.0f : row.peak) + log_scalar(row.sum);
  float value = *lse - row.label;
  if (p.smoothing != 0.0f) {
    const float mean = row.total / static_cast<float>(p.classes);
    value = (1.0f - p.smoothing) * value + p.smoothing * (*lse - mean);
  }
  *loss = ignored ? 0.0f : value;
}

void cross_entropy(i64 rows, const float* logits, const i64* target, const CrossEntropy* p,
                   float* losses, float* lse) {
  for (i64 i = 0; i < rows; ++i) {
    RowOfLogits row = {-infinity, 0.0f, 0.0f, 0.0f};
    const bool ignored = target[i] == p->ignore_index;
    scan_row(p->classes, logits + i * p->classes, ignored ? -1 : target[i], p->smoothing != 0.0f,
             row);
    finish_row(row, ignored, *p, losses + i, lse + i);
  }
}

// The same for classes [first, first + n) of rows that are `stride` apart; rows keep their state
// between the calls.
void cross_entropy_scan(i64 rows, i64 n, const float* logits, i64 stride, i64 first_class,
                        const i64* target, const CrossEntropy* p, RowOfLogits* state) {
  for (i64 i = 0; i < rows; ++i)
    scan_row(n, logits + i * stride, target[i] == p->ignore_index ? -1 : target[i] - first_class,
             p->smoothing != 0.0f, state[i]);
}

void cross_entropy_finish(i64 rows, const i64* target, const CrossEntropy* p,
                          const RowOfLogits* state, float* losses, float* lse) {
  for (i64 i = 0; i < rows; ++i)
    finish_row(state[i], target[i] == p->ignore_index, *p, losses + i, lse + i);
}

// z = c tanh(z / c)
void softcap(i64 rows, i64 n, float cap, float* logits, i64 stride) {
  const Vec c = set1(cap), inverse = set1(1.0f / cap);
  for (i64 i = 0; i < rows; ++i) {
    float* z = logits + i * stride;
    map(n, z, [=](i64 j, auto k) { return c * tanh(load(z + j, k) * inverse); });
  }
}

// dz_j = d (exp(z_j - lse) - (1 - s) [j = t] - s / classes) for classes [first, first + n); with a
// softcap, z is the capped logit and dz the gradient of what was capped: times 1 - (z_j / c)^2.
// dlogits may be logits itself.
void cross_entropy_backward(i64 rows, i64 n, const float* drows, const float* logits, i64 stride,
                            i64 first_class, const i64* target, const float* lse,
                            const CrossEntropy* p, float* dlogits, i64 dstride) {
  const float cap = p->softcap;
  const Vec inverse = set1(cap == 0.0f ? 0.0f : 1.0f / cap);
  const Vec uniform = set1(p->smoothing / static_cast<float>(p->classes));
  for (i64 i = 0; i < rows; ++i) {
    const float* z = logits + i * stride;
    float* dz = dlogits + i * dstride;
    if (target[i] == p->ignore_index) {
      map(n, dz, [](i64, auto) { return zero(); });
      continue;
    }
    const i64 label = target[i] - first_class;
    const bool here = label >= 0 && label < n;
    const float d = drows[i], at_label = here ? z[label] / (cap == 0.0f ? 1.0f : cap) : 0.0f;
    const Vec shift = set1(lse[i]), scale = set1(d);
    const auto slope = [=](Vec logit) { return scale * (exp(logit - shift) - uniform); };
    if (cap == 0.0f)
      map(n, dz, [=](i64 j, auto k) { return slope(load(z + j, k)); });
    else
      map(n, dz, [=](i64 j, auto k) {
        const Vec logit = load(z + j, k), t = logit * inverse;
        return slope(logit) * fnma(t, t, set1(1.0f));
      });
    if (here)
      dz[label] -= d * (1.0f - p->smoothing) * (cap == 0.0f ? 1.0f : 1.0f - at_label * at_label);
  }
}

// A sum of losses: stretches of sixteen vectors in float32, at most ten roundings deep, and those
// in float64, so that a mean over millions keeps its digits.
template <class F>
EVG_INLINE double total(i64 n, F f) {
  constexpr i64 stretch = 16 * Vec::width;
  double sum = 0;
  for (i64 i = 0; i < n; i += stretch)
    sum += static_cast<double>(
        row_sum(min_of(stretch, n - i), [=](i64 j, auto m) { return f(i + j, m); }));
  return sum;
}

EVG_INLINE auto squared_error(const float* x, const float* target) {
  return [=](i64 i, auto m) {
    const Vec d = load(x + i, m) - load(target + i, m);
    return d * d;
  };
}

void mse(i64 n, const float* x, const float* target, float* out) {
  map(n, out, squared_error(x, target));
}
double mse_sum(i64 n, const float* x, const float* target) {
  return total(n, squared_error(x, target));
}

// dout_stride: 1 for a cotangent per element, 0 for one number
template <class M>
EVG_INLINE Vec cotangent(const float* dout, i64 stride, i64 i, M mask) {
  return stride ? load(dout + i, mask) : set1(dout[0]);
}

void mse_backward(i64 n, const float* dout, i64 dout_stride, const float* x, const float* target,
                  float* dx) {
  map(n, dx, [=](i64 i, auto m) {
    const Vec d = load(x + i, m) - load(target + i, m);
    return (d + d) * cotangent(dout, dout_stride, i, m);
  });
}

// max(x, 0) - x t + log(1 + exp(-|x|)): no overflow on either side
EVG_INLINE auto binary_cross_entropy(const float* x, const float* target) {
  return [=](i64 i, auto m) {
    const Vec z = load(x + i, m), t = load(target + i, m);
    const Vec positive = select(le(z, zero()), zero(), z);
    return fnma(z, t, positive) + log1p(exp(neg(abs(z))));
  };
}

void bce(i64 n, const float* x, const float* target, float* out) {
  map(n, out, binary_cross_entropy(x, target));
}
double bce_sum(i64 n, const float* x, const float* target) {
  return total(n, binary_cross_entropy(x, target));
}

void bce_backward(i64 n, const float* dout, i64 dout_stride, const float* x, const float* target,
                  float* dx) {
  map(n, dx, [=](i64 i, auto m) {
    return (sigmoid(load(x + i, m)) - load(target + i, m)) * cotangent(dout, dout_stride, i, m);
  });
}

}  // namespace
}  // namespace evergrad
