// The matrix product: the register tile, packing, and the fused epilogue.
//
// C[m, n] (+)= A[m, k] B[k, n]. Large operands are packed so that the inner loop reads memory in
// order, whatever their strides were; small products read one of them where it lies (gemm_unpacked,
// gemm_turned, and below). Panels are:
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
#include "simd/whole.h"

namespace evergrad {
namespace {

// Register tiles: accumulators + B vectors + one broadcast fit in 16 (AVX2) or 32 registers.
constexpr int mr = Vec::width == 16 ? 12 : Vec::width == 1 ? 4 : 6;
constexpr int nv = Vec::width == 16 ? 2 : Vec::width == 8 ? 2 : 4;
constexpr int nr = nv * Vec::width;

EVG_INLINE i64 min_of(i64 a, i64 b) { return a < b ? a : b; }
EVG_INLINE i64 max_of(i64 a, i64 b) { return a > b ? a : b; }
EVG_INLINE i64 round_up(i64 a, i64 multiple) { return (a + multiple - 1) / multiple * multiple; }

template <Activation kind>
EVG_INLINE Vec activate(Vec x);  // kernels/activation.h

// Calls f with the activation as a constant.
template <class F>
EVG_INLINE void with_activation(Activation activation, F f) {
  switch (activation) {
    case Activation::none: return f(Constant<Activation::none>{});
    case Activation::relu: return f(Constant<Activation::relu>{});
    case Activation::sigmoid: return f(Constant<Activation::sigmoid>{});
    case Activation::tanh: return f(Constant<Activation::tanh>{});
    case Activation::gelu: return f(Constant<Activation::gelu>{});
    case Activation::gelu_tanh: return f(Constant<Activation::gelu_tanh>{});
    case Activation::silu: return f(Constant<Activation::silu>{});
  }
}

// The epilogue of a vector in row i from column j on.
template <Activation kind, class... M>
EVG_INLINE Vec finished(Vec x, const Epilogue& e, i64 i, i64 j, M... mask) {
  if (e.bias) x = x + load(e.bias + j, mask...);
  if (e.pre) store(e.pre + i * e.pre_stride + j, x, mask...);
  x = activate<kind>(x);
  if (e.residual) x = x + load(e.residual + i * e.residual_stride + j, mask...);
  return x;
}

// Where a tile's sums go: vector j of row i.
struct Store {
  float* c;
  i64 stride;
  bool accumulate;

  EVG_INLINE float* at(int i, int j) const { return c + i * stride + j * Vec::width; }
  template <class... M>
  EVG_INLINE void operator()(int i, int j, Vec x, M... mask) const {
    store(at(i, j), accumulate ? load(at(i, j), mask...) + x : x, mask...);
  }
  // What is read or written at (i, j), from memory while the products go on.
  EVG_INLINE void fetch(int i, int j) const {
    if (accumulate) __builtin_prefetch(at(i, j), 1);
  }
};

// The same, and the epilogue before they leave the registers.
template <Activation kind>
struct Finish : Store {
  Epilogue e;

  EVG_INLINE void operator()(int i, int j, Vec x) const {
    if (accumulate) x = load(at(i, j)) + x;
    store(at(i, j), finished<kind>(x, e, i, j * Vec::width));
  }
  EVG_INLINE void fetch(int i, int j) const {
    const i64 column = j * Vec::width;
    __builtin_prefetch(at(i, j), 1);
    if (e.pre) __builtin_prefetch(e.pre + i * e.pre_stride + column, 1);
    if (e.residual) __builtin_prefetch(e.residual + i * e.residual_stride + column);
  }
};

// Steps of depth that the tile's loop takes at a time. A core that two threads share gives each
// half of its front end: three instructions a cycle, 18 in the time of AVX2's 12 FMAs. With 8 loads
// there is no room left for a counter, pointers and prefetches in every step.
constexpr int depth_steps = Vec::width == 8 ? 8 : Vec::width == 16 ? 4 : 1;
// On AVX2 B is not fetched either: it comes in order, and the hardware sees it coming.
constexpr bool fetch_b = Vec::width != 8;

// One step of depth. Row i of A's column is at a[i * a_row]; keep(j, vector j of B).
template <int Rows, int Columns, class Keep>
EVG_INLINE void add_step(const float* a, i64 a_row, const float* b, Vec (&acc)[Rows][Columns],
                         Keep keep) {
  Vec bv[Columns];
#pragma GCC unroll 4
  for (int j = 0; j < Columns; ++j) keep(j, bv[j] = load(b + j * Vec::width));
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
    const Vec av = set1(a[i * a_row]);
#pragma GCC unroll 4
    for (int j = 0; j < Columns; ++j) fma_to(acc[i][j], av, bv[j]);
  }
}
template <int Rows, int Columns>
EVG_INLINE void add_step(const float* a, i64 a_row, const float* b, Vec (&acc)[Rows][Columns]) {
  add_step(a, a_row, b, acc, [](int, Vec) {});
}

// Where B lies: floats from one step of depth to the next, and what becomes of what is read. In a
// panel, where the step is a constant; and in rows at a stride, which are copied into a panel on
// the way: two stores to 24 FMAs, for which there is time.
struct PanelStep {
  EVG_INLINE constexpr operator i64() const { return nr; }
  EVG_INLINE void fetch(const float*) const {}
  EVG_INLINE void keep(int, int, Vec) const {}
  EVG_INLINE void advance(int) const {}
};
struct CopyStep {
  i64 stride;
  float* panel;
  EVG_INLINE operator i64() const { return stride; }
  // Far apart, so that the hardware does not see them: the rows to come, and the next tile's.
  EVG_INLINE void fetch(const float* row) const {
#pragma GCC unroll 4
    for (int line = 0; line < nr; line += 16) {
      __builtin_prefetch(row + line + 8 * stride);
      __builtin_prefetch(row + line + nr, 0, 2);
    }
  }
  EVG_INLINE void keep(int d, int j, Vec x) const { store(panel + d * nr + j * Vec::width, x); }
  EVG_INLINE void advance(int steps) { panel += steps * nr; }
};

// Floats from one row of A to the next, and from one step of depth to the next: in a panel, and in
// rows where they lie.
struct InPanel {
  EVG_INLINE constexpr i64 row() const { return 1; }
  EVG_INLINE constexpr i64 step() const { return mr; }
};
struct InRows {
  i64 stride;
  EVG_INLINE i64 row() const { return stride; }
  EVG_INLINE constexpr i64 step() const { return 1; }
};

// One tile of Rows x (Columns vectors). A is a panel of mr rows and B one of nr columns, whatever
// Rows and Columns are; or, with steps of their own, rows where they lie. Only m rows and n columns
// of the result are written, which with `Ahead` are all: in a run of whole tiles there is time to
// fetch what comes next. Not inline: what goes on around the loop would take registers away from
// it.
template <int Rows, int Columns = nv, bool Ahead = false, class Emit = Store,
          class Step = PanelStep, class Lie = InPanel>
__attribute__((noinline)) void tile(i64 k, const float* a, const float* b, const Emit& emit, int m,
                                    int n, const char* ahead = nullptr, i64 ahead_step = 0,
                                    Step b_step = {}, Lie lie = {}) {
  Vec acc[Rows][Columns];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Columns; ++j) acc[i][j] = zero();
  if (Ahead) {
    constexpr int per_line = Vec::width < 16 ? 16 / Vec::width : 1;
    for (int i = 0; i < Rows; ++i)
      for (int j = 0; j < Columns; j += per_line) emit.fetch(i, j);
  }
  const float* const end = a + k * lie.step();
  const float* const last = end - k % depth_steps * lie.step();
  for (; a != last; a += depth_steps * lie.step(), b += depth_steps * b_step) {
    if (Ahead) {
      __builtin_prefetch(ahead, 0, 2);
      ahead += depth_steps * ahead_step;
#pragma GCC unroll 16
      for (int line = 0; line < depth_steps * mr; line += 16)
        __builtin_prefetch(a + 16 * mr + line);
#pragma GCC unroll 16
      for (int line = 0; fetch_b && line < depth_steps * nr; line += 16)
        __builtin_prefetch(b + 8 * b_step + line);
    }
#pragma GCC unroll 8
    for (int d = 0; d < depth_steps; ++d) b_step.fetch(b + d * b_step);
#pragma GCC unroll 8
    for (int d = 0; d < depth_steps; ++d)
      add_step(a + d * lie.step(), lie.row(), b + d * b_step, acc,
               [=](int j, Vec x) { b_step.keep(d, j, x); });
    b_step.advance(depth_steps);
  }
  for (; a != end; a += lie.step(), b += b_step, b_step.advance(1))
    add_step(a, lie.row(), b, acc, [=](int j, Vec x) { b_step.keep(0, j, x); });
  if (Ahead || (n == Columns * Vec::width && m == Rows)) {
    const Emit to = emit;  // a copy cannot be what the stores write to: it is read once
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < Columns; ++j) to(i, j, acc[i][j]);
    return;
  }
  if constexpr (!Ahead) {
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      if (i >= m) break;
#pragma GCC unroll 4
      for (int j = 0; j < Columns; ++j)
        emit(i, j, acc[i][j],
             first(static_cast<int>(max_of(0, min_of(Vec::width, n - j * Vec::width)))));
    }
  }
}

// Calls f with the rows of a tile as a constant: m, or mr where there are more.
template <int Rows = mr, class F>
EVG_INLINE void with_rows(i64 m, F f) {
  if constexpr (Rows > 1) {
    if (m < Rows) return with_rows<Rows - 1>(m, f);
  }
  f(Constant<Rows>{});
}

// The tile at the lower or right edge: as many rows as there are, and half the columns if that is
// enough, so that the edge costs its share and no more.
void edge_tile(i64 k, const float* a, const float* b, Store to, int m, int n) {
  with_rows(m, [=](auto rows) {
    if (n <= nr / 2)
      tile<rows.value, nv / 2>(k, a, b, to, m, n);
    else
      tile<rows.value>(k, a, b, to, m, n);
  });
}

// Lanes [at, at + Vec::width) of a panel whose depth is the contiguous side: squares are turned in
// registers. `lanes` of the panel exist, the others are zeros.
template <int Panel>
EVG_INLINE void pack_transposed(int at, int lanes, i64 depth, const float* s, i64 lane_stride,
                                float* packed) {
  const int used = static_cast<int>(min_of(Vec::width, Panel - at));
  for (i64 d = 0; d < depth; d += Vec::width) {
    const int steps = static_cast<int>(min_of(Vec::width, depth - d));
    const Mask inside = first(steps);
    Vec r[Vec::width];
#pragma GCC unroll 16
    for (int i = 0; i < Vec::width; ++i) {
      const float* from = s + (at + i) * lane_stride + d;
      // The next lanes come soon; rows a power of two apart evict one another from L1.
      __builtin_prefetch(from + Vec::width * lane_stride, 0, 2);
      r[i] = i >= used || at + i >= lanes ? zero()
             : steps == Vec::width        ? load(from)
                                          : load(from, inside);
    }
    transpose(r);
    float* to = packed + d * Panel + at;
    // A store of a whole vector spills into the next step of depth, which is written later; but
    // the panel's last one must keep to its own lanes.
    const int spill = Panel >= Vec::width ? 0 : d + Vec::width < depth ? steps : steps - 1;
#pragma GCC unroll 16
    for (int t = 0; t < Vec::width; ++t) {
      if (t >= steps) break;
      if (used == Vec::width || t < spill)
        store(to + t * Panel, r[t]);
      else
        store(to + t * Panel, r[t], first(used));
    }
  }
}

// Whole panels whose lanes are contiguous. A few steps of depth at a time go into one panel after
// the other: what is read is still in L1 then, and what is written is written line by line.
template <int Panel>
EVG_INLINE void pack_straight(i64 panels, i64 depth, const float* s, i64 depth_stride,
                              float* packed) {
  constexpr i64 together = 8;
  for (i64 d = 0; d < depth; d += together)
    for (i64 p = 0; p < panels; ++p) {
      const float* from = s + d * depth_stride + p * Panel;
      float* to = packed + (p * depth + d) * Panel;
      for (i64 t = min_of(together, depth - d); t > 0; --t, from += depth_stride, to += Panel) {
        __builtin_memcpy(to, from, Panel * sizeof(float));
        // Short runs, far apart: the hardware starts too late.
        for (int line = 0; line < Panel; line += 16)
          __builtin_prefetch(from + 12 * depth_stride + line);
      }
    }
}

// `lanes` rows of A (or columns of B) side by side, depth outwards.
template <int Panel>
void pack_panels(i64 lanes, i64 depth, const float* src, i64 lane_stride, i64 depth_stride,
                 float* packed) {
  constexpr i64 together = 8;
  for (i64 lane = 0; lane < lanes;) {
    const float* s = src + lane * lane_stride;
    const int count = static_cast<int>(min_of(Panel, lanes - lane));
    i64 panels = 1;
    if (count == Panel && lane_stride == 1) {
      panels = min_of(together, (lanes - lane) / Panel);
      pack_straight<Panel>(panels, depth, s, depth_stride, packed);
    } else if (depth_stride == 1) {
#pragma GCC unroll 4
      for (int at = 0; at < Panel; at += Vec::width)
        if (count == Panel)
          pack_transposed<Panel>(at, Panel, depth, s, lane_stride, packed);
        else
          pack_transposed<Panel>(at, count, depth, s, lane_stride, packed);
    } else {
      for (i64 d = 0; d < depth; ++d)
        for (int i = 0; i < Panel; ++i)
          packed[d * Panel + i] = i < count ? s[i * lane_stride + d * depth_stride] : 0.0f;
    }
    lane += panels * Panel;
    packed += panels * depth * Panel;
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

void gemm_epilogue(i64 m, i64 n, float* c, i64 c_stride, const Epilogue* epilogue);

// `next` is what the following call starts with, `next_floats` long: fetched into L2 little by
// little, because another core may hold it. The epilogue may be null.
void gemm_tile(i64 m, i64 n, i64 k, const float* a, const float* b, float* c, i64 c_stride,
               bool accumulate, const Epilogue* epilogue, const float* next, i64 next_floats) {
  const char* ahead = reinterpret_cast<const char*>(next);
  const i64 steps = max_of(1, (m + mr - 1) / mr * ((n + nr - 1) / nr) * k);
  const i64 ahead_step = (next_floats * static_cast<i64>(sizeof(float)) + steps - 1) / steps;
  const auto tiles = [&](auto emit_at) {
    for (i64 i = 0; i < m; i += mr)
      for (i64 j = 0; j < n; j += nr, ahead += k * ahead_step) {
        const i64 height = min_of(mr, m - i), width = min_of(nr, n - j);
        const Store to = {c + i * c_stride + j, c_stride, accumulate};
        if (height == mr && width == nr) {
          tile<mr, nv, true>(k, a + i * k, b + j * k, emit_at(to, i, j), mr, nr, ahead, ahead_step);
          continue;
        }
        edge_tile(k, a + i * k, b + j * k, to, static_cast<int>(height), static_cast<int>(width));
        if (epilogue) {
          const Epilogue e = epilogue->at(i, j);
          gemm_epilogue(height, width, to.c, c_stride, &e);
        }
      }
  };
  if (!epilogue) return tiles([](Store to, i64, i64) { return to; });
  with_activation(epilogue->activation, [&](auto kind) {
    tiles([=](Store to, i64 i, i64 j) { return Finish<kind.value>{to, epilogue->at(i, j)}; });
  });
}

// A in panels, B as it lies: rows of n floats, a multiple of nr. The first tiles copy it into
// `panels`, where all others find it.
void gemm_unpacked(i64 m, i64 n, i64 k, const float* a, const float* b, i64 b_row, float* panels,
                   float* c, i64 c_stride, bool accumulate) {
  with_rows(m, [=](auto rows) {
    for (i64 j = 0; j < n; j += nr)
      tile<rows.value, nv, false, Store, CopyStep>(k, a, b + j, {c + j, c_stride, accumulate},
                                                   rows.value, nr, nullptr, 0,
                                                   {b_row, panels + j * k});
  });
  if (m > mr)
    gemm_tile(m - mr, n, k, a + mr * k, panels, c + mr * c_stride, c_stride, accumulate, nullptr,
              panels, 0);
}

// A tile's sums, a row of `sums` for each column of C, as rows of C: emit(lane, column, x, mask).
// Squares are turned, so there are rows for all columns of the last one.
constexpr int turned_columns = (mr + Vec::width - 1) / Vec::width * Vec::width;
template <class Emit>
EVG_INLINE void turn(const float* sums, int columns, int lanes, Emit emit) {
  for (int at = 0; at < columns; at += Vec::width) {
    const Mask some = first(columns - at < Vec::width ? columns - at : Vec::width);
    for (int lane = 0; lane < lanes; lane += Vec::width) {
      Vec r[Vec::width];
#pragma GCC unroll 16
      for (int i = 0; i < Vec::width; ++i) r[i] = load(sums + (at + i) * nr + lane);
      transpose(r);
#pragma GCC unroll 16
      for (int t = 0; t < Vec::width; ++t) {
        if (lane + t >= lanes) break;
        emit(lane + t, at, r[t], some);
      }
    }
  }
}

// The sums of a tile of some columns of B, as they lie, and a panel of A: a row for each column.
void turned_tile(i64 k, const float* b, i64 b_col, int columns, const float* a, int lanes,
                 float* sums) {
  with_rows(columns, [=](auto rows) {
    const Store to = {sums, nr, false};
    const auto run = [=](auto vectors) {
      tile<rows.value, vectors.value, false, Store, PanelStep, InRows>(
          k, b, a, to, rows.value, vectors.value * Vec::width, nullptr, 0, {}, {b_col});
    };
    if (lanes <= nr / 2)
      run(Constant<nv / 2>{});
    else
      run(Constant<nv>{});
  });
}

// C turned: columns of B, each contiguous in depth, as they lie, times rows of A in panels of nr.
void gemm_turned(i64 m, i64 n, i64 k, const float* a, const float* b, i64 b_col, float* c,
                 i64 c_stride, bool accumulate, const Epilogue* epilogue) {
  const auto tiles = [=](auto finish) {
    alignas(64) float sums[turned_columns * nr] = {};
    for (i64 j = 0; j < n; j += mr)
      for (i64 i = 0; i < m; i += nr) {
        const int columns = static_cast<int>(min_of(mr, n - j));
        const int lanes = static_cast<int>(min_of(nr, m - i));
        turned_tile(k, b + j * b_col, b_col, columns, a + i * k, lanes, sums);
        turn(sums, columns, lanes, [=](int lane, int column, Vec sum, Mask some) {
          float* const at = c + (i + lane) * c_stride + j + column;
          if (accumulate) sum = load(at, some) + sum;
          store(at, finish(sum, i + lane, j + column, some), some);
        });
      }
  };
  if (!epilogue) return tiles([](Vec x, i64, i64, Mask) { return x; });
  with_activation(epilogue->activation, [=](auto kind) {
    tiles([=](Vec x, i64 i, i64 j, Mask some) {
      return finished<kind.value>(x, *epilogue, i, j, some);
    });
  });
}

// Few rows (decoding): the product is bound by reading the other operand, so it is read where it
// lies, once, and nothing is packed. It usually comes from memory, in runs that are too short for
// the hardware: each line is fetched a few rows ahead, into L2, which waits for more lines at a
// time than L1 does. From the caches a single row's operand is fetched into L1, which is a tenth
// faster; from memory that would take half as long again.
enum Fetch : int { from_memory = 2, from_caches = 3 };  // as __builtin_prefetch knows them

// How many floats ahead, where the next rows begin `rows` ahead. Into L1 it is not so far that
// lines would be put out before they are read: then along the row.
template <Fetch fetch>
EVG_INLINE i64 distance_of(i64 rows) {
  constexpr i64 most = 2560, along = 128;
  return fetch == from_caches && rows > most ? along : rows;
}

EVG_INLINE bool begins_line(i64 j) { return Vec::width >= 16 || j % 16 == 0; }

// Dot products: x [Long rows at x_row] . y [Short rows at y_row], both contiguous in depth.
// Element (i, j) goes to c[i * c_long + j * c_short].
template <Fetch fetch, int Long, int Short>
void dot_tile(i64 k, const float* x, i64 x_row, const float* y, i64 y_row, float* c, i64 c_long,
              i64 c_short, bool accumulate) {
  Vec acc[Long][Short];
#pragma GCC unroll 8
  for (int i = 0; i < Long; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < Short; ++j) acc[i][j] = zero();
  const i64 ahead = distance_of<fetch>(Long * x_row);
  for_vectors(0, k, [&](i64 d, auto mask) {
    Vec xv[Long];
#pragma GCC unroll 8
    for (int i = 0; i < Long; ++i) {
      xv[i] = load(x + i * x_row + d, mask);
      if (begins_line(d)) __builtin_prefetch(x + i * x_row + d + ahead, 0, fetch);
    }
#pragma GCC unroll 8
    for (int j = 0; j < Short; ++j) {
      const Vec yv = load(y + j * y_row + d, mask);
#pragma GCC unroll 8
      for (int i = 0; i < Long; ++i) acc[i][j] = fma(xv[i], yv, acc[i][j]);
    }
  });
#pragma GCC unroll 8
  for (int j = 0; j < Short; ++j) {
    float sums[Long];
    if constexpr (Long == 4)
      reduce_add4({acc[0][j], acc[1][j], acc[2][j], acc[3][j]}, sums);
    else
      for (int i = 0; i < Long; ++i) sums[i] = reduce_add(acc[i][j]);
#pragma GCC unroll 8
    for (int i = 0; i < Long; ++i) {
      float* p = c + i * c_long + j * c_short;
      *p = accumulate ? *p + sums[i] : sums[i];
    }
  }
}

constexpr int dot_long = 4;
constexpr int dot_short = Vec::width == 16 ? 6 : 2;  // accumulators + dot_long + 1 registers

template <Fetch fetch, int Long, int Short = dot_short>
EVG_INLINE void dot_rows(i64 short_rows, i64 k, const float* x, i64 x_row, const float* y,
                         i64 y_row, float* c, i64 c_long, i64 c_short, bool accumulate) {
  for (; short_rows >= Short; short_rows -= Short, y += Short * y_row, c += Short * c_short)
    dot_tile<fetch, Long, Short>(k, x, x_row, y, y_row, c, c_long, c_short, accumulate);
  if constexpr (Short > 1) {
    if (short_rows > 0)
      dot_rows<fetch, Long, Short - 1>(short_rows, k, x, x_row, y, y_row, c, c_long, c_short,
                                       accumulate);
  }
}

// Four long rows at a time stay in L1 while the short ones pass by.
template <Fetch fetch, int Short>
EVG_INLINE void dots(i64 long_rows, i64 short_rows, i64 k, const float* x, i64 x_row,
                     const float* y, i64 y_row, float* c, i64 c_long, i64 c_short,
                     bool accumulate) {
  i64 i = 0;
  for (; i + dot_long <= long_rows; i += dot_long)
    dot_rows<fetch, dot_long, Short>(short_rows, k, x + i * x_row, x_row, y, y_row, c + i * c_long,
                                     c_long, c_short, accumulate);
  for (; i < long_rows; ++i)
    dot_rows<fetch, 1, Short>(short_rows, k, x + i * x_row, x_row, y, y_row, c + i * c_long, c_long,
                              c_short, accumulate);
}

void gemm_dot(i64 long_rows, i64 short_rows, i64 k, const float* x, i64 x_row, const float* y,
              i64 y_row, float* c, i64 c_long, i64 c_short, bool accumulate, bool is_cached) {
  const auto run = is_cached ? dots<from_caches, 1> : dots<from_memory, dot_short>;
  run(long_rows, short_rows, k, x, x_row, y, y_row, c, c_long, c_short, accumulate);
}

// C[Rows, n] += A B, B's rows contiguous: C stays in L1 and four rows of B pass by in order.
// A's element (i, d) is at a[i * a_row + d * a_depth].
template <Fetch fetch, int Rows>
void sweep_rows(i64 n, i64 k, const float* a, i64 a_row, i64 a_depth, const float* b, i64 b_row,
                float* c, i64 c_row) {
  constexpr int depth = 4;
  i64 d = 0;
  const auto pass = [&](auto steps_constant) {
    constexpr int steps = decltype(steps_constant)::value;
    Vec av[Rows][steps];
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 8
      for (int t = 0; t < steps; ++t) av[i][t] = set1(a[i * a_row + (d + t) * a_depth]);
    const float* from = b + d * b_row;
    const i64 ahead = distance_of<fetch>(steps * b_row);
    for_vectors(0, n, [&](i64 j, auto mask) {
      Vec bv[steps];
#pragma GCC unroll 8
      for (int t = 0; t < steps; ++t) {
        bv[t] = load(from + t * b_row + j, mask);
        if (begins_line(j)) __builtin_prefetch(from + t * b_row + j + ahead, 0, fetch);
      }
#pragma GCC unroll 8
      for (int i = 0; i < Rows; ++i) {
        Vec sum = load(c + i * c_row + j, mask);
#pragma GCC unroll 8
        for (int t = 0; t < steps; ++t) sum = fma(av[i][t], bv[t], sum);
        store(c + i * c_row + j, sum, mask);
      }
    });
  };
  for (; d + depth <= k; d += depth) pass(Constant<depth>{});
  for (; d < k; ++d) pass(Constant<1>{});
}

template <Fetch fetch, int Rows>
EVG_INLINE void sweep_some(i64 m, i64 n, i64 k, const float* a, i64 a_row, i64 a_depth,
                           const float* b, i64 b_row, float* c, i64 c_row) {
  for (; m >= Rows; m -= Rows, a += Rows * a_row, c += Rows * c_row)
    sweep_rows<fetch, Rows>(n, k, a, a_row, a_depth, b, b_row, c, c_row);
  if constexpr (Rows > 1) {
    if (m > 0) sweep_some<fetch, Rows - 1>(m, n, k, a, a_row, a_depth, b, b_row, c, c_row);
  }
}

void gemm_sweep(i64 m, i64 n, i64 k, const float* a, i64 a_row, i64 a_depth, const float* b,
                i64 b_row, float* c, i64 c_row, bool accumulate, bool is_cached) {
  if (!accumulate)
    for (i64 i = 0; i < m; ++i) __builtin_memset(c + i * c_row, 0, n * sizeof(float));
  const auto run = is_cached ? sweep_some<from_caches, 1> : sweep_some<from_memory, 4>;
  run(m, n, k, a, a_row, a_depth, b, b_row, c, c_row);
}

template <Activation kind>
void epilogue_rows(i64 m, i64 n, float* c, i64 c_stride, const Epilogue& e) {
  for (i64 i = 0; i < m; ++i)
    for_vectors(0, n, [&](i64 j, auto mask) {
      float* p = c + i * c_stride + j;
      store(p, finished<kind>(load(p, mask), e, i, j, mask), mask);
    });
}

void gemm_epilogue(i64 m, i64 n, float* c, i64 c_stride, const Epilogue* epilogue) {
  with_activation(epilogue->activation,
                  [&](auto kind) { epilogue_rows<kind.value>(m, n, c, c_stride, *epilogue); });
}

// Rows in order for every column: the sum does not depend on how columns are cut.
void column_sum(i64 rows, i64 n, const float* x, i64 x_stride, float* out) {
  i64 j = 0;
  for (; j + 4 * Vec::width <= n; j += 4 * Vec::width) {
    Vec acc[4] = {zero(), zero(), zero(), zero()};
    for (i64 i = 0; i < rows; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) acc[v] = acc[v] + load(x + i * x_stride + j + v * Vec::width);
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      float* p = out + j + v * Vec::width;
      store(p, load(p) + acc[v]);
    }
  }
  for_vectors(j, n, [=](i64 at, auto mask) {
    Vec acc = zero();
    for (i64 i = 0; i < rows; ++i) acc = acc + load(x + i * x_stride + at, mask);
    store(out + at, load(out + at, mask) + acc, mask);
  });
}

}  // namespace
}  // namespace evergrad
