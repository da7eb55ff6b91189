// The mean of rows, and its gradient: one row for many and back.
#pragma once

#include "kernels/activation.h"

namespace evergrad {
namespace {

// out = the mean of `rows` rows of x, added in order; of no rows: 0
void mean_rows(i64 rows, i64 n, const float* x, float* out) {
  const Vec scale = set1(rows ? 1.0f / static_cast<float>(rows) : 0.0f);
  for (i64 j = 0; j < n; j += Vec::width) {
    const Mask mask = first(static_cast<int>(min_of(Vec::width, n - j)));
    Vec acc = zero();
    for (i64 i = 0; i < rows; ++i) acc = acc + load(x + i * n + j, mask);
    store(out + j, acc * scale, mask);
  }
}

// each of `rows` rows of out = x / rows
void spread_mean(i64 rows, i64 n, const float* x, float* out) {
  const Vec scale = set1(rows ? 1.0f / static_cast<float>(rows) : 0.0f);
  for (i64 j = 0; j < n; j += Vec::width) {
    const Mask mask = first(static_cast<int>(min_of(Vec::width, n - j)));
    const Vec each = load(x + j, mask) * scale;
    for (i64 i = 0; i < rows; ++i) store(out + i * n + j, each, mask);
  }
}

}  // namespace
}  // namespace evergrad
