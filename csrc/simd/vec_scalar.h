// Vec on plain C++: one lane. The fallback for any machine, and the measure of the other headers.
//
// The operations, the same in every vec_*.h:
//   min, max        a NaN in b comes through; a NaN in a need not (x86 returns b). Data goes to b.
//   lt le gt ge eq  ordered: false when either side is NaN.
//   load(p, m)      lanes that are off are 0; their memory is not touched, nor by store(p, a, m).
//   scalef          a 2^n for whole n where the result is a normal number, 0 in lanes that are off.
//                   With has_scalef beyond the range of float too: inf; or a subnormal, for which
//                   Intel's cores take a hundred cycles, so better have those lanes off.
//   stream          a store past the caches, where there is one: p is aligned to a vector, and
//   fence
//                   has to be called before another thread reads.
//   swap_pairs      lanes 0 1 2 3 ... become 1 0 3 2 ...; a single lane stays.
//   reduce_add      a fixed tree, so the same bits every time; reduce_add4 of four vectors at once,
//                   the same bits for a third of the work.
//   transpose       width vectors as a square: r[i] lane j and r[j] lane i change places.
//   to_int          rounds to nearest even; beyond int32 and for NaN any value, but no trap.
//   load_u8 ...     width bytes (or pairs of them, little-endian) at any address, as int32 lanes.
//   load_words      lane r of out[w] is bytes [4 w, 4 w + 4) of what lies r strides from p.
//   half_to_float   IEEE binary16; low_halves: of what is in the low 16 bits of each lane.
//   quads_at        of Vec::width / 4 blocks of `stride` bytes the last 16 bytes each: block b's in
//                   lanes 4 b ... 4 b + 3.
//   pairs_at        of each block two halves, as floats; firsts has the first of block b's in its
//                   lanes, fma_pairs takes b from memory, sum_firsts and sum_seconds add up.
//   fma_to          sum += a b, as fma. Where there are registers for the sums and few more, each
//                   stays in its own: left to choose, GCC moves every fourth, and spills some.
//   held            the same vector, in a register: of AVX-512, where GCC would load what two FMAs
//                   read once for each, and a core has one such load a cycle.
//   VecI            int32 lanes that wrap; shr shifts in zeros, sar the sign; ltu is unsigned.
#pragma once

#include "common.h"

namespace evergrad {
namespace {

struct Vec {
  static constexpr int width = 1;
  static constexpr bool has_scalef = false;
  float v;
};
struct VecI {
  int32_t v;
};
struct Mask {
  bool v;
};

EVG_INLINE Vec zero() { return {0.0f}; }
EVG_INLINE Vec set1(float a) { return {a}; }
EVG_INLINE Vec load(const float* p) { return {*p}; }
EVG_INLINE void store(float* p, Vec a) { *p = a.v; }
EVG_INLINE void stream(float* p, Vec a) { store(p, a); }
EVG_INLINE void fence() {}

EVG_INLINE Mask first(int n) { return {n > 0}; }
EVG_INLINE Vec load(const float* p, Mask m) { return {m.v ? *p : 0.0f}; }
EVG_INLINE void store(float* p, Vec a, Mask m) {
  if (m.v) *p = a.v;
}

EVG_INLINE Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
EVG_INLINE Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
EVG_INLINE Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
EVG_INLINE Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }

// Rounded twice: without an FMA instruction a fused product is a slow call into libm.
EVG_INLINE Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
EVG_INLINE Vec held(Vec a) { return a; }
EVG_INLINE void fma_to(Vec& sum, Vec a, Vec b) { sum = fma(a, b, sum); }
EVG_INLINE Vec fnma(Vec a, Vec b, Vec c) { return {c.v - a.v * b.v}; }

EVG_INLINE Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
EVG_INLINE Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
EVG_INLINE Vec sqrt(Vec a) { return {__builtin_sqrtf(a.v)}; }
EVG_INLINE Vec abs(Vec a) { return {__builtin_fabsf(a.v)}; }
EVG_INLINE Vec neg(Vec a) { return {-a.v}; }
EVG_INLINE Vec copysign(Vec mag, Vec sign) { return {__builtin_copysignf(mag.v, sign.v)}; }

EVG_INLINE Mask lt(Vec a, Vec b) { return {a.v < b.v}; }
EVG_INLINE Mask le(Vec a, Vec b) { return {a.v <= b.v}; }
EVG_INLINE Mask gt(Vec a, Vec b) { return {a.v > b.v}; }
EVG_INLINE Mask ge(Vec a, Vec b) { return {a.v >= b.v}; }
EVG_INLINE Mask eq(Vec a, Vec b) { return {a.v == b.v}; }
EVG_INLINE Mask is_nan(Vec a) { return {a.v != a.v}; }
EVG_INLINE Mask and_(Mask a, Mask b) { return {a.v && b.v}; }
EVG_INLINE Mask or_(Mask a, Mask b) { return {a.v || b.v}; }
EVG_INLINE Mask not_(Mask a) { return {!a.v}; }
EVG_INLINE Vec select(Mask m, Vec a, Vec b) { return m.v ? a : b; }

EVG_INLINE Vec swap_pairs(Vec a) { return a; }

EVG_INLINE float reduce_add(Vec a) { return a.v; }
EVG_INLINE void reduce_add4(const Vec (&a)[4], float* sums) {
  for (int i = 0; i < 4; ++i) sums[i] = a[i].v;
}
EVG_INLINE float reduce_max(Vec a) { return a.v; }

EVG_INLINE void transpose(Vec (&)[1]) {}

// By way of unsigned numbers, which wrap; for signed ones C++ leaves overflow undefined.
EVG_INLINE VecI wrap(uint32_t a) { return {static_cast<int32_t>(a)}; }
EVG_INLINE uint32_t bits(VecI a) { return static_cast<uint32_t>(a.v); }

EVG_INLINE VecI set1i(int32_t a) { return {a}; }
EVG_INLINE VecI iotai() { return {0}; }
EVG_INLINE VecI operator+(VecI a, VecI b) { return wrap(bits(a) + bits(b)); }
EVG_INLINE VecI operator-(VecI a, VecI b) { return wrap(bits(a) - bits(b)); }
EVG_INLINE VecI operator&(VecI a, VecI b) { return {a.v & b.v}; }
EVG_INLINE VecI operator|(VecI a, VecI b) { return {a.v | b.v}; }
EVG_INLINE VecI operator^(VecI a, VecI b) { return {a.v ^ b.v}; }
EVG_INLINE VecI mullo(VecI a, VecI b) { return wrap(bits(a) * bits(b)); }
template <int n>
EVG_INLINE VecI shl(VecI a) {
  return wrap(bits(a) << n);
}
template <int n>
EVG_INLINE VecI shr(VecI a) {
  return wrap(bits(a) >> n);
}
template <int n>
EVG_INLINE VecI sar(VecI a) {
  return {a.v >> n};
}
EVG_INLINE Mask ltu(VecI a, VecI b) { return {bits(a) < bits(b)}; }
EVG_INLINE Mask gti(VecI a, VecI b) { return {a.v > b.v}; }
EVG_INLINE VecI selecti(Mask m, VecI a, VecI b) { return m.v ? a : b; }

EVG_INLINE VecI load_u8(const uint8_t* p) { return {*p}; }
EVG_INLINE VecI load_i8(const uint8_t* p) { return {static_cast<int8_t>(*p)}; }
EVG_INLINE VecI load_u16(const uint8_t* p) { return {p[0] | p[1] << 8}; }
EVG_INLINE void load_words(const uint8_t* p, int64_t, VecI (&out)[4]) {
  __builtin_memcpy(out, p, 16);
}
// By way of a float 2^112 too small, for the sake of subnormal halves.
EVG_INLINE float half_to_float(uint16_t h) {
  uint32_t bits = static_cast<uint32_t>(h & 0x7fff) << 13;
  float x;
  __builtin_memcpy(&x, &bits, 4);
  x *= 0x1p112f;
  if ((h & 0x7c00) == 0x7c00) {  // infinite, or NaN
    bits |= 0x7f800000u;
    __builtin_memcpy(&x, &bits, 4);
  }
  return h & 0x8000 ? -x : x;
}
EVG_INLINE Vec low_halves(VecI a) { return {half_to_float(static_cast<uint16_t>(a.v))}; }

EVG_INLINE VecI to_int(Vec a) {
  // Floats from 2^23 on have no fraction: adding and taking away 2^23 rounds smaller ones.
  const float magic = __builtin_copysignf(8388608.0f, a.v);
  const float rounded = __builtin_fabsf(a.v) < 8388608.0f ? (a.v + magic) - magic : a.v;
  const bool fits = rounded >= -2147483648.0f && rounded < 2147483648.0f;
  return {fits ? static_cast<int32_t>(rounded) : INT32_MIN};
}
EVG_INLINE Vec to_float(VecI a) { return {static_cast<float>(a.v)}; }
// The low four bits of each lane, and an offset.
template <int offset>
EVG_INLINE Vec low_nibbles(VecI a) {
  const VecI q = a & set1i(15);
  return to_float(offset ? q + set1i(offset) : q);
}
EVG_INLINE VecI as_int(Vec a) {
  VecI r;
  __builtin_memcpy(&r.v, &a.v, 4);
  return r;
}
EVG_INLINE Vec as_float(VecI a) {
  Vec r;
  __builtin_memcpy(&r.v, &a.v, 4);
  return r;
}

EVG_INLINE Vec scalef(Vec a, Vec n, Mask m) {
  return select(m, as_float(as_int(a) + shl<23>(to_int(n))), zero());
}

// A block of a row; its pair is that of pair.h.
template <int stride>
EVG_INLINE VecI quads_at(const uint8_t* p) {
  return load_u8(p);  // never asked: a single lane holds no block
}

}  // namespace
}  // namespace evergrad
