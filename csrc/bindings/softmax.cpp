#include "bindings/common.h"

namespace evergrad {
namespace {

template <int (*f)(int64_t, int64_t, const float*, float*) noexcept>
Array forward(const Array& x, const Optional& out) {
  Array result = or_like(out, x);
  const float* px = data(x);
  float* po = mutable_data(result);
  const int64_t rows = x.shape(0), n = x.shape(1);
  call([&] { return f(rows, n, px, po); });
  return result;
}

template <int (*f)(int64_t, int64_t, const float*, const float*, float*) noexcept>
Array backward(const Array& dout, const Array& out, const Optional& dx) {
  Array result = or_like(dx, out);
  const float *pd = data(dout), *po = data(out);
  float* px = mutable_data(result);
  const int64_t rows = out.shape(0), n = out.shape(1);
  call([&] { return f(rows, n, pd, po, px); });
  return result;
}

template <int (*f)(int64_t, int64_t, const float*, float*) noexcept,
          int (*f_backward)(int64_t, int64_t, const float*, const float*, float*) noexcept>
void register_pair(py::module_& m, const char* name) {
  m.def(name, &forward<f>, py::arg("x"), py::arg("out").none(true));
  m.def((std::string(name) + "_backward").c_str(), &backward<f_backward>, py::arg("dout"),
        py::arg("out"), py::arg("dx").none(true));
}

}  // namespace

void register_softmax(py::module_& m) {
  register_pair<evergrad_softmax, evergrad_softmax_backward>(m, "softmax");
  register_pair<evergrad_log_softmax, evergrad_log_softmax_backward>(m, "log_softmax");
}

}  // namespace evergrad
