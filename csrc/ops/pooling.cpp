// One vector for each sequence of a packed batch. Sequences are independent; sums inside one keep
// the order of its tokens.
#include <cstring>

#include "evergrad/evergrad.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"

using namespace evergrad;

namespace {

std::size_t bytes(i64 floats) { return static_cast<std::size_t>(floats) * sizeof(float); }

template <class F>
void over_sequences(i64 sequences, const i64* cu, i64 n, F f) {
  const i64 mean_length = sequences ? cu[sequences] / sequences : 0;
  parallel_rows(sequences, (mean_length + 1) * n, [&](i64 begin, i64 end) {
    for (i64 s = begin; s < end; ++s) f(s, cu[s], cu[s + 1] - cu[s]);
  });
}

}  // namespace

int evergrad_pool(int mode, int64_t sequences, int64_t n, const int64_t* cu_seqlens, const float* x,
                  float* out) noexcept {
  const KernelTable& t = kernels();
  over_sequences(sequences, cu_seqlens, n, [&](i64 s, i64 begin, i64 length) {
    if (mode == EVERGRAD_POOL_MEAN || length == 0)
      t.mean_rows(length, n, x + begin * n, out + s * n);
    else
      std::memcpy(out + s * n, x + begin * n, bytes(n));
  });
  return EVERGRAD_OK;
}

int evergrad_pool_backward(int mode, int64_t sequences, int64_t n, const int64_t* cu_seqlens,
                           const float* dout, float* dx) noexcept {
  const KernelTable& t = kernels();
  over_sequences(sequences, cu_seqlens, n, [&](i64 s, i64 begin, i64 length) {
    if (length == 0) return;
    if (mode == EVERGRAD_POOL_MEAN) return t.spread_mean(length, n, dout + s * n, dx + begin * n);
    std::memcpy(dx + begin * n, dout + s * n, bytes(n));
    std::memset(dx + (begin + 1) * n, 0, bytes((length - 1) * n));
  });
  return EVERGRAD_OK;
}
