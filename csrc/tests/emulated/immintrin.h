// Stands in for the compiler's <immintrin.h> (-I finds it first) where AVX-512 is emulated: SIMDe
// maps the intrinsics to AVX2, so that vec_avx512.h, unchanged, runs without AVX-512.
#pragma once

#include_next <immintrin.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>

// What vec_avx512.h uses and SIMDe 0.7.4 lacks, lane by lane.
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

}  // namespace emulated

#undef _mm512_maskz_loadu_ps
#define _mm512_maskz_loadu_ps(k, p) emulated::maskz_loadu_ps(k, p)
#undef _mm512_mask_storeu_ps
#define _mm512_mask_storeu_ps(p, k, a) emulated::mask_storeu_ps(p, k, a)
#undef _mm512_extractf32x8_ps
#define _mm512_extractf32x8_ps(a, half) emulated::extractf32x8_ps(a, half)
#undef _mm512_srai_epi32
#define _mm512_srai_epi32(a, n) emulated::srai_epi32(a, n)
#undef _mm512_cmplt_epu32_mask
#define _mm512_cmplt_epu32_mask(a, b) emulated::cmplt_epu32_mask(a, b)
#undef _mm512_cvtps_epi32
#define _mm512_cvtps_epi32(a) emulated::cvtps_epi32(a)
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps(a) emulated::cvtepi32_ps(a)
