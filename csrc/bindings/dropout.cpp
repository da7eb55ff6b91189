#include "bindings/common.h"

namespace evergrad {
namespace {

Array dropout(const Array& x, double p, uint64_t seed, uint64_t offset, const Optional& out) {
  Array result = or_like(out, x);
  const float* px = data(x);
  float* po = mutable_data(result);
  const int64_t n = x.size();
  call([&] { return evergrad_dropout(n, px, p, seed, offset, po); });
  return result;
}

}  // namespace

void register_dropout(py::module_& m) {
  m.def("dropout", &dropout, py::arg("x"), py::arg("p"), py::arg("seed"), py::arg("offset"),
        py::arg("out").none(true));
  m.def("dropout_backward", &dropout, py::arg("dout"), py::arg("p"), py::arg("seed"),
        py::arg("offset"), py::arg("dx").none(true));
}

}  // namespace evergrad
