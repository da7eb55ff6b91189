#include "bindings/common.h"

namespace evergrad {
namespace {

evergrad_linear_cross_entropy_args arguments(const Array& x, const Array& weight,
                                             const Optional& bias, const Array& target,
                                             int64_t ignore_index, double label_smoothing,
                                             double softcap) {
  return {x.shape(0),
          x.shape(1),
          weight.shape(0),
          data(x),
          data(weight),
          data(bias),
          indices(target),
          ignore_index,
          static_cast<float>(label_smoothing),
          static_cast<float>(softcap)};
}

std::pair<Array, Array> linear_cross_entropy(const Array& x, const Array& weight,
                                             const Optional& bias, const Array& target,
                                             int64_t ignore_index, double label_smoothing,
                                             double softcap) {
  const auto args = arguments(x, weight, bias, target, ignore_index, label_smoothing, softcap);
  Array losses = empty({args.rows}), lse = empty({args.rows});
  float *po = mutable_data(losses), *pl = mutable_data(lse);
  call([&] { return evergrad_linear_cross_entropy(&args, po, pl); });
  return {losses, lse};
}

// The gradients that are wanted.
struct Gradients {
  Optional dx, dweight, dbias;

  Gradients(const evergrad_linear_cross_entropy_args& args, const Optional& given_dx,
            const Optional& given_dweight, const Optional& given_dbias, bool need_dx,
            bool need_dweight, bool need_dbias)
      : dweight(wanted(need_dweight, given_dweight, {args.classes, args.in})),
        dbias(wanted(need_dbias, given_dbias, {args.classes})) {
    if (need_dx) dx = or_empty(given_dx, {args.rows, args.in});
  }
};

std::tuple<Optional, Optional, Optional> linear_cross_entropy_backward(
    const Array& drows, const Array& x, const Array& weight, const Optional& bias,
    const Array& target, const Array& lse, int64_t ignore_index, double label_smoothing,
    double softcap, const Optional& dx, const Optional& dweight, const Optional& dbias,
    bool need_dx, bool need_dweight, bool need_dbias) {
  const auto args = arguments(x, weight, bias, target, ignore_index, label_smoothing, softcap);
  Gradients g(args, dx, dweight, dbias, need_dx, need_dweight, need_dbias);
  const float *pd = data(drows), *pl = data(lse);
  float *px = mutable_data(g.dx), *pw = mutable_data(g.dweight), *pb = mutable_data(g.dbias);
  call([&] { return evergrad_linear_cross_entropy_backward(&args, pd, pl, px, pw, pb); });
  return {g.dx, g.dweight, g.dbias};
}

std::tuple<Array, Optional, Optional, Optional> linear_cross_entropy_with_grads(
    const Array& drows, const Array& x, const Array& weight, const Optional& bias,
    const Array& target, int64_t ignore_index, double label_smoothing, double softcap,
    const Optional& dx, const Optional& dweight, const Optional& dbias, bool need_dx,
    bool need_dweight, bool need_dbias) {
  const auto args = arguments(x, weight, bias, target, ignore_index, label_smoothing, softcap);
  Gradients g(args, dx, dweight, dbias, need_dx, need_dweight, need_dbias);
  Array losses = empty({args.rows});
  const float* pd = data(drows);
  float *po = mutable_data(losses), *px = mutable_data(g.dx), *pw = mutable_data(g.dweight),
        *pb = mutable_data(g.dbias);
  call([&] { return evergrad_linear_cross_entropy_with_grads(&args, pd, po, px, pw, pb); });
  return {losses, g.dx, g.dweight, g.dbias};
}

}  // namespace

void register_linear_cross_entropy(py::module_& m) {
  m.def("linear_cross_entropy", &linear_cross_entropy, py::arg("x"), py::arg("weight"),
        py::arg("bias").none(true), py::arg("target"), py::arg("ignore_index"),
        py::arg("label_smoothing"), py::arg("softcap"));
  m.def("linear_cross_entropy_backward", &linear_cross_entropy_backward, py::arg("drows"),
        py::arg("x"), py::arg("weight"), py::arg("bias").none(true), py::arg("target"),
        py::arg("lse"), py::arg("ignore_index"), py::arg("label_smoothing"), py::arg("softcap"),
        py::arg("dx").none(true), py::arg("dweight").none(true), py::arg("dbias").none(true),
        py::arg("need_dx"), py::arg("need_dweight"), py::arg("need_dbias"));
  m.def("linear_cross_entropy_with_grads", &linear_cross_entropy_with_grads, py::arg("drows"),
        py::arg("x"), py::arg("weight"), py::arg("bias").none(true), py::arg("target"),
        py::arg("ignore_index"), py::arg("label_smoothing"), py::arg("softcap"),
        py::arg("dx").none(true), py::arg("dweight").none(true), py::arg("dbias").none(true),
        py::arg("need_dx"), py::arg("need_dweight"), py::arg("need_dbias"));
}

}  // namespace evergrad
