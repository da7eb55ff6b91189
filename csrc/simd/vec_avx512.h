// Vec on AVX-512 (F, DQ, BW, VL): sixteen lanes. The operations are described in vec_scalar.h.
#pragma once

#include <immintrin.h>

#include <type_traits>

#include "common.h"
#include "x86.h"

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's own intrinsics start from a register that is uninitialized on purpose, and warn of it.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace evergrad {
namespace {

struct Vec {
  static constexpr int width = 16;
  static constexpr bool has_scalef = true;
  __m512 v;
};
struct VecI {
  __m512i v;
};
struct Mask {
  __mmask16 v;
};

EVG_INLINE Vec zero() { return {_mm512_setzero_ps()}; }
EVG_INLINE Vec set1(float a) { return {_mm512_set1_ps(a)}; }
EVG_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
EVG_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
EVG_INLINE void stream(float* p, Vec a) { _mm512_stream_ps(p, a.v); }
EVG_INLINE void fence() { _mm_sfence(); }

EVG_INLINE Mask first(int n) { return {static_cast<__mmask16>((1u << n) - 1u)}; }
EVG_INLINE Vec load(const float* p, Mask m) { return {_mm512_maskz_loadu_ps(m.v, p)}; }
EVG_INLINE void store(float* p, Vec a, Mask m) { _mm512_mask_storeu_ps(p, m.v, a.v); }

EVG_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
EVG_INLINE Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
EVG_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
EVG_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
EVG_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
EVG_INLINE void fma_to(Vec& sum, Vec a, Vec b) {
#ifdef __AVX512F__  // and not emulated
  asm("vfmadd231ps %2, %1, %0" : "+v"(sum.v) : "v"(a.v), "v"(b.v));
#else
  sum = fma(a, b, sum);
#endif
}
EVG_INLINE Vec held(Vec a) {
#ifdef __AVX512F__  // and not emulated
  asm("" : "+v"(a.v));
#endif
  return a;
}
EVG_INLINE Vec fnma(Vec a, Vec b, Vec c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }

EVG_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
EVG_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
EVG_INLINE Vec sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
EVG_INLINE Vec abs(Vec a) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v)}; }
EVG_INLINE Vec neg(Vec a) { return {_mm512_xor_ps(_mm512_set1_ps(-0.0f), a.v)}; }
EVG_INLINE Vec copysign(Vec mag, Vec sign) {
  const __m512 bit = _mm512_set1_ps(-0.0f);
  return {_mm512_or_ps(_mm512_andnot_ps(bit, mag.v), _mm512_and_ps(bit, sign.v))};
}

EVG_INLINE Mask lt(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
EVG_INLINE Mask le(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
EVG_INLINE Mask gt(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
EVG_INLINE Mask ge(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
EVG_INLINE Mask eq(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
EVG_INLINE Mask is_nan(Vec a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }
EVG_INLINE Mask and_(Mask a, Mask b) { return {static_cast<__mmask16>(a.v & b.v)}; }
EVG_INLINE Mask or_(Mask a, Mask b) { return {static_cast<__mmask16>(a.v | b.v)}; }
EVG_INLINE Mask not_(Mask a) { return {static_cast<__mmask16>(~a.v)}; }
EVG_INLINE Vec scalef(Vec a, Vec n, Mask m) { return {_mm512_maskz_scalef_ps(m.v, a.v, n.v)}; }
EVG_INLINE Vec select(Mask m, Vec a, Vec b) { return {_mm512_mask_blend_ps(m.v, b.v, a.v)}; }

EVG_INLINE Vec swap_pairs(Vec a) { return {_mm512_permute_ps(a.v, 0xB1)}; }

// The sum of its quarters.
EVG_INLINE __m128 add_quarters(__m512 a) {
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}
// In each quarter (0 + 2) + (1 + 3), and the quarters likewise.
EVG_INLINE float reduce_add(Vec a) {
  __m512 s = _mm512_add_ps(a.v, _mm512_permute_ps(a.v, 0x4E));
  s = _mm512_add_ps(s, _mm512_permute_ps(s, 0xB1));
  return _mm_cvtss_f32(add_quarters(s));
}
EVG_INLINE void reduce_add4(const Vec (&a)[4], float* sums) {
  const __m512 s01 =
      _mm512_add_ps(_mm512_unpacklo_ps(a[0].v, a[1].v), _mm512_unpackhi_ps(a[0].v, a[1].v));
  const __m512 s23 =
      _mm512_add_ps(_mm512_unpacklo_ps(a[2].v, a[3].v), _mm512_unpackhi_ps(a[2].v, a[3].v));
  const __m512d l = _mm512_castps_pd(s01), h = _mm512_castps_pd(s23);
  const __m512 all = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(l, h)),
                                   _mm512_castpd_ps(_mm512_unpackhi_pd(l, h)));
  _mm_storeu_ps(sums, add_quarters(all));
}
EVG_INLINE float reduce_max(Vec a) {
  const __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

// r[i] lane j <-> r[j] lane i: pairs, then quads, then quarters of a register.
EVG_INLINE void transpose(Vec (&r)[16]) {
  __m512 t[16], u[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i].v, r[i + 1].v);
    t[i + 1] = _mm512_unpackhi_ps(r[i].v, r[i + 1].v);
  }
  const auto low = [](__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  const auto high = [](__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    u[i] = low(t[i], t[i + 2]);
    u[i + 1] = high(t[i], t[i + 2]);
    u[i + 2] = low(t[i + 1], t[i + 3]);
    u[i + 3] = high(t[i + 1], t[i + 3]);
  }
  // Quarter q of u[4 i + j] holds column 4 q + j of rows 4 i ... 4 i + 3.
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512 even01 = _mm512_shuffle_f32x4(u[j], u[4 + j], 0x88);
    const __m512 odd01 = _mm512_shuffle_f32x4(u[j], u[4 + j], 0xdd);
    const __m512 even23 = _mm512_shuffle_f32x4(u[8 + j], u[12 + j], 0x88);
    const __m512 odd23 = _mm512_shuffle_f32x4(u[8 + j], u[12 + j], 0xdd);
    r[j].v = _mm512_shuffle_f32x4(even01, even23, 0x88);
    r[4 + j].v = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
    r[8 + j].v = _mm512_shuffle_f32x4(even01, even23, 0xdd);
    r[12 + j].v = _mm512_shuffle_f32x4(odd01, odd23, 0xdd);
  }
}

EVG_INLINE VecI set1i(int32_t a) { return {_mm512_set1_epi32(a)}; }
EVG_INLINE VecI iotai() {
  return {_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)};
}
EVG_INLINE VecI operator+(VecI a, VecI b) { return {_mm512_add_epi32(a.v, b.v)}; }
EVG_INLINE VecI operator-(VecI a, VecI b) { return {_mm512_sub_epi32(a.v, b.v)}; }
EVG_INLINE VecI operator&(VecI a, VecI b) { return {_mm512_and_si512(a.v, b.v)}; }
EVG_INLINE VecI operator|(VecI a, VecI b) { return {_mm512_or_si512(a.v, b.v)}; }
EVG_INLINE VecI operator^(VecI a, VecI b) { return {_mm512_xor_si512(a.v, b.v)}; }
EVG_INLINE VecI mullo(VecI a, VecI b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
template <int n>
EVG_INLINE VecI shl(VecI a) {
  return {_mm512_slli_epi32(a.v, n)};
}
template <int n>
EVG_INLINE VecI shr(VecI a) {
  return {_mm512_srli_epi32(a.v, n)};
}
template <int n>
EVG_INLINE VecI sar(VecI a) {
  return {_mm512_srai_epi32(a.v, n)};
}
EVG_INLINE Mask gti(VecI a, VecI b) { return {_mm512_cmpgt_epi32_mask(a.v, b.v)}; }
EVG_INLINE Mask ltu(VecI a, VecI b) { return {_mm512_cmplt_epu32_mask(a.v, b.v)}; }
EVG_INLINE VecI selecti(Mask m, VecI a, VecI b) { return {_mm512_mask_blend_epi32(m.v, b.v, a.v)}; }

EVG_INLINE VecI load_u8(const uint8_t* p) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
EVG_INLINE VecI load_i8(const uint8_t* p) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
EVG_INLINE VecI load_u16(const uint8_t* p) {
  return {_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
EVG_INLINE void load_words(const uint8_t* p, int64_t stride, VecI (&out)[4]) {
  const auto row = [=](int r) { return bytes16_at(p + r * stride); };
  // Each quarter a row, every fourth one: 4 by 4 words within quarters are then in order.
  const auto rows = [=](int r) {
    __m512i v = _mm512_castsi128_si512(row(r));
    v = _mm512_inserti32x4(v, row(r + 4), 1);
    v = _mm512_inserti32x4(v, row(r + 8), 2);
    return _mm512_inserti32x4(v, row(r + 12), 3);
  };
  const __m512i a = rows(0), b = rows(1), c = rows(2), d = rows(3);
  const __m512i ab01 = _mm512_unpacklo_epi32(a, b), ab23 = _mm512_unpackhi_epi32(a, b);
  const __m512i cd01 = _mm512_unpacklo_epi32(c, d), cd23 = _mm512_unpackhi_epi32(c, d);
  out[0].v = _mm512_unpacklo_epi64(ab01, cd01);
  out[1].v = _mm512_unpackhi_epi64(ab01, cd01);
  out[2].v = _mm512_unpacklo_epi64(ab23, cd23);
  out[3].v = _mm512_unpackhi_epi64(ab23, cd23);
}
EVG_INLINE float half_to_float(uint16_t h) { return _cvtsh_ss(h); }
EVG_INLINE Vec low_halves(VecI a) { return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(a.v))}; }

EVG_INLINE VecI to_int(Vec a) { return {_mm512_cvtps_epi32(a.v)}; }
EVG_INLINE Vec to_float(VecI a) { return {_mm512_cvtepi32_ps(a.v)}; }
// The low four bits of each lane, and an offset: a table in a register, indexed by just these bits.
template <int offset>
EVG_INLINE Vec low_nibbles(VecI a) {
  const Vec table = to_float(iotai() + set1i(offset));
  return {_mm512_permutexvar_ps(a.v, table.v)};
}
EVG_INLINE VecI as_int(Vec a) { return {_mm512_castps_si512(a.v)}; }
EVG_INLINE Vec as_float(VecI a) { return {_mm512_castsi512_ps(a.v)}; }

// Dots of four bytes each, unsigned times signed, added to int32 lanes: of AVX-512 VNNI, which this
// unit is not compiled for. Whoever calls has seen that the processor has it.
#define EVG_BYTE_DOTS
EVG_INLINE VecI load_bytes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
EVG_INLINE void store_low_bytes(uint8_t* p, VecI a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
EVG_INLINE VecI add_dots(VecI sum, VecI a, VecI b) {
#ifdef __AVX512F__
  asm("vpdpbusd %2, %1, %0" : "+v"(sum.v) : "v"(a.v), "v"(b.v));
#else  // emulated
  sum.v = _mm512_dpbusd_epi32(sum.v, a.v, b.v);
#endif
  return sum;
}

// Several blocks of a row at once.
#define EVG_SEVERAL_BLOCKS
struct Pairs {
  __m256 v;
};

// Four blocks are picked from two vectors, one from their beginning and one to their end, by one
// shuffle: of int32 where a block is a whole number of them, else of int16.
template <int stride>
EVG_INLINE VecI quads_at(const uint8_t* p) {
  constexpr int unit = stride % 4 == 0 ? 4 : 2, count = 64 / unit,
                skipped = (4 * stride - 64) / unit;
  using Index = std::conditional_t<unit == 4, int32_t, int16_t>;
  struct alignas(64) Indices {
    Index of[count];
  };
  constexpr auto indices = [] {
    Indices found{};
    for (int i = 0; i < count; ++i) {
      const int from = (i / (count / 4) * stride + stride - 16) / unit + i % (count / 4);
      found.of[i] = static_cast<Index>(from < count ? from : count + from - skipped);
    }
    return found;
  }();
  const __m512i index = _mm512_load_si512(indices.of);
  const __m512i begin = _mm512_loadu_si512(p), end = _mm512_loadu_si512(p + skipped * unit);
  if constexpr (unit == 4)
    return {_mm512_permutex2var_epi32(begin, index, end)};
  else
    return {_mm512_permutex2var_epi16(begin, index, end)};
}
template <int stride>
EVG_INLINE Pairs pairs_at(const uint8_t* p) {
  __m512i picked;
  if constexpr (stride % 4 == 0) {
    constexpr int step = stride / 4;
    const __m512i index = _mm512_setr4_epi32(0, step, 2 * step, 3 * step);
    picked = _mm512_permutexvar_epi32(index, _mm512_loadu_si512(p));
  } else {
    constexpr int step = stride / 2, next = 1 << 16;
    const auto two = [](int i) { return i + (i + 1) * next; };
    const __m512i index = _mm512_setr4_epi32(two(0), two(step), two(2 * step), two(3 * step));
    picked = _mm512_permutexvar_epi16(index, _mm512_loadu_si512(p));
  }
  return {_mm256_cvtph_ps(_mm512_castsi512_si128(picked))};
}
EVG_INLINE Vec firsts(Pairs a) {
  const __m512i from = _mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6);
  return {_mm512_permutexvar_ps(from, _mm512_castps256_ps512(a.v))};
}
EVG_INLINE Pairs no_pairs() { return {_mm256_setzero_ps()}; }
EVG_INLINE Pairs fma_pairs(Pairs a, const float* b, Pairs c) {
  return {_mm256_fmadd_ps(a.v, _mm256_loadu_ps(b), c.v)};
}
EVG_INLINE __m128 both_sums(Pairs a) {
  const __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  return _mm_add_ps(s, _mm_movehl_ps(s, s));
}
EVG_INLINE float sum_firsts(Pairs a) { return _mm_cvtss_f32(both_sums(a)); }
EVG_INLINE float sum_seconds(Pairs a) { return _mm_cvtss_f32(_mm_movehdup_ps(both_sums(a))); }

}  // namespace
}  // namespace evergrad

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
