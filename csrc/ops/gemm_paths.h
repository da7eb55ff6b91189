// A product, and the paths that it may take. Each has one question: whether it suits.
#pragma once

#include "ops/gemm.h"
#include "ops/sizes.h"

namespace evergrad {

struct Product {
  const KernelTable& table;
  i64 m, n, k;
  Matrix a, b;
  const float* packed_b;         // instead of b, or null
  const Quantized* quantized_b;  // instead of b, or null
  float* c;
  i64 c_row;
  bool accumulate;
  const Epilogue* epilogue;  // or null

  // Whether B is there to be read as it lies, and anything to be read of it.
  bool plain() const { return !packed_b && !quantized_b && k > 0; }
};

// Every element of C is a sum over blocks of depth. Only their cut shows in its bits, and that
// depends on the depth alone: at most so much, since panels of A and B stream through L1.
constexpr i64 depth_block = 512;
inline i64 depth_of_blocks(i64 k) { return parts_of(k, max_of(1, parts_of(k, depth_block))); }

// A product much deeper than wide is computed in two halves of its depth.
bool is_deep(const Product& p);

bool suits_dots(const Product& p);
int dots(const Product& p);
bool suits_sweeps(const Product& p);
int sweeps(const Product& p);
bool suits_unpacked(const Product& p, i64 threads);
int unpacked(const Product& p, i64 threads);
bool suits_turned(const Product& p, i64 threads);
int turned(const Product& p, i64 threads);
int packed(const Product& p, i64 threads);  // suits all

}  // namespace evergrad
