#include "bindings/common.h"

namespace evergrad {
namespace {

int mode_code(const std::string& mode) {
  if (mode == "mean") return EVERGRAD_POOL_MEAN;
  if (mode == "cls") return EVERGRAD_POOL_CLS;
  throw py::value_error("mode: unknown name '" + mode + "'");
}

Array pool(const Array& x, const Array& cu_seqlens, const std::string& mode, const Optional& out) {
  const int64_t sequences = cu_seqlens.shape(0) - 1, n = x.shape(1);
  const int code = mode_code(mode);
  Array result = or_empty(out, {sequences, n});
  const float* px = data(x);
  const int64_t* pc = indices(cu_seqlens);
  float* po = mutable_data(result);
  call([&] { return evergrad_pool(code, sequences, n, pc, px, po); });
  return result;
}

Array pool_backward(const Array& dout, const Array& cu_seqlens, const std::string& mode,
                    const Optional& dx) {
  const int64_t sequences = cu_seqlens.shape(0) - 1, n = dout.shape(1);
  const int code = mode_code(mode);
  const int64_t* pc = indices(cu_seqlens);
  Array result = or_empty(dx, {pc[sequences], n});
  const float* pd = data(dout);
  float* px = mutable_data(result);
  call([&] { return evergrad_pool_backward(code, sequences, n, pc, pd, px); });
  return result;
}

}  // namespace

void register_pooling(py::module_& m) {
  m.def("pool", &pool, py::arg("x"), py::arg("cu_seqlens"), py::arg("mode"),
        py::arg("out").none(true));
  m.def("pool_backward", &pool_backward, py::arg("dout"), py::arg("cu_seqlens"), py::arg("mode"),
        py::arg("dx").none(true));
}

}  // namespace evergrad
