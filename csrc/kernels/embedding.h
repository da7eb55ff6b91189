// Adding rows: the heart of an embedding's gather (accumulating) and of its gradient's scatter.
#pragma once

#include "kernels/activation.h"

namespace evergrad {
namespace {

void add_rows(i64 n, const float* x, float* out) {
  map(n, out, [=](i64 i, Mask m) { return load(out + i, m) + load(x + i, m); });
}

}  // namespace
}  // namespace evergrad
