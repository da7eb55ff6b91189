// Linear layers: a product with its epilogue, and the way back.
#include <cstring>

#include "evergrad/evergrad.h"
#include "ops/gemm.h"
#include "ops/sizes.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"
#include "runtime/pool.h"

using namespace evergrad;

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
  const i64 grain = round_up(parts_of(rows, most_blocks), strip);
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
