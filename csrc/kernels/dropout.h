// Dropout: element i is kept when a hash of its counter reaches the threshold p * 2^32.
//
// The hash is two rounds of Wellons' lowbias32 keyed by 64 bits that the driver derives from the
// seed and the high half of the counter (kernels see runs whose counters share that half).
#pragma once

#include "kernels/activation.h"

namespace evergrad {
namespace {

EVG_INLINE VecI mix32(VecI x) {
  x = x ^ shr<16>(x);
  x = mullo(x, set1i(0x7feb352d));
  x = x ^ shr<15>(x);
  x = mullo(x, set1i(static_cast<int32_t>(0x846ca68bu)));
  return x ^ shr<16>(x);
}

void dropout(i64 n, const float* x, uint32_t counter, uint32_t key0, uint32_t key1,
             uint32_t threshold, float scale, float* out) {
  const VecI k0 = set1i(static_cast<int32_t>(key0)), k1 = set1i(static_cast<int32_t>(key1));
  const VecI limit = set1i(static_cast<int32_t>(threshold));
  map(n, out, [=](i64 i, Mask m) {
    const VecI c = set1i(static_cast<int32_t>(counter + static_cast<uint32_t>(i))) + iotai();
    const VecI bits = mix32(mix32(c ^ k0) + k1);
    return select(ltu(bits, limit), zero(), load(x + i, m) * set1(scale));
  });
}

}  // namespace
}  // namespace evergrad
