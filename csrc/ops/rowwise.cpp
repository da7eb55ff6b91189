// Softmax, norms and losses: independent rows.
#include <cstring>

#include "evergrad/evergrad.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"
#include "runtime/pool.h"

using namespace evergrad;

namespace {

// Arguments that may be null.
template <class T>
T* from(T* p, i64 offset) {
  return p ? p + offset : nullptr;
}

// Rows that are whole cache lines: a line that two rows share would be written in two ways.
template <class... Inputs>
bool rows_past_caches(i64 rows, i64 n, const float* out, const Inputs*... inputs) {
  return n % 16 == 0 && past_caches(rows * n, out, inputs...);
}

}  // namespace

int evergrad_softmax(int64_t rows, int64_t n, const float* x, float* out) noexcept {
  const KernelTable& t = kernels();
  const bool past = rows_past_caches(rows, n, out, x);
  parallel_rows(rows, n, [&](i64 begin, i64 end) {
    t.softmax(end - begin, n, x + begin * n, out + begin * n, past);
  });
  return EVERGRAD_OK;
}

int evergrad_softmax_backward(int64_t rows, int64_t n, const float* dout, const float* out,
                              float* dx) noexcept {
  const KernelTable& t = kernels();
  const bool past = rows_past_caches(rows, n, dx, dout, out);
  parallel_rows(rows, n, [&](i64 begin, i64 end) {
    t.softmax_backward(end - begin, n, dout + begin * n, out + begin * n, dx + begin * n, past);
  });
  return EVERGRAD_OK;
}

int evergrad_log_softmax(int64_t rows, int64_t n, const float* x, float* out) noexcept {
  const KernelTable& t = kernels();
  const bool past = rows_past_caches(rows, n, out, x);
  parallel_rows(rows, n, [&](i64 begin, i64 end) {
    t.log_softmax(end - begin, n, x + begin * n, out + begin * n, past);
  });
  return EVERGRAD_OK;
}

int evergrad_log_softmax_backward(int64_t rows, int64_t n, const float* dout, const float* out,
                                  float* dx) noexcept {
  const KernelTable& t = kernels();
  const bool past = rows_past_caches(rows, n, dx, dout, out);
  parallel_rows(rows, n, [&](i64 begin, i64 end) {
    t.log_softmax_backward(end - begin, n, dout + begin * n, out + begin * n, dx + begin * n, past);
  });
  return EVERGRAD_OK;
}

int evergrad_layer_norm(int64_t rows, int64_t n, const float* x, const float* residual,
                        const float* weight, const float* bias, float eps, float* total, float* out,
                        float* mean, float* rstd) noexcept {
  const KernelTable& t = kernels();
  parallel_rows(rows, n, [&](i64 begin, i64 end) {
    t.layer_norm(end - begin, n, x + begin * n, from(residual, begin * n), weight, bias, eps,
                 from(total, begin * n), out + begin * n, mean + begin, rstd + begin);
  });
  return EVERGRAD_OK;
}

int evergrad_rms_norm(int64_t rows, int64_t n, const float* x, const float* residual,
                      const float* weight, float eps, float* total, float* out,
                      float* rstd) noexcept {
  const KernelTable& t = kernels();
  parallel_rows(rows, n, [&](i64 begin, i64 end) {
    t.rms_norm(end - begin, n, x + begin * n, from(residual, begin * n), weight, eps,
               from(total, begin * n), out + begin * n, rstd + begin);
  });
  return EVERGRAD_OK;
}

namespace {

// Parameter gradients sum over rows: blocks of rows, cut by the shape alone, each into a partial of
// its own; the partials are added in order. f(begin, end, dweight, dbias) works on a block.
template <class F>
int with_partials(i64 rows, i64 n, float* dweight, float* dbias, F&& f) {
  if (rows == 0 || n == 0) return EVERGRAD_OK;
  const KernelTable& t = kernels();
  constexpr i64 most_blocks = 32;
  i64 grain = elements_per_task / n > 0 ? elements_per_task / n : 1;
  if ((rows + grain - 1) / grain > most_blocks) grain = (rows + most_blocks - 1) / most_blocks;
  const i64 blocks = (rows + grain - 1) / grain;
  const bool sums = dweight || dbias;
  const Buffer partials(sums ? blocks * 2 * n : 1);
  if (!partials) return EVERGRAD_NO_MEMORY;
  if (sums)
    std::memset(partials.get(), 0, static_cast<std::size_t>(blocks * 2 * n) * sizeof(float));
  parallel_ranges(rows, grain, [&](i64 begin, i64 end) {
    float* partial = partials.get() + begin / grain * 2 * n;
    f(begin, end, dweight ? partial : nullptr, dbias ? partial + n : nullptr);
  });
  if (dweight) t.column_sum(blocks, n, partials.get(), 2 * n, dweight);
  if (dbias) t.column_sum(blocks, n, partials.get() + n, 2 * n, dbias);
  return EVERGRAD_OK;
}

}  // namespace

int evergrad_layer_norm_backward(int64_t rows, int64_t n, const float* dout, const float* x,
                                 const float* mean, const float* rstd, const float* weight,
                                 const float* dresidual, float* dx, float* dweight,
                                 float* dbias) noexcept {
  const KernelTable& t = kernels();
  return with_partials(rows, n, dweight, dbias, [&](i64 begin, i64 end, float* dw, float* db) {
    t.layer_norm_backward(end - begin, n, dout + begin * n, x + begin * n, mean + begin,
                          rstd + begin, weight, from(dresidual, begin * n), from(dx, begin * n), dw,
                          db);
  });
}

int evergrad_rms_norm_backward(int64_t rows, int64_t n, const float* dout, const float* x,
                               const float* rstd, const float* weight, const float* dresidual,
                               float* dx, float* dweight) noexcept {
  const KernelTable& t = kernels();
  return with_partials(rows, n, dweight, nullptr, [&](i64 begin, i64 end, float* dw, float*) {
    t.rms_norm_backward(end - begin, n, dout + begin * n, x + begin * n, rstd + begin, weight,
                        from(dresidual, begin * n), from(dx, begin * n), dw);
  });
}

int evergrad_cross_entropy(int64_t rows, int64_t classes, const float* logits,
                           const int64_t* target, int64_t ignore_index, float smoothing,
                           float* losses, float* lse) noexcept {
  const KernelTable& t = kernels();
  const CrossEntropy p = {classes, ignore_index, smoothing, 0.0f};
  parallel_rows(rows, classes, [&](i64 begin, i64 end) {
    t.cross_entropy(end - begin, logits + begin * classes, target + begin, &p, losses + begin,
                    lse + begin);
  });
  return EVERGRAD_OK;
}

int evergrad_cross_entropy_backward(int64_t rows, int64_t classes, const float* drows,
                                    const float* logits, const int64_t* target, const float* lse,
                                    int64_t ignore_index, float smoothing,
                                    float* dlogits) noexcept {
  const KernelTable& t = kernels();
  const CrossEntropy p = {classes, ignore_index, smoothing, 0.0f};
  parallel_rows(rows, classes, [&](i64 begin, i64 end) {
    t.cross_entropy_backward(end - begin, classes, drows + begin, logits + begin * classes, classes,
                             0, target + begin, lse + begin, &p, dlogits + begin * classes,
                             classes);
  });
  return EVERGRAD_OK;
}
