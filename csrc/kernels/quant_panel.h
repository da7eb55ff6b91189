// Rows of a weight in few bits, decoded into a panel of gemm.h: number d of all of them side by
// side.
//
// Decoded one by one, rows would have to be turned as floats, four shuffles for Vec::width numbers.
// Here they are turned as words of four bytes, for a quarter of one or less; then each lane has a
// row, and the numbers of a word are cut out in place. The bits are those of `unpack`: q d is
// exact, and its sum with m, where there is one, is rounded once.
#pragma once

#include "kernels/gemm.h"
#include "kernels/quant.h"

namespace evergrad {
namespace {

// f(0) ... f(n - 1), each with a constant.
template <int n, class F>
EVG_INLINE void times(F f) {
  if constexpr (n > 0) {
    times<n - 1>(f);
    f(Constant<n - 1>{});
  }
}

// `bits` of each lane from bit `from` on, moved to bit `to`.
template <int from, int bits, int to = 0>
EVG_INLINE VecI cut(VecI a) {
  const VecI mask = set1i(((1 << bits) - 1) << to);
  if constexpr (from > to)
    return shr<from - to>(a) & mask;
  else if constexpr (from < to)
    return shl<to - from>(a) & mask;
  else
    return a & mask;
}

// A byte of each lane, with its sign.
template <int byte>
EVG_INLINE Vec signed_byte(VecI a) {
  if constexpr (byte == 3)
    return to_float(sar<24>(a));
  else
    return to_float(sar<24>(shl<24 - 8 * byte>(a)));
}

// Half a byte each: low halves of the bytes of a word to rows 0 ... 3 of `out`, high ones to rows
// `high` ... `high` + 3. Each is left where it is, and so 16^i times too large for d (see quant.h).
struct Nibbles {
  Vec d[8], m_low, m_high;
  EVG_INLINE Nibbles(Vec d_low, Vec low, Vec d_high, Vec high) : m_low(low), m_high(high) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) d[i] = (i % 2 ? d_high : d_low) * set1(in_place[i]);
  }
  template <int high>
  EVG_INLINE void put(VecI word, float* out) const {
    times<8>([&](auto i) {
      const Vec q = nibble_in_place<i.value>(word), m = i.value % 2 ? m_high : m_low;
      store(out + (i.value / 2 + i.value % 2 * high) * nr, fma(q, d[i.value], m));
    });
  }
};

template <QuantKind kind>
EVG_INLINE void put_q4(const uint8_t* p, i64 row_bytes, float* out) {
  VecI head[4], words[4];
  load_words(p, row_bytes, head);
  load_words(p + Quant<kind>::bytes - 16, row_bytes, words);
  const Vec d = low_halves(head[0]);
  const Vec m = Quant<kind>::has_min ? low_halves(shr<16>(head[0])) : d * set1(-8.0f);
  const Nibbles nibbles(d, m, d, m);
#pragma GCC unroll 4
  for (int w = 0; w < 4; ++w) nibbles.put<16>(words[w], out + 4 * w * nr);
}

template <QuantKind kind>
EVG_INLINE void put_q5(const uint8_t* p, i64 row_bytes, float* out) {
  VecI head[4], words[4];
  load_words(p, row_bytes, head);
  load_words(p + Quant<kind>::bytes - 16, row_bytes, words);
  const bool has_min = Quant<kind>::has_min;
  const Vec d = low_halves(head[0]);
  const Vec m = has_min ? low_halves(shr<16>(head[0])) : d * set1(-16.0f);
  const VecI fifth = has_min ? head[1] : shr<16>(head[0]) | shl<16>(head[1]);
  times<4>([&](auto w) {
    times<8>([&](auto i) {
      constexpr int number = 4 * w.value + i.value / 2 + i.value % 2 * 16;
      const VecI q = cut<4 * i.value, 4>(words[w.value]) | cut<number, 1, 4>(fifth);
      store(out + number * nr, fma(to_float(q), d, m));
    });
  });
}

EVG_INLINE void put_q8(const uint8_t* p, i64 row_bytes, float* out) {
  VecI head[4], words[4];
  load_words(p, row_bytes, head);
  const Vec d = low_halves(head[0]);
  for (int half = 0; half < 2; ++half) {
    load_words(p + 2 + 16 * half, row_bytes, words);
#pragma GCC unroll 4
    for (int w = 0; w < 4; ++w, out += 4 * nr)
      times<4>([&](auto b) { store(out + b.value * nr, signed_byte<b.value>(words[w]) * d); });
  }
}

EVG_INLINE void put_q4_k(const uint8_t* p, i64 row_bytes, float* out) {
  VecI head[4], words[4];
  load_words(p, row_bytes, head);  // d and dm, then 12 bytes: 8 scales and 8 minima of 6 bits
  const Vec d = low_halves(head[0]), dm = low_halves(shr<16>(head[0]));
  // Of the first four groups in a word of their own; of the others two bits there, and four in
  // halves of the last word's bytes.
  const auto six_bits = [&](auto g, VecI own, auto half) {
    constexpr int at = 8 * (g.value % 4);
    if constexpr (g.value < 4)
      return to_float(cut<at, 6>(own));
    else
      return to_float(cut<at + 4 * half.value, 4>(head[3]) | cut<at + 6, 2, 4>(own));
  };
  const auto scale = [&](auto g) { return d * six_bits(g, head[1], Constant<0>{}); };
  const auto minimum = [&](auto g) { return neg(dm * six_bits(g, head[2], Constant<1>{})); };
  times<4>([&](auto pair) {  // of groups, which share 32 bytes
    constexpr Constant<2 * pair.value> g;
    constexpr Constant<2 * pair.value + 1> h;
    const Nibbles nibbles(scale(g), minimum(g), scale(h), minimum(h));
    for (int half = 0; half < 2; ++half) {
      load_words(p + 16 + 32 * pair.value + 16 * half, row_bytes, words);
      float* to = out + (64 * pair.value + 16 * half) * nr;
      for (int w = 0; w < 4; ++w, to += 4 * nr) nibbles.put<32>(words[w], to);
    }
  });
}

EVG_INLINE void put_q6_k(const uint8_t* p, i64 row_bytes, float* out) {
  VecI scales[4], tail[4], lows[2][4], high[4];
  load_words(p + 192, row_bytes, scales);
  load_words(p + 194, row_bytes, tail);
  const Vec d = low_halves(shr<16>(tail[3]));
  for (int half = 0; half < 2; ++half, out += 128 * nr)
    times<2>([&](auto c) {  // 16 bytes of high bits, and twice as many of low ones
      const uint8_t* low = p + 64 * half + 16 * c.value;
      load_words(low, row_bytes, lows[0]);
      load_words(low + 32, row_bytes, lows[1]);
      load_words(p + 128 + 32 * half + 16 * c.value, row_bytes, high);
      times<4>([&](auto run) {
        constexpr int r = run.value;
        const Vec each = d * signed_byte<r % 2 * 2 + c.value>(scales[2 * half + r / 2]);
        const Vec m = each * set1(-32.0f);
        for (int w = 0; w < 4; ++w)
          times<4>([&](auto b) {
            const VecI q = cut<8 * b.value + r / 2 * 4, 4>(lows[r % 2][w]) |
                           cut<8 * b.value + 2 * r, 2, 4>(high[w]);
            store(out + (32 * r + 16 * c.value + 4 * w + b.value) * nr, fma(to_float(q), each, m));
          });
      });
    });
}

// Eight numbers of two bytes each.
template <QuantKind kind>
EVG_INLINE void put_words(const uint8_t* p, i64 row_bytes, float* out) {
  VecI words[4];
  load_words(p, row_bytes, words);
#pragma GCC unroll 4
  for (int w = 0; w < 4; ++w, out += 2 * nr) {
    const VecI high = shr<16>(words[w]);
    const bool is_bf16 = kind == QuantKind::bf16;
    store(out, is_bf16 ? as_float(shl<16>(words[w])) : low_halves(words[w]));
    store(out + nr, is_bf16 ? as_float(shl<16>(high)) : low_halves(high));
  }
}

// All nr rows of a panel, `numbers` of each in `bytes` at a time, Vec::width rows by put(p,
// row_bytes, out). The rows of the next panel are fetched meanwhile: they come from memory, in runs
// too short for the hardware to see.
template <int numbers, int bytes, class Put>
EVG_INLINE i64 turned(i64 depth, const uint8_t* src, i64 row_bytes, float* panel, Put put) {
  i64 d = 0;
  for (; d + numbers <= depth; d += numbers, src += bytes, panel += numbers * nr)
    for (int at = 0; at < nr; at += Vec::width) {
      const uint8_t* p = src + at * row_bytes;
      put(p, row_bytes, panel + at);
      p += nr * row_bytes;
      for (int r = 0; r < Vec::width; ++r, p += row_bytes)
        for (int line = 0; line < bytes; line += 64) __builtin_prefetch(p + line, 0, 2);
    }
  return d;
}

template <QuantKind kind>
void panel_of_blocks(i64 depth, const uint8_t* src, i64 row_bytes, float* panel) {
  const auto put = [](const uint8_t* p, i64 stride, float* out) {
    if constexpr (kind == QuantKind::q8_0)
      put_q8(p, stride, out);
    else if constexpr (kind == QuantKind::q4_0 || kind == QuantKind::q4_1)
      put_q4<kind>(p, stride, out);
    else if constexpr (kind == QuantKind::q5_0 || kind == QuantKind::q5_1)
      put_q5<kind>(p, stride, out);
    else if constexpr (kind == QuantKind::q4_k)
      put_q4_k(p, stride, out);
    else
      put_q6_k(p, stride, out);
  };
  turned<Quant<kind>::numbers, Quant<kind>::bytes>(depth, src, row_bytes, panel, put);
}

template <QuantKind kind>
void panel_of_words(i64 depth, const uint8_t* src, i64 row_bytes, float* panel) {
  constexpr int together = 8;
  const i64 done = turned<together, 2 * together>(depth, src, row_bytes, panel, put_words<kind>);
  float rest[together > Vec::width ? together : Vec::width];
  for (int r = 0; r < nr && done < depth; ++r) {
    unpack_words<kind>(depth - done, src + r * row_bytes + 2 * done, rest);
    for (i64 d = done; d < depth; ++d) panel[d * nr + r] = rest[d - done];
  }
}

// `count` rows, at most nr, as gemm_pack_b packs them; `decoded` has room for them.
void unpack_panel(QuantKind kind, i64 count, i64 depth, const uint8_t* src, i64 row_bytes,
                  float* decoded, float* panel) {
  if (count == nr)
    return with_kind(kind, [=](auto of) {
      if constexpr (in_words(of.value))
        panel_of_words<of.value>(depth, src, row_bytes, panel);
      else
        panel_of_blocks<of.value>(depth, src, row_bytes, panel);
    });
  for (i64 i = 0; i < count; ++i) unpack(kind, depth, src + i * row_bytes, decoded + i * depth);
  gemm_pack_b(count, depth, decoded, depth, 1, panel);
}

}  // namespace
}  // namespace evergrad
