// Products of weights of half a byte a number with one row of x, by dots of bytes.
//
// What a core does in one step for 16 floats it does for 64 bytes: four products, unsigned times
// signed, and their sum with an int32. So x becomes integers of 24 bits, each 32 of them with a
// power of two, and each integer three signed bytes: X = 2^16 h + 2^8 m + l. With q of 4 bits, the
// sum of eight products stays below 2^30 and is exact; a float is made of it once. Rounding x costs
// 2^-23 of its block's largest number at most (above 2^-102; what is smaller fades), which is about
// what a sum of floats costs. (In three bytes, not one, as llama.cpp has it: its x keeps 8 bits.)
#pragma once

#include "kernels/quant.h"

namespace evergrad {
namespace {

#ifdef EVG_BYTE_DOTS
static_assert(Vec::width == 16, "half a block");

// 128 numbers of x, four blocks side by side: bytes of the first halves of all blocks, then of the
// second halves; the most significant ones first.
struct ByteRecord {
  static constexpr int blocks = 4, numbers = 32 * blocks;

  uint8_t bytes[3][2][numbers / 2];
  float scale[4 * blocks];  // a block's four times
  float sums[2 * blocks];   // of a block, beside its m (or, where it has none, d), and 0
  float unused[2 * blocks];
};
static_assert(sizeof(ByteRecord) == ByteRecord::numbers * sizeof(float), "as table.h has it");

EVG_INLINE float power_of_two(int exponent) {
  const int32_t bits = (exponent + 127) << 23;
  float power;
  __builtin_memcpy(&power, &bits, 4);
  return power;
}

// A block of x; its scale is NaN where x is not finite.
EVG_INLINE void prepare_block(const float* x, int block, bool has_min, ByteRecord& to) {
  Vec largest = zero(), nothing = zero();
  for (int i = 0; i < 32; i += Vec::width) {
    const Vec each = load(x + i);
    largest = max(largest, abs(each) * set1(1.004f));
    nothing = fma(each, zero(), nothing);
  }
  const bool is_finite = reduce_add(nothing) == 0.0f;
  const float most = reduce_max(largest);
  uint32_t bits;
  __builtin_memcpy(&bits, &most, 4);
  // So that |X| < 2^23 / 1.004, whose first byte is below 128 also when the others round it up.
  const int exponent = static_cast<int>(max_of(bits >> 23, 24)) - 149;
  const float up = power_of_two(-exponent), down = power_of_two(exponent);
  Vec sum = zero();
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const VecI low = is_finite ? to_int(load(x + 16 * half) * set1(up)) : set1i(0);
    const VecI middle = sar<8>(low + set1i(128)), high = sar<8>(middle + set1i(128));
    const VecI parts[] = {high, middle, low};
    for (int part = 0; part < 3; ++part)
      store_low_bytes(to.bytes[part][half] + 16 * block, parts[part]);
    sum = sum + to_float(low);
  }
  const float scale = is_finite ? down : __builtin_nanf("");
  for (int i = 0; i < 4; ++i) to.scale[4 * block + i] = scale;
  to.sums[2 * block + has_min] = reduce_add(sum) * scale;
}

// The last record is of the last 128 numbers; those that the one before it has are zeros in it.
void quant_prepare_bytes(QuantKind kind, i64 n, const float* x, float* prepared) {
  constexpr int numbers = ByteRecord::numbers;
  auto* record = reinterpret_cast<ByteRecord*>(prepared);
  for (i64 j = 0; j < n; j += numbers, ++record) {
    *record = {};
    const i64 from = min_of(j, n - numbers);
    for (i64 block = (j - from) / 32; block < ByteRecord::blocks; ++block)
      prepare_block(x + from + 32 * block, static_cast<int>(block), kind == QuantKind::q4_1,
                    *record);
  }
}

template <QuantKind kind, int Rows>
EVG_INLINE void dot_bytes(i64 n, const uint8_t* w, i64 row_bytes, const float* prepared,
                          float* out) {
  using Q = Quant<kind>;
  constexpr int stride = Q::bytes, numbers = ByteRecord::numbers;
  const auto* x = reinterpret_cast<const ByteRecord*>(prepared);
  Vec acc[Rows];
  Pairs all[Rows];
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) acc[r] = zero(), all[r] = no_pairs();
  const uint8_t* ahead = w;
  for (i64 j = 0; j < n; j += numbers, ++x) {
    fetch<Rows * ByteRecord::blocks * stride>(ahead);
    ahead += Rows * ByteRecord::blocks * stride;
    const uint8_t* const blocks = w + min_of(j, n - numbers) / Q::numbers * stride;
    VecI low[Rows], high[Rows], sum[Rows];
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      const VecI lanes = quads_at<stride>(blocks + r * row_bytes);
      low[r] = lanes & set1i(0x0f0f0f0f);
      high[r] = shr<4>(lanes) & set1i(0x0f0f0f0f);
    }
#pragma GCC unroll 3
    for (int part = 0; part < 3; ++part) {
      const VecI first = load_bytes(x->bytes[part][0]), second = load_bytes(x->bytes[part][1]);
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r) {
        sum[r] = add_dots(part == 0 ? set1i(0) : shl<8>(sum[r]), low[r], first);
        sum[r] = add_dots(sum[r], high[r], second);
      }
    }
    const Vec scale = load(x->scale);
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      const Pairs pairs = pairs_at<stride>(blocks + r * row_bytes);
      acc[r] = fma(firsts(pairs) * scale, to_float(sum[r]), acc[r]);
      all[r] = fma_pairs(pairs, x->sums, all[r]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r)
    out[r] = reduce_add(acc[r]) + (Q::has_min ? sum_seconds(all[r]) : -8.0f * sum_firsts(all[r]));
}

template <QuantKind kind>
void dot_bytes_of(i64 rows, i64 n, const uint8_t* w, i64 row_bytes, const float* prepared,
                  float* out) {
  i64 r = 0;
  for (; r + 4 <= rows; r += 4)
    dot_bytes<kind, 4>(n, w + r * row_bytes, row_bytes, prepared, out + r);
  for (; r < rows; ++r) dot_bytes<kind, 1>(n, w + r * row_bytes, row_bytes, prepared, out + r);
}

void quant_dot_bytes(QuantKind kind, i64 rows, i64 n, const uint8_t* w, i64 row_bytes,
                     const float* prepared, float* out) {
  if (kind == QuantKind::q4_1)
    dot_bytes_of<QuantKind::q4_1>(rows, n, w, row_bytes, prepared, out);
  else
    dot_bytes_of<QuantKind::q4_0>(rows, n, w, row_bytes, prepared, out);
}

#else

constexpr decltype(KernelTable::quant_prepare_bytes) quant_prepare_bytes = nullptr;
constexpr decltype(KernelTable::quant_dot_bytes) quant_dot_bytes = nullptr;

#endif

}  // namespace
}  // namespace evergrad
