// Vec on AArch64 NEON: four lanes. The operations are described in vec_scalar.h.
#pragma once

#include <arm_neon.h>

#include "common.h"

namespace evergrad {
namespace {

struct Vec {
  static constexpr int width = 4;
  static constexpr bool has_scalef = false;
  float32x4_t v;
};
struct VecI {
  int32x4_t v;
};
struct Mask {
  uint32x4_t v;  // a lane is on when all its bits are
};

EVG_INLINE Vec zero() { return {vdupq_n_f32(0.0f)}; }
EVG_INLINE Vec set1(float a) { return {vdupq_n_f32(a)}; }
EVG_INLINE Vec load(const float* p) { return {vld1q_f32(p)}; }
EVG_INLINE void store(float* p, Vec a) { vst1q_f32(p, a.v); }
EVG_INLINE void stream(float* p, Vec a) { store(p, a); }
EVG_INLINE void fence() {}

EVG_INLINE VecI set1i(int32_t a) { return {vdupq_n_s32(a)}; }
EVG_INLINE VecI iotai() { return {int32x4_t{0, 1, 2, 3}}; }

EVG_INLINE Mask first(int n) { return {vcltq_s32(iotai().v, vdupq_n_s32(n))}; }

// NEON has no masked access: lane by lane, so that memory of an off lane stays untouched.
EVG_INLINE Vec load(const float* p, Mask m) {
  float32x4_t r = vdupq_n_f32(0.0f);
  if (vgetq_lane_u32(m.v, 0)) r = vld1q_lane_f32(p + 0, r, 0);
  if (vgetq_lane_u32(m.v, 1)) r = vld1q_lane_f32(p + 1, r, 1);
  if (vgetq_lane_u32(m.v, 2)) r = vld1q_lane_f32(p + 2, r, 2);
  if (vgetq_lane_u32(m.v, 3)) r = vld1q_lane_f32(p + 3, r, 3);
  return {r};
}
EVG_INLINE void store(float* p, Vec a, Mask m) {
  if (vgetq_lane_u32(m.v, 0)) vst1q_lane_f32(p + 0, a.v, 0);
  if (vgetq_lane_u32(m.v, 1)) vst1q_lane_f32(p + 1, a.v, 1);
  if (vgetq_lane_u32(m.v, 2)) vst1q_lane_f32(p + 2, a.v, 2);
  if (vgetq_lane_u32(m.v, 3)) vst1q_lane_f32(p + 3, a.v, 3);
}

EVG_INLINE Vec operator+(Vec a, Vec b) { return {vaddq_f32(a.v, b.v)}; }
EVG_INLINE Vec operator-(Vec a, Vec b) { return {vsubq_f32(a.v, b.v)}; }
EVG_INLINE Vec operator*(Vec a, Vec b) { return {vmulq_f32(a.v, b.v)}; }
EVG_INLINE Vec operator/(Vec a, Vec b) { return {vdivq_f32(a.v, b.v)}; }
EVG_INLINE Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
EVG_INLINE Vec held(Vec a) { return a; }
EVG_INLINE void fma_to(Vec& sum, Vec a, Vec b) { sum = fma(a, b, sum); }
EVG_INLINE Vec fnma(Vec a, Vec b, Vec c) { return {vfmsq_f32(c.v, a.v, b.v)}; }

EVG_INLINE Vec min(Vec a, Vec b) { return {vminq_f32(a.v, b.v)}; }
EVG_INLINE Vec max(Vec a, Vec b) { return {vmaxq_f32(a.v, b.v)}; }
EVG_INLINE Vec sqrt(Vec a) { return {vsqrtq_f32(a.v)}; }
EVG_INLINE Vec abs(Vec a) { return {vabsq_f32(a.v)}; }
EVG_INLINE Vec neg(Vec a) { return {vnegq_f32(a.v)}; }
EVG_INLINE Vec copysign(Vec mag, Vec sign) {
  return {vbslq_f32(vdupq_n_u32(0x80000000u), sign.v, mag.v)};
}

EVG_INLINE Mask lt(Vec a, Vec b) { return {vcltq_f32(a.v, b.v)}; }
EVG_INLINE Mask le(Vec a, Vec b) { return {vcleq_f32(a.v, b.v)}; }
EVG_INLINE Mask gt(Vec a, Vec b) { return {vcgtq_f32(a.v, b.v)}; }
EVG_INLINE Mask ge(Vec a, Vec b) { return {vcgeq_f32(a.v, b.v)}; }
EVG_INLINE Mask eq(Vec a, Vec b) { return {vceqq_f32(a.v, b.v)}; }
EVG_INLINE Mask is_nan(Vec a) { return {vmvnq_u32(vceqq_f32(a.v, a.v))}; }
EVG_INLINE Mask and_(Mask a, Mask b) { return {vandq_u32(a.v, b.v)}; }
EVG_INLINE Mask or_(Mask a, Mask b) { return {vorrq_u32(a.v, b.v)}; }
EVG_INLINE Mask not_(Mask a) { return {vmvnq_u32(a.v)}; }
EVG_INLINE Vec select(Mask m, Vec a, Vec b) { return {vbslq_f32(m.v, a.v, b.v)}; }

EVG_INLINE Vec swap_pairs(Vec a) { return {vrev64q_f32(a.v)}; }

EVG_INLINE float reduce_add(Vec a) { return vaddvq_f32(a.v); }  // (0+1) + (2+3)
EVG_INLINE void reduce_add4(const Vec (&a)[4], float* sums) {
  vst1q_f32(sums, vpaddq_f32(vpaddq_f32(a[0].v, a[1].v), vpaddq_f32(a[2].v, a[3].v)));
}
EVG_INLINE float reduce_max(Vec a) { return vmaxvq_f32(a.v); }

// r[i] lane j <-> r[j] lane i.
EVG_INLINE void transpose(Vec (&r)[4]) {
  const float32x4x2_t a = vtrnq_f32(r[0].v, r[1].v), b = vtrnq_f32(r[2].v, r[3].v);
  r[0].v = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
  r[1].v = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
  r[2].v = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
  r[3].v = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

EVG_INLINE VecI operator+(VecI a, VecI b) { return {vaddq_s32(a.v, b.v)}; }
EVG_INLINE VecI operator-(VecI a, VecI b) { return {vsubq_s32(a.v, b.v)}; }
EVG_INLINE VecI operator&(VecI a, VecI b) { return {vandq_s32(a.v, b.v)}; }
EVG_INLINE VecI operator|(VecI a, VecI b) { return {vorrq_s32(a.v, b.v)}; }
EVG_INLINE VecI operator^(VecI a, VecI b) { return {veorq_s32(a.v, b.v)}; }
EVG_INLINE VecI mullo(VecI a, VecI b) { return {vmulq_s32(a.v, b.v)}; }
template <int n>
EVG_INLINE VecI shl(VecI a) {
  return {vshlq_n_s32(a.v, n)};
}
template <int n>
EVG_INLINE VecI shr(VecI a) {
  return {vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.v), n))};
}
template <int n>
EVG_INLINE VecI sar(VecI a) {
  return {vshrq_n_s32(a.v, n)};
}
EVG_INLINE Mask gti(VecI a, VecI b) { return {vcgtq_s32(a.v, b.v)}; }
EVG_INLINE Mask ltu(VecI a, VecI b) {
  return {vcltq_u32(vreinterpretq_u32_s32(a.v), vreinterpretq_u32_s32(b.v))};
}
EVG_INLINE VecI selecti(Mask m, VecI a, VecI b) { return {vbslq_s32(m.v, a.v, b.v)}; }

EVG_INLINE VecI load_u8(const uint8_t* p) {
  uint32_t four;
  __builtin_memcpy(&four, p, 4);
  const uint16x8_t wide = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)));
  return {vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(wide)))};
}
EVG_INLINE VecI load_i8(const uint8_t* p) {
  uint32_t four;
  __builtin_memcpy(&four, p, 4);
  return {vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four)))))};
}
EVG_INLINE VecI load_u16(const uint8_t* p) {
  uint64_t four;
  __builtin_memcpy(&four, p, 8);
  return {vreinterpretq_s32_u32(vmovl_u16(vcreate_u16(four)))};
}
EVG_INLINE void load_words(const uint8_t* p, int64_t stride, VecI (&out)[4]) {
  const auto row = [=](int r) { return vreinterpretq_s32_u8(vld1q_u8(p + r * stride)); };
  const int32x4x2_t ab = vzipq_s32(row(0), row(2)), cd = vzipq_s32(row(1), row(3));
  const int32x4x2_t low = vzipq_s32(ab.val[0], cd.val[0]), high = vzipq_s32(ab.val[1], cd.val[1]);
  out[0].v = low.val[0];
  out[1].v = low.val[1];
  out[2].v = high.val[0];
  out[3].v = high.val[1];
}
EVG_INLINE float half_to_float(uint16_t h) {
  __fp16 x;
  __builtin_memcpy(&x, &h, 2);
  return static_cast<float>(x);
}
EVG_INLINE Vec low_halves(VecI a) {
  return {vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(vreinterpretq_u32_s32(a.v))))};
}

EVG_INLINE VecI to_int(Vec a) { return {vcvtnq_s32_f32(a.v)}; }
EVG_INLINE Vec to_float(VecI a) { return {vcvtq_f32_s32(a.v)}; }
// The low four bits of each lane, and an offset.
template <int offset>
EVG_INLINE Vec low_nibbles(VecI a) {
  const VecI q = a & set1i(15);
  return to_float(offset ? q + set1i(offset) : q);
}
EVG_INLINE VecI as_int(Vec a) { return {vreinterpretq_s32_f32(a.v)}; }
EVG_INLINE Vec as_float(VecI a) { return {vreinterpretq_f32_s32(a.v)}; }

EVG_INLINE Vec scalef(Vec a, Vec n, Mask m) {
  return select(m, as_float(as_int(a) + shl<23>(to_int(n))), zero());
}

// A block of a row; its pair is that of pair.h.
template <int stride>
EVG_INLINE VecI quads_at(const uint8_t* p) {
  return {vreinterpretq_s32_u8(vld1q_u8(p + stride - 16))};
}

}  // namespace
}  // namespace evergrad
