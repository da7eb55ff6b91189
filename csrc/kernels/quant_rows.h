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

// out[i * out_row] (+)= w . row i of x, for Rows rows.
template <QuantKind kind, int Rows>
void dots_of_row(i64 n, const uint8_t* w, const float* x, i64 x_row, float* out, i64 out_row,
                 bool add) {
  // A chain of FMAs takes four steps for each: two chains where rows are few.
  constexpr int chains = Rows <= 4 ? 2 : 1;
  Vec acc[Rows][chains];
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i)
    for (int c = 0; c < chains; ++c) acc[i][c] = zero();
  const auto use = [&](i64 at, int chain, Vec numbers) {
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i)
      acc[i][chain % chains] = fma(numbers, load(x + i * x_row + at), acc[i][chain % chains]);
  };
  if constexpr (kind == QuantKind::f16 || kind == QuantKind::bf16) {
    i64 j = 0;
    for (; j + 2 * Vec::width <= n; j += 2 * Vec::width) {
      use(j, 0, widened<kind>(w + 2 * j));
      use(j + Vec::width, 1, widened<kind>(w + 2 * (j + Vec::width)));
    }
    for (; j + Vec::width <= n; j += Vec::width) use(j, 0, widened<kind>(w + 2 * j));
    if (j < n) {
      const Vec numbers = widened<kind>(w + 2 * j, n - j);
      const Mask rest = first(static_cast<int>(n - j));
      for (int i = 0; i < Rows; ++i)
        acc[i][0] = fma(numbers, load(x + i * x_row + j, rest), acc[i][0]);
    }
  } else {
    using Q = Quant<kind>;
    for (i64 j = 0; j < n; j += Q::numbers, w += Q::bytes)
      Q::groups(w, [&](int at, Pair scales, auto q) {
        const Vec scale = first_of(scales), minimum = second_of(scales);
#pragma GCC unroll 32
        for (int i = 0; i < Q::group; i += Vec::width)
          use(j + at + i, i / Vec::width, Q::has_min ? fma(q(i), scale, minimum) : q(i) * scale);
      });
  }
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
    const float sum = reduce_add(chains == 2 ? acc[i][0] + acc[i][1] : acc[i][0]);
    out[i * out_row] = add ? out[i * out_row] + sum : sum;
  }
}

template <QuantKind kind, int Rows = most_dots>
void dots_of_kind(i64 features, i64 n, const uint8_t* w, i64 row_bytes, i64 rows, const float* x,
                  i64 x_row, float* out, i64 out_row, bool add) {
  if constexpr (Rows > 1) {
    if (rows < Rows)
      return dots_of_kind<kind, Rows - 1>(features, n, w, row_bytes, rows, x, x_row, out, out_row,
                                          add);
  }
  for (i64 r = 0; r < features; ++r)
    dots_of_row<kind, Rows>(n, w + r * row_bytes, x, x_row, out + r, out_row, add);
}

void quant_dots(QuantKind kind, i64 features, i64 n, const uint8_t* w, i64 row_bytes, i64 rows,
                const float* x, i64 x_row, float* out, i64 out_row, bool add) {
  const auto run = [=](auto function) {
    function(features, n, w, row_bytes, rows, x, x_row, out, out_row, add);
  };
  switch (kind) {
    case QuantKind::f16: return run(dots_of_kind<QuantKind::f16>);
    case QuantKind::bf16: return run(dots_of_kind<QuantKind::bf16>);
    case QuantKind::q8_0: return run(dots_of_kind<QuantKind::q8_0>);
    case QuantKind::q4_0: return run(dots_of_kind<QuantKind::q4_0>);
    case QuantKind::q4_1: return run(dots_of_kind<QuantKind::q4_1>);
    case QuantKind::q5_0: return run(dots_of_kind<QuantKind::q5_0>);
    case QuantKind::q5_1: return run(dots_of_kind<QuantKind::q5_1>);
    case QuantKind::q4_k: return run(dots_of_kind<QuantKind::q4_k>);
    case QuantKind::q6_k: return run(dots_of_kind<QuantKind::q6_k>);
  }
}

}  // namespace
}  // namespace evergrad
