// Products of a few rows of x with a weight in blocks: decoded once, in registers, for all of them.
//
// As many rows as there are registers for their sums; x is read from L1, so a long product is made
// piece by piece.
#pragma once

#include "kernels/gemm.h"
#include "kernels/quant.h"

namespace evergrad {
namespace {

constexpr int most_dots = 8;

// With 32 registers two rows of the weight at a time: an x is loaded once for both. Not of kinds
// whose blocks are of several groups, which would have to be walked side by side.
template <QuantKind kind>
constexpr int weights_together() {
  constexpr bool many_registers = Vec::width == 16 || Vec::width == 4;
  if constexpr (in_words(kind))
    return many_registers ? 2 : 1;
  else
    return many_registers && Quant<kind>::group == Quant<kind>::numbers ? 2 : 1;
}

// out[i * out_row + r] (+)= row r of w . row i of x, for Rows rows of x and so many Weights.
template <QuantKind kind, int Rows, int Weights>
void dots_of_rows(i64 n, const uint8_t* w, i64 row_bytes, const float* x, i64 x_row, float* out,
                  i64 out_row, bool add) {
  // A chain of FMAs takes four steps for each: two chains where rows are few.
  constexpr int chains = Rows * Weights <= 4 ? 2 : 1;
  Vec acc[Rows][Weights][chains];
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i)
    for (int r = 0; r < Weights; ++r)
      for (int c = 0; c < chains; ++c) acc[i][r][c] = zero();
  const auto use = [&](i64 at, int chain, const Vec(&numbers)[Weights]) {
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      const Vec each = load(x + i * x_row + at), xv = Weights > 1 ? held(each) : each;
#pragma GCC unroll 2
      for (int r = 0; r < Weights; ++r)
        acc[i][r][chain % chains] = fma(numbers[r], xv, acc[i][r][chain % chains]);
    }
  };
  const uint8_t* ahead = w;
  if constexpr (in_words(kind)) {
    const auto widen = [&](i64 at, int chain) {
      Vec numbers[Weights];
#pragma GCC unroll 2
      for (int r = 0; r < Weights; ++r) numbers[r] = widened<kind>(w + r * row_bytes + 2 * at);
      use(at, chain, numbers);
    };
    constexpr int step = 2 * Vec::width;
    i64 j = 0;
    for (; j + step <= n; j += step, ahead += Weights * 2 * step) {
      fetch<Weights * 2 * step>(ahead);
      widen(j, 0), widen(j + Vec::width, 1);
    }
    for (; j + Vec::width <= n; j += Vec::width) widen(j, 0);
    if (j < n) {
      const Mask rest = first(static_cast<int>(n - j));
      for (int r = 0; r < Weights; ++r) {
        const Vec numbers = widened<kind>(w + r * row_bytes + 2 * j, n - j);
        for (int i = 0; i < Rows; ++i)
          acc[i][r][0] = fma(numbers, load(x + i * x_row + j, rest), acc[i][r][0]);
      }
    }
  } else {
    using Q = Quant<kind>;
    const auto number = [](Pair scales, auto q, int i) {
      const Vec scale = first_of(scales);
      return Q::has_min ? fma(q(i), scale, second_of(scales)) : q(i) * scale;
    };
    for (i64 j = 0; j < n; j += Q::numbers, w += Q::bytes, ahead += Weights * Q::bytes) {
      // A single row's blocks, one behind the other, the hardware fetches as well.
      if constexpr (Weights > 1) fetch<Weights * Q::bytes>(ahead);
      Q::groups(w, [&](int at, Pair scales, auto q) {
        if constexpr (Weights == 1) {
#pragma GCC unroll 32
          for (int i = 0; i < Q::group; i += Vec::width)
            use(j + at + i, i / Vec::width, {number(scales, q, i)});
        } else {
          Q::groups(w + row_bytes, [&](int, Pair below, auto below_q) {
#pragma GCC unroll 32
            for (int i = 0; i < Q::group; i += Vec::width)
              use(j + at + i, i / Vec::width, {number(scales, q, i), number(below, below_q, i)});
          });
        }
      });
    }
  }
  Vec all[Rows * Weights];
  float sums[Rows * Weights];
#pragma GCC unroll 16
  for (int i = 0; i < Rows * Weights; ++i) {
    const auto& chain = acc[i / Weights][i % Weights];
    all[i] = chains == 2 ? chain[0] + chain[chains - 1] : chain[0];
  }
  // Four at a time: where rows have 576 numbers, 2 to 3 % of the product with up to 12 rows of x.
  constexpr int fours = Rows * Weights / 4 * 4;
#pragma GCC unroll 4
  for (int i = 0; i < fours; i += 4)
    reduce_add4({all[i], all[i + 1], all[i + 2], all[i + 3]}, sums + i);
#pragma GCC unroll 4
  for (int i = fours; i < Rows * Weights; ++i) sums[i] = reduce_add(all[i]);
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i)
    for (int r = 0; r < Weights; ++r) {
      float* to = out + i * out_row + r;
      *to = add ? *to + sums[i * Weights + r] : sums[i * Weights + r];
    }
}

// Blocks of several groups are long, and packed from a few rows of x on (ops/quant.cpp).
template <QuantKind kind>
constexpr int most_dots_of() {
  return kind == QuantKind::q4_k || kind == QuantKind::q6_k ? 3 : most_dots;
}

template <QuantKind kind, int Rows>
void dots_of_kind(i64 features, i64 n, const uint8_t* w, i64 row_bytes, i64 rows, const float* x,
                  i64 x_row, float* out, i64 out_row, bool add) {
  if constexpr (Rows > 1) {
    if (rows < Rows)
      return dots_of_kind<kind, Rows - 1>(features, n, w, row_bytes, rows, x, x_row, out, out_row,
                                          add);
  }
  constexpr int together = weights_together<kind>();
  i64 r = 0;
  for (; r + together <= features; r += together)
    dots_of_rows<kind, Rows, together>(n, w + r * row_bytes, row_bytes, x, x_row, out + r, out_row,
                                       add);
  for (; r < features; ++r)
    dots_of_rows<kind, Rows, 1>(n, w + r * row_bytes, row_bytes, x, x_row, out + r, out_row, add);
}

void quant_dots(QuantKind kind, i64 features, i64 n, const uint8_t* w, i64 row_bytes, i64 rows,
                const float* x, i64 x_row, float* out, i64 out_row, bool add) {
  with_kind(kind, [=](auto of) {
    constexpr int most = most_dots_of<of.value>();
    for (i64 i = 0; i < rows; i += most)
      dots_of_kind<of.value, most>(features, n, w, row_bytes, min_of(most, rows - i), x + i * x_row,
                                   x_row, out + i * out_row, out_row, add);
  });
}

}  // namespace
}  // namespace evergrad
