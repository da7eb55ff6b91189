// The counter-based generator of the drivers.
#pragma once

#include <stdint.h>

#include "kernels/random.h"

namespace evergrad {

// A number in [0, 1) with 53 random bits: a pure function of seed and counter.
inline double uniform(uint64_t seed, uint64_t counter) {
  return static_cast<double>(splitmix64(seed ^ splitmix64(counter)) >> 11) * 0x1p-53;
}

}  // namespace evergrad
