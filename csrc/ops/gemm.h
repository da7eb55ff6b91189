// The matrix product that other drivers call.
#pragma once

#include <cstring>

#include "kernels/table.h"
#include "runtime/pool.h"

namespace evergrad {

// A view with strides in floats: element (i, j) at data[i * row + j * col].
struct Matrix {
  const float* data;
  i64 row, col;
  Matrix transposed() const { return {data, col, row}; }
};

// A weight [features, in] in blocks of few bits (kernels/quant.h), rows one after the other.
struct Quantized {
  QuantKind kind;
  i64 numbers, block_bytes;  // of a block
  const uint8_t* data;
  i64 row_bytes;
  const uint8_t* at(i64 row, i64 d) const {
    return data + row * row_bytes + d / numbers * block_bytes;
  }
};

// C[m, n] (+)= A[m, k] B[k, n]; then the epilogue (may be null). C has contiguous rows. With
// `packed_b` B is not looked at: `pack` wrote it, on the ISA that runs. Nor is it with
// `quantized_b`, whose rows are the columns of B.
int gemm(i64 m, i64 n, i64 k, Matrix a, Matrix b, float* c, i64 c_row, bool accumulate,
         const Epilogue* epilogue, const float* packed_b = nullptr,
         const Quantized* quantized_b = nullptr) noexcept;

// The epilogue of rows [i, i + height) and columns [j, j + length); nothing where it is null.
void finish(const KernelTable& t, const Epilogue* epilogue, i64 i, i64 j, i64 height, i64 length,
            float* out, i64 c_row);

// A residual that is `out` itself: a product goes through `out` before the epilogue reads it, so it
// is copied.
class Overwritten {
 public:
  Overwritten(const float* residual, const float* out, i64 floats)
      : given_(residual), copied_(residual && residual == out), copy_(copied_ ? floats + 1 : 1) {
    if (copied_ && copy_)
      std::memcpy(copy_.get(), residual, static_cast<std::size_t>(floats) * sizeof(float));
  }
  const float* get() const { return copied_ ? copy_.get() : given_; }
  explicit operator bool() const { return static_cast<bool>(copy_); }

 private:
  const float* given_;
  bool copied_;
  Buffer copy_;
};

i64 packed_size(i64 n, i64 k) noexcept;  // floats
void pack(i64 n, i64 k, Matrix b, float* packed) noexcept;

}  // namespace evergrad
