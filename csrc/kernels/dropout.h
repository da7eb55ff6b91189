// Dropout: element i is kept when a hash of its counter reaches the threshold p * 2^32.
//
// The hash is two rounds of Wellons' lowbias32 on the low half of the counter, keyed by 64 bits
// that come from the seed and the high half.
#pragma once

#include "kernels/activation.h"
#include "kernels/random.h"

namespace evergrad {
namespace {

EVG_INLINE VecI mix32(VecI x) {
  x = x ^ shr<16>(x);
  x = mullo(x, set1i(0x7feb352d));
  x = x ^ shr<15>(x);
  x = mullo(x, set1i(static_cast<int32_t>(0x846ca68bu)));
  return x ^ shr<16>(x);
}

struct DropoutKey {
  uint32_t low, high;
};

EVG_INLINE DropoutKey dropout_key(uint64_t seed, uint64_t counter_high) {
  const uint64_t key = splitmix64(seed ^ splitmix64(counter_high));
  return {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
}

EVG_INLINE Mask is_dropped(VecI counter, VecI key_low, VecI key_high, uint32_t threshold) {
  const VecI bits = mix32(mix32(counter ^ key_low) + key_high);
  return ltu(bits, set1i(static_cast<int32_t>(threshold)));
}

void dropout(i64 n, const float* x, uint64_t counter, uint64_t seed, uint32_t threshold,
             float scale, float* out) {
  while (n > 0) {
    const uint32_t low = static_cast<uint32_t>(counter);
    const i64 run = min_of(n, (i64(1) << 32) - low);  // these share the high half
    const DropoutKey key = dropout_key(seed, counter >> 32);
    const VecI key_low = set1i(static_cast<int32_t>(key.low)),
               key_high = set1i(static_cast<int32_t>(key.high));
    map(run, out, [=](i64 i, auto m) {
      const VecI c = set1i(static_cast<int32_t>(low + static_cast<uint32_t>(i))) + iotai();
      return select(is_dropped(c, key_low, key_high, threshold), zero(),
                    load(x + i, m) * set1(scale));
    });
    n -= run, x += run, out += run, counter += static_cast<uint64_t>(run);
  }
}

}  // namespace
}  // namespace evergrad
