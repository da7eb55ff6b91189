#include "bindings/common.h"

namespace evergrad {

int activation_code(const std::optional<std::string>& name) {
  if (!name) return EVERGRAD_ACTIVATION_NONE;
  if (*name == "relu") return EVERGRAD_ACTIVATION_RELU;
  if (*name == "sigmoid") return EVERGRAD_ACTIVATION_SIGMOID;
  if (*name == "tanh") return EVERGRAD_ACTIVATION_TANH;
  if (*name == "gelu") return EVERGRAD_ACTIVATION_GELU;
  if (*name == "gelu_tanh") return EVERGRAD_ACTIVATION_GELU_TANH;
  if (*name == "silu") return EVERGRAD_ACTIVATION_SILU;
  throw py::value_error("activation: unknown name '" + *name + "'");
}

namespace {

int64_t stride(const Array& x, py::ssize_t axis) {
  return x.strides(axis) / static_cast<py::ssize_t>(sizeof(float));
}

// a [..., m, k], b [..., k, n] or [k, n]. Leading dimensions are taken as one batch when they are
// evenly spaced, else the product is made for each leading index on its own.
Array matmul(const Array& a, const Array& b, const Optional& out) {
  const py::ssize_t rank = a.ndim();
  const int64_t m = a.shape(rank - 2), k = a.shape(rank - 1), n = b.shape(b.ndim() - 1);
  Shape shape = shape_of(a);
  shape[static_cast<std::size_t>(rank - 1)] = n;
  Array c = or_empty(out, shape);
  int64_t batch = 1;
  for (py::ssize_t i = 0; i < rank - 2; ++i) batch *= a.shape(i);
  if (batch == 0) return c;

  // Offsets of every leading index, in floats.
  std::vector<int64_t> a_offset(static_cast<std::size_t>(batch)),
      b_offset(static_cast<std::size_t>(batch));
  for (int64_t i = 0; i < batch; ++i) {
    int64_t rest = i;
    for (py::ssize_t axis = rank - 3; axis >= 0; --axis) {
      const int64_t index = rest % a.shape(axis);
      rest /= a.shape(axis);
      a_offset[static_cast<std::size_t>(i)] += index * stride(a, axis);
      if (b.ndim() > 2) b_offset[static_cast<std::size_t>(i)] += index * stride(b, axis);
    }
  }
  auto step = [&](const std::vector<int64_t>& offsets) { return batch > 1 ? offsets[1] : 0; };
  bool even = true;
  for (std::size_t i = 0; i < a_offset.size(); ++i)
    even = even && a_offset[i] == static_cast<int64_t>(i) * step(a_offset) &&
           b_offset[i] == static_cast<int64_t>(i) * step(b_offset);

  const float *pa = data(a), *pb = data(b);
  float* pc = mutable_data(c);
  const int64_t a_row = stride(a, rank - 2), a_col = stride(a, rank - 1);
  const int64_t b_row = stride(b, b.ndim() - 2), b_col = stride(b, b.ndim() - 1);
  call([&] {
    if (even)
      return evergrad_matmul(batch, m, n, k, pa, step(a_offset), a_row, a_col, pb, step(b_offset),
                             b_row, b_col, pc, m * n, n, 0);
    int status = EVERGRAD_OK;
    for (std::size_t i = 0; i < a_offset.size(); ++i)
      status |= evergrad_matmul(1, m, n, k, pa + a_offset[i], 0, a_row, a_col, pb + b_offset[i], 0,
                                b_row, b_col, pc + static_cast<int64_t>(i) * m * n, 0, n, 0);
    return status;
  });
  return c;
}

std::pair<Array, Optional> linear(const Array& x, const Array& weight, const Optional& bias,
                                  const std::optional<std::string>& activation,
                                  const Optional& residual, bool return_pre, const Optional& out) {
  const int64_t rows = x.shape(0), in = x.shape(1), features = weight.shape(0);
  const int code = activation_code(activation);
  Array result = or_empty(out, {rows, features});
  Optional pre;
  if (return_pre) pre = empty({rows, features});
  const float *px = data(x), *pw = data(weight), *pb = data(bias), *pr = data(residual);
  float *pp = mutable_data(pre), *po = mutable_data(result);
  call([&] { return evergrad_linear(rows, in, features, px, pw, pb, code, pr, pp, po); });
  return {result, pre};
}

Array pack_weight(const Array& weight) {
  const int64_t features = weight.shape(0), in = weight.shape(1);
  Array packed = empty({evergrad_packed_size(in, features)});
  const float* pw = data(weight);
  float* pp = mutable_data(packed);
  call([&] { return evergrad_pack_weight(in, features, pw, pp); });
  return packed;
}

std::pair<Array, Optional> linear_packed(const Array& x, const Array& packed, int64_t out_features,
                                         const Optional& bias,
                                         const std::optional<std::string>& activation,
                                         const Optional& residual, bool return_pre,
                                         const Optional& out) {
  const int64_t rows = x.shape(0), in = x.shape(1);
  const int code = activation_code(activation);
  Array result = or_empty(out, {rows, out_features});
  Optional pre;
  if (return_pre) pre = empty({rows, out_features});
  const float *px = data(x), *pw = data(packed), *pb = data(bias), *pr = data(residual);
  float *pp = mutable_data(pre), *po = mutable_data(result);
  call(
      [&] { return evergrad_linear_packed(rows, in, out_features, px, pw, pb, code, pr, pp, po); });
  return {result, pre};
}

std::tuple<Optional, Optional, Optional> linear_backward(
    const Array& dout, const Array& x, const Array& weight,
    const std::optional<std::string>& activation, const Optional& saved, const Optional& dx,
    const Optional& dweight, const Optional& dbias, bool need_dx, bool need_dweight,
    bool need_dbias) {
  const int64_t rows = x.shape(0), in = x.shape(1), features = weight.shape(0);
  const int code = activation_code(activation);
  Optional gx, gw = wanted(need_dweight, dweight, {features, in}),
               gb = wanted(need_dbias, dbias, {features});
  if (need_dx) gx = or_empty(dx, {rows, in});
  const float *pd = data(dout), *px = data(x), *pw = data(weight), *ps = data(saved);
  float *pgx = mutable_data(gx), *pgw = mutable_data(gw), *pgb = mutable_data(gb);
  call([&] {
    return evergrad_linear_backward(rows, in, features, pd, px, pw, code, ps, pgx, pgw, pgb);
  });
  return {gx, gw, gb};
}

}  // namespace

void register_gemm(py::module_& m) {
  m.def("matmul", &matmul, py::arg("a"), py::arg("b"), py::arg("out").none(true));
  m.def("linear", &linear, py::arg("x"), py::arg("weight"), py::arg("bias").none(true),
        py::arg("activation").none(true), py::arg("residual").none(true), py::arg("return_pre"),
        py::arg("out").none(true));
  m.def("pack_weight", &pack_weight, py::arg("weight"));
  m.def("linear_packed", &linear_packed, py::arg("x"), py::arg("packed"), py::arg("out_features"),
        py::arg("bias").none(true), py::arg("activation").none(true),
        py::arg("residual").none(true), py::arg("return_pre"), py::arg("out").none(true));
  m.def("linear_backward", &linear_backward, py::arg("dout"), py::arg("x"), py::arg("weight"),
        py::arg("activation").none(true), py::arg("saved").none(true), py::arg("dx").none(true),
        py::arg("dweight").none(true), py::arg("dbias").none(true), py::arg("need_dx"),
        py::arg("need_dweight"), py::arg("need_dbias"));
}

}  // namespace evergrad
