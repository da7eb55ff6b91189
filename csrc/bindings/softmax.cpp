#include "bindings/common.h"

namespace evergrad {
namespace {

Array softmax(const Array& x, const Optional& out) {
  Array result = or_like(out, x);
  const float* px = data(x);
  float* po = mutable_data(result);
  const int64_t rows = x.shape(0), n = x.shape(1);
  call([&] { return evergrad_softmax(rows, n, px, po); });
  return result;
}

Array softmax_backward(const Array& dout, const Array& out, const Optional& dx) {
  Array result = or_like(dx, out);
  const float *pd = data(dout), *po = data(out);
  float* px = mutable_data(result);
  const int64_t rows = out.shape(0), n = out.shape(1);
  call([&] { return evergrad_softmax_backward(rows, n, pd, po, px); });
  return result;
}

}  // namespace

void register_softmax(py::module_& m) {
  m.def("softmax", &softmax, py::arg("x"), py::arg("out").none(true));
  m.def("softmax_backward", &softmax_backward, py::arg("dout"), py::arg("out"),
        py::arg("dx").none(true));
}

}  // namespace evergrad
