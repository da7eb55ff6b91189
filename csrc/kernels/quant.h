// Weights of few bits, in the block layouts of GGUF files, decoded where they are used.
//
// A row is a run of blocks; a block, one or more groups of 16 or 32 numbers d q + m with q a small
// integer:
//   f16, bf16   2 bytes a number, no groups
//   q8_0        d (half), 32 int8
//   q4_0, q4_1  d, (m,) 16 bytes: number i in the low half of byte i, number i + 16 in the high one
//   q5_0, q5_1  d, (m,) a fifth bit for each of the 32, 16 bytes as above
//   q4_k        256 numbers: d and dm of the block, 6 bits each of scale and minimum for 8 groups
//   q6_k        256 numbers: low 4 bits, high 2 bits, an int8 scale for each of 16 groups, d
//
// A product with one row of x reads a weight once, so it is made straight from the blocks: the sum
// over a group of q x, times d, plus m times the group's sum of x, which all rows of the weight
// share.
//
// Where a number is half a byte, several blocks are read at once: 16 bytes of each in four lanes,
// and a lane's eight numbers one after the other, each masked in place: it is then 16^i times too
// large, which its number of x makes up for (`quant_prepare`). An AND, a conversion and an FMA for
// Vec::width numbers, and one scale for eight times as many.
#pragma once

#include "kernels/table.h"
#include "simd/pair.h"

namespace evergrad {
namespace {

EVG_INLINE float half_at(const uint8_t* p) {
  uint16_t h;
  __builtin_memcpy(&h, p, 2);
  return half_to_float(h);
}

template <QuantKind kind>
struct Quant;

// group(at, {d, m}, q): `q(i)` are the integers of numbers [at + i, at + i + Vec::width).
template <>
struct Quant<QuantKind::q8_0> {
  static constexpr int numbers = 32, bytes = 34, group = 32;
  static constexpr bool has_min = false;
  template <class F>
  EVG_INLINE static void groups(const uint8_t* b, F f) {
    f(0, halves_at(b), [=](int i) { return to_float(load_i8(b + 2 + i)); });
  }
};

// Half a byte each: the low ones of all bytes, then the high ones.
EVG_INLINE VecI nibbles(const uint8_t* p, int i) {
  return i < 16 ? load_u8(p + i) & set1i(15) : shr<4>(load_u8(p + i - 16));
}
template <int offset>
EVG_INLINE Vec nibbles_to_float(const uint8_t* p, int i) {
  return i < 16 ? low_nibbles<offset>(load_u8(p + i))
                : low_nibbles<offset>(shr<4>(load_u8(p + i - 16)));
}

template <>
struct Quant<QuantKind::q4_0> {
  static constexpr int numbers = 32, bytes = 18, group = 32;
  static constexpr bool has_min = false;
  template <class F>
  EVG_INLINE static void groups(const uint8_t* b, F f) {
    f(0, halves_at(b), [=](int i) { return nibbles_to_float<-8>(b + 2, i); });
  }
};

template <>
struct Quant<QuantKind::q4_1> {
  static constexpr int numbers = 32, bytes = 20, group = 32;
  static constexpr bool has_min = true;
  template <class F>
  EVG_INLINE static void groups(const uint8_t* b, F f) {
    f(0, halves_at(b), [=](int i) { return nibbles_to_float<0>(b + 4, i); });
  }
};

struct alignas(64) Places {
  int32_t bit[32];
};
constexpr Places places = [] {
  Places made{};
  for (int i = 0; i < 32; ++i) made.bit[i] = static_cast<int32_t>(1u << i);
  return made;
}();
// The fifth bits of numbers [i, i + Vec::width), as 16 or 0.
EVG_INLINE VecI fifth_bits(const uint8_t* high, int i) {
  int32_t all;
  VecI place;
  __builtin_memcpy(&all, high, 4);
  __builtin_memcpy(&place, places.bit + i, sizeof(place));
  return selecti(ltu(set1i(0), set1i(all) & place), set1i(16), set1i(0));
}

template <>
struct Quant<QuantKind::q5_0> {
  static constexpr int numbers = 32, bytes = 22, group = 32;
  static constexpr bool has_min = false;
  template <class F>
  EVG_INLINE static void groups(const uint8_t* b, F f) {
    f(0, halves_at(b),
      [=](int i) { return to_float((nibbles(b + 6, i) | fifth_bits(b + 2, i)) - set1i(16)); });
  }
};

template <>
struct Quant<QuantKind::q5_1> {
  static constexpr int numbers = 32, bytes = 24, group = 32;
  static constexpr bool has_min = true;
  template <class F>
  EVG_INLINE static void groups(const uint8_t* b, F f) {
    f(0, halves_at(b), [=](int i) { return to_float(nibbles(b + 8, i) | fifth_bits(b + 4, i)); });
  }
};

template <>
struct Quant<QuantKind::q4_k> {
  static constexpr int numbers = 256, bytes = 144, group = 32;
  static constexpr bool has_min = true;
  template <class F>
  EVG_INLINE static void groups(const uint8_t* b, F f) {
    const float d = half_at(b), dm = half_at(b + 2);
    const uint8_t* s = b + 4;  // 12 bytes: 8 scales and 8 minima of 6 bits
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g) {
      const int scale = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | (s[g - 4] >> 6) << 4;
      const int minimum = g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | (s[g] >> 6) << 4;
      const uint8_t* q = b + 16 + g / 2 * 32;  // two groups share 32 bytes
      const Pair scales =
          pair_of(d * static_cast<float>(scale), -(dm * static_cast<float>(minimum)));
      f(32 * g, scales, [=](int i) {
        const VecI pair = load_u8(q + i);
        return to_float(g % 2 ? shr<4>(pair) : pair & set1i(15));
      });
    }
  }
};

template <>
struct Quant<QuantKind::q6_k> {
  static constexpr int numbers = 256, bytes = 210, group = 16;
  static constexpr bool has_min = false;
  template <class F>
  EVG_INLINE static void groups(const uint8_t* b, F f) {
    const float d = half_at(b + 208);
    // Halves of 128 numbers; in each, four runs of 32 that share bytes of low and of high bits.
#pragma GCC unroll 16
    for (int g = 0; g < 16; ++g) {
      const int half = g / 8, run = g / 2 % 4, in_run = g % 2 * 16;
      const uint8_t* low = b + 64 * half + run % 2 * 32 + in_run;
      const uint8_t* high = b + 128 + 32 * half + in_run;
      const float scale = d * static_cast<float>(static_cast<int8_t>(b[192 + g]));
      f(16 * g, pair_of(scale, 0.0f), [=](int i) {
        const VecI lows = load_u8(low + i), highs = load_u8(high + i);
        const VecI two = run == 0   ? highs & set1i(3)
                         : run == 1 ? shr<2>(highs) & set1i(3)
                         : run == 2 ? shr<4>(highs) & set1i(3)
                                    : shr<6>(highs);
        return to_float(((run < 2 ? lows & set1i(15) : shr<4>(lows)) | shl<4>(two)) - set1i(32));
      });
    }
  }
};

// n numbers, whole blocks.
template <QuantKind kind>
void unpack_blocks(i64 n, const uint8_t* src, float* out) {
  using Q = Quant<kind>;
  for (i64 j = 0; j < n; j += Q::numbers, src += Q::bytes)
    Q::groups(src, [=](int at, Pair scales, auto q) {
      const Vec scale = first_of(scales), minimum = second_of(scales);
#pragma GCC unroll 32
      for (int i = 0; i < Q::group; i += Vec::width) {
        const Vec x = q(i) * scale;
        store(out + j + at + i, Q::has_min ? x + minimum : x);
      }
    });
}

template <QuantKind kind>
EVG_INLINE Vec widened(const uint8_t* p) {
  const VecI h = load_u16(p);
  return kind == QuantKind::bf16 ? as_float(shl<16>(h)) : low_halves(h);
}

// The last numbers of a row, fewer than a vector, zeros behind them.
template <QuantKind kind>
EVG_INLINE Vec widened(const uint8_t* p, i64 count) {
  uint8_t rest[2 * Vec::width] = {};
  __builtin_memcpy(rest, p, static_cast<unsigned long>(2 * count));
  return widened<kind>(rest);
}

template <QuantKind kind>
void unpack_words(i64 n, const uint8_t* src, float* out) {
  i64 j = 0;
  for (; j + Vec::width <= n; j += Vec::width) store(out + j, widened<kind>(src + 2 * j));
  if (j < n) store(out + j, widened<kind>(src + 2 * j, n - j), first(static_cast<int>(n - j)));
}

constexpr bool in_words(QuantKind kind) {
  return kind == QuantKind::f16 || kind == QuantKind::bf16;
}

// f with the kind as a constant.
template <class F>
EVG_INLINE void with_kind(QuantKind kind, F f) {
  switch (kind) {
    case QuantKind::f16: return f(Constant<QuantKind::f16>{});
    case QuantKind::bf16: return f(Constant<QuantKind::bf16>{});
    case QuantKind::q8_0: return f(Constant<QuantKind::q8_0>{});
    case QuantKind::q4_0: return f(Constant<QuantKind::q4_0>{});
    case QuantKind::q4_1: return f(Constant<QuantKind::q4_1>{});
    case QuantKind::q5_0: return f(Constant<QuantKind::q5_0>{});
    case QuantKind::q5_1: return f(Constant<QuantKind::q5_1>{});
    case QuantKind::q4_k: return f(Constant<QuantKind::q4_k>{});
    case QuantKind::q6_k: return f(Constant<QuantKind::q6_k>{});
  }
}

void unpack(QuantKind kind, i64 n, const uint8_t* src, float* out) {
  with_kind(kind, [=](auto of) {
    if constexpr (in_words(of.value))
      unpack_words<of.value>(n, src, out);
    else
      unpack_blocks<of.value>(n, src, out);
  });
}

// The blocks that are read at once, where they are.
constexpr int together = Vec::width / 4;
constexpr bool has_quads(QuantKind kind) {
  return together > 0 && (kind == QuantKind::q4_0 || kind == QuantKind::q4_1);
}

// Number i of a lane is in bits 4 i ... 4 i + 3.
template <int i>
EVG_INLINE Vec nibble_in_place(VecI lanes) {
  if constexpr (i == 7) return to_float(shr<28>(lanes));  // where it lies is the sign's place
  return to_float(lanes & set1i(15 << 4 * (i % 7)));
}
constexpr float in_place[8] = {1.0f, 0x1p-4f, 0x1p-8f, 0x1p-12f, 0x1p-16f, 0x1p-20f, 0x1p-24f, 1};

// What the rows of a weight share: sums[2 g + 1] = sum of numbers [32 g, 32 g + 32) of x, with a 0
// before each and behind the last, to lie beside d and m; and where blocks are read at once, x in
// the order of their numbers.
void quant_prepare(QuantKind kind, i64 n, const float* x, float* prepared) {
  for (i64 j = 0; j < n; j += 32) {
    Vec sum = zero();
#pragma GCC unroll 32
    for (int i = 0; i < 32; i += Vec::width) sum = sum + load(x + j + i);
    prepared[j / 16] = 0.0f;
    prepared[j / 16 + 1] = reduce_add(sum);
  }
  prepared[n / 16] = 0.0f;
  if constexpr (together > 0) {
    if (!has_quads(kind)) return;
    float* out = prepared + quant_sums(n);
    for (i64 j = 0; j + 32 * together <= n; j += 32 * together, x += 32 * together)
      for (int i = 0; i < 8; ++i)
        for (int b = 0; b < together; ++b)
          for (int k = 0; k < 4; ++k) *out++ = x[32 * b + i % 2 * 16 + 4 * k + i / 2] * in_place[i];
  }
}

// Rows lie one after the other, but are read side by side: the hardware sees short runs.
constexpr int bytes_ahead = 1024, bytes_far_ahead = 8192;
template <int count>
EVG_INLINE void fetch(const uint8_t* p) {
#pragma GCC unroll 8
  for (int at = 0; at < count; at += 64) {
    __builtin_prefetch(p + bytes_ahead + at);
    __builtin_prefetch(p + bytes_far_ahead + at, 0, 2);
  }
}

// Rows' sums over the blocks that are read at once, all but a few at the end: of d q x in acc, of
// m times a group's x in minima. Returns how many numbers that were.
template <QuantKind kind, int Rows>
EVG_INLINE i64 dot_quads(i64 n, const uint8_t* w, i64 row_bytes, const float* prepared,
                         Vec (&acc)[Rows], float (&minima)[Rows]) {
  using Q = Quant<kind>;
  constexpr int stride = Q::bytes, numbers = together * Q::numbers;
  const float* x = prepared + quant_sums(n);
  // Of q4_0 the first of a pair is d and the second nothing: its sums are those from one further
  // on, and its m is -8 d.
  const float* sums = prepared + (Q::has_min ? 0 : 1);
  Pairs all[Rows];
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) all[r] = no_pairs();
  const uint8_t* ahead = w;
  i64 j = 0;
  for (; j + numbers <= n; j += numbers, w += together * stride, x += numbers) {
    fetch<Rows * together * stride>(ahead);
    ahead += Rows * together * stride;
    VecI lanes[Rows];
    Vec sum[Rows];
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) lanes[r] = quads_at<stride>(w + r * row_bytes);
    const auto use = [&](auto index) {
      constexpr int i = decltype(index)::value;
      const Vec xv = load(x + i * Vec::width);
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r) {
        const Vec q = nibble_in_place<i>(lanes[r]);
        sum[r] = i == 0 ? q * xv : fma(q, xv, sum[r]);
      }
    };
    use(Constant<0>{}), use(Constant<1>{}), use(Constant<2>{}), use(Constant<3>{});
    use(Constant<4>{}), use(Constant<5>{}), use(Constant<6>{}), use(Constant<7>{});
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      const Pairs pairs = pairs_at<stride>(w + r * row_bytes);
      acc[r] = fma(firsts(pairs), sum[r], acc[r]);
      all[r] = fma_pairs(pairs, sums + j / 16, all[r]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r)
    minima[r] = Q::has_min ? sum_seconds(all[r]) : -8.0f * sum_firsts(all[r]);
  return j;
}

template <QuantKind kind, int Rows>
EVG_INLINE void dot_blocks(i64 n, const uint8_t* w, i64 row_bytes, const float* x,
                           const float* sums, float* out) {
  using Q = Quant<kind>;
  Vec acc[Rows];
  Pair minima[Rows];
  float before[Rows] = {};
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) acc[r] = zero(), minima[r] = pair_of(0.0f, 0.0f);
  i64 j = 0;
  if constexpr (has_quads(kind)) {
    j = dot_quads<kind, Rows>(n, w, row_bytes, sums, acc, before);
    w += j / Q::numbers * Q::bytes;
  }
  const uint8_t* ahead = w;
  for (; j < n; j += Q::numbers, w += Q::bytes, ahead += Rows * Q::bytes) {
    fetch<Rows * Q::bytes>(ahead);
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r)
      Q::groups(w + r * row_bytes, [&](int at, Pair scales, auto q) {
        Vec sum = q(0) * load(x + j + at);
#pragma GCC unroll 32
        for (int i = Vec::width; i < Q::group; i += Vec::width)
          sum = fma(q(i), load(x + j + at + i), sum);
        acc[r] = fma(first_of(scales), sum, acc[r]);
        if (Q::has_min) minima[r] = fma_pair(scales, sums + (j + at) / 16, minima[r]);
      });
  }
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
    const float sum = reduce_add(acc[r]) + before[r];
    out[r] = Q::has_min ? sum + second_in(minima[r]) : sum;
  }
}

template <QuantKind kind, int Rows>
EVG_INLINE void dot_words(i64 n, const uint8_t* w, i64 row_bytes, const float* x, float* out) {
  Vec acc[Rows];
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) acc[r] = zero();
  const uint8_t* ahead = w;
  i64 j = 0;
  for (; j + Vec::width <= n; j += Vec::width, ahead += Rows * 2 * Vec::width) {
    fetch<Rows * 2 * Vec::width>(ahead);
    const Vec xv = load(x + j);
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r)
      acc[r] = fma(widened<kind>(w + r * row_bytes + 2 * j), xv, acc[r]);
  }
  if (j < n) {
    const Vec xv = load(x + j, first(static_cast<int>(n - j)));
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r)
      acc[r] = fma(widened<kind>(w + r * row_bytes + 2 * j, n - j), xv, acc[r]);
  }
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) out[r] = reduce_add(acc[r]);
}

template <QuantKind kind, int Rows>
EVG_INLINE void dot_some(i64 n, const uint8_t* w, i64 row_bytes, const float* x, const float* sums,
                         float* out) {
  if constexpr (in_words(kind))
    dot_words<kind, Rows>(n, w, row_bytes, x, out);
  else
    dot_blocks<kind, Rows>(n, w, row_bytes, x, sums, out);
}

template <QuantKind kind>
void dot_kind(i64 rows, i64 n, const uint8_t* w, i64 row_bytes, const float* x, const float* sums,
              float* out) {
  i64 r = 0;
  for (; r + 4 <= rows; r += 4)
    dot_some<kind, 4>(n, w + r * row_bytes, row_bytes, x, sums, out + r);
  for (; r < rows; ++r) dot_some<kind, 1>(n, w + r * row_bytes, row_bytes, x, sums, out + r);
}

void quant_dot(QuantKind kind, i64 rows, i64 n, const uint8_t* w, i64 row_bytes, const float* x,
               const float* sums, float* out) {
  with_kind(kind, [=](auto of) { dot_kind<of.value>(rows, n, w, row_bytes, x, sums, out); });
}

}  // namespace
}  // namespace evergrad
