// Several blocks of a row at once, each in four lanes of a Vec: block b lies b strides behind p.
//
//   quads_at    lanes 4 b ... 4 b + 3: the 16 bytes at p + b stride
//   pairs_at    of each block the two halves at p + b stride, as floats
//   firsts      the first of block b's pair, in its lanes
//   fma_pairs   a b + c, b from memory
//   sum_firsts  over the blocks; and sum_seconds
#pragma once

#include "common.h"

#if defined(__GNUC__) && !defined(__clang__)
// As in vec_avx512.h.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace evergrad {
namespace {

constexpr int quads = Vec::width / 4;

#if defined(__AVX2__) || defined(__AVX512F__)

EVG_INLINE __m128i bytes16_at(const uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
EVG_INLINE int two_halves_at(const uint8_t* p) {
  int32_t two;
  __builtin_memcpy(&two, p, 4);
  return two;
}

#if defined(__AVX512F__)

struct Pairs {
  __m256 v;
};

template <int stride>
EVG_INLINE VecI quads_at(const uint8_t* p) {
  __m512i v = _mm512_zextsi128_si512(bytes16_at(p));
  v = _mm512_inserti32x4(v, bytes16_at(p + stride), 1);
  v = _mm512_inserti32x4(v, bytes16_at(p + 2 * stride), 2);
  return {_mm512_inserti32x4(v, bytes16_at(p + 3 * stride), 3)};
}
template <int stride>
EVG_INLINE Pairs pairs_at(const uint8_t* p) {
  return {_mm256_cvtph_ps(_mm_setr_epi32(two_halves_at(p), two_halves_at(p + stride),
                                         two_halves_at(p + 2 * stride),
                                         two_halves_at(p + 3 * stride)))};
}
EVG_INLINE Vec firsts(Pairs a) {
  const __m512i from = _mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6);
  return {_mm512_permutexvar_ps(from, _mm512_zextps256_ps512(a.v))};
}
EVG_INLINE Pairs no_pairs() { return {_mm256_setzero_ps()}; }
EVG_INLINE Pairs fma_pairs(Pairs a, const float* b, Pairs c) {
  return {_mm256_fmadd_ps(a.v, _mm256_loadu_ps(b), c.v)};
}
EVG_INLINE __m128 both_sums(Pairs a) {
  const __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  return _mm_add_ps(s, _mm_movehl_ps(s, s));
}

#else

struct Pairs {
  __m128 v;
};

template <int stride>
EVG_INLINE VecI quads_at(const uint8_t* p) {
  const __m256i v = _mm256_castsi128_si256(bytes16_at(p));
  return {_mm256_inserti128_si256(v, bytes16_at(p + stride), 1)};
}
template <int stride>
EVG_INLINE Pairs pairs_at(const uint8_t* p) {
  return {_mm_cvtph_ps(_mm_setr_epi32(two_halves_at(p), two_halves_at(p + stride), 0, 0))};
}
EVG_INLINE Vec firsts(Pairs a) {
  const __m256 two = _mm256_insertf128_ps(_mm256_castps128_ps256(a.v), _mm_movehl_ps(a.v, a.v), 1);
  return {_mm256_permute_ps(two, 0)};
}
EVG_INLINE Pairs no_pairs() { return {_mm_setzero_ps()}; }
EVG_INLINE Pairs fma_pairs(Pairs a, const float* b, Pairs c) {
  return {_mm_fmadd_ps(a.v, _mm_loadu_ps(b), c.v)};
}
EVG_INLINE __m128 both_sums(Pairs a) { return _mm_add_ps(a.v, _mm_movehl_ps(a.v, a.v)); }

#endif

EVG_INLINE float sum_firsts(Pairs a) { return _mm_cvtss_f32(both_sums(a)); }
EVG_INLINE float sum_seconds(Pairs a) { return _mm_cvtss_f32(_mm_movehdup_ps(both_sums(a))); }

#else

struct Pairs {
  float a, b;
};

template <int stride>
EVG_INLINE VecI quads_at(const uint8_t* p) {
#ifdef __ARM_NEON
  return {vreinterpretq_s32_u8(vld1q_u8(p))};
#else
  return load_u8(p);  // never asked: a single lane holds no block
#endif
}
template <int stride>
EVG_INLINE Pairs pairs_at(const uint8_t* p) {
  uint16_t two[2];
  __builtin_memcpy(two, p, 4);
  return {half_to_float(two[0]), half_to_float(two[1])};
}
EVG_INLINE Vec firsts(Pairs a) { return set1(a.a); }
EVG_INLINE Pairs no_pairs() { return {0.0f, 0.0f}; }
EVG_INLINE Pairs fma_pairs(Pairs a, const float* b, Pairs c) {
  return {a.a * b[0] + c.a, a.b * b[1] + c.b};
}
EVG_INLINE float sum_firsts(Pairs a) { return a.a; }
EVG_INLINE float sum_seconds(Pairs a) { return a.b; }

#endif

}  // namespace
}  // namespace evergrad

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
