#include "bindings/common.h"

namespace evergrad {
namespace {

// Rows lie along the last axis of any number.
std::pair<int64_t, int64_t> rows_of(const Array& x) {
  const int64_t n = x.shape(x.ndim() - 1);
  return {n ? x.size() / n : 0, n};
}

template <int (*f)(int64_t, int64_t, const float*, float*) noexcept>
Array forward(const Array& x, const Optional& out) {
  Array result = or_like(out, x);
  const float* px = data(x);
  float* po = mutable_data(result);
  const auto [rows, n] = rows_of(x);
  call([&, rows = rows, n = n] { return f(rows, n, px, po); });
  return result;
}

template <int (*f)(int64_t, int64_t, const float*, const float*, float*) noexcept>
Array backward(const Array& dout, const Array& out, const Optional& dx) {
  Array result = or_like(dx, out);
  const float *pd = data(dout), *po = data(out);
  float* px = mutable_data(result);
  const auto [rows, n] = rows_of(out);
  call([&, rows = rows, n = n] { return f(rows, n, pd, po, px); });
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
