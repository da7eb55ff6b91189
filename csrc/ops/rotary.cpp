#include "evergrad/evergrad.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"

using namespace evergrad;

int evergrad_rotary(int64_t batch, int64_t tokens, int64_t heads, int64_t head_dim, int64_t dim,
                    int interleaved, evergrad_heads x, const float* cos, const float* sin,
                    const int64_t* positions, int inverse, evergrad_heads out) noexcept {
  if (tokens == 0 || heads * head_dim == 0) return EVERGRAD_OK;
  const KernelTable& t = kernels();
  parallel_rows(batch * tokens, heads * head_dim, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) {
      const i64 b = i / tokens, token = i % tokens;
      const i64 row = (positions ? positions[i] : token) * (dim / 2);
      t.rotary(heads, head_dim, dim, interleaved != 0, x.data + b * x.batch + token * x.token,
               x.head, cos + row, sin + row, inverse != 0,
               out.data + b * out.batch + token * out.token, out.head);
    }
  });
  return EVERGRAD_OK;
}
