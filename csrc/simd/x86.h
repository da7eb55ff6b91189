// What the vectors of x86 share: small loads at any address.
#pragma once

#include <immintrin.h>

#include "common.h"

namespace evergrad {
namespace {

EVG_INLINE __m128i bytes16_at(const uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
EVG_INLINE int two_halves_at(const uint8_t* p) {
  int32_t two;
  __builtin_memcpy(&two, p, 4);
  return two;
}

}  // namespace
}  // namespace evergrad
