// The mask of a whole vector, which the compiler knows to be one: on AVX2 a masked store takes ten
// times as long as a plain one, and GCC does not see that all lanes of a mask are on.
// Include it after one vec_*.h.
#pragma once

#include "common.h"

namespace evergrad {
namespace {

struct Whole {};
EVG_INLINE Vec load(const float* p, Whole) { return load(p); }
EVG_INLINE void store(float* p, Vec a, Whole) { store(p, a); }
EVG_INLINE Vec select(Whole, Vec a, Vec) { return a; }

// f(i, mask) for the elements from i on: whole vectors, then what is left of one.
template <class F>
EVG_INLINE void for_vectors(int64_t i, int64_t n, F f) {
  for (; i + Vec::width <= n; i += Vec::width) f(i, Whole{});
  if (i < n) f(i, first(static_cast<int>(n - i)));
}

}  // namespace
}  // namespace evergrad
