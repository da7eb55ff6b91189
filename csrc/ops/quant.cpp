// Weights of few bits: decoding rows, and the linear layer on top of them.
//
// With one row of x, or a few, the product is made straight from the blocks; with many, decoding is
// part of packing (ops/gemm_packed.cpp).
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
  i64 few_rows;        // of x: more are worth packing, sooner where decoding takes longer
};

constexpr Layout layouts[] = {{1, 2, 24},  {1, 2, 24},  {32, 34, 24},  {32, 18, 24}, {32, 20, 24},
                              {32, 22, 8}, {32, 24, 8}, {256, 144, 3}, {256, 210, 3}};
constexpr int kinds = static_cast<int>(sizeof(layouts) / sizeof(layouts[0]));

bool is_known(int kind) { return kind >= 0 && kind < kinds; }

Quantized quantized(int kind, i64 columns, const uint8_t* data) {
  const Layout& l = layouts[kind];
  return {static_cast<QuantKind>(kind), l.numbers, l.bytes, data, columns / l.numbers * l.bytes};
}

constexpr i64 bytes_per_piece = 1 << 15;
// Less is read faster than another thread wakes.
constexpr i64 bytes_alone = 1 << 16;

// Whether dots of bytes are there, and take this: see kernels/quant_bytes.h.
bool suits_bytes(const KernelTable& t, QuantKind kind, i64 in) {
  constexpr i64 shortest = 128;
  return t.quant_dot_bytes && has_byte_dots() && in >= shortest &&
         (kind == QuantKind::q4_0 || kind == QuantKind::q4_1);
}

// One row, or another one that finds the weight's piece in L1.
int row_by_row(const Quantized& w, i64 rows, i64 in, i64 features, const float* x,
               const Epilogue* epilogue, float* out) {
  const KernelTable& t = kernels();
  const bool grouped = w.numbers > 1, bytes = suits_bytes(t, w.kind, in);
  const i64 size = bytes ? quant_records(in) : grouped ? quant_sums(in) + in : 1;
  const Buffer prepared(rows * size);
  if (!prepared) return EVERGRAD_NO_MEMORY;
  for (i64 i = 0; i < rows; ++i) {
    if (bytes)
      t.quant_prepare_bytes(w.kind, in, x + i * in, prepared.get() + i * size);
    else if (grouped)
      t.quant_prepare(w.kind, in, x + i * in, prepared.get() + i * size);
  }
  constexpr i64 line = 16;  // workers share no cache line of out
  const i64 total = features * w.row_bytes;
  const i64 grain = max_of(line, bytes_per_piece / max_of(1, w.row_bytes) / line * line);
  parallel_for(
      parts_of(features, grain),
      [&](i64 task) {
        const i64 j = task * grain, count = min_of(grain, features - j);
        const uint8_t* const from = w.data + j * w.row_bytes;
        for (i64 i = 0; i < rows; ++i) {
          const float* const of = prepared.get() + i * size;
          float* const to = out + i * features + j;
          if (bytes)
            t.quant_dot_bytes(w.kind, count, in, from, w.row_bytes, of, to);
          else
            t.quant_dot(w.kind, count, in, from, w.row_bytes, x + i * in, of, to);
        }
        finish(t, epilogue, 0, j, rows, count, out + j, features);
      },
      workers_if(total > bytes_alone));
  return EVERGRAD_OK;
}

// Of x, in L1 beside a row of the weight; and what a long row's pieces are whole multiples of.
constexpr i64 near_floats = 9216, longest_block = 256;

// Rows of x in nearly equal shares, as many as registers hold, and long ones piece by piece, so
// that they stay in L1: a piece of the weight comes from memory for the first, from L1 and L2 for
// the others.
void some_rows(const Quantized& w, i64 rows, i64 in, i64 features, const float* x,
               const Epilogue* epilogue, float* out) {
  const KernelTable& t = kernels();
  constexpr i64 line = 16;
  const i64 share = parts_of(rows, parts_of(rows, t.most_quant_dots));
  const i64 depth = near_floats / share / longest_block * longest_block;
  const i64 grain = max_of(line, bytes_per_piece / max_of(1, w.row_bytes) / line * line);
  parallel_ranges(features, grain, [&](i64 begin, i64 end) {
    for (i64 d = 0; d < in; d += depth)
      for (i64 i = 0; i < rows; i += share)
        t.quant_dots(w.kind, end - begin, min_of(depth, in - d), w.at(begin, d), w.row_bytes,
                     min_of(share, rows - i), x + i * in + d, in, out + i * features + begin,
                     features, d > 0);
    finish(t, epilogue, 0, begin, rows, end - begin, out + begin, features);
  });
}

}  // namespace

int64_t evergrad_quantized_bytes(int kind, int64_t columns) noexcept {
  if (!is_known(kind) || columns < 0 || columns % layouts[kind].numbers) return -1;
  return columns / layouts[kind].numbers * layouts[kind].bytes;
}

int evergrad_unpack(int kind, int64_t rows, int64_t columns, const uint8_t* data,
                    const int64_t* indices, float* out) noexcept {
  if (!is_known(kind)) return EVERGRAD_UNAVAILABLE;
  if (columns == 0) return EVERGRAD_OK;
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
  if (!is_known(kind)) return EVERGRAD_UNAVAILABLE;
  const Quantized w = quantized(kind, in, weight);
  const Overwritten kept(residual, out, rows * features);
  if (!kept) return EVERGRAD_NO_MEMORY;
  residual = kept.get();
  const Epilogue all{bias, static_cast<Activation>(activation), residual, features, pre, features};
  const bool plain = !bias && !residual && !pre && activation == EVERGRAD_ACTIVATION_NONE;
  const Epilogue* const epilogue = plain ? nullptr : &all;
  const i64 apart = suits_bytes(kernels(), w.kind, in) ? 2 : 1;
  if (rows > 0 && rows <= apart && in > 0)
    return row_by_row(w, rows, in, features, x, epilogue, out);
  if (rows > 0 && rows <= layouts[kind].few_rows && in > 0) {
    some_rows(w, rows, in, features, x, epilogue, out);
    return EVERGRAD_OK;
  }
  return gemm(rows, features, in, {x, in, 1}, {nullptr, 1, in}, out, features, false, epilogue,
              nullptr, &w);
}
