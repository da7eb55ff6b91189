// Weights in few bits, made: each number goes to the nearest of its group's levels, with the bytes
// that gguf makes. Plain loops, for the compiler to vectorise.
#pragma once

#include "kernels/table.h"

namespace evergrad {
namespace {

EVG_INLINE uint32_t float_bits(float x) {
  uint32_t b;
  __builtin_memcpy(&b, &x, 4);
  return b;
}
EVG_INLINE float float_of_bits(uint32_t b) {
  float x;
  __builtin_memcpy(&x, &b, 4);
  return x;
}

// To the nearest, ties to even; beyond 65504 to infinity.
EVG_INLINE void put_half(uint8_t* p, float x) {
  const uint32_t all = float_bits(x), b = all & 0x7fffffffu;
  uint32_t h;
  if (b >= 0x47800000u)
    h = b > 0x7f800000u ? 0x7e00u : 0x7c00u;
  else if (b < 0x38800000u)  // a subnormal's unit is that of 0.5
    h = float_bits(float_of_bits(b) + 0.5f) - float_bits(0.5f);
  else
    h = (b + 0xfffu + (b >> 13 & 1u) - (112u << 23)) >> 13;
  const uint16_t value = static_cast<uint16_t>(h | (all >> 16 & 0x8000u));
  __builtin_memcpy(p, &value, 2);
}

EVG_INLINE void put_bf16(uint8_t* p, float x) {
  uint32_t b = float_bits(x);
  b = (b & 0x7fffffffu) > 0x7f800000u ? b >> 16 | 0x40u : (b + 0x7fffu + (b >> 16 & 1u)) >> 16;
  const uint16_t value = static_cast<uint16_t>(b);
  __builtin_memcpy(p, &value, 2);
}

// 1 / d; 0 for what is so small that all of its block decodes to nothing.
EVG_INLINE float inverse(float d) { return __builtin_fabsf(d) > 0x1p-126f ? 1.0f / d : 0.0f; }

EVG_INLINE void make_q8_0(const float* x, uint8_t* b) {
  float largest = 0.0f;
  for (int i = 0; i < 32; ++i) {
    const float a = __builtin_fabsf(x[i]);
    largest = a > largest ? a : largest;
  }
  const float d = largest / 127.0f, by = inverse(d);
  put_half(b, d);
  for (int i = 0; i < 32; ++i) {  // to the nearest, ties away from 0
    const float a = __builtin_fabsf(x[i] * by);
    const int whole = static_cast<int>(a);
    const int q = whole + (a - static_cast<float>(whole) >= 0.5f);
    b[2 + i] = static_cast<uint8_t>(x[i] < 0.0f ? -q : q);
  }
}

// q = x by + shift, cut to whole numbers of 4 bits.
EVG_INLINE void put_nibbles(const float* x, float minimum, float by, float shift, uint8_t* b) {
  int q[32];
  for (int i = 0; i < 32; ++i) {
    const int whole = static_cast<int>((x[i] - minimum) * by + shift);
    q[i] = whole < 15 ? whole : 15;
  }
  for (int i = 0; i < 16; ++i) b[i] = static_cast<uint8_t>(q[i] | q[i + 16] << 4);
}

EVG_INLINE void make_q4_0(const float* x, uint8_t* b) {
  float extreme = x[0];  // the first of the largest magnitude
  for (int i = 1; i < 32; ++i)
    extreme = __builtin_fabsf(x[i]) > __builtin_fabsf(extreme) ? x[i] : extreme;
  const float d = extreme / -8.0f;
  put_half(b, d);
  put_nibbles(x, 0.0f, inverse(d), 8.5f, b + 2);
}

EVG_INLINE void make_q4_1(const float* x, uint8_t* b) {
  float least = x[0], most = x[0];
  for (int i = 1; i < 32; ++i) {
    least = x[i] < least ? x[i] : least;
    most = x[i] > most ? x[i] : most;
  }
  const float d = (most - least) / 15.0f;
  put_half(b, d);
  put_half(b + 2, least);
  put_nibbles(x, least, inverse(d), 0.5f, b + 4);
}

// n numbers, whole blocks, as gguf makes them; to f16, bf16, q8_0, q4_0 and q4_1.
void pack_bits(QuantKind kind, i64 n, const float* x, uint8_t* blocks) {
  switch (kind) {
    case QuantKind::f16:
      for (i64 i = 0; i < n; ++i) put_half(blocks + 2 * i, x[i]);
      return;
    case QuantKind::bf16:
      for (i64 i = 0; i < n; ++i) put_bf16(blocks + 2 * i, x[i]);
      return;
    case QuantKind::q8_0:
      for (i64 i = 0; i < n; i += 32) make_q8_0(x + i, blocks + i / 32 * 34);
      return;
    case QuantKind::q4_0:
      for (i64 i = 0; i < n; i += 32) make_q4_0(x + i, blocks + i / 32 * 18);
      return;
    case QuantKind::q4_1:
      for (i64 i = 0; i < n; i += 32) make_q4_1(x + i, blocks + i / 32 * 20);
      return;
    default: return;
  }
}

}  // namespace
}  // namespace evergrad
