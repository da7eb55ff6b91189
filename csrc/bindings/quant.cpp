#include "bindings/common.h"

namespace evergrad {

int kind_code(const std::string& name) {
  static const char* const names[] = {"f16",  "bf16", "q8_0", "q4_0", "q4_1",
                                      "q5_0", "q5_1", "q4_k", "q6_k"};
  for (int i = 0; i < 9; ++i)
    if (name == names[i]) return i;
  throw py::value_error("kind: unknown name '" + name + "'");
}

namespace {

const uint8_t* bytes(const Array& x) { return static_cast<const uint8_t*>(x.data()); }

// Rows of the whole weight, or those of `indices`.
Array unpack(const Array& weight, const std::string& kind, int64_t columns, const Optional& indices,
             const Optional& out) {
  const int64_t rows = indices ? indices->shape(0) : weight.shape(0);
  Array result = or_empty(out, {rows, columns});
  const int code = kind_code(kind);
  const uint8_t* pw = bytes(weight);
  const int64_t* pi = indices ? evergrad::indices(*indices) : nullptr;
  float* po = mutable_data(result);
  call([&] { return evergrad_unpack(code, rows, columns, pw, pi, po); });
  return result;
}

Array pack_bits(const Array& weight, const std::string& kind) {
  const int64_t rows = weight.shape(0), columns = weight.shape(1);
  const int code = kind_code(kind);
  py::array_t<uint8_t> result({rows, evergrad_quantized_bytes(code, columns)});
  const float* px = data(weight);
  uint8_t* po = result.mutable_data();
  call([&] { return evergrad_pack_bits(code, rows, columns, px, po); });
  return result;
}

std::pair<Array, Optional> linear_quantized(const Array& x, const Array& weight,
                                            const std::string& kind, const Optional& bias,
                                            const std::optional<std::string>& activation,
                                            const Optional& residual, bool return_pre,
                                            const Optional& out) {
  const int64_t rows = x.shape(0), in = x.shape(1), features = weight.shape(0);
  const int code = kind_code(kind), act = activation_code(activation);
  Array result = or_empty(out, {rows, features});
  Optional pre;
  if (return_pre) pre = empty({rows, features});
  const float *px = data(x), *pb = data(bias), *pr = data(residual);
  const uint8_t* pw = bytes(weight);
  float *pp = mutable_data(pre), *po = mutable_data(result);
  call([&] {
    return evergrad_linear_quantized(code, rows, in, features, px, pw, pb, act, pr, pp, po);
  });
  return {result, pre};
}

}  // namespace

void register_quant(py::module_& m) {
  m.def("unpack", &unpack, py::arg("weight"), py::arg("kind"), py::arg("columns"),
        py::arg("indices").none(true), py::arg("out").none(true));
  m.def("pack_bits", &pack_bits, py::arg("weight"), py::arg("kind"));
  m.def("linear_quantized", &linear_quantized, py::arg("x"), py::arg("weight"), py::arg("kind"),
        py::arg("bias").none(true), py::arg("activation").none(true),
        py::arg("residual").none(true), py::arg("return_pre"), py::arg("out").none(true));
}

}  // namespace evergrad
