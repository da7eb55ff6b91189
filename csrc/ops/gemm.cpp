// Blocking of the matrix product, after Goto & van de Geijn 2008 and BLIS.
//
// The side of C with fewer lanes (rows of A or columns of B) is the shared side: packed whole for a
// group of depth blocks, and read from L3. The other side is cut into pieces, one task each: a task
// packs its piece for a block of depth into its own L2 and runs over all shared panels, a few at a
// time, block after block. Workers either pack the shared side together, which takes a parallel
// loop of its own, or each for itself.
//
// Every element of C is a sum over depth blocks of FMA chains. Only the cut of depth shows in its
// bits, and that depends on k alone.
#include "ops/gemm.h"

#include <atomic>
#include <cstring>

#include "evergrad/evergrad.h"
#include "ops/sizes.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"
#include "runtime/pool.h"

namespace evergrad {
namespace {

constexpr i64 depth_block = 512;  // at most: panels of A and B stream through L1
i64 depth_of_blocks(i64 k) { return parts_of(k, max_of(1, parts_of(k, depth_block))); }
constexpr i64 shared_floats = 1 << 20;  // the packed shared side: a few MB of L3
constexpr i64 shared_lanes = 2048;
constexpr i64 panels_per_task = 4;  // of packing the shared side
// Packing this much takes about as long as a parallel loop's start and end.
constexpr i64 repack_floats = 1 << 14;
// With so many own lanes each, workers pack the shared side for themselves: 1-2 % more work, but
// where cores do not share an L3 a line that another core packed takes 150 ns to come over.
constexpr i64 lanes_alone = 192;
constexpr i64 halves_floats = 1 << 20;  // of C, which the second half needs once more
// Workers that write left and right parts of the same rows meet at a seam, row by row: prefetchers
// run past it and take lines from the other core. One row of seam costs as much as packing this
// many.
constexpr i64 floats_per_seam = 300;

// One operand, lanes along C's rows or columns.
struct Side {
  void (*pack)(i64 lanes, i64 depth, const float* x, i64 lane_stride, i64 depth_stride,
               float* packed);
  i64 panel, lanes;
  const float* data;
  i64 lane_stride, depth_stride;
  const Quantized* quantized;  // instead of data, or null

  i64 panels() const { return parts_of(lanes, panel); }
  bool pack_range(i64 begin, i64 end, i64 d, i64 depth, float* packed) const {
    end = min_of(end, lanes);
    if (quantized) return decode_range(begin, end, d, depth, packed);
    pack(end - begin, depth, data + begin * lane_stride + d * depth_stride, lane_stride,
         depth_stride, packed);
    return true;
  }
  // A panel at a time is decoded into L2 and packed from there.
  bool decode_range(i64 begin, i64 end, i64 d, i64 depth, float* packed) const {
    const Buffer decoded(panel * depth);
    if (!decoded) return false;
    for (; begin < end; begin += panel, packed += panel * depth) {
      const i64 count = min_of(panel, end - begin);
      for (i64 i = 0; i < count; ++i)
        kernels().unpack(quantized->kind, depth, quantized->at(begin + i, d),
                         decoded.get() + i * depth);
      pack(count, depth, decoded.get(), depth, 1, packed);
    }
    return true;
  }
};

// Few rows or columns: the other side is read where it lies, since packing it would cost more than
// the product. Up to so many for dots, and for sweeps, which load and store C.
constexpr i64 few_dots = 24, few_sweeps = 8;
// Each dot ends with a sum across its vector. So there have to be at least so many floats of depth
// for each row (or column) beyond the first; a C of so few elements is not worth packing for.
constexpr i64 depth_per_row = 5, not_many_dots = 256;
constexpr i64 longest_sweep = 1 << 14;  // C stays in cache
constexpr i64 floats_per_piece = 1 << 15;

// Both contiguous in depth. One side is short, the other is cut.
void dots(const KernelTable& t, i64 m, i64 n, i64 k, Matrix a, Matrix b, float* c, i64 c_row,
          bool accumulate, const Epilogue* epilogue) {
  constexpr i64 line = 16;  // workers share no cache line of C
  const bool few_rows = m <= n;
  parallel_ranges(
      few_rows ? n : m, max_of(line, floats_per_piece / k / line * line), [&](i64 begin, i64 end) {
        const i64 i = few_rows ? 0 : begin, j = few_rows ? begin : 0, count = end - begin;
        float* out = c + i * c_row + j;
        const float *x = a.data + i * a.row, *y = b.data + j * b.col;
        if (few_rows)
          t.gemm_dot(count, m, k, y, b.col, x, a.row, out, 1, c_row, accumulate);
        else
          t.gemm_dot(count, n, k, x, a.row, y, b.col, out, c_row, 1, accumulate);
        finish(t, epilogue, i, j, few_rows ? m : count, few_rows ? count : n, out, c_row);
      });
}

// B's rows are contiguous and read in order: depth is cut into segments, by the shape alone, and
// their sums are added in order.
int sweeps(const KernelTable& t, i64 m, i64 n, i64 k, Matrix a, Matrix b, float* c, i64 c_row,
           bool accumulate, const Epilogue* epilogue) {
  constexpr i64 most_segments = 8;
  const i64 segments = max_of(1, min_of(min_of(most_segments, k), n * k / floats_per_piece));
  const Buffer partials((segments - 1) * m * n + 1);
  if (!partials) return EVERGRAD_NO_MEMORY;
  parallel_for(segments, [&](i64 s) {
    const i64 begin = s * k / segments, end = (s + 1) * k / segments;
    float* out = s == 0 ? c : partials.get() + (s - 1) * m * n;
    t.gemm_sweep(m, n, end - begin, a.data + begin * a.col, a.row, a.col, b.data + begin * b.row,
                 b.row, out, s == 0 ? c_row : n, s == 0 && accumulate);
  });
  for (i64 i = 0; i < m; ++i)
    for (i64 s = 1; s < segments; ++s)
      t.add_rows(n, partials.get() + ((s - 1) * m + i) * n, c + i * c_row);
  finish(t, epilogue, 0, 0, m, n, c, c_row);
  return EVERGRAD_OK;
}

// Some rows: each panel of B would serve few tiles, so its rows are read where they lie.
constexpr i64 some_rows = 128, most_depth = 8 * depth_block;

// Each worker packs A for itself, so it should have columns enough. Rows of B a power of two apart
// share few sets of the cache, in which a panel has to stay.
bool may_stay_unpacked(const KernelTable& t, i64 m, i64 n, i64 k, i64 threads, Matrix b) {
  const i64 apart = b.row * static_cast<i64>(sizeof(float)), share = apart & -apart;
  return m <= some_rows && k <= most_depth && b.col == 1 && n >= 2 * threads * t.gemm_nr &&
         share >= 64 && depth_of_blocks(k) * share <= l2_bytes() / 2;
}

int unpacked(const KernelTable& t, i64 m, i64 n, i64 k, i64 threads, Matrix a, Matrix b, float* c,
             i64 c_row, bool accumulate) {
  const i64 block = depth_of_blocks(k), panel = t.gemm_nr, panels = parts_of(n, panel);
  const i64 lanes = parts_of(m, t.gemm_mr) * t.gemm_mr;
  // Columns that fill half of L2: every panel of A meets them there again.
  const i64 most = max_of(1, l2_bytes() / static_cast<i64>(2 * sizeof(float)) / (block * panel));
  const i64 tasks = min_of(panels, parts_of(parts_of(panels, most), threads) * threads);
  const i64 workers = min_of(threads, tasks), floats = lanes * k + panel * block;
  const Buffer scratch(workers * floats);
  if (!scratch) return EVERGRAD_NO_MEMORY;
  bool has_packed[most_workers] = {};
  parallel_for(
      tasks,
      [&](i64 task, int worker) {
        float* const packed_a = scratch.get() + worker * floats;
        float* const packed_b = packed_a + lanes * k;  // the last columns, where they fill no panel
        const i64 begin = task * panels / tasks * panel;
        const i64 end = min_of((task + 1) * panels / tasks * panel, n);
        const i64 whole = begin + (end - begin) / panel * panel;
        for (i64 d = 0; d < k; d += block) {
          const i64 depth = min_of(block, k - d);
          const bool add = accumulate || d > 0;
          float* const from = packed_a + lanes * d;
          const float* rows = b.data + d * b.row;
          if (!has_packed[worker]) t.gemm_pack_a(m, depth, a.data + d * a.col, a.row, a.col, from);
          t.gemm_unpacked(m, whole - begin, depth, from, rows + begin, b.row, c + begin, c_row,
                          add);
          if (whole == end) continue;
          t.gemm_pack_b(end - whole, depth, rows + whole, 1, b.row, packed_b);
          t.gemm_tile(m, end - whole, depth, from, packed_b, c + whole, c_row, add, nullptr, from,
                      0);
        }
        has_packed[worker] = true;
      },
      workers);
  return EVERGRAD_OK;
}

}  // namespace

void finish(const KernelTable& t, const Epilogue* epilogue, i64 i, i64 j, i64 height, i64 length,
            float* out, i64 c_row) {
  if (!epilogue) return;
  const Epilogue e = epilogue->at(i, j);
  t.gemm_epilogue(height, length, out, c_row, &e);
}

i64 packed_size(i64 n, i64 k) noexcept {
  const i64 panel = kernels().gemm_nr;
  return parts_of(n, panel) * panel * k;
}

void pack(i64 n, i64 k, Matrix b, float* packed) noexcept {
  const KernelTable& t = kernels();
  const Side cols{t.gemm_pack_b, t.gemm_nr, n, b.data, b.col, b.row, nullptr};
  const i64 block = depth_of_blocks(k);
  const i64 width = cols.panels() * cols.panel, step = panels_per_task * cols.panel;
  parallel_ranges(n, step, [&](i64 begin, i64 end) {
    for (i64 d = 0; d < k; d += block) {
      const i64 depth = min_of(block, k - d);
      cols.pack_range(begin, end, d, depth, packed + d * width + begin * depth);
    }
  });
}

int gemm(i64 m, i64 n, i64 k, Matrix a, Matrix b, float* c, i64 c_row, bool accumulate,
         const Epilogue* epilogue, const float* packed_b, const Quantized* quantized_b) noexcept {
  if (m == 0 || n == 0) return EVERGRAD_OK;
  const KernelTable& t = kernels();
  const bool plain = !packed_b && !quantized_b;
  const i64 few = min_of(m, n);
  if (plain && k > 0 && a.col == 1 && b.row == 1 && few <= few_dots &&
      (k >= depth_per_row * (few - 1) || m * n <= not_many_dots)) {
    dots(t, m, n, k, a, b, c, c_row, accumulate, epilogue);
    return EVERGRAD_OK;
  }
  if (plain && k > 0 && b.col == 1 && m <= n && m <= few_sweeps && n <= longest_sweep)
    return sweeps(t, m, n, k, a, b, c, c_row, accumulate, epilogue);
  const bool worth =
      2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) >=
      serial_flops;
  const i64 threads = worth ? min_of(evergrad_get_num_threads(), most_workers) : 1;
  const bool deep = k >= depth_block && k >= 2 * max_of(m, n) && m * n <= halves_floats;
  if (plain && !epilogue && k > 0 && !deep && may_stay_unpacked(t, m, n, k, threads, b))
    return unpacked(t, m, n, k, threads, a, b, c, c_row, accumulate);

  const Side rows{t.gemm_pack_a, t.gemm_mr, m, a.data, a.row, a.col, nullptr};
  const Side cols{t.gemm_pack_b, t.gemm_nr, n, b.data, b.col, b.row, quantized_b};
  const bool rows_shared = m < n && (n - m) * k > floats_per_seam * m;
  const Side &shared = rows_shared ? rows : cols, &own = rows_shared ? cols : rows;
  // A product without depth still owes C its zeros and its epilogue: one empty block.
  const i64 halves = deep && !epilogue && plain ? 2 : 1;
  const i64 most_blocks = max_of(1, parts_of(parts_of(k, halves), depth_block));  // of each half
  // Decoding begins where a block of the format does.
  const i64 unit = quantized_b ? quantized_b->numbers : 1;
  const i64 block = parts_of(parts_of(k, halves * most_blocks), unit) * unit;
  const i64 blocks = k > 0 ? parts_of(k, halves * block) : 1;
  const auto depth_of = [&](i64 b) { return max_of(0, min_of(block, k - b * block)); };
  const i64 slab = min_of(shared_lanes / shared.panel, shared.panels()) * shared.panel;
  const i64 together = min_of(blocks, max_of(1, shared_floats / max_of(1, slab * block)));
  const i64 group = slab * together * block;  // floats of the shared side at a time
  // Columns that came packed, whole: block by block, lanes in order.
  const auto packed_cols = [&](i64 b, i64 lane) {
    return packed_b + b * block * cols.panels() * cols.panel + lane * depth_of(b);
  };
  const bool own_packed = packed_b && rows_shared, shared_packed = packed_b && !rows_shared;
  const bool alone = halves * own.lanes >= threads * lanes_alone || group <= repack_floats;

  // Pieces that fill half of L2, a like number for each thread.
  const i64 piece_floats = l2_bytes() / static_cast<i64>(2 * sizeof(float));
  const i64 most = max_of(1, piece_floats / max_of(1, block * own.panel));
  i64 parts = parts_of(own.panels(), most);
  parts = min_of(own.panels(), parts_of(halves * parts, threads) * parts_of(threads, halves));
  const i64 piece = parts_of(own.panels(), parts) * own.panel * block;

  // Of the shared side, lanes that fill a quarter pass by at a time: so many tiles of a row of C
  // lie beside one another, and its pages and lines are met again soon.
  const i64 passing = max_of(1, piece_floats / 2 / max_of(1, block * shared.panel)) * shared.panel;

  const i64 workers = min_of(threads, halves * parts);
  const Buffer scratch(workers * piece + (alone ? workers : halves) * group + (halves - 1) * m * n +
                       1);
  if (!scratch) return EVERGRAD_NO_MEMORY;
  float* const packed_shared = scratch.get() + workers * piece;
  float* const second = packed_shared + (alone ? workers : halves) * group;  // [m, n]

  std::atomic<bool> enough{true};  // memory
  for (i64 s0 = 0; s0 < shared.lanes; s0 += slab)
    for (i64 g0 = 0; g0 < blocks; g0 += together) {
      const i64 s1 = min_of(s0 + slab, shared.lanes), g1 = min_of(g0 + together, blocks);
      const i64 width = parts_of(s1 - s0, shared.panel) * shared.panel;
      // Block g of a half packed: its blocks one after the other, lanes [s, ...) of each in order.
      const auto offset = [&](i64 s, i64 g, i64 depth) {
        return (g - g0) * block * width + (s - s0) * depth;
      };
      if (!alone && !shared_packed) {
        const i64 step = panels_per_task * shared.panel, steps = parts_of(s1 - s0, step);
        parallel_for(
            halves * (g1 - g0) * steps,
            [&](i64 task) {
              const i64 half = task / steps / (g1 - g0), g = g0 + task / steps % (g1 - g0);
              const i64 b = half * blocks + g, s = s0 + task % steps * step;
              if (!shared.pack_range(s, min_of(s + step, s1), b * block, depth_of(b),
                                     packed_shared + half * group + offset(s, g, depth_of(b))))
                enough = false;
            },
            threads);
      }
      i64 packed_half[most_workers];  // what each worker has packed for itself
      for (i64 w = 0; w < workers; ++w) packed_half[w] = -1;
      parallel_for(
          halves * parts,
          [&](i64 task, int worker) {
            const i64 half = task / parts, part = task % parts;
            const i64 o0 = part * own.panels() / parts * own.panel;
            const i64 o1 = min_of((part + 1) * own.panels() / parts * own.panel, own.lanes);
            float* const packed_own = scratch.get() + worker * piece;
            float* const packed = packed_shared + (alone ? worker : half) * group;
            const bool fresh = alone && !shared_packed && packed_half[worker] != half;
            packed_half[worker] = half;
            for (i64 g = g0; g < g1; ++g) {
              const i64 b = half * blocks + g, depth = depth_of(b);
              if ((fresh &&
                   !shared.pack_range(s0, s1, b * block, depth, packed + offset(s0, g, depth))) ||
                  (!own_packed && !own.pack_range(o0, o1, b * block, depth, packed_own))) {
                enough = false;
                return;
              }
              const float* const mine = own_packed ? packed_cols(b, o0) : packed_own;
              // The shared side comes from L3 once, the piece from L2 each time.
              for (i64 s = s0; s < s1; s += passing) {
                const float* panel =
                    shared_packed ? packed_cols(b, s) : packed + offset(s, g, depth);
                const i64 i = rows_shared ? s : o0, j = rows_shared ? o0 : s;
                const i64 end = min_of(s + passing, s1);
                const i64 height = (rows_shared ? end : o1) - i;
                const i64 length = (rows_shared ? o1 : end) - j;
                float* out = half == 0 ? c + i * c_row + j : second + i * n + j;
                const bool last = epilogue && g + 1 == blocks;
                const Epilogue here = last ? epilogue->at(i, j) : Epilogue{};
                t.gemm_tile(height, length, depth, rows_shared ? panel : mine,
                            rows_shared ? mine : panel, out, half == 0 ? c_row : n,
                            (half == 0 && accumulate) || g > 0, last ? &here : nullptr,
                            panel + (end - s) * depth, min_of(passing, s1 - end) * depth);
              }
            }
          },
          workers);
    }
  if (!enough) return EVERGRAD_NO_MEMORY;
  if (halves == 2)
    parallel_rows(m, n, [&](i64 begin, i64 end) {
      for (i64 i = begin; i < end; ++i) t.add_rows(n, second + i * n, c + i * c_row);
    });
  return EVERGRAD_OK;
}

}  // namespace evergrad

using namespace evergrad;

int evergrad_matmul(int64_t batch, int64_t m, int64_t n, int64_t k, const float* a, int64_t a_batch,
                    int64_t a_row, int64_t a_col, const float* b, int64_t b_batch, int64_t b_row,
                    int64_t b_col, float* c, int64_t c_batch, int64_t c_row,
                    int accumulate) noexcept {
  std::atomic<int> status{EVERGRAD_OK};
  auto one = [&](i64 i) {
    const int s = gemm(m, n, k, {a + i * a_batch, a_row, a_col}, {b + i * b_batch, b_row, b_col},
                       c + i * c_batch, c_row, accumulate != 0, nullptr);
    if (s != EVERGRAD_OK) status.store(s, std::memory_order_relaxed);
  };
  // Many small products run side by side; a few large ones one after the other, each on all
  // threads.
  if (batch >= 2 * evergrad_get_num_threads()) {
    parallel_for(batch, one);
  } else {
    for (i64 i = 0; i < batch; ++i) one(i);
  }
  return status.load();
}

namespace {

int linear(i64 rows, i64 in, i64 features, const float* x, const float* weight, const float* packed,
           const float* bias, int activation, const float* residual, float* pre,
           float* out) noexcept {
  const Overwritten kept(residual, out, rows * features);
  if (!kept) return EVERGRAD_NO_MEMORY;
  residual = kept.get();
  const Epilogue epilogue{bias,    static_cast<Activation>(activation), residual, features, pre,
                          features};
  const bool plain = !bias && !residual && !pre && activation == EVERGRAD_ACTIVATION_NONE;
  return gemm(rows, features, in, {x, in, 1}, {weight, 1, in}, out, features, false,
              plain ? nullptr : &epilogue, packed);
}

}  // namespace

int evergrad_linear(int64_t rows, int64_t in, int64_t features, const float* x, const float* weight,
                    const float* bias, int activation, const float* residual, float* pre,
                    float* out) noexcept {
  return linear(rows, in, features, x, weight, nullptr, bias, activation, residual, pre, out);
}

int64_t evergrad_packed_size(int64_t in, int64_t features) noexcept {
  return packed_size(features, in);
}

int evergrad_pack_weight(int64_t in, int64_t features, const float* weight,
                         float* packed) noexcept {
  pack(features, in, {weight, 1, in}, packed);
  return EVERGRAD_OK;
}

int evergrad_linear_packed(int64_t rows, int64_t in, int64_t features, const float* x,
                           const float* packed, const float* bias, int activation,
                           const float* residual, float* pre, float* out) noexcept {
  return linear(rows, in, features, x, nullptr, packed, bias, activation, residual, pre, out);
}

namespace {

// dpre = dout * act'(saved), and dbias += column sums of it while it is in cache. Blocks of rows,
// cut by the shape alone, sum each into a partial of their own; the partials are added in order.
int through_activation(i64 rows, i64 features, const float* dout, Activation activation,
                       const float* saved, float* dpre, float* dbias) noexcept {
  if (rows == 0 || features == 0) return EVERGRAD_OK;
  const KernelTable& t = kernels();
  constexpr i64 most_blocks = 32;
  const i64 strip = max_of(1, elements_per_task / features);  // rows, in L1 and L2
  const i64 grain = parts_of(parts_of(rows, most_blocks), strip) * strip;
  const i64 blocks = parts_of(rows, grain);
  const Buffer partials(dbias ? blocks * features : 1);
  if (!partials) return EVERGRAD_NO_MEMORY;
  parallel_ranges(rows, grain, [&](i64 begin, i64 end) {
    float* partial = partials.get() + begin / grain * features;
    if (dbias) std::memset(partial, 0, static_cast<std::size_t>(features) * sizeof(float));
    for (i64 i = begin; i < end; i += strip) {
      const i64 count = min_of(strip, end - i);
      const float* d = dout + i * features;
      if (activation != Activation::none) {
        t.activation_backward(activation, count * features, d, saved + i * features,
                              dpre + i * features, false);
        d = dpre + i * features;
      }
      if (dbias) t.column_sum(count, features, d, features, partial);
    }
  });
  if (dbias) t.column_sum(blocks, features, partials.get(), features, dbias);
  return EVERGRAD_OK;
}

}  // namespace

int evergrad_linear_backward(int64_t rows, int64_t in, int64_t features, const float* dout,
                             const float* x, const float* weight, int activation,
                             const float* saved, float* dx, float* dweight, float* dbias) noexcept {
  const bool activated = activation != EVERGRAD_ACTIVATION_NONE;
  const Buffer dpre(activated ? rows * features : 1);
  if (!dpre) return EVERGRAD_NO_MEMORY;
  int status = EVERGRAD_OK;
  if (activated || dbias)
    status |= through_activation(rows, features, dout, static_cast<Activation>(activation), saved,
                                 dpre.get(), dbias);
  const Matrix d{activated ? dpre.get() : dout, features, 1};
  if (dx) status |= gemm(rows, in, features, d, {weight, in, 1}, dx, in, false, nullptr);
  if (dweight)
    status |= gemm(features, in, rows, d.transposed(), {x, in, 1}, dweight, in, true, nullptr);
  return status;
}
