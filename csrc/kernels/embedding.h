// Rows of tables by index, summed over tables; and the scatter of their gradients.
#pragma once

#include "kernels/activation.h"

namespace evergrad {
namespace {

// out += x
void add_rows(i64 n, const float* x, float* out) {
  map(n, out, [=](i64 i, auto m) { return load(out + i, m) + load(x + i, m); });
}

// out[i] (+)= sum over tables t of weights[t][indices[t][i]], in the order of the tables
void gather_rows(i64 rows, i64 n, int tables, const i64* const* indices,
                 const float* const* weights, bool accumulate, float* out) {
  for (i64 i = 0; i < rows; ++i, out += n) {
    const float* const first_row = weights[0] + indices[0][i] * n;
    if (accumulate)
      map(n, out, [=](i64 j, auto m) { return load(out + j, m) + load(first_row + j, m); });
    else
      map(n, out, [=](i64 j, auto m) { return load(first_row + j, m); });
    for (int t = 1; t < tables; ++t) {
      const float* const row = weights[t] + indices[t][i] * n;
      map(n, out, [=](i64 j, auto m) { return load(out + j, m) + load(row + j, m); });
    }
  }
}

// table[indices[i]] += x[i] in the order of i, on columns [0, n) of rows that are `stride` apart
void scatter_rows(i64 rows, i64 n, const float* x, const i64* indices, i64 stride, float* table) {
  for (i64 i = 0; i < rows; ++i, x += stride) {
    float* const row = table + indices[i] * stride;
    const float* const from = x;
    map(n, row, [=](i64 j, auto m) { return load(row + j, m) + load(from + j, m); });
  }
}

}  // namespace
}  // namespace evergrad
