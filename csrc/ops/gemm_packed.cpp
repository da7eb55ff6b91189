// Blocking of the matrix product, after Goto & van de Geijn 2008 and BLIS.
//
// The side of C with fewer lanes (rows of A or columns of B) is the shared side: packed whole for a
// group of depth blocks, and read from L3. The other side is cut into pieces, one task each: a task
// packs its piece for a block of depth into its own L2 and runs over all shared panels, a few at a
// time, block after block. Workers either pack the shared side together, which takes a parallel
// loop of its own, or each for itself.
#include <atomic>

#include "ops/gemm_paths.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"
#include "runtime/pool.h"

namespace evergrad {
namespace {

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
  const KernelTable& table;
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
  // A panel at a time.
  bool decode_range(i64 begin, i64 end, i64 d, i64 depth, float* packed) const {
    const Buffer decoded(panel * depth);
    if (!decoded) return false;
    for (; begin < end; begin += panel, packed += panel * depth)
      table.unpack_panel(quantized->kind, min_of(panel, end - begin), depth,
                         quantized->at(begin, d), quantized->row_bytes, decoded.get(), packed);
    return true;
  }
};

Side rows_of(const Product& p) {
  return {p.table, p.table.gemm_pack_a, p.table.gemm_mr, p.m, p.a.data, p.a.row, p.a.col, nullptr};
}

Side columns_of(const Product& p) {
  return {p.table, p.table.gemm_pack_b, p.table.gemm_nr, p.n, p.b.data, p.b.col,
          p.b.row, p.quantized_b};
}

// What of the shared side is packed at a time: lanes [s0, s1) and blocks of depth [g0, g1).
struct Group {
  i64 s0, s1, g0, g1;
};

// The plan of a product, which follows from its shape, and its execution.
struct Packed {
  const Product& p;
  const i64 threads;
  const bool rows_shared;
  const Side shared, own;
  const bool own_packed, shared_packed;  // by whoever called
  const i64 halves;                      // of depth; each has blocks of its own
  const i64 block, blocks;               // depth of a block, and their number in a half
  const i64 slab, together, group;       // lanes, blocks and floats of the shared side at a time
  const bool alone;                      // each worker packs the shared side for itself
  const i64 piece_floats, parts, piece;  // of the own side; a part is a task
  const i64 passing;                     // lanes of the shared side that meet a piece at a time
  const i64 workers;
  const Buffer scratch;
  float *const packed_shared, *const second;  // second: [m, n], what the second half adds
  std::atomic<bool> enough{true};             // memory

  Packed(const Product& product, i64 most_threads)
      : p(product),
        threads(most_threads),
        rows_shared(p.m < p.n && (p.n - p.m) * p.k > floats_per_seam * p.m),
        shared(rows_shared ? rows_of(p) : columns_of(p)),
        own(rows_shared ? columns_of(p) : rows_of(p)),
        own_packed(p.packed_b && rows_shared),
        shared_packed(p.packed_b && !rows_shared),
        halves(is_deep(p) ? 2 : 1),
        // Decoding begins where a block of the format does.
        block(depth_of_blocks(p.k, halves, p.quantized_b ? p.quantized_b->numbers : 1)),
        // A product without depth still owes C its zeros and its epilogue: one empty block.
        blocks(p.k > 0 ? parts_of(p.k, halves * block) : 1),
        slab(min_of(shared_lanes / shared.panel, shared.panels()) * shared.panel),
        together(min_of(blocks, max_of(1, shared_floats / max_of(1, slab * block)))),
        group(slab * together * block),
        alone(halves * own.lanes >= threads * lanes_alone || group <= repack_floats),
        // Pieces that fill half of L2, a like number for each thread.
        piece_floats(l2_bytes() / static_cast<i64>(2 * sizeof(float))),
        parts(pieces()),
        piece(parts_of(own.panels(), parts) * own.panel * block),
        // Lanes that fill a quarter of L2: so many tiles of a row of C lie beside one another, and
        // its pages and lines are met again soon.
        passing(max_of(1, piece_floats / 2 / max_of(1, block * shared.panel)) * shared.panel),
        workers(min_of(threads, halves * parts)),
        scratch(workers * piece + (alone ? workers : halves) * group + (halves - 1) * p.m * p.n +
                1),
        packed_shared(scratch.get() + workers * piece),
        second(packed_shared + (alone ? workers : halves) * group) {}

  int run() {
    if (!scratch) return EVERGRAD_NO_MEMORY;
    for (i64 s = 0; s < shared.lanes; s += slab)
      for (i64 g = 0; g < blocks; g += together) {
        const Group here{s, min_of(s + slab, shared.lanes), g, min_of(g + together, blocks)};
        if (!alone && !shared_packed) pack_together(here);
        multiply(here);
      }
    if (!enough) return EVERGRAD_NO_MEMORY;
    if (halves == 2)
      parallel_rows(p.m, p.n, [&](i64 begin, i64 end) {
        for (i64 i = begin; i < end; ++i)
          p.table.add_rows(p.n, second + i * p.n, p.c + i * p.c_row);
      });
    return EVERGRAD_OK;
  }

  i64 pieces() const {
    const i64 most = max_of(1, piece_floats / max_of(1, block * own.panel));
    const i64 wanted = parts_of(own.panels(), most);
    return min_of(own.panels(), parts_of(halves * wanted, threads) * parts_of(threads, halves));
  }

  i64 depth_of(i64 b) const { return max_of(0, min_of(block, p.k - b * block)); }

  // Columns that came packed, whole: block by block, lanes in order.
  const float* packed_columns(i64 b, i64 lane) const {
    return p.packed_b + b * block * round_up(p.n, p.table.gemm_nr) + lane * depth_of(b);
  }

  // A group as packed: its blocks one after the other, lanes of each in order.
  i64 offset(const Group& here, i64 s, i64 g, i64 depth) const {
    const i64 width = round_up(here.s1 - here.s0, shared.panel);
    return (g - here.g0) * block * width + (s - here.s0) * depth;
  }

  void pack_together(const Group& here) {
    const i64 step = panels_per_task * shared.panel, steps = parts_of(here.s1 - here.s0, step);
    const i64 count = here.g1 - here.g0;
    parallel_for(
        halves * count * steps,
        [&](i64 task) {
          const i64 half = task / steps / count, g = here.g0 + task / steps % count;
          const i64 b = half * blocks + g, s = here.s0 + task % steps * step;
          float* const to = packed_shared + half * group + offset(here, s, g, depth_of(b));
          if (!shared.pack_range(s, min_of(s + step, here.s1), b * block, depth_of(b), to))
            enough = false;
        },
        threads);
  }

  void multiply(const Group& here) {
    i64 packed_half[most_workers];  // what each worker has packed for itself
    for (i64 w = 0; w < workers; ++w) packed_half[w] = -1;
    parallel_for(
        halves * parts,
        [&](i64 task, int worker) {
          const i64 half = task / parts;
          const bool fresh = alone && !shared_packed && packed_half[worker] != half;
          packed_half[worker] = half;
          if (!multiply_piece(here, half, task % parts, worker, fresh)) enough = false;
        },
        workers);
  }

  bool multiply_piece(const Group& here, i64 half, i64 part, int worker, bool fresh) const {
    const i64 o0 = part * own.panels() / parts * own.panel;
    const i64 o1 = min_of((part + 1) * own.panels() / parts * own.panel, own.lanes);
    float* const packed_own = scratch.get() + worker * piece;
    float* const packed = packed_shared + (alone ? worker : half) * group;
    for (i64 g = here.g0; g < here.g1; ++g) {
      const i64 b = half * blocks + g, depth = depth_of(b);
      if (fresh && !shared.pack_range(here.s0, here.s1, b * block, depth,
                                      packed + offset(here, here.s0, g, depth)))
        return false;
      if (!own_packed && !own.pack_range(o0, o1, b * block, depth, packed_own)) return false;
      const float* const mine = own_packed ? packed_columns(b, o0) : packed_own;
      // The shared side comes from L3 once, the piece from L2 each time.
      for (i64 s = here.s0; s < here.s1; s += passing) {
        const float* const panel =
            shared_packed ? packed_columns(b, s) : packed + offset(here, s, g, depth);
        const i64 i = rows_shared ? s : o0, j = rows_shared ? o0 : s;
        const i64 end = min_of(s + passing, here.s1);
        const i64 height = (rows_shared ? end : o1) - i, length = (rows_shared ? o1 : end) - j;
        float* const out = half == 0 ? p.c + i * p.c_row + j : second + i * p.n + j;
        const bool last = p.epilogue && g + 1 == blocks;
        const Epilogue epilogue = last ? p.epilogue->at(i, j) : Epilogue{};
        p.table.gemm_tile(height, length, depth, rows_shared ? panel : mine,
                          rows_shared ? mine : panel, out, half == 0 ? p.c_row : p.n,
                          (half == 0 && p.accumulate) || g > 0, last ? &epilogue : nullptr,
                          panel + (end - s) * depth, min_of(passing, here.s1 - end) * depth);
      }
    }
    return true;
  }
};

}  // namespace

bool is_deep(const Product& p) {
  return p.plain() && !p.epilogue && p.k >= depth_block && p.k >= 2 * max_of(p.m, p.n) &&
         p.m * p.n <= halves_floats;
}

int packed(const Product& p, i64 threads) { return Packed(p, threads).run(); }

i64 packed_size(i64 n, i64 k) noexcept { return round_up(n, kernels().gemm_nr) * k; }

void pack(i64 n, i64 k, Matrix b, float* packed) noexcept {
  if (k == 0) return;
  const KernelTable& t = kernels();
  const Side columns{t, t.gemm_pack_b, t.gemm_nr, n, b.data, b.col, b.row, nullptr};
  const i64 block = depth_of_blocks(k);
  const i64 width = round_up(n, columns.panel), step = panels_per_task * columns.panel;
  parallel_ranges(n, step, [&](i64 begin, i64 end) {
    for (i64 d = 0; d < k; d += block) {
      const i64 depth = min_of(block, k - d);
      columns.pack_range(begin, end, d, depth, packed + d * width + begin * depth);
    }
  });
}

}  // namespace evergrad
