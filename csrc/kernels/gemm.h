// Matrix product from packed panels: the register tile, packing, and the fused epilogue.
//
// C[m, n] (+)= A[m, k] B[k, n]. Both operands are packed so that the inner loop reads memory in
// order, whatever their strides were:
//   A: panels of `mr` rows,    panel p at p * mr * k, element (i, d) of a panel at d * mr + i
//   B: panels of `nr` columns, panel p at p * nr * k, element (d, j) of a panel at d * nr + j
// Both are the same layout: lanes side by side, depth outwards; short panels are padded with zeros.
//
// The tile is mr x nr accumulators in registers. Each step of depth loads nr / width vectors of B,
// broadcasts mr numbers of A, and issues mr * nr / width FMAs: the tile is chosen so that those
// FMAs outnumber the loads that feed them, and that there are more of them than latency * ports.
//
// Every element of C is one chain of FMAs over depth, so its bits do not depend on where the tiles
// or the threads are cut.
#pragma once

#include "kernels/table.h"

namespace evergrad {
namespace {

// Register tiles: accumulators + B vectors + one broadcast fit in 16 (AVX2) or 32 registers.
constexpr int mr = Vec::width == 16 ? 12 : Vec::width == 1 ? 4 : 6;
constexpr int nv = Vec::width == 16 ? 2 : Vec::width == 8 ? 2 : 4;
constexpr int nr = nv * Vec::width;

EVG_INLINE i64 min_of(i64 a, i64 b) { return a < b ? a : b; }
EVG_INLINE i64 max_of(i64 a, i64 b) { return a > b ? a : b; }
EVG_INLINE i64 round_up(i64 a, i64 multiple) { return (a + multiple - 1) / multiple * multiple; }

// One tile. A's element (i, d) is at a[i * a_row + d * a_depth]; at least one of the two strides is
// a compile-time constant in each use, so that the addresses fold into the instructions.
template <int Rows>
EVG_INLINE void tile(i64 k, const float* a, i64 a_row, i64 a_depth, const float* b, float* c,
                     i64 c_stride, int m, int n, bool accumulate) {
  Vec acc[Rows][nv];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < nv; ++j) acc[i][j] = zero();
  for (i64 d = 0; d < k; ++d) {
    Vec bv[nv];
#pragma GCC unroll 4
    for (int j = 0; j < nv; ++j) bv[j] = load(b + j * Vec::width);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const Vec av = set1(a[i * a_row]);
#pragma GCC unroll 4
      for (int j = 0; j < nv; ++j) acc[i][j] = fma(av, bv[j], acc[i][j]);
    }
    a += a_depth;
    b += nr;
  }
  if (n == nr && m == Rows) {
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < nv; ++j) {
        float* p = c + i * c_stride + j * Vec::width;
        store(p, accumulate ? load(p) + acc[i][j] : acc[i][j]);
      }
    return;
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    if (i >= m) break;
#pragma GCC unroll 4
    for (int j = 0; j < nv; ++j) {
      const int lanes = static_cast<int>(max_of(0, min_of(Vec::width, n - j * Vec::width)));
      const Mask mask = first(lanes);
      float* p = c + i * c_stride + j * Vec::width;
      store(p, accumulate ? load(p, mask) + acc[i][j] : acc[i][j], mask);
    }
  }
}

// `lanes` rows of A (or columns of B) side by side, depth outwards.
template <int Panel>
void pack_panels(i64 lanes, i64 depth, const float* src, i64 lane_stride, i64 depth_stride,
                 float* packed) {
  for (i64 first_lane = 0; first_lane < lanes; first_lane += Panel) {
    const float* s = src + first_lane * lane_stride;
    const int count = static_cast<int>(min_of(Panel, lanes - first_lane));
    if (count == Panel && lane_stride == 1) {
      for (i64 d = 0; d < depth; ++d, packed += Panel)
        __builtin_memcpy(packed, s + d * depth_stride, Panel * sizeof(float));
    } else if (count == Panel && depth_stride == 1) {
      // Depth is the contiguous side: walk it in short runs, so that the Panel source lines and the
      // destination stay in L1.
      constexpr i64 run = 16;
      for (i64 d = 0; d < depth; d += run) {
        const i64 steps = min_of(run, depth - d);
        for (int i = 0; i < Panel; ++i) {
          const float* from = s + i * lane_stride + d;
          for (i64 t = 0; t < steps; ++t) packed[(d + t) * Panel + i] = from[t];
        }
      }
      packed += depth * Panel;
    } else {
      for (i64 d = 0; d < depth; ++d, packed += Panel)
        for (int i = 0; i < Panel; ++i)
          packed[i] = i < count ? s[i * lane_stride + d * depth_stride] : 0.0f;
    }
  }
}

void gemm_pack_a(i64 rows, i64 depth, const float* a, i64 row_stride, i64 depth_stride,
                 float* packed) {
  pack_panels<mr>(rows, depth, a, row_stride, depth_stride, packed);
}

void gemm_pack_b(i64 cols, i64 depth, const float* b, i64 col_stride, i64 depth_stride,
                 float* packed) {
  pack_panels<nr>(cols, depth, b, col_stride, depth_stride, packed);
}

// B's panel stays in L1 while all panels of A pass by it.
void gemm_tile(i64 m, i64 n, i64 k, const float* a, const float* b, float* c, i64 c_stride,
               bool accumulate) {
  for (i64 j = 0; j < n; j += nr)
    for (i64 i = 0; i < m; i += mr)
      tile<mr>(k, a + i * k, 1, mr, b + j * k, c + i * c_stride + j, c_stride,
               static_cast<int>(min_of(mr, m - i)), static_cast<int>(min_of(nr, n - j)),
               accumulate);
}

template <Activation kind>
EVG_INLINE Vec activate(Vec x);  // kernels/activation.h

template <Activation kind>
void epilogue_rows(i64 m, i64 n, float* c, i64 c_stride, const Epilogue& e) {
  for (i64 i = 0; i < m; ++i)
    for (i64 j = 0; j < n; j += Vec::width) {
      const Mask mask = first(static_cast<int>(min_of(Vec::width, n - j)));
      Vec x = load(c + i * c_stride + j, mask);
      if (e.bias) x = x + load(e.bias + j, mask);
      if (e.pre) store(e.pre + i * e.pre_stride + j, x, mask);
      x = activate<kind>(x);
      if (e.residual) x = x + load(e.residual + i * e.residual_stride + j, mask);
      store(c + i * c_stride + j, x, mask);
    }
}

void gemm_epilogue(i64 m, i64 n, float* c, i64 c_stride, const Epilogue* epilogue) {
  const Epilogue& e = *epilogue;
  switch (e.activation) {
    case Activation::none: return epilogue_rows<Activation::none>(m, n, c, c_stride, e);
    case Activation::relu: return epilogue_rows<Activation::relu>(m, n, c, c_stride, e);
    case Activation::sigmoid: return epilogue_rows<Activation::sigmoid>(m, n, c, c_stride, e);
    case Activation::tanh: return epilogue_rows<Activation::tanh>(m, n, c, c_stride, e);
    case Activation::gelu: return epilogue_rows<Activation::gelu>(m, n, c, c_stride, e);
    case Activation::gelu_tanh: return epilogue_rows<Activation::gelu_tanh>(m, n, c, c_stride, e);
  }
}

// Rows in order for every column: the sum does not depend on how columns are cut.
void column_sum(i64 rows, i64 n, const float* x, i64 x_stride, float* out) {
  for (i64 j = 0; j < n; j += 4 * Vec::width) {
    Vec acc[4];
    Mask mask[4];
    for (int v = 0; v < 4; ++v) {
      mask[v] = first(static_cast<int>(max_of(0, min_of(Vec::width, n - j - v * Vec::width))));
      acc[v] = zero();
    }
    for (i64 i = 0; i < rows; ++i)
      for (int v = 0; v < 4; ++v)
        acc[v] = acc[v] + load(x + i * x_stride + j + v * Vec::width, mask[v]);
    for (int v = 0; v < 4; ++v) {
      float* p = out + j + v * Vec::width;
      store(p, load(p, mask[v]) + acc[v], mask[v]);
    }
  }
}

}  // namespace
}  // namespace evergrad
