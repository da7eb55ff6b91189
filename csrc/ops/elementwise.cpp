// Activations, element-wise losses, dropout: independent elements.
#include "evergrad/evergrad.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"

using namespace evergrad;

int evergrad_activation(int activation, int64_t n, const float* x, float* out) noexcept {
  const KernelTable& t = kernels();
  parallel_ranges(n, elements_per_task, [&](i64 begin, i64 end) {
    t.activation(static_cast<Activation>(activation), end - begin, x + begin, out + begin);
  });
  return EVERGRAD_OK;
}

int evergrad_activation_backward(int activation, int64_t n, const float* dout, const float* saved,
                                 float* dx) noexcept {
  const KernelTable& t = kernels();
  parallel_ranges(n, elements_per_task, [&](i64 begin, i64 end) {
    t.activation_backward(static_cast<Activation>(activation), end - begin, dout + begin,
                          saved + begin, dx + begin);
  });
  return EVERGRAD_OK;
}

int evergrad_mse(int64_t n, const float* x, const float* target, float* out) noexcept {
  const KernelTable& t = kernels();
  parallel_ranges(n, elements_per_task, [&](i64 begin, i64 end) {
    t.mse(end - begin, x + begin, target + begin, out + begin);
  });
  return EVERGRAD_OK;
}

int evergrad_mse_backward(int64_t n, const float* dout, int64_t dout_stride, const float* x,
                          const float* target, float* dx) noexcept {
  const KernelTable& t = kernels();
  parallel_ranges(n, elements_per_task, [&](i64 begin, i64 end) {
    t.mse_backward(end - begin, dout + begin * dout_stride, dout_stride, x + begin, target + begin,
                   dx + begin);
  });
  return EVERGRAD_OK;
}

int evergrad_bce_with_logits(int64_t n, const float* x, const float* target, float* out) noexcept {
  const KernelTable& t = kernels();
  parallel_ranges(n, elements_per_task, [&](i64 begin, i64 end) {
    t.bce(end - begin, x + begin, target + begin, out + begin);
  });
  return EVERGRAD_OK;
}

int evergrad_bce_with_logits_backward(int64_t n, const float* dout, int64_t dout_stride,
                                      const float* x, const float* target, float* dx) noexcept {
  const KernelTable& t = kernels();
  parallel_ranges(n, elements_per_task, [&](i64 begin, i64 end) {
    t.bce_backward(end - begin, dout + begin * dout_stride, dout_stride, x + begin, target + begin,
                   dx + begin);
  });
  return EVERGRAD_OK;
}

namespace {

// The output function of splitmix64 (Steele et al. 2014): every seed gives unrelated keys.
uint64_t splitmix64(uint64_t z) {
  z += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

}  // namespace

int evergrad_dropout(int64_t n, const float* x, double p, uint64_t seed, uint64_t offset,
                     float* out) noexcept {
  const KernelTable& t = kernels();
  const uint32_t threshold = static_cast<uint32_t>(p * 4294967296.0);
  const float scale = static_cast<float>(1.0 / (1.0 - p));
  parallel_ranges(n, elements_per_task, [&](i64 begin, i64 end) {
    while (begin < end) {
      // Counters are 64 bits; the kernel takes runs that share the high half.
      const uint64_t counter = offset + static_cast<uint64_t>(begin);
      const uint64_t left = (uint64_t(1) << 32) - (counter & 0xffffffffu);
      const i64 stop =
          static_cast<uint64_t>(end - begin) > left ? begin + static_cast<i64>(left) : end;
      const uint64_t key = splitmix64(seed ^ splitmix64(counter >> 32));
      t.dropout(stop - begin, x + begin, static_cast<uint32_t>(counter), static_cast<uint32_t>(key),
                static_cast<uint32_t>(key >> 32), threshold, scale, out + begin);
      begin = stop;
    }
  });
  return EVERGRAD_OK;
}
