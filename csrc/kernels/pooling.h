// The mean of rows, and its gradient: one row for many and back.
#pragma once

#include "kernels/activation.h"

namespace evergrad {
namespace {

// out = the mean of `rows` rows of x, added in order; of no rows: 0
void mean_rows(i64 rows, i64 n, const float* x, float* out) {
  const Vec scale = set1(rows ? 1.0f / static_cast<float>(rows) : 0.0f);
  constexpr int together = 4;  // sums that wait for no other: one alone takes an addition's latency
  i64 j = 0;
  for (; j + together * Vec::width <= n; j += together * Vec::width) {
    Vec acc[together] = {zero(), zero(), zero(), zero()};
    for (i64 i = 0; i < rows; ++i)
#pragma GCC unroll 4
      for (int c = 0; c < together; ++c) acc[c] = acc[c] + load(x + i * n + j + c * Vec::width);
    for (int c = 0; c < together; ++c) store(out + j + c * Vec::width, acc[c] * scale);
  }
  for_vectors(j, n, [=](i64 at, auto mask) {
    Vec acc = zero();
    for (i64 i = 0; i < rows; ++i) acc = acc + load(x + i * n + at, mask);
    store(out + at, acc * scale, mask);
  });
}

// each of `rows` rows of out = x / rows
void spread_mean(i64 rows, i64 n, const float* x, float* out) {
  const Vec scale = set1(rows ? 1.0f / static_cast<float>(rows) : 0.0f);
  for (i64 i = 0; i < rows; ++i)
    map(n, out + i * n, [=](i64 j, auto mask) { return load(x + j, mask) * scale; });
}

}  // namespace
}  // namespace evergrad
