#include <cstring>

#include "evergrad/evergrad.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"

using namespace evergrad;

int evergrad_embedding(int64_t n, int64_t dim, const int64_t* indices, const float* weight,
                       int accumulate, float* out) noexcept {
  const KernelTable& t = kernels();
  parallel_rows(n, dim, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) {
      const float* row = weight + indices[i] * dim;
      if (accumulate)
        t.add_rows(dim, row, out + i * dim);
      else
        std::memcpy(out + i * dim, row, static_cast<std::size_t>(dim) * sizeof(float));
    }
  });
  return EVERGRAD_OK;
}

// Tokens repeat, so rows of the gradient cannot be shared out among threads by token; columns can,
// and every sum keeps the order of the tokens.
int evergrad_embedding_backward(int64_t n, int64_t dim, const float* dout, const int64_t* indices,
                                float* dweight) noexcept {
  const KernelTable& t = kernels();
  constexpr i64 columns = 64;
  auto scatter = [&](i64 begin, i64 end) {
    for (i64 i = 0; i < n; ++i)
      t.add_rows(end - begin, dout + i * dim + begin, dweight + indices[i] * dim + begin);
  };
  if (n * dim < elements_per_task)
    scatter(0, dim);
  else
    parallel_ranges(dim, columns, scatter);
  return EVERGRAD_OK;
}
