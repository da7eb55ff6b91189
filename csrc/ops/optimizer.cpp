#include <cmath>

#include "evergrad/evergrad.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"
#include "runtime/pool.h"

using namespace evergrad;

namespace {

AdamParams adam_params(int64_t step, double lr, double beta1, double beta2, double eps,
                       double weight_decay, int decoupled, double grad_scale) {
  return {
      static_cast<float>(lr),
      static_cast<float>(beta2),
      static_cast<float>(1.0 - beta1),
      static_cast<float>(1.0 - beta2),
      static_cast<float>(eps),
      static_cast<float>(weight_decay),
      static_cast<float>(grad_scale),
      static_cast<float>(1.0 - std::pow(beta1, static_cast<double>(step))),
      static_cast<float>(std::sqrt(1.0 - std::pow(beta2, static_cast<double>(step)))),
      decoupled != 0,
  };
}

}  // namespace

int evergrad_adam_step(int64_t n, float* param, const float* grad, float* exp_avg,
                       float* exp_avg_sq, int64_t step, double lr, double beta1, double beta2,
                       double eps, double weight_decay, int decoupled, double grad_scale) noexcept {
  const KernelTable& t = kernels();
  const AdamParams p =
      adam_params(step, lr, beta1, beta2, eps, weight_decay, decoupled, grad_scale);
  parallel_flat(n, [&](i64 begin, i64 end) {
    t.adam(end - begin, param + begin, grad + begin, exp_avg + begin, exp_avg_sq + begin, &p);
  });
  return EVERGRAD_OK;
}

int evergrad_sgd_step(int64_t n, float* param, const float* grad, float* momentum_buffer, double lr,
                      double momentum, double dampening, int nesterov, double weight_decay,
                      double grad_scale, int first) noexcept {
  const KernelTable& t = kernels();
  const SgdParams p{static_cast<float>(lr),
                    static_cast<float>(momentum),
                    static_cast<float>(1.0 - dampening),
                    static_cast<float>(weight_decay),
                    static_cast<float>(grad_scale),
                    nesterov != 0,
                    first != 0};
  parallel_flat(n, [&](i64 begin, i64 end) {
    t.sgd(end - begin, param + begin, grad + begin,
          momentum_buffer ? momentum_buffer + begin : nullptr, &p);
  });
  return EVERGRAD_OK;
}

int evergrad_rmsprop_step(int64_t n, float* param, const float* grad, float* square_avg, double lr,
                          double alpha, double eps, double weight_decay,
                          double grad_scale) noexcept {
  const KernelTable& t = kernels();
  const RmspropParams p{static_cast<float>(lr),
                        static_cast<float>(alpha),
                        static_cast<float>(1.0 - alpha),
                        static_cast<float>(eps),
                        static_cast<float>(weight_decay),
                        static_cast<float>(grad_scale)};
  parallel_flat(n, [&](i64 begin, i64 end) {
    t.rmsprop(end - begin, param + begin, grad + begin, square_avg + begin, &p);
  });
  return EVERGRAD_OK;
}

int evergrad_adam_step_rows(int64_t count, int64_t dim, const int64_t* rows, const int64_t* skipped,
                            float* param, const float* grad, float* exp_avg, float* exp_avg_sq,
                            int64_t step, double lr, double beta1, double beta2, double eps,
                            double weight_decay, int decoupled, double grad_scale) noexcept {
  const KernelTable& t = kernels();
  const AdamParams p =
      adam_params(step, lr, beta1, beta2, eps, weight_decay, decoupled, grad_scale);
  const double keep = decoupled ? 1.0 - lr * weight_decay : 1.0;
  parallel_rows(count, dim, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) {
      const i64 row = rows[i] * dim;
      if (skipped[i] > 0) {
        const double steps = static_cast<double>(skipped[i]);
        t.scale(dim, static_cast<float>(std::pow(beta1, steps)), exp_avg + row);
        t.scale(dim, static_cast<float>(std::pow(beta2, steps)), exp_avg_sq + row);
        if (keep != 1.0) t.scale(dim, static_cast<float>(std::pow(keep, steps)), param + row);
      }
      t.adam(dim, param + row, grad + row, exp_avg + row, exp_avg_sq + row, &p);
    }
  });
  return EVERGRAD_OK;
}

int evergrad_sgd_step_rows(int64_t count, int64_t dim, const int64_t* rows, float* param,
                           const float* grad, double lr, double grad_scale) noexcept {
  const KernelTable& t = kernels();
  SgdParams p{};
  p.lr = static_cast<float>(lr);
  p.grad_scale = static_cast<float>(grad_scale);
  parallel_rows(count, dim, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i)
      t.sgd(dim, param + rows[i] * dim, grad + rows[i] * dim, nullptr, &p);
  });
  return EVERGRAD_OK;
}

// A partial sum for each fixed piece, added in order.
int evergrad_grad_norm(int64_t n, const float* grad, double* norm) noexcept {
  const KernelTable& t = kernels();
  const i64 piece = elements_in_task(n), pieces = (n + piece - 1) / piece;
  const Buffer buffer(2 * pieces + 1);
  if (!buffer) return EVERGRAD_NO_MEMORY;
  double* partials = reinterpret_cast<double*>(buffer.get());
  parallel_ranges(n, piece, [&](i64 begin, i64 end) {
    partials[begin / piece] = t.sum_of_squares(end - begin, grad + begin);
  });
  double total = 0;
  for (i64 i = 0; i < pieces; ++i) total += partials[i];
  *norm = std::sqrt(total);
  return EVERGRAD_OK;
}
