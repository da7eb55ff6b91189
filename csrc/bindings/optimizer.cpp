#include "bindings/common.h"

namespace evergrad {
namespace {

void adam_step(Array& param, const Array& grad, Array& exp_avg, Array& exp_avg_sq, int64_t step,
               double lr, double beta1, double beta2, double eps, double weight_decay,
               bool decoupled, double grad_scale) {
  float *p = mutable_data(param), *m = mutable_data(exp_avg), *v = mutable_data(exp_avg_sq);
  const float* g = data(grad);
  const int64_t n = param.size();
  call([&] {
    return evergrad_adam_step(n, p, g, m, v, step, lr, beta1, beta2, eps, weight_decay, decoupled,
                              grad_scale);
  });
}

void sgd_step(Array& param, const Array& grad, Optional momentum_buffer, double lr, double momentum,
              double dampening, bool nesterov, double weight_decay, double grad_scale, bool first) {
  float *p = mutable_data(param), *b = mutable_data(momentum_buffer);
  const float* g = data(grad);
  const int64_t n = param.size();
  call([&] {
    return evergrad_sgd_step(n, p, g, b, lr, momentum, dampening, nesterov, weight_decay,
                             grad_scale, first);
  });
}

void rmsprop_step(Array& param, const Array& grad, Array& square_avg, double lr, double alpha,
                  double eps, double weight_decay, double grad_scale) {
  float *p = mutable_data(param), *v = mutable_data(square_avg);
  const float* g = data(grad);
  const int64_t n = param.size();
  call([&] { return evergrad_rmsprop_step(n, p, g, v, lr, alpha, eps, weight_decay, grad_scale); });
}

// param, grad, exp_avg, exp_avg_sq [num, dim]; rows, skipped [count].
void adam_step_rows(Array& param, const Array& grad, Array& exp_avg, Array& exp_avg_sq,
                    const Array& rows, const Array& skipped, int64_t step, double lr, double beta1,
                    double beta2, double eps, double weight_decay, bool decoupled,
                    double grad_scale) {
  float *p = mutable_data(param), *m = mutable_data(exp_avg), *v = mutable_data(exp_avg_sq);
  const float* g = data(grad);
  const int64_t *r = indices(rows), *s = indices(skipped);
  const int64_t count = rows.size(), dim = param.shape(1);
  call([&] {
    return evergrad_adam_step_rows(count, dim, r, s, p, g, m, v, step, lr, beta1, beta2, eps,
                                   weight_decay, decoupled, grad_scale);
  });
}

void sgd_step_rows(Array& param, const Array& grad, const Array& rows, double lr,
                   double grad_scale) {
  float* p = mutable_data(param);
  const float* g = data(grad);
  const int64_t* r = indices(rows);
  const int64_t count = rows.size(), dim = param.shape(1);
  call([&] { return evergrad_sgd_step_rows(count, dim, r, p, g, lr, grad_scale); });
}

double grad_norm(const Array& grad) {
  const float* g = data(grad);
  const int64_t n = grad.size();
  double norm = 0;
  call([&] { return evergrad_grad_norm(n, g, &norm); });
  return norm;
}

}  // namespace

void register_optimizer(py::module_& m) {
  m.def("adam_step", &adam_step, py::arg("param"), py::arg("grad"), py::arg("exp_avg"),
        py::arg("exp_avg_sq"), py::arg("step"), py::arg("lr"), py::arg("beta1"), py::arg("beta2"),
        py::arg("eps"), py::arg("weight_decay"), py::arg("decoupled"), py::arg("grad_scale"));
  m.def("sgd_step", &sgd_step, py::arg("param"), py::arg("grad"),
        py::arg("momentum_buffer").none(true), py::arg("lr"), py::arg("momentum"),
        py::arg("dampening"), py::arg("nesterov"), py::arg("weight_decay"), py::arg("grad_scale"),
        py::arg("first"));
  m.def("rmsprop_step", &rmsprop_step, py::arg("param"), py::arg("grad"), py::arg("square_avg"),
        py::arg("lr"), py::arg("alpha"), py::arg("eps"), py::arg("weight_decay"),
        py::arg("grad_scale"));
  m.def("adam_step_rows", &adam_step_rows, py::arg("param"), py::arg("grad"), py::arg("exp_avg"),
        py::arg("exp_avg_sq"), py::arg("rows"), py::arg("skipped"), py::arg("step"), py::arg("lr"),
        py::arg("beta1"), py::arg("beta2"), py::arg("eps"), py::arg("weight_decay"),
        py::arg("decoupled"), py::arg("grad_scale"));
  m.def("sgd_step_rows", &sgd_step_rows, py::arg("param"), py::arg("grad"), py::arg("rows"),
        py::arg("lr"), py::arg("grad_scale"));
  m.def("grad_norm", &grad_norm, py::arg("grad"));
}

}  // namespace evergrad
