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

// The bits of C follow from the path and the shape, never from the threads. Where B is packed, or
// read in tiles, an element is a sum over blocks of depth, equal ones: at most so much each, since
// panels of A and B stream through L1; of each half of the depth, and in whole units.
constexpr i64 depth_block = 512;
inline i64 depth_of_blocks(i64 k, i64 halves = 1, i64 unit = 1) {
  const i64 half = parts_of(k, halves), blocks = max_of(1, parts_of(half, depth_block));
  return round_up(parts_of(half, blocks), unit);
}

// A product much deeper than wide is computed in two halves of its depth.
bool is_deep(const Product& p);

bool suits_dots(const Product& p);
int dots(const Product& p);
bool suits_sweeps(const Product& p);
int sweeps(const Product& p);
bool suits_unpacked(const Product& p, i64 threads);
int unpacked(const Product& p, i64 threads);
bool suits_turned(const Product& p);
int turned(const Product& p, i64 threads);
int packed(const Product& p, i64 threads);  // suits all

}  // namespace evergrad
