// Weights of few bits: decoding rows, and the linear layer on top of them.
//
// With one row of x, or a few, the product is made straight from the blocks; with more, rows of the
// weight are decoded into L1 and used for all rows of x; with many, decoding is part of packing
// (ops/gemm.cpp).
#include <cstring>

#include "evergrad/evergrad.h"
#include "ops/gemm.h"
#include "ops/sizes.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"
#include "runtime/pool.h"

using namespace evergrad;

namespace {

struct Layout {
  i64 numbers, bytes;  // of a block
};

constexpr Layout layouts[] = {{1, 2},   {1, 2},   {32, 34},   {32, 18},  {32, 20},
                              {32, 22}, {32, 24}, {256, 144}, {256, 210}};
constexpr int kinds = static_cast<int>(sizeof(layouts) / sizeof(layouts[0]));

Quantized quantized(int kind, i64 columns, const uint8_t* data) {
  const Layout& l = layouts[kind];
  return {static_cast<QuantKind>(kind), l.numbers, l.bytes, data, columns / l.numbers * l.bytes};
}

// So many rows of x share decoded rows of the weight; more are worth packing.
constexpr i64 few_rows = 24;
constexpr i64 rows_decoded = 4;
constexpr i64 bytes_per_piece = 1 << 15;
// Less is read faster than another thread wakes.
constexpr i64 bytes_alone = 1 << 16;

int one_row(const Quantized& w, i64 in, i64 features, const float* x, const Epilogue* epilogue,
            float* out) {
  const KernelTable& t = kernels();
  const bool grouped = w.numbers > 1;
  const Buffer sums(grouped ? in / 16 + 1 : 1);
  if (!sums) return EVERGRAD_NO_MEMORY;
  if (grouped) t.group_sums(in, x, sums.get());
  constexpr i64 line = 16;  // workers share no cache line of out
  const i64 total = features * w.row_bytes;
  const i64 grain = max_of(line, bytes_per_piece / max_of(1, w.row_bytes) / line * line);
  parallel_for(
      parts_of(features, grain),
      [&](i64 task) {
        const i64 j = task * grain, count = min_of(grain, features - j);
        t.quant_dot(w.kind, count, in, w.data + j * w.row_bytes, w.row_bytes, x, sums.get(),
                    out + j);
        finish(t, epilogue, 0, j, 1, count, out + j, features);
      },
      total > bytes_alone);
  return EVERGRAD_OK;
}

int some_rows(const Quantized& w, i64 rows, i64 in, i64 features, const float* x,
              const Epilogue* epilogue, float* out) {
  const KernelTable& t = kernels();
  constexpr i64 line = 16;
  const i64 grain = max_of(line, bytes_per_piece / max_of(1, w.row_bytes) / line * line);
  const bool at_once = rows <= t.most_quant_dots;
  const i64 workers = at_once ? 0 : min_of(evergrad_get_num_threads(), most_workers);
  const Buffer decoded(workers * rows_decoded * in + 1);
  if (!decoded) return EVERGRAD_NO_MEMORY;
  parallel_for(parts_of(features, grain), [&](i64 task, int worker) {
    const i64 begin = task * grain, end = min_of(begin + grain, features);
    float* const tile = decoded.get() + worker * rows_decoded * in;
    if (at_once)
      t.quant_dots(w.kind, end - begin, in, w.at(begin, 0), w.row_bytes, rows, x, in, out + begin,
                   features);
    for (i64 j = begin; !at_once && j < end; j += rows_decoded) {
      const i64 count = min_of(rows_decoded, end - j);
      for (i64 r = 0; r < count; ++r)
        t.unpack(w.kind, in, w.data + (j + r) * w.row_bytes, tile + r * in);
      t.gemm_dot(count, rows, in, tile, in, x, in, out + j, 1, features, false);
    }
    finish(t, epilogue, 0, begin, rows, end - begin, out + begin, features);
  });
  return EVERGRAD_OK;
}

}  // namespace

int64_t evergrad_quantized_bytes(int kind, int64_t columns) noexcept {
  if (kind < 0 || kind >= kinds || columns < 0 || columns % layouts[kind].numbers) return -1;
  return columns / layouts[kind].numbers * layouts[kind].bytes;
}

int evergrad_unpack(int kind, int64_t rows, int64_t columns, const uint8_t* data,
                    const int64_t* indices, float* out) noexcept {
  const KernelTable& t = kernels();
  const Quantized w = quantized(kind, columns, data);
  parallel_rows(rows, columns, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i)
      t.unpack(w.kind, columns, w.at(indices ? indices[i] : i, 0), out + i * columns);
  });
  return EVERGRAD_OK;
}

int evergrad_pack_bits(int kind, int64_t rows, int64_t columns, const float* x,
                       uint8_t* out) noexcept {
  if (kind < 0 || kind > EVERGRAD_Q4_1) return EVERGRAD_UNAVAILABLE;
  const KernelTable& t = kernels();
  const Quantized w = quantized(kind, columns, out);
  parallel_rows(rows, columns, [&](i64 begin, i64 end) {
    t.pack_bits(w.kind, (end - begin) * columns, x + begin * columns, out + begin * w.row_bytes);
  });
  return EVERGRAD_OK;
}

int evergrad_linear_quantized(int kind, int64_t rows, int64_t in, int64_t features, const float* x,
                              const uint8_t* weight, const float* bias, int activation,
                              const float* residual, float* pre, float* out) noexcept {
  const Quantized w = quantized(kind, in, weight);
  const Overwritten kept(residual, out, rows * features);
  if (!kept) return EVERGRAD_NO_MEMORY;
  residual = kept.get();
  const Epilogue all{bias, static_cast<Activation>(activation), residual, features, pre, features};
  const bool plain = !bias && !residual && !pre && activation == EVERGRAD_ACTIVATION_NONE;
  const Epilogue* const epilogue = plain ? nullptr : &all;
  if (rows == 1 && in > 0) return one_row(w, in, features, x, epilogue, out);
  if (rows > 0 && rows <= few_rows && in > 0)
    return some_rows(w, rows, in, features, x, epilogue, out);
  return gemm(rows, features, in, {x, in, 1}, {nullptr, 1, in}, out, features, false, epilogue,
              nullptr, &w);
}
