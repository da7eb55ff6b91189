// The table of kernels: what one ISA offers to the drivers in ops/.
//
// A kernel is serial, works on raw pointers, and knows neither threads nor allocators: scratch is
// handed in. Each ISA's unit (isa/<name>.cpp) exports exactly one constant of this type; nothing
// else in it has external linkage.
#pragma once

#include <stdint.h>

namespace evergrad {

using i64 = int64_t;

enum class QuantKind : int { f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q6_k };

// Room for the sums of each 32 of n numbers.
constexpr i64 quant_sums(i64 n) { return (n / 16 + 16) / 16 * 16; }
// Room for n numbers as bytes, in records of 128.
constexpr i64 quant_records(i64 n) { return (n + 127) / 128 * 128; }

// Elements that share a peak in sampling.
constexpr i64 peak_block = 64;
constexpr i64 peaks_of(i64 n) { return (n + peak_block - 1) / peak_block; }

enum class Activation : int { none, relu, sigmoid, tanh, gelu, gelu_tanh, silu };

// What happens to a tile of C = A B once its last block of depth is in:
// pre = c + bias, c = act(pre) + residual. Null pointers are skipped.
struct Epilogue {
  const float* bias;  // [n]
  Activation activation;
  const float* residual;  // [m, n], may be c itself
  i64 residual_stride;
  float* pre;  // [m, n]
  i64 pre_stride;

  Epilogue at(i64 i, i64 j) const {  // of what begins at row i, column j
    Epilogue e = *this;
    if (bias) e.bias += j;
    if (residual) e.residual += i * residual_stride + j;
    if (pre) e.pre += i * pre_stride + j;
    return e;
  }
};

// One sequence and one head of keys and values, with the group of query heads that reads it.
// Strides count elements; `*_token` and `*_row` from one (query) token to the next, `*_head` from
// one query head to the next. dout ... dbias are used by the backward alone.
struct AttentionHead {
  const float *query, *key, *value;
  float *out, *lse;  // out is read by the backward
  i64 query_token, query_head, key_token, value_token, out_token, out_head, lse_head;
  i64 tokens_q, tokens_k, head_dim, group;
  float scale;
  i64 left, right;  // query i sees keys p - left to p + right, p = i + tokens_k - tokens_q

  // What changes scores, in this order; 0 or null: not. `bias` and `add` are added to them, `mask`
  // hides where it is 0.
  float softcap;
  const float* slopes;  // [group]
  const float *bias, *add;
  const uint8_t* mask;
  i64 bias_head, bias_row, add_head, add_row, mask_head, mask_row;

  // Dropout, where the threshold is not 0: element (head, query, key) has counter
  // counter + head counter_head + query counter_row + key.
  uint64_t seed, counter;
  i64 counter_head, counter_row;
  uint32_t threshold;
  float keep_scale;

  const float* dout;
  float *dquery, *dkey, *dvalue;
  i64 dout_token, dout_head, dquery_token, dquery_head, dkey_token, dvalue_token;
  float* dbias;  // added to; may be null
  i64 dbias_head, dbias_row;

  const AttentionHead* next;  // that this worker comes to next, if it fits into caches; may be null
};

struct CrossEntropy {
  i64 classes, ignore_index;
  float smoothing, softcap;  // softcap 0: none
};

// What a row of logits amounts to so far; begins as {-inf, 0, 0, 0}.
struct RowOfLogits {
  float peak, sum;     // the largest, and the sum of exp(z - peak)
  float label, total;  // the logit of the target, and the sum of all
};

struct AdamParams {
  float lr, beta2, rest1, rest2;  // rest: 1 - beta, rounded once: a beta near 1 has few bits left
  float eps, weight_decay, grad_scale;
  float correction1, correction2_sqrt;  // 1 - beta1^step, sqrt(1 - beta2^step)
  bool decoupled;
};

struct SgdParams {
  float lr, momentum, rest, weight_decay, grad_scale;  // rest: 1 - dampening
  bool nesterov, first;
};

struct RmspropParams {
  float lr, alpha, rest, eps, weight_decay, grad_scale;  // rest: 1 - alpha
};

struct KernelTable {
  const char* isa;
  int width;             // floats in a vector
  int gemm_mr, gemm_nr;  // the register tile

  // gemm: C[m, n] (+)= A B from packed panels. See kernels/gemm.h for the layouts.
  void (*gemm_pack_a)(i64 rows, i64 depth, const float* a, i64 row_stride, i64 depth_stride,
                      float* packed);
  void (*gemm_pack_b)(i64 cols, i64 depth, const float* b, i64 col_stride, i64 depth_stride,
                      float* packed);
  void (*gemm_tile)(i64 m, i64 n, i64 k, const float* a, const float* b, float* c, i64 c_stride,
                    bool accumulate, const Epilogue* epilogue, const float* next, i64 next_floats);
  // The same from packed A and B's rows, b_row apart, where they lie; n is a multiple of gemm_nr.
  // Leaves B packed in `panels`.
  void (*gemm_unpacked)(i64 m, i64 n, i64 k, const float* a, const float* b, i64 b_row,
                        float* panels, float* c, i64 c_stride, bool accumulate);
  // The same from A's rows in panels of gemm_nr, and B's columns, each contiguous and b_col from
  // the next, where they lie: tiles of C are computed transposed, and turned as they are stored.
  // With an epilogue, whose residual is not c, it is the last call over depth.
  void (*gemm_turned)(i64 m, i64 n, i64 k, const float* a, const float* b, i64 b_col, float* c,
                      i64 c_stride, bool accumulate, const Epilogue* epilogue);
  // Few rows, read where they lie: dots of rows contiguous in depth, c[i * c_long + j * c_short];
  // or sweeps over a B with contiguous rows.
  void (*gemm_dot)(i64 long_rows, i64 short_rows, i64 k, const float* x, i64 x_row, const float* y,
                   i64 y_row, float* c, i64 c_long, i64 c_short, bool accumulate, bool is_cached);
  void (*gemm_sweep)(i64 m, i64 n, i64 k, const float* a, i64 a_row, i64 a_depth, const float* b,
                     i64 b_row, float* c, i64 c_row, bool accumulate, bool is_cached);
  void (*gemm_epilogue)(i64 m, i64 n, float* c, i64 c_stride, const Epilogue* epilogue);
  // out[j] += sum over rows of x[i, j]
  void (*column_sum)(i64 rows, i64 n, const float* x, i64 x_stride, float* out);

  // quant: n numbers of a row, from the beginning of a block; and out[r] = row r . x, where a kind
  // in blocks wants x prepared, quant_sums(n) + n floats
  void (*unpack)(QuantKind kind, i64 n, const uint8_t* src, float* out);
  // `count` rows, at most gemm_nr, to a panel of gemm_pack_b; `decoded` has room for count * depth
  void (*unpack_panel)(QuantKind kind, i64 count, i64 depth, const uint8_t* src, i64 row_bytes,
                       float* decoded, float* panel);
  void (*quant_prepare)(QuantKind kind, i64 n, const float* x, float* prepared);
  void (*quant_dot)(QuantKind kind, i64 rows, i64 n, const uint8_t* w, i64 row_bytes,
                    const float* x, const float* prepared, float* out);
  // The same of q4_0 and q4_1, with x in integers of 24 bits: from n = 128 on, prepared in
  // quant_records(n) floats. Null where the ISA has no dots of bytes; where it has, the processor
  // may lack them (runtime/cpu.h).
  void (*quant_prepare_bytes)(QuantKind kind, i64 n, const float* x, float* prepared);
  void (*quant_dot_bytes)(QuantKind kind, i64 rows, i64 n, const uint8_t* w, i64 row_bytes,
                          const float* prepared, float* out);
  // The same for up to most_quant_dots rows of x: out[i * out_row + r] = row r . row i of x, or
  // += where they add.
  i64 most_quant_dots;
  void (*quant_dots)(QuantKind kind, i64 features, i64 n, const uint8_t* w, i64 row_bytes, i64 rows,
                     const float* x, i64 x_row, float* out, i64 out_row, bool add);
  // n numbers, whole blocks, to f16, bf16, q8_0, q4_0 or q4_1
  void (*pack_bits)(QuantKind kind, i64 n, const float* x, uint8_t* blocks);

  // attention: panels [panel_begin, panel_end) of the group's tokens_q * group rows, over the keys
  // [k_begin, k_end) alone; the backward takes all rows. Scratch sizes in floats.
  i64 (*attention_panels)(i64 rows);
  i64 (*attention_scratch)(i64 head_dim);
  void (*attention)(const AttentionHead* head, i64 panel_begin, i64 panel_end, i64 k_begin,
                    i64 k_end, float* scratch);
  // One row from `parts` results over ranges of keys, `out_part` and `lse_part` apart.
  void (*attention_merge)(i64 parts, i64 head_dim, const float* outs, i64 out_part,
                          const float* lses, i64 lse_part, float* out, float* lse);
  i64 (*attention_backward_scratch)(i64 head_dim);
  void (*attention_backward)(const AttentionHead* head, i64 k_begin, i64 k_end, float* scratch);

  // softmax
  // past_caches, here and below: stores go round them, see `map`
  void (*softmax)(i64 rows, i64 n, const float* x, float* out, bool past_caches);
  void (*softmax_backward)(i64 rows, i64 n, const float* dout, const float* out, float* dx,
                           bool past_caches);
  void (*log_softmax)(i64 rows, i64 n, const float* x, float* out, bool past_caches);
  void (*log_softmax_backward)(i64 rows, i64 n, const float* dout, const float* out, float* dx,
                               bool past_caches);

  // norm; with a residual the rows are total = x + residual; dweight and dbias are accumulated
  // into, each may be null
  void (*layer_norm)(i64 rows, i64 n, const float* x, const float* residual, const float* weight,
                     const float* bias, float eps, float* total, float* out, float* mean,
                     float* rstd);
  void (*layer_norm_backward)(i64 rows, i64 n, const float* dout, const float* x, const float* mean,
                              const float* rstd, const float* weight, const float* dresidual,
                              float* dx, float* dweight, float* dbias);
  void (*rms_norm)(i64 rows, i64 n, const float* x, const float* residual, const float* weight,
                   float eps, float* total, float* out, float* rstd);
  void (*rms_norm_backward)(i64 rows, i64 n, const float* dout, const float* x, const float* rstd,
                            const float* weight, const float* dresidual, float* dx, float* dweight);

  // rotary: the heads of one token, `x_head` and `out_head` apart; cos and sin [dim / 2]; what
  // stands behind the first `dim` numbers of a head is copied
  void (*rotary)(i64 heads, i64 head_dim, i64 dim, bool interleaved, const float* x, i64 x_head,
                 const float* cos, const float* sin, bool inverse, float* out, i64 out_head);

  // activation; `saved` is what the activation's derivative is written in (see activation.h)
  void (*activation)(Activation kind, i64 n, const float* x, float* out, bool past_caches);
  void (*activation_backward)(Activation kind, i64 n, const float* dout, const float* saved,
                              float* dx, bool past_caches);
  // out [rows, n] = act(gate) * up, for silu and the gelus; the other rows are strided
  void (*gated)(Activation kind, i64 rows, i64 n, const float* gate, i64 gate_stride,
                const float* up, i64 up_stride, float* out);
  void (*gated_backward)(Activation kind, i64 rows, i64 n, const float* dout, const float* gate,
                         i64 gate_stride, const float* up, i64 up_stride, float* dgate,
                         i64 dgate_stride, float* dup, i64 dup_stride);

  // embedding: out (+)= the sum of a row of each table; and its gradient, on columns [0, n) of rows
  // that are `stride` apart
  void (*add_rows)(i64 n, const float* x, float* out);  // out += x
  void (*gather_rows)(i64 rows, i64 n, int tables, const i64* const* indices,
                      const float* const* weights, bool accumulate, float* out);
  void (*scatter_rows)(i64 rows, i64 n, const float* x, const i64* indices, i64 stride,
                       float* table);

  // pooling
  void (*mean_rows)(i64 rows, i64 n, const float* x, float* out);
  void (*spread_mean)(i64 rows, i64 n, const float* x, float* out);

  // loss; the kernels over part of the classes serve logits that never exist as a whole
  void (*cross_entropy)(i64 rows, const float* logits, const i64* target, const CrossEntropy* p,
                        float* losses, float* lse);
  void (*cross_entropy_scan)(i64 rows, i64 n, const float* logits, i64 stride, i64 first_class,
                             const i64* target, const CrossEntropy* p, RowOfLogits* state);
  void (*cross_entropy_finish)(i64 rows, const i64* target, const CrossEntropy* p,
                               const RowOfLogits* state, float* losses, float* lse);
  void (*softcap)(i64 rows, i64 n, float cap, float* logits, i64 stride);
  void (*cross_entropy_backward)(i64 rows, i64 n, const float* drows, const float* logits,
                                 i64 stride, i64 first_class, const i64* target, const float* lse,
                                 const CrossEntropy* p, float* dlogits, i64 dstride);
  void (*mse)(i64 n, const float* x, const float* target, float* out);
  double (*mse_sum)(i64 n, const float* x, const float* target);
  void (*mse_backward)(i64 n, const float* dout, i64 dout_stride, const float* x,
                       const float* target, float* dx);
  void (*bce)(i64 n, const float* x, const float* target, float* out);
  double (*bce_sum)(i64 n, const float* x, const float* target);
  void (*bce_backward)(i64 n, const float* dout, i64 dout_stride, const float* x,
                       const float* target, float* dx);

  // sampling: the largest of each peak_block elements, and of all (NaN: one is NaN); weights
  float (*block_peaks)(i64 n, const float* x, float* peaks);
  void (*sample_weights)(i64 n, const float* logits, float peak, float inverse_temperature,
                         float* weights);

  // dropout: element i of the call has counter `counter + i`
  void (*dropout)(i64 n, const float* x, uint64_t counter, uint64_t seed, uint32_t threshold,
                  float scale, float* out);

  // optimizer
  void (*adam)(i64 n, float* param, const float* grad, float* exp_avg, float* exp_avg_sq,
               const AdamParams* p);
  void (*sgd)(i64 n, float* param, const float* grad, float* buffer, const SgdParams* p);
  void (*rmsprop)(i64 n, float* param, const float* grad, float* square_avg,
                  const RmspropParams* p);
  double (*sum_of_squares)(i64 n, const float* x);
  void (*scale)(i64 n, float factor, float* x);  // x *= factor

  // the two limits, for benchmarks: `rounds` times width * 2 * 12 flops; and a sum over a buffer
  float (*fma_rounds)(i64 rounds);
  float (*read_sum)(i64 n, const float* x);
};

}  // namespace evergrad
