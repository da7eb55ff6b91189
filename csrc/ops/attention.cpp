// Attention over sequences and heads: one task per key/value head of a sequence. The forward pass
// cuts the query rows too when there are too few heads to keep every thread busy; rows are
// independent, so the cut does not show.
#include <atomic>

#include "evergrad/evergrad.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"
#include "runtime/pool.h"

using namespace evergrad;

namespace {

struct Span {
  i64 q0, tokens_q, k0, tokens_k;
};

// The tokens of sequence s, and where its batch starts.
Span span_of(const evergrad_attention_shape& shape, i64 s) {
  if (!shape.cu_q) return {0, shape.tokens_q, 0, shape.tokens_k};
  return {shape.cu_q[s], shape.cu_q[s + 1] - shape.cu_q[s], shape.cu_k[s],
          shape.cu_k[s + 1] - shape.cu_k[s]};
}

bool worth_threads(const evergrad_attention_shape& shape) {
  const double pairs = static_cast<double>(shape.tokens_q) * static_cast<double>(shape.tokens_k) *
                       (shape.cu_q ? 1.0 / static_cast<double>(shape.sequences)
                                   : static_cast<double>(shape.sequences));
  return 4.0 * pairs * static_cast<double>(shape.heads * shape.head_dim) >= serial_flops;
}

float* at(const evergrad_attention_shape& shape, const evergrad_heads& x, i64 s, i64 token,
          i64 head) {
  return x.data + (shape.cu_q ? 0 : s * x.batch) + token * x.token + head * x.head;
}

AttentionHead head_of(const evergrad_attention_shape& shape, i64 s, i64 kv_head,
                      const evergrad_heads& query, const evergrad_heads& key,
                      const evergrad_heads& value, const evergrad_heads& out, float* lse) {
  const Span span = span_of(shape, s);
  const i64 group = shape.heads / shape.kv_heads;
  AttentionHead h{};
  h.query = at(shape, query, s, span.q0, kv_head * group);
  h.key = at(shape, key, s, span.k0, kv_head);
  h.value = at(shape, value, s, span.k0, kv_head);
  h.out = at(shape, out, s, span.q0, kv_head * group);
  h.lse = lse + (shape.cu_q ? 0 : s * shape.lse_batch) + kv_head * group * shape.lse_head + span.q0;
  h.query_token = query.token;
  h.query_head = query.head;
  h.key_token = key.token;
  h.value_token = value.token;
  h.out_token = out.token;
  h.out_head = out.head;
  h.lse_head = shape.lse_head;
  h.tokens_q = span.tokens_q;
  h.tokens_k = span.tokens_k;
  h.head_dim = shape.head_dim;
  h.group = group;
  h.scale = shape.scale;
  h.causal = shape.causal != 0;
  return h;
}

}  // namespace

int evergrad_attention(const evergrad_attention_shape* shape, evergrad_heads query,
                       evergrad_heads key, evergrad_heads value, evergrad_heads out,
                       float* lse) noexcept {
  const KernelTable& t = kernels();
  const i64 heads = shape->sequences * shape->kv_heads;
  if (heads == 0) return EVERGRAD_OK;
  // Each cut packs its keys again, so rows are cut only as far as threads need work.
  const i64 wanted = 4 * evergrad_get_num_threads();
  const i64 cuts = heads >= wanted ? 1 : (wanted + heads - 1) / heads;
  std::atomic<int> status{EVERGRAD_OK};
  parallel_for(
      heads * cuts,
      [&](i64 task) {
        const i64 index = task / cuts, cut = task % cuts;
        const AttentionHead h = head_of(*shape, index / shape->kv_heads, index % shape->kv_heads,
                                        query, key, value, out, lse);
        constexpr i64 least_rows = 128;
        const i64 even = (h.tokens_q + cuts - 1) / cuts;
        const i64 rows = even < least_rows ? least_rows : even;
        const i64 begin = cut * rows, end = begin + rows < h.tokens_q ? begin + rows : h.tokens_q;
        if (begin >= end) return;
        const Buffer scratch(t.attention_scratch(h.tokens_k, h.head_dim));
        if (!scratch) return status.store(EVERGRAD_NO_MEMORY);
        t.attention(&h, begin, end, scratch.get());
      },
      worth_threads(*shape));
  return status.load();
}

int evergrad_attention_backward(const evergrad_attention_shape* shape, evergrad_heads dout,
                                evergrad_heads query, evergrad_heads key, evergrad_heads value,
                                evergrad_heads out, const float* lse, evergrad_heads dquery,
                                evergrad_heads dkey, evergrad_heads dvalue) noexcept {
  if (shape->sequences == 0) return EVERGRAD_OK;
  const KernelTable& t = kernels();
  std::atomic<int> status{EVERGRAD_OK};
  parallel_for(
      shape->sequences * shape->kv_heads,
      [&](i64 task) {
        const i64 s = task / shape->kv_heads, kv_head = task % shape->kv_heads;
        AttentionHead h =
            head_of(*shape, s, kv_head, query, key, value, out, const_cast<float*>(lse));
        const Span span = span_of(*shape, s);
        h.dout = at(*shape, dout, s, span.q0, kv_head * h.group);
        h.dquery = at(*shape, dquery, s, span.q0, kv_head * h.group);
        h.dkey = at(*shape, dkey, s, span.k0, kv_head);
        h.dvalue = at(*shape, dvalue, s, span.k0, kv_head);
        h.dout_token = dout.token;
        h.dout_head = dout.head;
        h.dquery_token = dquery.token;
        h.dquery_head = dquery.head;
        h.dkey_token = dkey.token;
        h.dvalue_token = dvalue.token;
        const Buffer scratch(t.attention_backward_scratch(h.tokens_k, h.head_dim));
        if (!scratch) return status.store(EVERGRAD_NO_MEMORY);
        t.attention_backward(&h, scratch.get());
      },
      worth_threads(*shape));
  return status.load();
}
