// The counter-based generator of the drivers.
#pragma once

#include <stdint.h>

namespace evergrad {

// The output function of splitmix64 (Steele et al. 2014): every seed gives unrelated keys.
inline uint64_t splitmix64(uint64_t z) {
  z += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// A number in [0, 1) with 53 random bits: a pure function of seed and counter.
inline double uniform(uint64_t seed, uint64_t counter) {
  return static_cast<double>(splitmix64(seed ^ splitmix64(counter)) >> 11) * 0x1p-53;
}

}  // namespace evergrad
