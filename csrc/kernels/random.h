// What every counter-based generator is made of.
#pragma once

#include <stdint.h>

#include "simd/common.h"

namespace evergrad {
namespace {

// The output function of splitmix64 (Steele et al. 2014): every seed gives unrelated keys.
EVG_INLINE uint64_t splitmix64(uint64_t z) {
  z += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

}  // namespace
}  // namespace evergrad
