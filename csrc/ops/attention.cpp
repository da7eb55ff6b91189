// Attention over sequences and heads: tasks are heads of keys and values of a sequence, cut further
// where there are too few of them.
//
// Forward, rows are independent, so their cut does not show. Cuts of the keys do show in the bits,
// so they depend on the shape alone: few query rows over many keys (decoding) are computed in parts
// of `keys_per_part` and merged; the backward of few heads over long sequences is computed in
// parts that each own their keys' gradients, and whose gradients of the queries are added in order.
#include <algorithm>
#include <atomic>

#include "evergrad/evergrad.h"
#include "ops/sizes.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"
#include "runtime/pool.h"

using namespace evergrad;

namespace {

constexpr i64 keys_per_part = 256;
constexpr i64 rows_of_decoding = 32;
constexpr i64 backward_tasks = 16;

using Shape = evergrad_attention_shape;
using Options = evergrad_attention_options;

struct Span {
  i64 q0, tokens_q, k0, tokens_k;
};

// The tokens of sequence s, and where its batch starts.
Span span_of(const Shape& shape, i64 s) {
  if (!shape.cu_q) return {0, shape.tokens_q, 0, shape.tokens_k};
  return {shape.cu_q[s], shape.cu_q[s + 1] - shape.cu_q[s], shape.cu_k[s],
          shape.cu_k[s + 1] - shape.cu_k[s]};
}

i64 most_keys(const Shape& shape) {
  i64 most = 0;
  for (i64 s = 0; s < (shape.cu_q ? shape.sequences : 1); ++s)
    most = max_of(most, span_of(shape, s).tokens_k);
  return most;
}

bool worth_threads(const Shape& shape) {
  const double pairs = static_cast<double>(shape.tokens_q) * static_cast<double>(shape.tokens_k) *
                       (shape.cu_q ? 1.0 / static_cast<double>(shape.sequences)
                                   : static_cast<double>(shape.sequences));
  return 4.0 * pairs * static_cast<double>(shape.heads * shape.head_dim) >= serial_flops;
}

float* at(const Shape& shape, const evergrad_heads& x, i64 s, i64 token, i64 head) {
  return x.data + (shape.cu_q ? 0 : s * x.batch) + token * x.token + head * x.head;
}

template <class T>
T* at(const evergrad_scores& x, i64 s, i64 head) {
  return x.data ? static_cast<T*>(x.data) + s * x.batch + head * x.head : nullptr;
}

struct Tensors {
  evergrad_heads query, key, value, out;
  float* lse;
};

AttentionHead head_of(const Shape& shape, const Options& o, const Tensors& t, i64 s, i64 kv_head) {
  const Span span = span_of(shape, s);
  const i64 group = shape.heads / shape.kv_heads, head = kv_head * group;
  AttentionHead h{};
  h.query = at(shape, t.query, s, span.q0, head);
  h.key = at(shape, t.key, s, span.k0, kv_head);
  h.value = at(shape, t.value, s, span.k0, kv_head);
  h.out = at(shape, t.out, s, span.q0, head);
  h.lse = t.lse + (shape.cu_q ? 0 : s * shape.lse_batch) + head * shape.lse_head + span.q0;
  h.query_token = t.query.token, h.query_head = t.query.head;
  h.key_token = t.key.token, h.value_token = t.value.token;
  h.out_token = t.out.token, h.out_head = t.out.head;
  h.lse_head = shape.lse_head;
  h.tokens_q = span.tokens_q, h.tokens_k = span.tokens_k;
  h.head_dim = shape.head_dim;
  h.group = group;
  h.scale = shape.scale;

  const i64 unlimited = span.tokens_q + span.tokens_k;
  h.left = o.window_left < 0 ? unlimited : min_of(o.window_left, unlimited);
  h.right = o.window_right < 0 ? unlimited : min_of(o.window_right, unlimited);
  h.softcap = o.softcap;
  if (o.alibi_slopes) h.slopes = o.alibi_slopes + s * o.alibi_batch + head;
  h.bias = at<const float>(o.bias, s, head);
  h.bias_head = o.bias.head, h.bias_row = o.bias.row;
  h.add = at<const float>(o.add, s, head);
  h.add_head = o.add.head, h.add_row = o.add.row;
  h.mask = at<const uint8_t>(o.mask, s, head);
  h.mask_head = o.mask.head, h.mask_row = o.mask.row;

  h.threshold = static_cast<uint32_t>(o.dropout_p * 4294967296.0);
  h.keep_scale = static_cast<float>(1.0 / (1.0 - o.dropout_p));
  h.seed = o.seed;
  h.counter_row = shape.tokens_k;
  h.counter_head = shape.tokens_q * shape.tokens_k;
  const i64 row = ((shape.cu_q ? 0 : s) * shape.heads + head) * shape.tokens_q + span.q0;
  h.counter = o.offset + static_cast<uint64_t>(row * shape.tokens_k + span.k0);
  return h;
}

// Whether `arrays` of a head's rows are worth fetching while the one before is computed: there has
// to be room for both, and to spare.
bool fits(const AttentionHead& h, i64 arrays) {
  const i64 rows = max_of(h.tokens_q * h.group, h.tokens_k);
  return arrays * rows * h.head_dim * static_cast<i64>(sizeof(float)) <= l2_bytes() / 2;
}

// Parts of the keys in the forward pass.
i64 forward_parts(const Shape& shape, const Span& span) {
  const bool decoding = span.tokens_q * (shape.heads / shape.kv_heads) <= rows_of_decoding;
  return decoding ? max_of(1, parts_of(span.tokens_k, keys_per_part)) : 1;
}

// What comes before a sequence: parts, each a task or a few, and the rows of their results where
// these have to be merged.
struct Start {
  i64 part, row;
};

Start after(Start start, const Shape& shape, const Span& span) {
  const i64 parts = forward_parts(shape, span), rows = span.tokens_q * shape.heads;
  return {start.part + parts * shape.kv_heads, start.row + (parts > 1 ? parts * rows : 0)};
}

}  // namespace

int evergrad_attention(const Shape* shape, const Options* options, evergrad_heads query,
                       evergrad_heads key, evergrad_heads value, evergrad_heads out,
                       float* lse) noexcept {
  const KernelTable& t = kernels();
  const i64 sequences = shape->sequences, kv_heads = shape->kv_heads, units = sequences * kv_heads;
  if (units == 0 || (!shape->cu_q && shape->tokens_q == 0)) return EVERGRAD_OK;
  const Tensors tensors{query, key, value, out, lse};
  const i64 group = shape->heads / kv_heads, d = shape->head_dim;
  i64 panels = 0;
  Start all{0, 0};
  for (i64 s = 0; s < sequences; ++s) {
    const Span span = span_of(*shape, s);
    panels = max_of(panels, t.attention_panels(span.tokens_q * group));
    all = after(all, *shape, span);
  }
  const i64 cuts =
      max_of(1, min_of(parts_of(panels, 4), parts_of(4 * evergrad_get_num_threads(), all.part)));
  // Results of parts: [rows, head_dim] and [rows].
  constexpr i64 start_floats = sizeof(Start) / sizeof(float);
  const Buffer memory(sequences * start_floats + all.row * (d + 1));
  if (!memory) return EVERGRAD_NO_MEMORY;
  auto* const starts = reinterpret_cast<Start*>(memory.get());
  float *const outs = memory.get() + sequences * start_floats, *const lses = outs + all.row * d;
  Start next_start{0, 0};
  for (i64 s = 0; s < sequences; ++s) {
    starts[s] = next_start;
    next_start = after(next_start, *shape, span_of(*shape, s));
  }
  std::atomic<int> status{EVERGRAD_OK};
  parallel_for(
      all.part * cuts,
      [&](i64 task) {
        const i64 s = std::upper_bound(starts, starts + sequences, task / cuts,
                                       [](i64 p, const Start& start) { return p < start.part; }) -
                      starts - 1;
        const Span span = span_of(*shape, s);
        const i64 parts = forward_parts(*shape, span), rows = span.tokens_q * group;
        const i64 within = task / cuts - starts[s].part, kv_head = within / parts;
        // Causal attention has most to do for the last rows: begin there.
        const i64 part = within % parts, cut = cuts - 1 - task % cuts;
        const i64 own_panels = t.attention_panels(rows), step = parts_of(own_panels, cuts);
        const i64 begin = cut * step, end = min_of(begin + step, own_panels);
        if (begin >= end) return;
        AttentionHead h = head_of(*shape, *options, tensors, s, kv_head), next;
        const i64 unit = s * kv_heads + kv_head + 1;
        if (all.row == 0 && cuts == 1 && unit < units) {
          next = head_of(*shape, *options, tensors, unit / kv_heads, unit % kv_heads);
          if (fits(next, 4)) h.next = &next;
        }
        if (parts > 1) {
          const i64 row = starts[s].row + within * rows;
          h.out = outs + row * d;
          h.out_token = group * d, h.out_head = d;
          h.lse = lses + row;
          h.lse_head = h.tokens_q;
        }
        const Buffer scratch(t.attention_scratch(d));
        if (!scratch) return status.store(EVERGRAD_NO_MEMORY);
        const i64 k_begin = part * keys_per_part;
        const i64 k_end =
            parts > 1 ? min_of(k_begin + keys_per_part, span.tokens_k) : span.tokens_k;
        t.attention(&h, begin, end, k_begin, k_end, scratch.get());
      },
      workers_if(worth_threads(*shape)));
  if (all.row == 0 || status.load() != EVERGRAD_OK) return status.load();

  for (i64 unit = 0; unit < units; ++unit) {
    const i64 s = unit / kv_heads, kv_head = unit % kv_heads;
    const i64 parts = forward_parts(*shape, span_of(*shape, s));
    if (parts == 1) continue;
    const AttentionHead h = head_of(*shape, *options, tensors, s, kv_head);
    const i64 rows = h.tokens_q * group, row = starts[s].row + kv_head * parts * rows;
    for (i64 i = 0; i < h.tokens_q; ++i)
      for (i64 g = 0; g < group; ++g)
        t.attention_merge(parts, d, outs + (row + i * group + g) * d, rows * d,
                          lses + row + g * h.tokens_q + i, rows,
                          h.out + g * h.out_head + i * h.out_token, h.lse + g * h.lse_head + i);
  }
  return EVERGRAD_OK;
}

int evergrad_attention_backward(const Shape* shape, const Options* options, evergrad_heads dout,
                                evergrad_heads query, evergrad_heads key, evergrad_heads value,
                                evergrad_heads out, const float* lse, evergrad_heads dquery,
                                evergrad_heads dkey, evergrad_heads dvalue,
                                evergrad_scores dbias) noexcept {
  const KernelTable& t = kernels();
  const i64 kv_heads = shape->kv_heads, units = shape->sequences * kv_heads;
  if (units == 0 || (!shape->cu_q && shape->tokens_q == 0 && shape->tokens_k == 0))
    return EVERGRAD_OK;
  const Tensors tensors{query, key, value, out, const_cast<float*>(lse)};
  const i64 d = shape->head_dim, row_size = shape->heads * d;
  const i64 parts =
      max_of(1, min_of(most_keys(*shape) / keys_per_part, parts_of(backward_tasks, units)));
  // The first part writes dquery, the others a [sequences, tokens_q, heads, head_dim] each.
  const i64 batch_size = shape->tokens_q * row_size;
  const i64 part_size = (shape->cu_q ? 1 : shape->sequences) * batch_size;
  const Buffer partial((parts - 1) * part_size + 1);
  if (!partial) return EVERGRAD_NO_MEMORY;
  std::atomic<int> status{EVERGRAD_OK};

  const auto head_at = [&](i64 s, i64 kv_head, i64 part) {
    const Span span = span_of(*shape, s);
    AttentionHead h = head_of(*shape, *options, tensors, s, kv_head);
    evergrad_heads dq = dquery;
    if (part > 0) dq = {partial.get() + (part - 1) * part_size, batch_size, row_size, d};
    h.dout = at(*shape, dout, s, span.q0, kv_head * h.group);
    h.dquery = at(*shape, dq, s, span.q0, kv_head * h.group);
    h.dkey = at(*shape, dkey, s, span.k0, kv_head);
    h.dvalue = at(*shape, dvalue, s, span.k0, kv_head);
    h.dout_token = dout.token, h.dout_head = dout.head;
    h.dquery_token = dq.token, h.dquery_head = dq.head;
    h.dkey_token = dkey.token, h.dvalue_token = dvalue.token;
    h.dbias = at<float>(dbias, s, kv_head * h.group);
    h.dbias_head = dbias.head, h.dbias_row = dbias.row;
    return h;
  };
  const auto run = [&](i64 s, i64 kv_head, i64 part) {
    AttentionHead h = head_at(s, kv_head, part), next;
    const i64 unit = s * kv_heads + kv_head + 1;
    if (parts == 1 && unit < units) {
      next = head_at(unit / kv_heads, unit % kv_heads, 0);
      if (fits(next, 8)) h.next = &next;
    }
    const Buffer scratch(t.attention_backward_scratch(d));
    if (!scratch) return status.store(EVERGRAD_NO_MEMORY);
    const i64 step = parts_of(h.tokens_k, parts);
    const i64 begin = min_of(part * step, h.tokens_k);
    t.attention_backward(&h, begin, min_of(begin + step, h.tokens_k), scratch.get());
  };

  // Tasks that add to the same dbias are one task; parts have columns of their own.
  const bool s_apart = !dbias.data || dbias.batch != 0,
             heads_apart = !dbias.data || dbias.head != 0;
  const i64 s_tasks = s_apart ? shape->sequences : 1, head_tasks = heads_apart ? kv_heads : 1;
  parallel_for(
      s_tasks * head_tasks * parts,
      [&](i64 task) {
        const i64 s0 = task / (head_tasks * parts), head0 = task / parts % head_tasks;
        for (i64 s = s0; s < (s_apart ? s0 + 1 : shape->sequences); ++s)
          for (i64 head = head0; head < (heads_apart ? head0 + 1 : kv_heads); ++head)
            run(s, head, task % parts);
      },
      workers_if(worth_threads(*shape)));
  if (parts == 1 || status.load() != EVERGRAD_OK) return status.load();

  const i64 batches = shape->cu_q ? 1 : shape->sequences;
  const i64 grain = parts_of(elements_per_task, max_of(1, row_size));
  parallel_ranges(batches * shape->tokens_q, grain, [&](i64 begin, i64 end) {
    for (i64 row = begin; row < end; ++row) {
      const i64 b = row / shape->tokens_q, token = row % shape->tokens_q;
      for (i64 part = 0; part + 1 < parts; ++part)
        for (i64 head = 0; head < shape->heads; ++head)
          t.add_rows(d, partial.get() + part * part_size + row * row_size + head * d,
                     at(*shape, dquery, b, token, head));
    }
  });
  return EVERGRAD_OK;
}
