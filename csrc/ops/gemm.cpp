// Which path a matrix product takes, and the C API of `matmul`.
#include "ops/gemm.h"

#include <atomic>

#include "evergrad/evergrad.h"
#include "ops/gemm_paths.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"

namespace evergrad {

int gemm(i64 m, i64 n, i64 k, Matrix a, Matrix b, float* c, i64 c_row, bool accumulate,
         const Epilogue* epilogue, const float* packed_b, const Quantized* quantized_b) noexcept {
  if (m == 0 || n == 0) return EVERGRAD_OK;
  const Product p{kernels(), m, n, k, a, b, packed_b, quantized_b, c, c_row, accumulate, epilogue};
  if (suits_dots(p)) return dots(p);
  if (suits_sweeps(p)) return sweeps(p);
  const bool worth =
      2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) >=
      serial_flops;
  const i64 threads = worth ? workers_here() : 1;
  if (suits_unpacked(p, threads)) return unpacked(p, threads);
  if (suits_turned(p)) return turned(p, threads);
  return packed(p, threads);
}

void finish(const KernelTable& t, const Epilogue* epilogue, i64 i, i64 j, i64 height, i64 length,
            float* out, i64 c_row) {
  if (!epilogue) return;
  const Epilogue e = epilogue->at(i, j);
  t.gemm_epilogue(height, length, out, c_row, &e);
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
