// Gated activations (Shazeer 2020): act(gate) * up, and both gradients in one pass.
#pragma once

#include "kernels/activation.h"

namespace evergrad {
namespace {

template <Activation kind>
void gated_rows(i64 rows, i64 n, const float* gate, i64 gate_stride, const float* up, i64 up_stride,
                float* out) {
  for (i64 i = 0; i < rows; ++i, gate += gate_stride, up += up_stride, out += n)
    map(n, out, [=](i64 j, auto m) { return activate<kind>(load(gate + j, m)) * load(up + j, m); });
}

// dgate = dout * up * act'(gate), dup = dout * act(gate); either may be an input's own memory.
template <Activation kind>
void gated_backward_rows(i64 rows, i64 n, const float* dout, const float* gate, i64 gate_stride,
                         const float* up, i64 up_stride, float* dgate, i64 dgate_stride, float* dup,
                         i64 dup_stride) {
  for (i64 i = 0; i < rows; ++i) {
    map(n, dgate, [=](i64 j, auto m) {
      const Vec d = load(dout + j, m), u = load(up + j, m);
      const Slope g = with_slope<kind>(load(gate + j, m));
      store(dup + j, d * g.value, m);
      return d * u * g.slope;
    });
    dout += n, gate += gate_stride, up += up_stride, dgate += dgate_stride, dup += dup_stride;
  }
}

void gated(Activation kind, i64 rows, i64 n, const float* gate, i64 gate_stride, const float* up,
           i64 up_stride, float* out) {
  const auto run = [=](auto f) { f(rows, n, gate, gate_stride, up, up_stride, out); };
  switch (kind) {
    case Activation::gelu: return run(gated_rows<Activation::gelu>);
    case Activation::gelu_tanh: return run(gated_rows<Activation::gelu_tanh>);
    default: return run(gated_rows<Activation::silu>);
  }
}

void gated_backward(Activation kind, i64 rows, i64 n, const float* dout, const float* gate,
                    i64 gate_stride, const float* up, i64 up_stride, float* dgate, i64 dgate_stride,
                    float* dup, i64 dup_stride) {
  const auto run = [=](auto f) {
    f(rows, n, dout, gate, gate_stride, up, up_stride, dgate, dgate_stride, dup, dup_stride);
  };
  switch (kind) {
    case Activation::gelu: return run(gated_backward_rows<Activation::gelu>);
    case Activation::gelu_tanh: return run(gated_backward_rows<Activation::gelu_tanh>);
    default: return run(gated_backward_rows<Activation::silu>);
  }
}

}  // namespace
}  // namespace evergrad
