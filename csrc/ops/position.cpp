// Buckets of relative positions (Raffel et al. 2020): a matrix whose diagonals are constant, so
// every row is a window of one short table.
#include <algorithm>
#include <cstring>

#include "evergrad/evergrad.h"
#include "runtime/parallel.h"
#include "runtime/pool.h"

using namespace evergrad;

int evergrad_relative_position_buckets(int64_t count, const int64_t* limits, int64_t tokens_q,
                                       int64_t tokens_k, int bidirectional, int64_t* out) noexcept {
  if (tokens_q == 0 || tokens_k == 0) return EVERGRAD_OK;
  const Buffer memory((tokens_q + tokens_k) * static_cast<i64>(sizeof(i64) / sizeof(float)));
  if (!memory) return EVERGRAD_NO_MEMORY;
  i64* const table = reinterpret_cast<i64*>(memory.get());
  for (i64 delta = 1 - tokens_k; delta < tokens_q; ++delta) {  // key position - query position
    const i64 distance = delta <= 0 ? -delta : bidirectional ? delta : 0;
    const i64 bucket = std::upper_bound(limits, limits + count, distance) - limits;
    table[delta + tokens_k - 1] = bucket + (bidirectional && delta > 0 ? count + 1 : 0);
  }
  parallel_rows(tokens_q, tokens_k, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i)
      std::memcpy(out + i * tokens_k, table + tokens_q - 1 - i,
                  static_cast<std::size_t>(tokens_k) * sizeof(i64));
  });
  return EVERGRAD_OK;
}
