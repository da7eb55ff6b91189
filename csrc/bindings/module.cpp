#include "bindings/common.h"

PYBIND11_MODULE(_native, m) {
  m.doc() = "Native kernels of evergrad: arguments are checked by evergrad.ops, not here.";
  evergrad::register_runtime(m);
  evergrad::register_check(m);
  evergrad::register_strings(m);
  evergrad::register_gemm(m);
  evergrad::register_quant(m);
  evergrad::register_attention(m);
  evergrad::register_decoder(m);
  evergrad::register_softmax(m);
  evergrad::register_norm(m);
  evergrad::register_gated(m);
  evergrad::register_rotary(m);
  evergrad::register_activation(m);
  evergrad::register_embedding(m);
  evergrad::register_pooling(m);
  evergrad::register_loss(m);
  evergrad::register_linear_cross_entropy(m);
  evergrad::register_sampling(m);
  evergrad::register_position(m);
  evergrad::register_dropout(m);
  evergrad::register_optimizer(m);
}
