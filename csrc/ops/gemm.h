// The blocked matrix product that other drivers call.
#pragma once

#include "kernels/table.h"

namespace evergrad {

// A view with strides in floats: element (i, j) at data[i * row + j * col].
struct Matrix {
  const float* data;
  i64 row, col;
  Matrix transposed() const { return {data, col, row}; }
};

// C[m, n] (+)= A[m, k] B[k, n]; then the epilogue (may be null). C has contiguous rows. With
// `packed_b` B is not looked at: `pack` wrote it, on the ISA that runs.
int gemm(i64 m, i64 n, i64 k, Matrix a, Matrix b, float* c, i64 c_row, bool accumulate,
         const Epilogue* epilogue, const float* packed_b = nullptr) noexcept;

i64 packed_size(i64 n, i64 k) noexcept;  // floats
void pack(i64 n, i64 k, Matrix b, float* packed) noexcept;

}  // namespace evergrad
