#include "evergrad/evergrad.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"

using namespace evergrad;

namespace {

void gather(i64 n, i64 dim, int tables, const i64* const* indices, const float* const* weights,
            bool accumulate, float* out) {
  const KernelTable& t = kernels();
  const auto rows = [&](i64 begin, i64 end) {
    const i64* from[EVERGRAD_MOST_TABLES];
    for (int i = 0; i < tables; ++i) from[i] = indices[i] + begin;
    t.gather_rows(end - begin, dim, tables, from, weights, accumulate, out + begin * dim);
  };
  if (n * dim < moves_alone)
    rows(0, n);
  else
    parallel_rows(n, dim, rows);
}

}  // namespace

int evergrad_embedding(int64_t n, int64_t dim, const int64_t* indices, const float* weight,
                       int accumulate, float* out) noexcept {
  gather(n, dim, 1, &indices, &weight, accumulate != 0, out);
  return EVERGRAD_OK;
}

int evergrad_embedding_sum(int64_t n, int64_t dim, int tables, const int64_t* const* indices,
                           const float* const* weights, float* out) noexcept {
  gather(n, dim, tables, indices, weights, false, out);
  return EVERGRAD_OK;
}

// Tokens repeat, so rows of the gradient cannot be shared out among threads by token; columns can,
// and every sum keeps the order of the tokens.
int evergrad_embedding_backward(int64_t n, int64_t dim, const float* dout, const int64_t* indices,
                                float* dweight) noexcept {
  const KernelTable& t = kernels();
  constexpr i64 columns = 64;
  auto scatter = [&](i64 begin, i64 end) {
    t.scatter_rows(n, end - begin, dout + begin, indices, dim, dweight + begin);
  };
  if (n * dim < moves_alone)
    scatter(0, dim);
  else
    parallel_ranges(dim, columns, scatter);
  return EVERGRAD_OK;
}
