// Everything an ISA's unit compiles, and the table it exports. Included once per unit, after the
// vec_*.h of that ISA.
#pragma once

#include "simd/math.h"

#include "kernels/activation.h"
#include "kernels/attention.h"
#include "kernels/dropout.h"
#include "kernels/embedding.h"
#include "kernels/gated.h"
#include "kernels/gemm.h"
#include "kernels/limits.h"
#include "kernels/loss.h"
#include "kernels/norm.h"
#include "kernels/optimizer.h"
#include "kernels/pooling.h"
#include "kernels/quant.h"
#include "kernels/quant_bytes.h"
#include "kernels/quant_panel.h"
#include "kernels/quant_rows.h"
#include "kernels/quantize.h"
#include "kernels/rotary.h"
#include "kernels/sampling.h"
#include "kernels/softmax.h"
#include "kernels/table.h"

#define EVERGRAD_TABLE(name)                                      \
  extern "C" const evergrad::KernelTable evergrad_kernels_##name; \
  const evergrad::KernelTable evergrad_kernels_##name = {         \
      #name,                                                      \
      evergrad::Vec::width,                                       \
      evergrad::mr,                                               \
      evergrad::nr,                                               \
      evergrad::gemm_pack_a,                                      \
      evergrad::gemm_pack_b,                                      \
      evergrad::gemm_tile,                                        \
      evergrad::gemm_unpacked,                                    \
      evergrad::gemm_turned,                                      \
      evergrad::gemm_dot,                                         \
      evergrad::gemm_sweep,                                       \
      evergrad::gemm_epilogue,                                    \
      evergrad::column_sum,                                       \
      evergrad::unpack,                                           \
      evergrad::unpack_panel,                                     \
      evergrad::quant_prepare,                                    \
      evergrad::quant_dot,                                        \
      evergrad::quant_prepare_bytes,                              \
      evergrad::quant_dot_bytes,                                  \
      evergrad::most_dots,                                        \
      evergrad::quant_dots,                                       \
      evergrad::pack_bits,                                        \
      evergrad::attention_panels,                                 \
      evergrad::attention_scratch,                                \
      evergrad::attention,                                        \
      evergrad::attention_merge,                                  \
      evergrad::attention_backward_scratch,                       \
      evergrad::attention_backward,                               \
      evergrad::softmax,                                          \
      evergrad::softmax_backward,                                 \
      evergrad::log_softmax,                                      \
      evergrad::log_softmax_backward,                             \
      evergrad::layer_norm,                                       \
      evergrad::layer_norm_backward,                              \
      evergrad::rms_norm,                                         \
      evergrad::rms_norm_backward,                                \
      evergrad::rotary,                                           \
      evergrad::activation,                                       \
      evergrad::activation_backward,                              \
      evergrad::gated,                                            \
      evergrad::gated_backward,                                   \
      evergrad::add_rows,                                         \
      evergrad::gather_rows,                                      \
      evergrad::scatter_rows,                                     \
      evergrad::mean_rows,                                        \
      evergrad::spread_mean,                                      \
      evergrad::cross_entropy,                                    \
      evergrad::cross_entropy_scan,                               \
      evergrad::cross_entropy_finish,                             \
      evergrad::softcap,                                          \
      evergrad::cross_entropy_backward,                           \
      evergrad::mse,                                              \
      evergrad::mse_sum,                                          \
      evergrad::mse_backward,                                     \
      evergrad::bce,                                              \
      evergrad::bce_sum,                                          \
      evergrad::bce_backward,                                     \
      evergrad::block_peaks,                                      \
      evergrad::sample_weights,                                   \
      evergrad::dropout,                                          \
      evergrad::adam,                                             \
      evergrad::sgd,                                              \
      evergrad::rmsprop,                                          \
      evergrad::sum_of_squares,                                   \
      evergrad::scale,                                            \
      evergrad::fma_rounds,                                       \
      evergrad::read_sum,                                         \
  }
