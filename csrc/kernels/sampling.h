// Weights of tokens to draw from: a softmax without its division.
#pragma once

#include "kernels/softmax.h"

namespace evergrad {
namespace {

// w = exp((z - max) / temperature), exactly 1 at the maximum. Returns the maximum, or NaN where a
// logit is NaN or none is above -inf: there is nothing to draw.
float sample_weights(i64 n, const float* z, float inverse_temperature, float* w) {
  const float peak = row_max(n, z);
  if (!(peak > -infinity)) return __builtin_nanf("");
  const Vec top = set1(peak), scale = set1(inverse_temperature);
  map(n, w, [=](i64 j, auto m) {
    const Vec logit = load(z + j, m);
    return select(eq(logit, top), set1(1.0f), exp((logit - top) * scale));
  });
  const float sum = row_sum(n, [=](i64 j, auto m) { return load(w + j, m); });
  return sum == sum ? peak : sum;
}

}  // namespace
}  // namespace evergrad
