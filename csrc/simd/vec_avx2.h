// Vec on AVX2 + FMA: eight lanes. The operations are described in vec_scalar.h.
#pragma once

#include <immintrin.h>

#include "common.h"
#include "x86.h"

namespace evergrad {
namespace {

struct Vec {
  static constexpr int width = 8;
  static constexpr bool has_scalef = false;
  __m256 v;
};
struct VecI {
  __m256i v;
};
struct Mask {
  __m256 v;  // a lane is on when all its bits are
};

EVG_INLINE Vec zero() { return {_mm256_setzero_ps()}; }
EVG_INLINE Vec set1(float a) { return {_mm256_set1_ps(a)}; }
EVG_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
EVG_INLINE void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
EVG_INLINE void stream(float* p, Vec a) { _mm256_stream_ps(p, a.v); }
EVG_INLINE void fence() { _mm_sfence(); }

EVG_INLINE Mask first(int n) {
  const __m256i iota = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), iota))};
}
EVG_INLINE Vec load(const float* p, Mask m) {
  return {_mm256_maskload_ps(p, _mm256_castps_si256(m.v))};
}
EVG_INLINE void store(float* p, Vec a, Mask m) {
  _mm256_maskstore_ps(p, _mm256_castps_si256(m.v), a.v);
}

EVG_INLINE Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
EVG_INLINE Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
EVG_INLINE Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
EVG_INLINE Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
EVG_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
EVG_INLINE Vec held(Vec a) { return a; }
EVG_INLINE void fma_to(Vec& sum, Vec a, Vec b) {
  asm("vfmadd231ps %2, %1, %0" : "+x"(sum.v) : "x"(a.v), "x"(b.v));
}
EVG_INLINE Vec fnma(Vec a, Vec b, Vec c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }

EVG_INLINE Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
EVG_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
EVG_INLINE Vec sqrt(Vec a) { return {_mm256_sqrt_ps(a.v)}; }
EVG_INLINE Vec abs(Vec a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
EVG_INLINE Vec neg(Vec a) { return {_mm256_xor_ps(_mm256_set1_ps(-0.0f), a.v)}; }
EVG_INLINE Vec copysign(Vec mag, Vec sign) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(_mm256_andnot_ps(bit, mag.v), _mm256_and_ps(bit, sign.v))};
}

EVG_INLINE Mask lt(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
EVG_INLINE Mask le(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
EVG_INLINE Mask gt(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)}; }
EVG_INLINE Mask ge(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)}; }
EVG_INLINE Mask eq(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
EVG_INLINE Mask is_nan(Vec a) { return {_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)}; }
EVG_INLINE Mask and_(Mask a, Mask b) { return {_mm256_and_ps(a.v, b.v)}; }
EVG_INLINE Mask or_(Mask a, Mask b) { return {_mm256_or_ps(a.v, b.v)}; }
EVG_INLINE Mask not_(Mask a) {
  return {_mm256_xor_ps(a.v, _mm256_castsi256_ps(_mm256_set1_epi32(-1)))};
}
EVG_INLINE Vec select(Mask m, Vec a, Vec b) { return {_mm256_blendv_ps(b.v, a.v, m.v)}; }

EVG_INLINE Vec swap_pairs(Vec a) { return {_mm256_permute_ps(a.v, 0xB1)}; }

// In each half (0 + 2) + (1 + 3), and then the halves.
EVG_INLINE float reduce_add(Vec a) {
  __m256 s = _mm256_add_ps(a.v, _mm256_permute_ps(a.v, 0x4E));
  s = _mm256_add_ps(s, _mm256_permute_ps(s, 0xB1));
  return _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}
EVG_INLINE void reduce_add4(const Vec (&a)[4], float* sums) {
  const __m256 s01 =
      _mm256_add_ps(_mm256_unpacklo_ps(a[0].v, a[1].v), _mm256_unpackhi_ps(a[0].v, a[1].v));
  const __m256 s23 =
      _mm256_add_ps(_mm256_unpacklo_ps(a[2].v, a[3].v), _mm256_unpackhi_ps(a[2].v, a[3].v));
  const __m256d l = _mm256_castps_pd(s01), h = _mm256_castps_pd(s23);
  const __m256 all = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(l, h)),
                                   _mm256_castpd_ps(_mm256_unpackhi_pd(l, h)));
  _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}
EVG_INLINE float reduce_max(Vec a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

// r[i] lane j <-> r[j] lane i: pairs, then quads, then halves of a register.
EVG_INLINE void transpose(Vec (&r)[8]) {
  __m256 t[8], u[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i].v, r[i + 1].v);
    t[i + 1] = _mm256_unpackhi_ps(r[i].v, r[i + 1].v);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  // Half h of u[4 i + j] holds column 4 h + j of rows 4 i ... 4 i + 3.
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    r[j].v = _mm256_permute2f128_ps(u[j], u[4 + j], 0x20);
    r[4 + j].v = _mm256_permute2f128_ps(u[j], u[4 + j], 0x31);
  }
}

EVG_INLINE VecI set1i(int32_t a) { return {_mm256_set1_epi32(a)}; }
EVG_INLINE VecI iotai() { return {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)}; }
EVG_INLINE VecI operator+(VecI a, VecI b) { return {_mm256_add_epi32(a.v, b.v)}; }
EVG_INLINE VecI operator-(VecI a, VecI b) { return {_mm256_sub_epi32(a.v, b.v)}; }
EVG_INLINE VecI operator&(VecI a, VecI b) { return {_mm256_and_si256(a.v, b.v)}; }
EVG_INLINE VecI operator|(VecI a, VecI b) { return {_mm256_or_si256(a.v, b.v)}; }
EVG_INLINE VecI operator^(VecI a, VecI b) { return {_mm256_xor_si256(a.v, b.v)}; }
EVG_INLINE VecI mullo(VecI a, VecI b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
template <int n>
EVG_INLINE VecI shl(VecI a) {
  return {_mm256_slli_epi32(a.v, n)};
}
template <int n>
EVG_INLINE VecI shr(VecI a) {
  return {_mm256_srli_epi32(a.v, n)};
}
template <int n>
EVG_INLINE VecI sar(VecI a) {
  return {_mm256_srai_epi32(a.v, n)};
}
EVG_INLINE Mask gti(VecI a, VecI b) { return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(a.v, b.v))}; }
EVG_INLINE Mask ltu(VecI a, VecI b) {
  // AVX2 compares signed numbers only; flipping the top bit turns one order into the other.
  const VecI top = set1i(INT32_MIN);
  return gti(b ^ top, a ^ top);
}
EVG_INLINE VecI selecti(Mask m, VecI a, VecI b) {
  return {_mm256_blendv_epi8(b.v, a.v, _mm256_castps_si256(m.v))};
}

EVG_INLINE VecI load_u8(const uint8_t* p) {
  return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))};
}
EVG_INLINE VecI load_i8(const uint8_t* p) {
  return {_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))};
}
EVG_INLINE VecI load_u16(const uint8_t* p) {
  return {_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
EVG_INLINE void load_words(const uint8_t* p, int64_t stride, VecI (&out)[4]) {
  // Each half a row, every fourth one: 4 by 4 words within halves are then in order.
  const auto rows = [=](int r) {
    const __m256i low = _mm256_castsi128_si256(bytes16_at(p + r * stride));
    return _mm256_inserti128_si256(low, bytes16_at(p + (r + 4) * stride), 1);
  };
  const __m256i a = rows(0), b = rows(1), c = rows(2), d = rows(3);
  const __m256i ab01 = _mm256_unpacklo_epi32(a, b), ab23 = _mm256_unpackhi_epi32(a, b);
  const __m256i cd01 = _mm256_unpacklo_epi32(c, d), cd23 = _mm256_unpackhi_epi32(c, d);
  out[0].v = _mm256_unpacklo_epi64(ab01, cd01);
  out[1].v = _mm256_unpackhi_epi64(ab01, cd01);
  out[2].v = _mm256_unpacklo_epi64(ab23, cd23);
  out[3].v = _mm256_unpackhi_epi64(ab23, cd23);
}
EVG_INLINE float half_to_float(uint16_t h) { return _cvtsh_ss(h); }
EVG_INLINE Vec low_halves(VecI a) {
  const __m256i low = _mm256_and_si256(a.v, _mm256_set1_epi32(0xffff));
  return {_mm256_cvtph_ps(
      _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)))};
}

EVG_INLINE VecI to_int(Vec a) { return {_mm256_cvtps_epi32(a.v)}; }
EVG_INLINE Vec to_float(VecI a) { return {_mm256_cvtepi32_ps(a.v)}; }
// The low four bits of each lane, and an offset.
template <int offset>
EVG_INLINE Vec low_nibbles(VecI a) {
  const VecI q = a & set1i(15);
  return to_float(offset ? q + set1i(offset) : q);
}
EVG_INLINE VecI as_int(Vec a) { return {_mm256_castps_si256(a.v)}; }
EVG_INLINE Vec as_float(VecI a) { return {_mm256_castsi256_ps(a.v)}; }

EVG_INLINE Vec scalef(Vec a, Vec n, Mask m) {
  return select(m, as_float(as_int(a) + shl<23>(to_int(n))), zero());
}

// Several blocks of a row at once.
#define EVG_SEVERAL_BLOCKS
struct Pairs {
  __m128 v;
};

template <int stride>
EVG_INLINE VecI quads_at(const uint8_t* p) {
  constexpr int header = stride - 16;
  const __m256i v = _mm256_castsi128_si256(bytes16_at(p + header));
  return {_mm256_inserti128_si256(v, bytes16_at(p + stride + header), 1)};
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
EVG_INLINE float sum_firsts(Pairs a) { return _mm_cvtss_f32(both_sums(a)); }
EVG_INLINE float sum_seconds(Pairs a) { return _mm_cvtss_f32(_mm_movehdup_ps(both_sums(a))); }

}  // namespace
}  // namespace evergrad
