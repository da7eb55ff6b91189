// Products that read B where it lies: with few or some rows (or columns), packing it would cost as
// much as the product.
#include "ops/gemm_paths.h"
#include "runtime/cpu.h"
#include "runtime/distance.h"
#include "runtime/parallel.h"
#include "runtime/pool.h"

namespace evergrad {
namespace {

// Up to so many rows or columns for dots, and rows for sweeps, which load and store C.
constexpr i64 few_dots = 24, few_sweeps = 8;
// Each dot ends with a sum across its vector. So there have to be at least so many floats of depth
// for each row (or column) beyond the first; a C of so few elements is not worth packing for.
constexpr i64 depth_per_row = 5, not_many_dots = 256;
constexpr i64 longest_sweep = 1 << 14;  // C stays in cache
constexpr i64 floats_per_piece = 1 << 15;
// Up to so many rows, each panel of B would serve few tiles. Packing is dearer where it turns B,
// but what is not turned then is C.
constexpr i64 some_rows = 128, some_turned_rows = 96, most_depth = 8 * depth_block;

// The largest power of two that divides a stride, in bytes: sets of a cache that lie so far apart
// are the only ones that rows at this stride begin in.
i64 distance_of_sets(i64 stride) {
  const i64 bytes = stride * static_cast<i64>(sizeof(float));
  return bytes & -bytes;
}

// Whether rows of `depth` floats are to be read as from the caches. Those that fit into L2 are not
// worth the question, and few rows are too few to ask.
bool read_from_caches(const float* x, i64 rows, i64 depth, i64 stride) {
  return rows >= 8 && rows * depth * static_cast<i64>(sizeof(float)) > l2_bytes() / 2 &&
         is_cached(x, rows, stride);
}

}  // namespace

bool suits_dots(const Product& p) {
  const i64 few = min_of(p.m, p.n);
  return p.plain() && p.a.col == 1 && p.b.row == 1 && few <= few_dots &&
         (p.k >= depth_per_row * (few - 1) || p.m * p.n <= not_many_dots);
}

// Both contiguous in depth. One side is short, the other is cut.
int dots(const Product& p) {
  constexpr i64 line = 16;  // workers share no cache line of C
  const KernelTable& t = p.table;
  const bool few_rows = p.m <= p.n;
  const i64 step = max_of(line, floats_per_piece / p.k / line * line);
  const bool cached = (p.m == 1 && read_from_caches(p.b.data, p.n, p.k, p.b.col)) ||
                      (p.n == 1 && read_from_caches(p.a.data, p.m, p.k, p.a.row));
  parallel_ranges(few_rows ? p.n : p.m, step, [&](i64 begin, i64 end) {
    const i64 i = few_rows ? 0 : begin, j = few_rows ? begin : 0, count = end - begin;
    float* out = p.c + i * p.c_row + j;
    const float *x = p.a.data + i * p.a.row, *y = p.b.data + j * p.b.col;
    if (few_rows)
      t.gemm_dot(count, p.m, p.k, y, p.b.col, x, p.a.row, out, 1, p.c_row, p.accumulate, cached);
    else
      t.gemm_dot(count, p.n, p.k, x, p.a.row, y, p.b.col, out, p.c_row, 1, p.accumulate, cached);
    finish(t, p.epilogue, i, j, few_rows ? p.m : count, few_rows ? count : p.n, out, p.c_row);
  });
  return EVERGRAD_OK;
}

bool suits_sweeps(const Product& p) {
  return p.plain() && p.b.col == 1 && p.m <= p.n && p.m <= few_sweeps && p.n <= longest_sweep;
}

// B's rows are contiguous and read in order: depth is cut into segments, by the shape alone, and
// their sums are added in order.
int sweeps(const Product& p) {
  constexpr i64 most_segments = 8;
  const KernelTable& t = p.table;
  const i64 m = p.m, n = p.n, k = p.k;
  const i64 segments = max_of(1, min_of(min_of(most_segments, k), n * k / floats_per_piece));
  const bool cached = m == 1 && read_from_caches(p.b.data, k, n, p.b.row);
  const Buffer partials((segments - 1) * m * n + 1);
  if (!partials) return EVERGRAD_NO_MEMORY;
  parallel_for(segments, [&](i64 s) {
    const i64 begin = s * k / segments, end = (s + 1) * k / segments;
    float* out = s == 0 ? p.c : partials.get() + (s - 1) * m * n;
    t.gemm_sweep(m, n, end - begin, p.a.data + begin * p.a.col, p.a.row, p.a.col,
                 p.b.data + begin * p.b.row, p.b.row, out, s == 0 ? p.c_row : n,
                 s == 0 && p.accumulate, cached);
  });
  for (i64 i = 0; i < m; ++i)
    for (i64 s = 1; s < segments; ++s)
      t.add_rows(n, partials.get() + ((s - 1) * m + i) * n, p.c + i * p.c_row);
  finish(t, p.epilogue, 0, 0, m, n, p.c, p.c_row);
  return EVERGRAD_OK;
}

// Each worker packs A for itself, so it should have columns enough. Rows of B at a wide stride are
// better read by packing, eight panels at a time: a tile fetches lines of so many rows that they
// would put one another out of the cache.
bool suits_unpacked(const Product& p, i64 threads) {
  const i64 distance = distance_of_sets(p.b.row);
  return p.plain() && !p.epilogue && !is_deep(p) && p.m <= some_rows && p.k <= most_depth &&
         p.b.col == 1 && p.n >= 2 * threads * p.table.gemm_nr && distance >= 64 &&
         depth_of_blocks(p.k) * distance <= l2_bytes() / 2;
}

int unpacked(const Product& p, i64 threads) {
  const KernelTable& t = p.table;
  const i64 m = p.m, n = p.n, k = p.k;
  const i64 block = depth_of_blocks(k), panel = t.gemm_nr, panels = parts_of(n, panel);
  const i64 lanes = round_up(m, t.gemm_mr);
  // Columns that fill half of L2: every panel of A meets them there again.
  const i64 most = max_of(1, l2_bytes() / static_cast<i64>(2 * sizeof(float)) / (block * panel));
  const i64 tasks = min_of(panels, round_up(parts_of(panels, most), threads));
  const i64 copied = parts_of(panels, tasks) * panel * block;  // a task's columns of B
  const i64 workers = min_of(threads, tasks), floats = lanes * k + copied;
  const Buffer scratch(workers * floats);
  if (!scratch) return EVERGRAD_NO_MEMORY;
  bool has_packed[most_workers] = {};
  parallel_for(
      tasks,
      [&](i64 task, int worker) {
        float* const packed_a = scratch.get() + worker * floats;
        float* const packed_b = packed_a + lanes * k;
        const i64 begin = task * panels / tasks * panel;
        const i64 end = min_of((task + 1) * panels / tasks * panel, n);
        const i64 whole = begin + (end - begin) / panel * panel;
        for (i64 d = 0; d < k; d += block) {
          const i64 depth = min_of(block, k - d);
          const bool add = p.accumulate || d > 0;
          float* const from = packed_a + lanes * d;
          const float* rows = p.b.data + d * p.b.row;
          if (!has_packed[worker])
            t.gemm_pack_a(m, depth, p.a.data + d * p.a.col, p.a.row, p.a.col, from);
          t.gemm_unpacked(m, whole - begin, depth, from, rows + begin, p.b.row, packed_b,
                          p.c + begin, p.c_row, add);
          if (whole == end) continue;  // the last columns, where they fill no panel
          t.gemm_pack_b(end - whole, depth, rows + whole, 1, p.b.row, packed_b);
          t.gemm_tile(m, end - whole, depth, from, packed_b, p.c + whole, p.c_row, add, nullptr,
                      from, 0);
        }
        has_packed[worker] = true;
      },
      workers);
  return EVERGRAD_OK;
}

// A weight [n, k]: a dozen of its rows are read side by side, from L1. Whether depends on the shape
// alone, since the factors change sides: of two NaNs another one is left.
bool suits_turned(const Product& p) {
  return p.plain() && !is_deep(p) && p.m <= some_turned_rows && p.k <= most_depth && p.b.row == 1 &&
         p.n >= 4 * p.table.gemm_mr && distance_of_sets(p.b.col) <= 1024;
}

int turned(const Product& p, i64 threads) {
  const KernelTable& t = p.table;
  const i64 m = p.m, n = p.n, k = p.k, block = depth_of_blocks(k);
  const i64 lanes = round_up(m, t.gemm_nr);
  // Columns by whole lines of C, in tasks of some tiles.
  constexpr i64 line = 16, most_tasks = 4;
  const i64 lines = parts_of(n, line);
  const i64 tasks =
      min_of(lines, threads * max_of(1, min_of(most_tasks, n / (threads * 8 * t.gemm_mr))));
  const i64 workers = min_of(threads, tasks);
  const Buffer scratch(workers * lanes * k);
  if (!scratch) return EVERGRAD_NO_MEMORY;
  bool has_packed[most_workers] = {};
  parallel_for(
      tasks,
      [&](i64 task, int worker) {
        float* const packed = scratch.get() + worker * lanes * k;
        const i64 begin = task * lines / tasks * line;
        const i64 end = min_of((task + 1) * lines / tasks * line, n);
        for (i64 d = 0; d < k; d += block) {
          const i64 depth = min_of(block, k - d);
          if (!has_packed[worker])
            t.gemm_pack_b(m, depth, p.a.data + d * p.a.col, p.a.row, p.a.col, packed + lanes * d);
          const bool last = p.epilogue && d + block >= k;
          const Epilogue epilogue = last ? p.epilogue->at(0, begin) : Epilogue{};
          t.gemm_turned(m, end - begin, depth, packed + lanes * d, p.b.data + begin * p.b.col + d,
                        p.b.col, p.c + begin, p.c_row, p.accumulate || d > 0,
                        last ? &epilogue : nullptr);
        }
        has_packed[worker] = true;
      },
      workers);
  return EVERGRAD_OK;
}

}  // namespace evergrad
