/* The C API of evergrad: the one contract that every face uses (Python, Cython, C++).
 *
 * Raw pointers, sizes and strides (in floats, unless said otherwise); an int status comes back; no
 * exceptions. Every function may be called from any thread, without the GIL, and is re-entrant.
 * Results have the same bits for any number of threads. Arrays are row-major and contiguous where
 * no stride is given. Gradients of parameters (dweight, dbias) are accumulated into, all other
 * outputs are overwritten. A null pointer where "may be null" skips that part. Scratch comes from
 * the buffer pool, so that nothing is allocated in the steady state.
 *
 * Arguments are trusted: shapes and indices are checked by the caller.
 */
#ifndef EVERGRAD_H
#define EVERGRAD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define EVERGRAD_NOEXCEPT noexcept
extern "C" {
#else
#define EVERGRAD_NOEXCEPT
#endif

#define EVERGRAD_API_VERSION 1

enum { EVERGRAD_OK = 0, EVERGRAD_NO_MEMORY = 1, EVERGRAD_UNAVAILABLE = 2 };

/* The same order as in `activation` of linear: relu, sigmoid and tanh save their output for
 * backward, the two gelus and silu save their input. */
enum {
  EVERGRAD_ACTIVATION_NONE,
  EVERGRAD_ACTIVATION_RELU,
  EVERGRAD_ACTIVATION_SIGMOID,
  EVERGRAD_ACTIVATION_TANH,
  EVERGRAD_ACTIVATION_GELU,
  EVERGRAD_ACTIVATION_GELU_TANH,
  EVERGRAD_ACTIVATION_SILU
};

/* ---- runtime ----------------------------------------------------------------------------------
 */

int evergrad_api_version(void) EVERGRAD_NOEXCEPT;
/* Names of the ISAs that this CPU can run, slowest first, null at the end. */
const char* const* evergrad_available_isas(void) EVERGRAD_NOEXCEPT;
const char* evergrad_get_isa(void) EVERGRAD_NOEXCEPT;
/* EVERGRAD_UNAVAILABLE when this CPU or this build lacks it. */
int evergrad_set_isa(const char* name) EVERGRAD_NOEXCEPT;
int evergrad_get_num_threads(void) EVERGRAD_NOEXCEPT;
/* At least 1 and at most 1024 are taken. */
void evergrad_set_num_threads(int n) EVERGRAD_NOEXCEPT;
/* 64-byte aligned memory from the pool; null when there is none. */
void* evergrad_pool_alloc(size_t bytes) EVERGRAD_NOEXCEPT;
void evergrad_pool_free(void* p) EVERGRAD_NOEXCEPT;
int evergrad_zero(int64_t n, float* x) EVERGRAD_NOEXCEPT;

/* ---- gemm -------------------------------------------------------------------------------------
 */

/* C[b] (+)= A[b] B[b]: A [m, k], B [k, n] with any strides, C with contiguous rows. */
int evergrad_matmul(int64_t batch, int64_t m, int64_t n, int64_t k, const float* a, int64_t a_batch,
                    int64_t a_row, int64_t a_col, const float* b, int64_t b_batch, int64_t b_row,
                    int64_t b_col, float* c, int64_t c_batch, int64_t c_row,
                    int accumulate) EVERGRAD_NOEXCEPT;

/* pre = x weight^T + bias; out = act(pre) + residual. bias, residual, pre may be null; residual may
 * be out. x [rows, in], weight [features, in]. */
int evergrad_linear(int64_t rows, int64_t in, int64_t features, const float* x, const float* weight,
                    const float* bias, int activation, const float* residual, float* pre,
                    float* out) EVERGRAD_NOEXCEPT;

/* A weight laid out for the product once instead of in every call, for the ISA in use. The size is
 * in floats. */
int64_t evergrad_packed_size(int64_t in, int64_t features) EVERGRAD_NOEXCEPT;
int evergrad_pack_weight(int64_t in, int64_t features, const float* weight,
                         float* packed) EVERGRAD_NOEXCEPT;
int evergrad_linear_packed(int64_t rows, int64_t in, int64_t features, const float* x,
                           const float* packed, const float* bias, int activation,
                           const float* residual, float* pre, float* out) EVERGRAD_NOEXCEPT;

/* ---- quant ------------------------------------------------------------------------------------
 */

/* Weights of few bits in the block layouts of GGUF files; data may lie at any address. */
enum {
  EVERGRAD_F16,
  EVERGRAD_BF16,
  EVERGRAD_Q8_0,
  EVERGRAD_Q4_0,
  EVERGRAD_Q4_1,
  EVERGRAD_Q5_0,
  EVERGRAD_Q5_1,
  EVERGRAD_Q4_K,
  EVERGRAD_Q6_K
};

/* Bytes of a row; -1 where the kind is unknown, or the columns are no whole blocks of it. */
int64_t evergrad_quantized_bytes(int kind, int64_t columns) EVERGRAD_NOEXCEPT;
/* out[i] = row indices[i] (or i, where indices is null) as float. EVERGRAD_UNAVAILABLE for an
 * unknown kind. */
int evergrad_unpack(int kind, int64_t rows, int64_t columns, const uint8_t* data,
                    const int64_t* indices, float* out) EVERGRAD_NOEXCEPT;
/* Numbers into F16, BF16, Q8_0, Q4_0 or Q4_1; EVERGRAD_UNAVAILABLE for the other kinds. */
int evergrad_pack_bits(int kind, int64_t rows, int64_t columns, const float* x,
                       uint8_t* out) EVERGRAD_NOEXCEPT;
/* evergrad_linear, with the weight [features, in] in blocks. EVERGRAD_UNAVAILABLE for an unknown
 * kind. */
int evergrad_linear_quantized(int kind, int64_t rows, int64_t in, int64_t features, const float* x,
                              const uint8_t* weight, const float* bias, int activation,
                              const float* residual, float* pre, float* out) EVERGRAD_NOEXCEPT;

/* dpre = dout * act'(saved); dx = dpre weight; dweight += dpre^T x; dbias += column sums of dpre.
 * dx, dweight, dbias may be null. */
int evergrad_linear_backward(int64_t rows, int64_t in, int64_t features, const float* dout,
                             const float* x, const float* weight, int activation,
                             const float* saved, float* dx, float* dweight,
                             float* dbias) EVERGRAD_NOEXCEPT;

/* ---- attention --------------------------------------------------------------------------------
 */

/* A [batch, tokens, heads, head_dim] view whose last axis is contiguous. */
typedef struct {
  float* data;
  int64_t batch, token, head; /* strides */
} evergrad_heads;

/* Sequence s has query tokens [cu_q[s], cu_q[s+1]) of one long row of tokens, likewise for keys;
 * without cu_q and cu_k (null) it is batch s of tokens_q query and tokens_k key tokens. */
typedef struct {
  int64_t sequences, tokens_q, tokens_k, heads, kv_heads, head_dim;
  const int64_t *cu_q, *cu_k;
  int64_t lse_batch, lse_head; /* strides of lse: [batch, heads, tokens_q] or [heads, total_q] */
  float scale;
} evergrad_attention_shape;

/* A [batch, heads, tokens_q, tokens_k] view whose last axis is contiguous; a stride of 0
 * broadcasts. Strides count elements. */
typedef struct {
  void* data; /* may be null */
  int64_t batch, head, row;
} evergrad_scores;

/* score = softcap(scale q.k) - alibi + bias + add, -inf where hidden; zeroed, a field does nothing,
 * but for the window: -1 does nothing there. */
typedef struct {
  int64_t window_left, window_right; /* keys beside i + tokens_k - tokens_q; causal: right = 0 */
  float softcap;                     /* softcap tanh(s / softcap) */
  const float* alibi_slopes;         /* slope |i + tokens_k - tokens_q - j|; [heads] per batch */
  int64_t alibi_batch;
  evergrad_scores bias, add; /* float */
  evergrad_scores mask;      /* bytes, 0 hides */
  /* Of the probabilities: the mask that evergrad_dropout draws for [batch, heads, tokens_q,
   * tokens_k], or for [heads, total_q, total_k] of packed sequences. */
  double dropout_p;
  uint64_t seed, offset;
} evergrad_attention_options;

int evergrad_attention(const evergrad_attention_shape* shape,
                       const evergrad_attention_options* options, evergrad_heads query,
                       evergrad_heads key, evergrad_heads value, evergrad_heads out,
                       float* lse) EVERGRAD_NOEXCEPT;
/* dbias is accumulated into, over what it broadcasts in order. */
int evergrad_attention_backward(const evergrad_attention_shape* shape,
                                const evergrad_attention_options* options, evergrad_heads dout,
                                evergrad_heads query, evergrad_heads key, evergrad_heads value,
                                evergrad_heads out, const float* lse, evergrad_heads dquery,
                                evergrad_heads dkey, evergrad_heads dvalue,
                                evergrad_scores dbias) EVERGRAD_NOEXCEPT;

/* ---- softmax, norm, activation ----------------------------------------------------------------
 */

int evergrad_softmax(int64_t rows, int64_t n, const float* x, float* out) EVERGRAD_NOEXCEPT;
int evergrad_softmax_backward(int64_t rows, int64_t n, const float* dout, const float* out,
                              float* dx) EVERGRAD_NOEXCEPT;
int evergrad_log_softmax(int64_t rows, int64_t n, const float* x, float* out) EVERGRAD_NOEXCEPT;
int evergrad_log_softmax_backward(int64_t rows, int64_t n, const float* dout, const float* out,
                                  float* dx) EVERGRAD_NOEXCEPT;

/* residual, weight and bias may be null. With a residual the rows that are normalised are
 * total = x + residual; total may be x or residual. */
int evergrad_layer_norm(int64_t rows, int64_t n, const float* x, const float* residual,
                        const float* weight, const float* bias, float eps, float* total, float* out,
                        float* mean, float* rstd) EVERGRAD_NOEXCEPT;
/* dx = dresidual + gradient; weight, dresidual, dx, dweight, dbias may be null. */
int evergrad_layer_norm_backward(int64_t rows, int64_t n, const float* dout, const float* x,
                                 const float* mean, const float* rstd, const float* weight,
                                 const float* dresidual, float* dx, float* dweight,
                                 float* dbias) EVERGRAD_NOEXCEPT;
int evergrad_rms_norm(int64_t rows, int64_t n, const float* x, const float* residual,
                      const float* weight, float eps, float* total, float* out,
                      float* rstd) EVERGRAD_NOEXCEPT;
int evergrad_rms_norm_backward(int64_t rows, int64_t n, const float* dout, const float* x,
                               const float* rstd, const float* weight, const float* dresidual,
                               float* dx, float* dweight) EVERGRAD_NOEXCEPT;

int evergrad_activation(int activation, int64_t n, const float* x, float* out) EVERGRAD_NOEXCEPT;
int evergrad_activation_backward(int activation, int64_t n, const float* dout, const float* saved,
                                 float* dx) EVERGRAD_NOEXCEPT;

/* out = act(gate) * up for silu and the gelus; out and dout are contiguous, the rows of the others
 * are strided, so that gate and up may be the halves of one array. dgate and dup may be the memory
 * of inputs. */
int evergrad_gated(int activation, int64_t rows, int64_t n, const float* gate, int64_t gate_stride,
                   const float* up, int64_t up_stride, float* out) EVERGRAD_NOEXCEPT;
int evergrad_gated_backward(int activation, int64_t rows, int64_t n, const float* dout,
                            const float* gate, int64_t gate_stride, const float* up,
                            int64_t up_stride, float* dgate, int64_t dgate_stride, float* dup,
                            int64_t dup_stride) EVERGRAD_NOEXCEPT;

/* ---- rotary -----------------------------------------------------------------------------------
 */

/* Turns the first `dim` numbers of each head, in pairs (j, j + dim / 2) or (2 j, 2 j + 1); out may
 * be x. cos and sin are tables [rows of positions, dim / 2]; positions [batch, tokens] are rows of
 * them, or null for 0, 1, ... in each batch. `inverse` turns back: the gradient. */
int evergrad_rotary(int64_t batch, int64_t tokens, int64_t heads, int64_t head_dim, int64_t dim,
                    int interleaved, evergrad_heads x, const float* cos, const float* sin,
                    const int64_t* positions, int inverse, evergrad_heads out) EVERGRAD_NOEXCEPT;

/* ---- decoder ----------------------------------------------------------------------------------
 */

enum { EVERGRAD_F32 = -1 }; /* beside the kinds of few bits */

/* x weight^T + bias; bias may be null. */
typedef struct {
  int kind;
  int64_t in, features;
  const void* weight;
  const float* bias;
} evergrad_map;

/* evergrad_rms_norm or evergrad_layer_norm; weight and bias may be null. */
typedef struct {
  int is_rms;
  float eps;
  const float *weight, *bias;
} evergrad_norm;

/* x += proj(attention(qkv(norm_1(x)))); x += down(act(up(norm_2(x)))). Of qkv the rows are queries,
 * keys, values, each head by head; where gated, up's are those of the gate and then the others. */
typedef struct {
  evergrad_norm norm_1, norm_2;
  evergrad_map qkv, proj, up, down;
  int activation, is_gated;
  int64_t heads, kv_heads, head_dim, window_left;
  float scale;
} evergrad_decoder_block;

/* Slots of the cache that hold `start` tokens each and get `tokens` more, rows of x from `first`.
 */
typedef struct {
  int64_t slot, slots, first, start, tokens;
} evergrad_span;

/* Runs blocks over x [tokens, dim]; out may not be x. The cache is [blocks, slots, 2 kv_heads,
 * capacity, head_dim], heads of keys and then of values, `cache_layer` numbers from block to block.
 * cos and sin [tokens, rotary_dim / 2] turn queries and keys, or are null. With `last_only`, out
 * has a row for each slot that gets tokens, in order: that of its last one. */
int evergrad_decoder(int64_t blocks, const evergrad_decoder_block* block, int64_t tokens,
                     int64_t dim, const float* cos, const float* sin, int64_t rotary_dim,
                     float* cache, int64_t cache_layer, int64_t capacity, int64_t spans,
                     const evergrad_span* span, int last_only, const float* x,
                     float* out) EVERGRAD_NOEXCEPT;

/* ---- embedding --------------------------------------------------------------------------------
 */

int evergrad_embedding(int64_t n, int64_t dim, const int64_t* indices, const float* weight,
                       int accumulate, float* out) EVERGRAD_NOEXCEPT;
/* out[i] = the sum of weights[t][indices[t][i]] over at most EVERGRAD_MOST_TABLES tables. */
enum { EVERGRAD_MOST_TABLES = 3 };
int evergrad_embedding_sum(int64_t n, int64_t dim, int tables, const int64_t* const* indices,
                           const float* const* weights, float* out) EVERGRAD_NOEXCEPT;
/* dweight[indices[i]] += dout[i], in the order of i. */
int evergrad_embedding_backward(int64_t n, int64_t dim, const float* dout, const int64_t* indices,
                                float* dweight) EVERGRAD_NOEXCEPT;

/* ---- pooling ----------------------------------------------------------------------------------
 */

enum { EVERGRAD_POOL_MEAN, EVERGRAD_POOL_CLS };

/* x [total, n] to out [sequences, n]: the mean, or the first, of rows cu_seqlens[s] to
 * cu_seqlens[s + 1]; zeros for none. */
int evergrad_pool(int mode, int64_t sequences, int64_t n, const int64_t* cu_seqlens, const float* x,
                  float* out) EVERGRAD_NOEXCEPT;
int evergrad_pool_backward(int mode, int64_t sequences, int64_t n, const int64_t* cu_seqlens,
                           const float* dout, float* dx) EVERGRAD_NOEXCEPT;

/* ---- loss -------------------------------------------------------------------------------------
 */

int evergrad_cross_entropy(int64_t rows, int64_t classes, const float* logits,
                           const int64_t* target, int64_t ignore_index, float smoothing,
                           float* losses, float* lse) EVERGRAD_NOEXCEPT;
/* dlogits may be logits. */
int evergrad_cross_entropy_backward(int64_t rows, int64_t classes, const float* drows,
                                    const float* logits, const int64_t* target, const float* lse,
                                    int64_t ignore_index, float smoothing,
                                    float* dlogits) EVERGRAD_NOEXCEPT;

/* The same over logits = softcap tanh((x weight^T + bias) / softcap), x [rows, in], weight
 * [classes, in], which never exist as a whole. bias may be null; softcap 0: none. */
typedef struct {
  int64_t rows, in, classes;
  const float *x, *weight, *bias;
  const int64_t* target;
  int64_t ignore_index;
  float smoothing, softcap;
} evergrad_linear_cross_entropy_args;

int evergrad_linear_cross_entropy(const evergrad_linear_cross_entropy_args* args, float* losses,
                                  float* lse) EVERGRAD_NOEXCEPT;
/* Computes the logits again. dx, dweight, dbias may be null. */
int evergrad_linear_cross_entropy_backward(const evergrad_linear_cross_entropy_args* args,
                                           const float* drows, const float* lse, float* dx,
                                           float* dweight, float* dbias) EVERGRAD_NOEXCEPT;
/* Both at once where the cotangents of the losses are known beforehand: a product of matrices less,
 * for scratch of at most 64 MB. */
int evergrad_linear_cross_entropy_with_grads(const evergrad_linear_cross_entropy_args* args,
                                             const float* drows, float* losses, float* dx,
                                             float* dweight, float* dbias) EVERGRAD_NOEXCEPT;

int evergrad_mse(int64_t n, const float* x, const float* target, float* out) EVERGRAD_NOEXCEPT;
int evergrad_bce_with_logits(int64_t n, const float* x, const float* target,
                             float* out) EVERGRAD_NOEXCEPT;
/* The sums over all elements, in float64. */
int evergrad_mse_sum(int64_t n, const float* x, const float* target, double* sum) EVERGRAD_NOEXCEPT;
int evergrad_bce_with_logits_sum(int64_t n, const float* x, const float* target,
                                 double* sum) EVERGRAD_NOEXCEPT;
/* dout_stride: 1 for a cotangent per element, 0 for one number. */
int evergrad_mse_backward(int64_t n, const float* dout, int64_t dout_stride, const float* x,
                          const float* target, float* dx) EVERGRAD_NOEXCEPT;
int evergrad_bce_with_logits_backward(int64_t n, const float* dout, int64_t dout_stride,
                                      const float* x, const float* target,
                                      float* dx) EVERGRAD_NOEXCEPT;

/* ---- sampling, positions ----------------------------------------------------------------------
 */

/* out[i]: a token drawn from softmax(logits[i] / temperature) with the number of (seed, offset +
 * i); temperature is finite, and the likeliest is drawn at 0. Out of it are tokens less likely than
 * min_p times the likeliest; then all but the top_k likeliest (0: none is cut); then all but the
 * fewest likeliest that have top_p of what is left. -1 where a logit is NaN, or none is above -inf.
 */
int evergrad_sample(int64_t rows, int64_t n, const float* logits, double temperature, int64_t top_k,
                    double top_p, double min_p, uint64_t seed, uint64_t offset,
                    int64_t* out) EVERGRAD_NOEXCEPT;

/* out[i, j] = how many of `count` rising limits do not exceed the distance from query i + tokens_k
 * - tokens_q to key j; a key ahead of its query counts count + 1 more, or, unless bidirectional, as
 * distance 0. */
int evergrad_relative_position_buckets(int64_t count, const int64_t* limits, int64_t tokens_q,
                                       int64_t tokens_k, int bidirectional,
                                       int64_t* out) EVERGRAD_NOEXCEPT;

/* ---- dropout ----------------------------------------------------------------------------------
 */

/* The backward is the same call on the cotangent. */
int evergrad_dropout(int64_t n, const float* x, double p, uint64_t seed, uint64_t offset,
                     float* out) EVERGRAD_NOEXCEPT;

/* ---- optimizer --------------------------------------------------------------------------------
 */

int evergrad_adam_step(int64_t n, float* param, const float* grad, float* exp_avg,
                       float* exp_avg_sq, int64_t step, double lr, double beta1, double beta2,
                       double eps, double weight_decay, int decoupled,
                       double grad_scale) EVERGRAD_NOEXCEPT;
/* momentum_buffer may be null. */
int evergrad_sgd_step(int64_t n, float* param, const float* grad, float* momentum_buffer, double lr,
                      double momentum, double dampening, int nesterov, double weight_decay,
                      double grad_scale, int first) EVERGRAD_NOEXCEPT;
int evergrad_rmsprop_step(int64_t n, float* param, const float* grad, float* square_avg, double lr,
                          double alpha, double eps, double weight_decay,
                          double grad_scale) EVERGRAD_NOEXCEPT;
/* The steps of chosen rows of [.., dim] alone; rows are distinct. Adam's averages, and with
 * decoupled decay the parameters, first decay for the steps that a row has skipped. */
int evergrad_adam_step_rows(int64_t count, int64_t dim, const int64_t* rows, const int64_t* skipped,
                            float* param, const float* grad, float* exp_avg, float* exp_avg_sq,
                            int64_t step, double lr, double beta1, double beta2, double eps,
                            double weight_decay, int decoupled,
                            double grad_scale) EVERGRAD_NOEXCEPT;
int evergrad_sgd_step_rows(int64_t count, int64_t dim, const int64_t* rows, float* param,
                           const float* grad, double lr, double grad_scale) EVERGRAD_NOEXCEPT;
int evergrad_grad_norm(int64_t n, const float* grad, double* norm) EVERGRAD_NOEXCEPT;

/* ---- the machine's limits, measured -----------------------------------------------------------
 */

double evergrad_measure_fma_peak(double seconds) EVERGRAD_NOEXCEPT; /* GFLOP/s, current threads */
double evergrad_measure_bandwidth(double seconds)
    EVERGRAD_NOEXCEPT; /* GB/s moved, current threads */

#ifdef __cplusplus
}
#endif

#endif
