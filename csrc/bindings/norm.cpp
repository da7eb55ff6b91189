#include "bindings/common.h"

namespace evergrad {
namespace {

// What is normalised: x + residual in an array of its own, or x as it is.
Optional total_of(const Array& x, const Optional& residual, const Optional& total) {
  if (!residual) return std::nullopt;
  return or_like(total, x);
}

std::tuple<Array, Optional, Array, Array> layer_norm(const Array& x, const Optional& residual,
                                                     const Optional& weight, const Optional& bias,
                                                     double eps, const Optional& total,
                                                     const Optional& out) {
  const int64_t rows = x.shape(0), n = x.shape(1);
  Optional sum = total_of(x, residual, total);
  Array result = or_like(out, x), mean = empty({rows}), rstd = empty({rows});
  const float *px = data(x), *ps = data(residual), *pw = data(weight), *pb = data(bias);
  float *pt = mutable_data(sum), *po = mutable_data(result), *pm = mutable_data(mean),
        *pr = mutable_data(rstd);
  call([&] {
    return evergrad_layer_norm(rows, n, px, ps, pw, pb, static_cast<float>(eps), pt, po, pm, pr);
  });
  return {result, sum, mean, rstd};
}

std::tuple<Array, Optional, Array> rms_norm(const Array& x, const Optional& residual,
                                            const Optional& weight, double eps,
                                            const Optional& total, const Optional& out) {
  const int64_t rows = x.shape(0), n = x.shape(1);
  Optional sum = total_of(x, residual, total);
  Array result = or_like(out, x), rstd = empty({rows});
  const float *px = data(x), *ps = data(residual), *pw = data(weight);
  float *pt = mutable_data(sum), *po = mutable_data(result), *pr = mutable_data(rstd);
  call([&] { return evergrad_rms_norm(rows, n, px, ps, pw, static_cast<float>(eps), pt, po, pr); });
  return {result, sum, rstd};
}

std::tuple<Optional, Optional, Optional> layer_norm_backward(
    const Array& dout, const Array& x, const Array& mean, const Array& rstd, const Optional& weight,
    const Optional& dresidual, const Optional& dx, const Optional& dweight, const Optional& dbias,
    bool need_dx, bool need_dweight, bool need_dbias) {
  const int64_t rows = x.shape(0), n = x.shape(1);
  Optional gx, gw = wanted(need_dweight, dweight, {n}), gb = wanted(need_dbias, dbias, {n});
  if (need_dx) gx = or_like(dx, x);
  const float *pd = data(dout), *px = data(x), *pm = data(mean), *pr = data(rstd),
              *pw = data(weight), *ps = data(dresidual);
  float *pgx = mutable_data(gx), *pgw = mutable_data(gw), *pgb = mutable_data(gb);
  call(
      [&] { return evergrad_layer_norm_backward(rows, n, pd, px, pm, pr, pw, ps, pgx, pgw, pgb); });
  return {gx, gw, gb};
}

std::tuple<Optional, Optional> rms_norm_backward(const Array& dout, const Array& x,
                                                 const Array& rstd, const Optional& weight,
                                                 const Optional& dresidual, const Optional& dx,
                                                 const Optional& dweight, bool need_dx,
                                                 bool need_dweight) {
  const int64_t rows = x.shape(0), n = x.shape(1);
  Optional gx, gw = wanted(need_dweight, dweight, {n});
  if (need_dx) gx = or_like(dx, x);
  const float *pd = data(dout), *px = data(x), *pr = data(rstd), *pw = data(weight),
              *ps = data(dresidual);
  float *pgx = mutable_data(gx), *pgw = mutable_data(gw);
  call([&] { return evergrad_rms_norm_backward(rows, n, pd, px, pr, pw, ps, pgx, pgw); });
  return {gx, gw};
}

}  // namespace

void register_norm(py::module_& m) {
  m.def("layer_norm", &layer_norm, py::arg("x"), py::arg("residual").none(true),
        py::arg("weight").none(true), py::arg("bias").none(true), py::arg("eps"),
        py::arg("total").none(true), py::arg("out").none(true));
  m.def("rms_norm", &rms_norm, py::arg("x"), py::arg("residual").none(true),
        py::arg("weight").none(true), py::arg("eps"), py::arg("total").none(true),
        py::arg("out").none(true));
  m.def("rms_norm_backward", &rms_norm_backward, py::arg("dout"), py::arg("x"), py::arg("rstd"),
        py::arg("weight").none(true), py::arg("dresidual").none(true), py::arg("dx").none(true),
        py::arg("dweight").none(true), py::arg("need_dx"), py::arg("need_dweight"));
  m.def("layer_norm_backward", &layer_norm_backward, py::arg("dout"), py::arg("x"), py::arg("mean"),
        py::arg("rstd"), py::arg("weight").none(true), py::arg("dresidual").none(true),
        py::arg("dx").none(true), py::arg("dweight").none(true), py::arg("dbias").none(true),
        py::arg("need_dx"), py::arg("need_dweight"), py::arg("need_dbias"));
}

}  // namespace evergrad
