#include "bindings/common.h"

namespace evergrad {
namespace {

int gate_kind(const std::string& name) {
  return name == "silu"        ? EVERGRAD_ACTIVATION_SILU
         : name == "gelu_tanh" ? EVERGRAD_ACTIVATION_GELU_TANH
                               : EVERGRAD_ACTIVATION_GELU;
}

int64_t row_stride(const Array& x) {
  return x.strides(0) / static_cast<py::ssize_t>(sizeof(float));
}

// gate, up, dgate and dup [rows, n] with any stride from row to row.
Array gated(const Array& gate, const Array& up, const std::string& activation,
            const Optional& out) {
  const int kind = gate_kind(activation);
  Array result = or_like(out, gate);
  const int64_t rows = gate.shape(0), n = gate.shape(1);
  const int64_t gate_stride = row_stride(gate), up_stride = row_stride(up);
  const float *pg = data(gate), *pu = data(up);
  float* po = mutable_data(result);
  call([&] { return evergrad_gated(kind, rows, n, pg, gate_stride, pu, up_stride, po); });
  return result;
}

std::pair<Array, Array> gated_backward(const Array& dout, const Array& gate, const Array& up,
                                       const std::string& activation, const Optional& dgate,
                                       const Optional& dup) {
  const int kind = gate_kind(activation);
  Array dg = or_like(dgate, gate), du = or_like(dup, gate);
  const int64_t rows = gate.shape(0), n = gate.shape(1);
  const int64_t gate_stride = row_stride(gate), up_stride = row_stride(up),
                dgate_stride = row_stride(dg), dup_stride = row_stride(du);
  const float *pd = data(dout), *pg = data(gate), *pu = data(up);
  float *pdg = mutable_data(dg), *pdu = mutable_data(du);
  call([&] {
    return evergrad_gated_backward(kind, rows, n, pd, pg, gate_stride, pu, up_stride, pdg,
                                   dgate_stride, pdu, dup_stride);
  });
  return {dg, du};
}

}  // namespace

void register_gated(py::module_& m) {
  m.def("gated", &gated, py::arg("gate"), py::arg("up"), py::arg("activation"),
        py::arg("out").none(true));
  m.def("gated_backward", &gated_backward, py::arg("dout"), py::arg("gate"), py::arg("up"),
        py::arg("activation"), py::arg("dgate").none(true), py::arg("dup").none(true));
}

}  // namespace evergrad
