#include "bindings/common.h"

namespace evergrad {
namespace {

Array forward(int kind, const Array& x, const Optional& out) {
  Array result = or_like(out, x);
  const float* px = data(x);
  float* po = mutable_data(result);
  const int64_t n = x.size();
  call([&] { return evergrad_activation(kind, n, px, po); });
  return result;
}

Array backward(int kind, const Array& dout, const Array& saved, const Optional& dx) {
  Array result = or_like(dx, saved);
  const float *pd = data(dout), *ps = data(saved);
  float* px = mutable_data(result);
  const int64_t n = saved.size();
  call([&] { return evergrad_activation_backward(kind, n, pd, ps, px); });
  return result;
}

int gelu_kind(const std::string& approximate) {
  return approximate == "tanh" ? EVERGRAD_ACTIVATION_GELU_TANH : EVERGRAD_ACTIVATION_GELU;
}

template <int kind>
void register_pair(py::module_& m, const char* name) {
  m.def(
      name, [](const Array& x, const Optional& out) { return forward(kind, x, out); }, py::arg("x"),
      py::arg("out").none(true));
  m.def((std::string(name) + "_backward").c_str(),
        [](const Array& dout, const Array& saved, const Optional& dx) {
          return backward(kind, dout, saved, dx);
        },
        py::arg("dout"), py::arg("saved"), py::arg("dx").none(true));
}

}  // namespace

void register_activation(py::module_& m) {
  register_pair<EVERGRAD_ACTIVATION_RELU>(m, "relu");
  register_pair<EVERGRAD_ACTIVATION_SIGMOID>(m, "sigmoid");
  register_pair<EVERGRAD_ACTIVATION_TANH>(m, "tanh");
  register_pair<EVERGRAD_ACTIVATION_SILU>(m, "silu");
  m.def(
      "gelu",
      [](const Array& x, const std::string& approximate, const Optional& out) {
        return forward(gelu_kind(approximate), x, out);
      },
      py::arg("x"), py::arg("approximate"), py::arg("out").none(true));
  m.def(
      "gelu_backward",
      [](const Array& dout, const Array& x, const std::string& approximate, const Optional& dx) {
        return backward(gelu_kind(approximate), dout, x, dx);
      },
      py::arg("dout"), py::arg("x"), py::arg("approximate"), py::arg("dx").none(true));
}

}  // namespace evergrad
