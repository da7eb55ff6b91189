// The mean of rows, and its gradient: one row for many and back.
#pragma once

#include "kernels/activation.h"

namespace evergrad {
namespace {

// out = the mean of `rows` rows of x, added in order; of no rows: 0
void mean_rows(i64 rows, i64 n, const float* x, float* out) {
  const Vec scale = set1(rows ? 1.0f / static_cast<float>(rows) : 0.0f);
  for_vectors(0, n, [=](i64 j, auto mask) {
    Vec acc = zero();
    for (i64 i = 0; i < rows; ++i) acc = acc + load(x + i * n + j, mask);
    store(out + j, acc * scale, mask);
  });
}

// each of `rows` rows of out = x / rows
void spread_mean(i64 rows, i64 n, const float* x, float* out) {
  const Vec scale = set1(rows ? 1.0f / static_cast<float>(rows) : 0.0f);
  for_vectors(0, n, [=](i64 j, auto mask) {
    const Vec each = load(x + j, mask) * scale;
    for (i64 i = 0; i < rows; ++i) store(out + i * n + j, each, mask);
  });
}

}  // namespace
}  // namespace evergrad
