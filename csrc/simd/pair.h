// Two floats: the scale and the minimum of a group of numbers, often halves side by side.
//
//   halves_at       two halves at any address
//   first_of ...    one of the two in all lanes of a Vec
//   fma_pair        a b + c, b from memory
#pragma once

#include "common.h"

namespace evergrad {
namespace {

#ifdef __F16C__

struct Pair {
  __m128 v;
};
EVG_INLINE Pair pair_of(float a, float b) { return {_mm_setr_ps(a, b, 0.0f, 0.0f)}; }
EVG_INLINE Pair halves_at(const uint8_t* p) {
  int32_t two;
  __builtin_memcpy(&two, p, 4);
  return {_mm_cvtph_ps(_mm_cvtsi32_si128(two))};
}
EVG_INLINE Pair fma_pair(Pair a, const float* b, Pair c) {
  const __m128 two = _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(b)));
  return {_mm_fmadd_ps(a.v, two, c.v)};
}
EVG_INLINE float first_in(Pair a) { return _mm_cvtss_f32(a.v); }
EVG_INLINE float second_in(Pair a) { return _mm_cvtss_f32(_mm_movehdup_ps(a.v)); }

#else

struct Pair {
  float a, b;
};
EVG_INLINE Pair pair_of(float a, float b) { return {a, b}; }
EVG_INLINE Pair halves_at(const uint8_t* p) {
  uint16_t two[2];
  __builtin_memcpy(two, p, 4);
  return {half_to_float(two[0]), half_to_float(two[1])};
}
EVG_INLINE Pair fma_pair(Pair a, const float* b, Pair c) {
  return {a.a * b[0] + c.a, a.b * b[1] + c.b};
}
EVG_INLINE float first_in(Pair a) { return a.a; }
EVG_INLINE float second_in(Pair a) { return a.b; }

#endif

EVG_INLINE Vec first_of(Pair a) { return set1(first_in(a)); }
EVG_INLINE Vec second_of(Pair a) { return set1(second_in(a)); }

#ifndef EVG_SEVERAL_BLOCKS
// A vector that holds one block, or a part of it: its pairs (vec_scalar.h) are one.
using Pairs = Pair;
template <int stride>
EVG_INLINE Pairs pairs_at(const uint8_t* p) {
  return halves_at(p);
}
EVG_INLINE Vec firsts(Pairs a) { return first_of(a); }
EVG_INLINE Pairs no_pairs() { return pair_of(0.0f, 0.0f); }
EVG_INLINE Pairs fma_pairs(Pairs a, const float* b, Pairs c) { return fma_pair(a, b, c); }
EVG_INLINE float sum_firsts(Pairs a) { return first_in(a); }
EVG_INLINE float sum_seconds(Pairs a) { return second_in(a); }
#endif

}  // namespace
}  // namespace evergrad
