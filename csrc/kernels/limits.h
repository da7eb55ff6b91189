// The machine's two limits, for benchmarks to divide by.
#pragma once

#include "kernels/gemm.h"

namespace evergrad {
namespace {

// Twelve independent chains keep every FMA port busy whatever the latency. flops: rounds * 12 *
// width * 2. The multiplier is just under one, so that nothing overflows or turns denormal.
float fma_rounds(i64 rounds) {
  Vec acc[12];
#pragma GCC unroll 12
  for (int i = 0; i < 12; ++i) acc[i] = set1(static_cast<float>(i));
  const Vec a = set1(0.999999f), b = set1(1e-6f);
  for (i64 r = 0; r < rounds; ++r)
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) acc[i] = fma(acc[i], a, b);
  Vec total = acc[0];
#pragma GCC unroll 12
  for (int i = 1; i < 12; ++i) total = total + acc[i];
  return reduce_add(total);
}

float read_sum(i64 n, const float* x) {
  Vec acc[8];
  for (int v = 0; v < 8; ++v) acc[v] = zero();
  for (i64 i = 0; i + 8 * Vec::width <= n; i += 8 * Vec::width)
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v) acc[v] = acc[v] + load(x + i + v * Vec::width);
  Vec total = acc[0];
  for (int v = 1; v < 8; ++v) total = total + acc[v];
  return reduce_add(total);
}

}  // namespace
}  // namespace evergrad
