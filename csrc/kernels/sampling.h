// What drawing a token takes of each row of logits.
#pragma once

#include "kernels/softmax.h"

namespace evergrad {
namespace {

// The largest of each peak_block elements, and of all: NaN where one is NaN.
float block_peaks(i64 n, const float* x, float* peaks) {
  const float spoiled = row_sum(n, [=](i64 j, auto m) {
    const Vec e = load(x + j, m);
    return select(eq(e, e), zero(), set1(1.0f));
  });
  if (spoiled > 0.0f) return __builtin_nanf("");
  for (i64 block = 0; block < peaks_of(n); ++block) {
    const float* first = x + block * peak_block;
    peaks[block] = row_max(min_of(peak_block, x + n - first), first);
  }
  return row_max(peaks_of(n), peaks);
}

// w = exp((z - peak) / temperature): a softmax without its division, exactly 1 at the peak.
void sample_weights(i64 n, const float* z, float peak, float inverse_temperature, float* w) {
  const Vec top = set1(peak), scale = set1(inverse_temperature);
  map(n, w, [=](i64 j, auto m) {
    const Vec logit = load(z + j, m);
    return select(eq(logit, top), set1(1.0f), exp((logit - top) * scale));
  });
}

}  // namespace
}  // namespace evergrad
