#include "bindings/common.h"

namespace evergrad {
namespace {

std::pair<Array, Array> cross_entropy(const Array& logits, const Array& target,
                                      int64_t ignore_index, double label_smoothing) {
  const int64_t rows = logits.shape(0), classes = logits.shape(1);
  Array losses = empty({rows}), lse = empty({rows});
  const float* pz = data(logits);
  const int64_t* pt = indices(target);
  float *po = mutable_data(losses), *pl = mutable_data(lse);
  call([&] {
    return evergrad_cross_entropy(rows, classes, pz, pt, ignore_index,
                                  static_cast<float>(label_smoothing), po, pl);
  });
  return {losses, lse};
}

Array cross_entropy_backward(const Array& drows, const Array& logits, const Array& target,
                             const Array& lse, int64_t ignore_index, double label_smoothing,
                             const Optional& dlogits) {
  const int64_t rows = logits.shape(0), classes = logits.shape(1);
  Array result = or_like(dlogits, logits);
  const float *pd = data(drows), *pz = data(logits), *pl = data(lse);
  const int64_t* pt = indices(target);
  float* pg = mutable_data(result);
  call([&] {
    return evergrad_cross_entropy_backward(rows, classes, pd, pz, pt, pl, ignore_index,
                                           static_cast<float>(label_smoothing), pg);
  });
  return result;
}

template <int (*f)(int64_t, const float*, const float*, float*) noexcept>
Array pair_loss(const Array& x, const Array& target, const Optional& out) {
  Array result = or_like(out, x);
  const float *px = data(x), *pt = data(target);
  float* po = mutable_data(result);
  const int64_t n = x.size();
  call([&] { return f(n, px, pt, po); });
  return result;
}

template <int (*f)(int64_t, const float*, const float*, double*) noexcept>
double pair_loss_sum(const Array& x, const Array& target) {
  const float *px = data(x), *pt = data(target);
  const int64_t n = x.size();
  double sum = 0;
  call([&] { return f(n, px, pt, &sum); });
  return sum;
}

// A cotangent of one element serves all.
template <int (*f)(int64_t, const float*, int64_t, const float*, const float*, float*) noexcept>
Array pair_loss_backward(const Array& dout, const Array& x, const Array& target,
                         const Optional& dx) {
  Array result = or_like(dx, x);
  const float *pd = data(dout), *px = data(x), *pt = data(target);
  float* po = mutable_data(result);
  const int64_t n = x.size(), stride = dout.size() == 1 ? 0 : 1;
  call([&] { return f(n, pd, stride, px, pt, po); });
  return result;
}

template <int (*f)(int64_t, const float*, const float*, float*) noexcept,
          int (*f_sum)(int64_t, const float*, const float*, double*) noexcept,
          int (*f_backward)(int64_t, const float*, int64_t, const float*, const float*,
                            float*) noexcept>
void register_pair(py::module_& m, const char* name) {
  m.def(name, &pair_loss<f>, py::arg("x"), py::arg("target"), py::arg("out").none(true));
  m.def((std::string(name) + "_sum").c_str(), &pair_loss_sum<f_sum>, py::arg("x"),
        py::arg("target"));
  m.def((std::string(name) + "_backward").c_str(), &pair_loss_backward<f_backward>, py::arg("dout"),
        py::arg("x"), py::arg("target"), py::arg("dx").none(true));
}

}  // namespace

void register_loss(py::module_& m) {
  m.def("cross_entropy", &cross_entropy, py::arg("logits"), py::arg("target"),
        py::arg("ignore_index"), py::arg("label_smoothing"));
  m.def("cross_entropy_backward", &cross_entropy_backward, py::arg("drows"), py::arg("logits"),
        py::arg("target"), py::arg("lse"), py::arg("ignore_index"), py::arg("label_smoothing"),
        py::arg("dlogits").none(true));
  register_pair<evergrad_mse, evergrad_mse_sum, evergrad_mse_backward>(m, "mse_loss");
  register_pair<evergrad_bce_with_logits, evergrad_bce_with_logits_sum,
                evergrad_bce_with_logits_backward>(m, "binary_cross_entropy_with_logits");
}

}  // namespace evergrad
