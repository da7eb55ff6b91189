// Blocking of the matrix product, after Goto & van de Geijn 2008 and BLIS: panels of A and B are
// packed for a slab of depth, then tiles of C are computed from cache.
//
//   depth_block   a B panel (nr x depth_block) stays in L1; fixed, because it is the one cut that
//                 shows in the bits of the result (sums over slabs are added in order)
//   rows_block    an A block (rows_block x depth_block) stays in L2
//   slab sizes    bound the packed buffers, which live in L3
#include "ops/gemm.h"

#include <atomic>
#include <cstring>

#include "evergrad/evergrad.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"
#include "runtime/pool.h"

namespace evergrad {
namespace {

constexpr i64 depth_block = 256;
constexpr i64 rows_block = 144;
constexpr i64 slab_rows = 4096;
constexpr i64 slab_cols = 4096;
constexpr i64 panels_per_task = 8;

i64 min_of(i64 a, i64 b) { return a < b ? a : b; }
i64 parts_of(i64 a, i64 step) { return (a + step - 1) / step; }

// [0, n) in `parts` nearly equal pieces that are multiples of `unit`: the size of a piece.
i64 even_step(i64 n, i64 parts, i64 unit) { return parts_of(parts_of(n, parts), unit) * unit; }

}  // namespace

int gemm(i64 m, i64 n, i64 k, Matrix a, Matrix b, float* c, i64 c_row, bool accumulate,
         const Epilogue* epilogue) noexcept {
  if (m == 0 || n == 0) return EVERGRAD_OK;
  const KernelTable& t = kernels();
  const i64 mr = t.gemm_mr, nr = t.gemm_nr;
  const bool worth =
      2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) >=
      serial_flops;
  const i64 depth_max = min_of(depth_block, k);
  const Buffer packed_a(parts_of(min_of(slab_rows, m), mr) * mr * depth_max);
  const Buffer packed_b(parts_of(min_of(slab_cols, n), nr) * nr * depth_max);
  if (!packed_a || !packed_b) return EVERGRAD_NO_MEMORY;

  for (i64 j0 = 0; j0 < n; j0 += slab_cols) {
    const i64 cols = min_of(slab_cols, n - j0);
    // A product without depth still owes C its zeros and its epilogue: one empty slab.
    for (i64 d0 = 0; d0 < k || d0 == 0; d0 += depth_block) {
      const i64 depth = min_of(depth_block, k - d0);
      const bool add = accumulate || d0 > 0, last = d0 + depth >= k;
      for (i64 i0 = 0; i0 < m; i0 += slab_rows) {
        const i64 rows = min_of(slab_rows, m - i0);
        const i64 a_tasks = parts_of(rows, mr * panels_per_task);
        const i64 b_tasks = i0 == 0 ? parts_of(cols, nr * panels_per_task) : 0;
        auto pack = [&](i64 task) {
          const bool is_a = task < a_tasks;
          const i64 width = (is_a ? mr : nr) * panels_per_task;
          const i64 begin = (is_a ? task : task - a_tasks) * width;
          const i64 count = min_of(width, (is_a ? rows : cols) - begin);
          if (is_a)
            t.gemm_pack_a(count, depth, a.data + (i0 + begin) * a.row + d0 * a.col, a.row, a.col,
                          packed_a.get() + begin * depth);
          else
            t.gemm_pack_b(count, depth, b.data + (j0 + begin) * b.col + d0 * b.row, b.col, b.row,
                          packed_b.get() + begin * depth);
        };
        // Tiles: A blocks that fit in L2, and enough pieces for every thread to have several.
        const i64 row_step = even_step(rows, parts_of(rows, rows_block), mr);
        const i64 row_parts = parts_of(rows, row_step);
        const i64 wanted = parts_of(4 * evergrad_get_num_threads(), row_parts);
        const i64 col_step =
            even_step(cols, min_of(wanted > 0 ? wanted : 1, parts_of(cols, 4 * nr)), nr);
        const i64 col_parts = parts_of(cols, col_step);
        auto compute = [&](i64 task) {
          const i64 i = task % row_parts * row_step, j = task / row_parts * col_step;
          const i64 height = min_of(row_step, rows - i), width = min_of(col_step, cols - j);
          float* block = c + (i0 + i) * c_row + j0 + j;
          t.gemm_tile(height, width, depth, packed_a.get() + i * depth, packed_b.get() + j * depth,
                      block, c_row, add);
          if (!last || !epilogue) return;
          Epilogue e = *epilogue;
          if (e.bias) e.bias += j0 + j;
          if (e.residual) e.residual += (i0 + i) * e.residual_stride + j0 + j;
          if (e.pre) e.pre += (i0 + i) * e.pre_stride + j0 + j;
          t.gemm_epilogue(height, width, block, c_row, &e);
        };
        parallel_for(a_tasks + b_tasks, pack, worth);
        parallel_for(row_parts * col_parts, compute, worth);
      }
    }
  }
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

int evergrad_linear(int64_t rows, int64_t in, int64_t features, const float* x, const float* weight,
                    const float* bias, int activation, const float* residual, float* pre,
                    float* out) noexcept {
  // The product goes through `out` before the epilogue reads the residual.
  const bool overwritten = residual == out;
  const Buffer copy(overwritten ? rows * features : 1);
  if (!copy) return EVERGRAD_NO_MEMORY;
  if (overwritten) {
    std::memcpy(copy.get(), residual, static_cast<std::size_t>(rows * features) * sizeof(float));
    residual = copy.get();
  }
  const Epilogue epilogue{bias,    static_cast<Activation>(activation), residual, features, pre,
                          features};
  const bool plain = !bias && !residual && !pre && activation == EVERGRAD_ACTIVATION_NONE;
  return gemm(rows, features, in, {x, in, 1}, {weight, 1, in}, out, features, false,
              plain ? nullptr : &epilogue);
}

int evergrad_linear_backward(int64_t rows, int64_t in, int64_t features, const float* dout,
                             const float* x, const float* weight, int activation,
                             const float* saved, float* dx, float* dweight, float* dbias) noexcept {
  const Buffer dpre(activation == EVERGRAD_ACTIVATION_NONE ? 1 : rows * features);
  if (!dpre) return EVERGRAD_NO_MEMORY;
  if (activation != EVERGRAD_ACTIVATION_NONE) {
    evergrad_activation_backward(activation, rows * features, dout, saved, dpre.get());
    dout = dpre.get();
  }
  int status = EVERGRAD_OK;
  const Matrix d{dout, features, 1};
  if (dx) status |= gemm(rows, in, features, d, {weight, in, 1}, dx, in, false, nullptr);
  if (dweight)
    status |= gemm(features, in, rows, d.transposed(), {x, in, 1}, dweight, in, true, nullptr);
  if (dbias) {
    const KernelTable& t = kernels();
    const i64 grain = 64;
    auto sum = [&](i64 begin, i64 end) {
      t.column_sum(rows, end - begin, dout + begin, features, dbias + begin);
    };
    if (rows * features < elements_per_task)
      sum(0, features);
    else
      parallel_ranges(features, grain, sum);
  }
  return status;
}
