// Stands in for the compiler's <immintrin.h> (-I finds it first) where AVX-512 is emulated: SIMDe
// maps the intrinsics to AVX2, so that vec_avx512.h, unchanged, runs without AVX-512.
#pragma once

#include_next <immintrin.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>
#include <string.h>

// What vec_avx512.h uses and SIMDe 0.7.4 lacks or gets wrong, lane by lane.
namespace emulated {

template <class Lane>
inline simde__m512 lanes_ps(Lane lane) {
  simde__m512_private r;
  for (int i = 0; i < 16; ++i) r.f32[i] = lane(i);
  return simde__m512_from_private(r);
}

template <class Lane>
inline simde__m512i lanes_epi32(Lane lane) {
  simde__m512i_private r;
  for (int i = 0; i < 16; ++i) r.i32[i] = lane(i);
  return simde__m512i_from_private(r);
}

inline simde__m512 maskz_loadu_ps(simde__mmask16 k, const void* p) {
  const float* from = static_cast<const float*>(p);
  return lanes_ps([=](int i) { return (k >> i) & 1 ? from[i] : 0.0f; });
}

inline void mask_storeu_ps(void* p, simde__mmask16 k, simde__m512 a) {
  const simde__m512_private from = simde__m512_to_private(a);
  for (int i = 0; i < 16; ++i) {
    if ((k >> i) & 1) static_cast<float*>(p)[i] = from.f32[i];
  }
}

inline __m256 extractf32x8_ps(simde__m512 a, int half) {
  return simde__m512_to_private(a).m256[half];
}

inline void stream_ps(float* p, simde__m512 a) {
  const simde__m512_private from = simde__m512_to_private(a);
  memcpy(p, &from, 64);
}

// SIMDe multiplies by 2^n, which is infinite for 128 where the product is not.
inline simde__m512 maskz_scalef_ps(simde__mmask16 k, simde__m512 a, simde__m512 n) {
  const simde__m512_private x = simde__m512_to_private(a), e = simde__m512_to_private(n);
  return lanes_ps([&](int i) {
    if (!(k >> i & 1)) return 0.0f;
    if (__builtin_isnan(e.f32[i])) return e.f32[i];
    return __builtin_ldexpf(x.f32[i], static_cast<int>(__builtin_floorf(e.f32[i])));
  });
}

// The same choice of four within each four lanes.
inline simde__m512 permute_ps(simde__m512 a, unsigned choice) {
  const simde__m512_private from = simde__m512_to_private(a);
  return lanes_ps([&](int i) { return from.f32[(i & ~3) + ((choice >> 2 * (i & 3)) & 3)]; });
}

// The lower half from the quarters of a, the upper half from those of b.
inline simde__m512 shuffle_f32x4(simde__m512 a, simde__m512 b, unsigned choice) {
  const simde__m512_private x = simde__m512_to_private(a), y = simde__m512_to_private(b);
  return lanes_ps([&](int i) {
    const int from = 4 * ((choice >> 2 * (i / 4)) & 3) + i % 4;
    return i < 8 ? x.f32[from] : y.f32[from];
  });
}

inline simde__m512i srai_epi32(simde__m512i a, unsigned n) {
  const simde__m512i_private from = simde__m512i_to_private(a);
  return lanes_epi32([&](int i) { return from.i32[i] >> n; });
}

inline simde__mmask16 cmplt_epu32_mask(simde__m512i a, simde__m512i b) {
  const simde__m512i_private x = simde__m512i_to_private(a), y = simde__m512i_to_private(b);
  unsigned k = 0;
  for (int i = 0; i < 16; ++i) k |= unsigned{x.u32[i] < y.u32[i]} << i;
  return static_cast<simde__mmask16>(k);
}

inline simde__m512i cvtps_epi32(simde__m512 a) {
  const simde__m512_private from = simde__m512_to_private(a);
  return lanes_epi32([&](int i) { return _mm_cvtss_si32(_mm_set_ss(from.f32[i])); });
}

inline simde__m512 cvtepi32_ps(simde__m512i a) {
  const simde__m512i_private from = simde__m512i_to_private(a);
  return lanes_ps([&](int i) { return static_cast<float>(from.i32[i]); });
}

// The low bytes of int32 lanes, or the low pairs of them.
template <class To, class Register>
inline Register narrowed_epi32(simde__m512i a) {
  const simde__m512i_private from = simde__m512i_to_private(a);
  To low[16];
  for (int i = 0; i < 16; ++i) low[i] = static_cast<To>(from.i32[i]);
  Register r;
  static_assert(sizeof r == sizeof low);
  memcpy(&r, low, sizeof r);
  return r;
}

inline simde__m512 cvtph_ps(__m256i a) {
  float of[16];
  _mm256_storeu_ps(of, _mm256_cvtph_ps(_mm256_castsi256_si128(a)));
  _mm256_storeu_ps(of + 8, _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1)));
  return lanes_ps([&](int i) { return of[i]; });
}

// Bytes, or pairs of them, as int32 lanes.
template <class From, class Register>
inline simde__m512i widened_epi32(Register a) {
  From from[16];
  memcpy(from, &a, sizeof from);
  return lanes_epi32([&](int i) { return static_cast<int32_t>(from[i]); });
}

}  // namespace emulated

#undef _mm512_maskz_loadu_ps
#define _mm512_maskz_loadu_ps(k, p) emulated::maskz_loadu_ps(k, p)
#undef _mm512_mask_storeu_ps
#define _mm512_mask_storeu_ps(p, k, a) emulated::mask_storeu_ps(p, k, a)
#undef _mm512_extractf32x8_ps
#define _mm512_extractf32x8_ps(a, half) emulated::extractf32x8_ps(a, half)
#undef _mm512_stream_ps
#define _mm512_stream_ps(p, a) emulated::stream_ps(p, a)
#undef _mm512_permute_ps
#define _mm512_permute_ps(a, choice) emulated::permute_ps(a, choice)
#undef _mm512_maskz_scalef_ps
#define _mm512_maskz_scalef_ps(k, a, n) emulated::maskz_scalef_ps(k, a, n)
#undef _mm512_shuffle_f32x4
#define _mm512_shuffle_f32x4(a, b, choice) emulated::shuffle_f32x4(a, b, choice)
#undef _mm512_srai_epi32
#define _mm512_srai_epi32(a, n) emulated::srai_epi32(a, n)
#undef _mm512_cmplt_epu32_mask
#define _mm512_cmplt_epu32_mask(a, b) emulated::cmplt_epu32_mask(a, b)
#undef _mm512_cvtps_epi32
#define _mm512_cvtps_epi32(a) emulated::cvtps_epi32(a)
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps(a) emulated::cvtepi32_ps(a)
#undef _mm512_cvtepu8_epi32
#define _mm512_cvtepu8_epi32(a) emulated::widened_epi32<uint8_t>(a)
#undef _mm512_cvtepi8_epi32
#define _mm512_cvtepi8_epi32(a) emulated::widened_epi32<int8_t>(a)
#undef _mm512_cvtepu16_epi32
#define _mm512_cvtepu16_epi32(a) emulated::widened_epi32<uint16_t>(a)
#undef _mm512_cvtepi32_epi16
#define _mm512_cvtepi32_epi16(a) (emulated::narrowed_epi32<uint16_t, __m256i>(a))
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps(a) emulated::cvtph_ps(a)
#undef _mm512_cvtepi32_epi8
#define _mm512_cvtepi32_epi8(a) (emulated::narrowed_epi32<uint8_t, __m128i>(a))
