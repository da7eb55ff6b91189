// Activations, element-wise losses, dropout: independent elements.
#include <cstring>

#include "evergrad/evergrad.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"
#include "runtime/pool.h"

using namespace evergrad;

int evergrad_zero(int64_t n, float* x) noexcept {
  parallel_flat(n, [&](i64 begin, i64 end) {
    std::memset(x + begin, 0, static_cast<std::size_t>(end - begin) * sizeof(float));
  });
  return EVERGRAD_OK;
}

int evergrad_activation(int activation, int64_t n, const float* x, float* out) noexcept {
  const KernelTable& t = kernels();
  const bool past = past_caches(n, out, x);
  parallel_elements(n, [&](i64 begin, i64 end) {
    t.activation(static_cast<Activation>(activation), end - begin, x + begin, out + begin, past);
  });
  return EVERGRAD_OK;
}

int evergrad_activation_backward(int activation, int64_t n, const float* dout, const float* saved,
                                 float* dx) noexcept {
  const KernelTable& t = kernels();
  const bool past = past_caches(n, dx, dout, saved);
  parallel_elements(n, [&](i64 begin, i64 end) {
    t.activation_backward(static_cast<Activation>(activation), end - begin, dout + begin,
                          saved + begin, dx + begin, past);
  });
  return EVERGRAD_OK;
}

namespace {

// Rows that follow one another without a gap are one long row, cut anywhere.
template <class F>
void strided_rows(i64 rows, i64 n, bool contiguous, F&& f) {
  if (contiguous)
    parallel_elements(rows * n, [&](i64 begin, i64 end) { f(1, end - begin, begin, i64{0}); });
  else
    parallel_rows(rows, n, [&](i64 begin, i64 end) { f(end - begin, n, i64{0}, begin); });
}

}  // namespace

int evergrad_gated(int activation, int64_t rows, int64_t n, const float* gate, int64_t gate_stride,
                   const float* up, int64_t up_stride, float* out) noexcept {
  const KernelTable& t = kernels();
  strided_rows(rows, n, gate_stride == n && up_stride == n,
               [&](i64 count, i64 width, i64 element, i64 row) {
                 t.gated(static_cast<Activation>(activation), count, width,
                         gate + element + row * gate_stride, gate_stride,
                         up + element + row * up_stride, up_stride, out + element + row * n);
               });
  return EVERGRAD_OK;
}

int evergrad_gated_backward(int activation, int64_t rows, int64_t n, const float* dout,
                            const float* gate, int64_t gate_stride, const float* up,
                            int64_t up_stride, float* dgate, int64_t dgate_stride, float* dup,
                            int64_t dup_stride) noexcept {
  const KernelTable& t = kernels();
  const bool contiguous =
      gate_stride == n && up_stride == n && dgate_stride == n && dup_stride == n;
  strided_rows(rows, n, contiguous, [&](i64 count, i64 width, i64 element, i64 row) {
    t.gated_backward(static_cast<Activation>(activation), count, width, dout + element + row * n,
                     gate + element + row * gate_stride, gate_stride,
                     up + element + row * up_stride, up_stride,
                     dgate + element + row * dgate_stride, dgate_stride,
                     dup + element + row * dup_stride, dup_stride);
  });
  return EVERGRAD_OK;
}

namespace {

// f(begin, end) for fixed pieces of [0, n), their sums added in order.
template <class F>
int sum_of_pieces(i64 n, double* sum, F&& f) {
  const i64 piece = elements_in_task(n), pieces = (n + piece - 1) / piece;
  const Buffer buffer(2 * pieces + 1);
  if (!buffer) return EVERGRAD_NO_MEMORY;
  double* partials = reinterpret_cast<double*>(buffer.get());
  parallel_ranges(n, piece, [&](i64 begin, i64 end) { partials[begin / piece] = f(begin, end); });
  *sum = 0;
  for (i64 i = 0; i < pieces; ++i) *sum += partials[i];
  return EVERGRAD_OK;
}

}  // namespace

int evergrad_mse_sum(int64_t n, const float* x, const float* target, double* sum) noexcept {
  const KernelTable& t = kernels();
  return sum_of_pieces(n, sum, [&](i64 begin, i64 end) {
    return t.mse_sum(end - begin, x + begin, target + begin);
  });
}

int evergrad_bce_with_logits_sum(int64_t n, const float* x, const float* target,
                                 double* sum) noexcept {
  const KernelTable& t = kernels();
  return sum_of_pieces(n, sum, [&](i64 begin, i64 end) {
    return t.bce_sum(end - begin, x + begin, target + begin);
  });
}

int evergrad_mse(int64_t n, const float* x, const float* target, float* out) noexcept {
  const KernelTable& t = kernels();
  parallel_elements(
      n, [&](i64 begin, i64 end) { t.mse(end - begin, x + begin, target + begin, out + begin); });
  return EVERGRAD_OK;
}

int evergrad_mse_backward(int64_t n, const float* dout, int64_t dout_stride, const float* x,
                          const float* target, float* dx) noexcept {
  const KernelTable& t = kernels();
  parallel_elements(n, [&](i64 begin, i64 end) {
    t.mse_backward(end - begin, dout + begin * dout_stride, dout_stride, x + begin, target + begin,
                   dx + begin);
  });
  return EVERGRAD_OK;
}

int evergrad_bce_with_logits(int64_t n, const float* x, const float* target, float* out) noexcept {
  const KernelTable& t = kernels();
  parallel_elements(
      n, [&](i64 begin, i64 end) { t.bce(end - begin, x + begin, target + begin, out + begin); });
  return EVERGRAD_OK;
}

int evergrad_bce_with_logits_backward(int64_t n, const float* dout, int64_t dout_stride,
                                      const float* x, const float* target, float* dx) noexcept {
  const KernelTable& t = kernels();
  parallel_elements(n, [&](i64 begin, i64 end) {
    t.bce_backward(end - begin, dout + begin * dout_stride, dout_stride, x + begin, target + begin,
                   dx + begin);
  });
  return EVERGRAD_OK;
}

int evergrad_dropout(int64_t n, const float* x, double p, uint64_t seed, uint64_t offset,
                     float* out) noexcept {
  const KernelTable& t = kernels();
  const uint32_t threshold = static_cast<uint32_t>(p * 4294967296.0);
  const float scale = static_cast<float>(1.0 / (1.0 - p));
  parallel_elements(n, [&](i64 begin, i64 end) {
    t.dropout(end - begin, x + begin, offset + static_cast<uint64_t>(begin), seed, threshold, scale,
              out + begin);
  });
  return EVERGRAD_OK;
}
