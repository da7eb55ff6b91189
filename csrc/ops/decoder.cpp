// Blocks of a pre-norm decoder that read and extend a cache of keys and values, in one call.
//
// It computes what its parts compute one by one, with the same drivers and so the same bits. With
// one token a block is some ten calls of a few microseconds; what lies between them in a language
// that is interpreted takes as long.
#include <cstring>

#include "evergrad/evergrad.h"
#include "ops/sizes.h"
#include "runtime/pool.h"

using namespace evergrad;

namespace {

int apply(const evergrad_map& map, i64 rows, const float* x, int activation, const float* residual,
          float* out) {
  if (map.kind == EVERGRAD_F32)
    return evergrad_linear(rows, map.in, map.features, x, static_cast<const float*>(map.weight),
                           map.bias, activation, residual, nullptr, out);
  return evergrad_linear_quantized(map.kind, rows, map.in, map.features, x,
                                   static_cast<const uint8_t*>(map.weight), map.bias, activation,
                                   residual, nullptr, out);
}

// The statistics are for a backward that never comes.
int apply(const evergrad_norm& norm, i64 rows, i64 dim, const float* x, float* out, float* stats) {
  if (norm.is_rms)
    return evergrad_rms_norm(rows, dim, x, nullptr, norm.weight, norm.eps, nullptr, out, stats);
  return evergrad_layer_norm(rows, dim, x, nullptr, norm.weight, norm.bias, norm.eps, nullptr, out,
                             stats, stats + rows);
}

// Keys and values of a span go to its slots.
void append(const evergrad_decoder_block& b, float* cache, i64 capacity, const evergrad_span& span,
            const float* qkv) {
  const i64 d = b.head_dim, inner = b.heads * d, heads = 2 * b.kv_heads, row = inner + heads * d;
  const i64 head = capacity * d, slot = heads * head;
  qkv += span.first * row;
  cache += span.slot * slot;
  for (i64 i = 0; i < span.slots; ++i)
    for (i64 h = 0; h < heads; ++h)
      for (i64 t = 0; t < span.tokens; ++t)
        std::memcpy(cache + i * slot + h * head + (span.start + t) * d,
                    qkv + (i * span.tokens + t) * row + inner + h * d,
                    static_cast<std::size_t>(d) * sizeof(float));
}

// What the last `asking` tokens of each slot of a span see; out has a row for each of them.
int attend(const evergrad_decoder_block& b, float* cache, i64 capacity, const evergrad_span& span,
           i64 asking, float* qkv, float* lse, float* out) {
  const i64 d = b.head_dim, inner = b.heads * d, heads = 2 * b.kv_heads, row = inner + heads * d;
  const i64 head = capacity * d, slot = heads * head;
  cache += span.slot * slot;
  evergrad_attention_shape shape{};
  shape.sequences = span.slots;
  shape.tokens_q = asking;
  shape.tokens_k = span.start + span.tokens;
  shape.heads = b.heads;
  shape.kv_heads = b.kv_heads;
  shape.head_dim = b.head_dim;
  shape.lse_head = asking;
  shape.lse_batch = b.heads * asking;
  shape.scale = b.scale;
  evergrad_attention_options options{};
  options.window_left = b.window_left;
  const evergrad_heads query{qkv + (span.first + span.tokens - asking) * row, span.tokens * row,
                             row, d};
  const evergrad_heads key{cache, slot, d, head};
  const evergrad_heads value{cache + b.kv_heads * head, slot, d, head};
  const evergrad_heads mixed{out, asking * inner, inner, d};
  return evergrad_attention(&shape, &options, query, key, value, mixed, lse);
}

// out = residual + down(act(up(x)))
int mlp(const evergrad_decoder_block& b, i64 rows, const float* x, const float* residual,
        float* wide, float* narrow, float* out) {
  int status =
      apply(b.up, rows, x, b.is_gated ? EVERGRAD_ACTIVATION_NONE : b.activation, nullptr, wide);
  const float* hidden = wide;
  if (status == EVERGRAD_OK && b.is_gated) {
    const i64 n = b.down.in;
    status = evergrad_gated(b.activation, rows, n, wide, 2 * n, wide + n, 2 * n, narrow);
    hidden = narrow;
  }
  if (status != EVERGRAD_OK) return status;
  return apply(b.down, rows, hidden, EVERGRAD_ACTIVATION_NONE, residual, out);
}

// Slots that get tokens, and so have a last one.
i64 slots_of(i64 spans, const evergrad_span* span) {
  i64 slots = 0;
  for (i64 s = 0; s < spans; ++s)
    if (span[s].tokens > 0) slots += span[s].slots;
  return slots;
}

// The rows of their last tokens.
void pick_last(i64 spans, const evergrad_span* span, i64 dim, const float* x, float* out) {
  for (i64 s = 0; s < spans; ++s)
    for (i64 i = 0; i < span[s].slots && span[s].tokens > 0; ++i, out += dim)
      std::memcpy(out, x + (span[s].first + (i + 1) * span[s].tokens - 1) * dim,
                  static_cast<std::size_t>(dim) * sizeof(float));
}

}  // namespace

int evergrad_decoder(int64_t blocks, const evergrad_decoder_block* block, int64_t tokens,
                     int64_t dim, const float* cos, const float* sin, int64_t rotary_dim,
                     float* cache, int64_t cache_layer, int64_t capacity, int64_t spans,
                     const evergrad_span* span, int last_only, const float* x,
                     float* out) noexcept {
  const i64 last = last_only ? slots_of(spans, span) : tokens;
  i64 wide_size = 0, narrow_size = 0, heads = 0;
  for (i64 i = 0; i < blocks; ++i) {
    const evergrad_decoder_block& b = block[i];
    wide_size = max_of(wide_size, tokens * max_of(b.qkv.features, b.up.features));
    narrow_size = max_of(narrow_size, tokens * max_of(b.proj.in, b.down.in));
    heads = max_of(heads, b.heads);
  }
  const bool fewer = last < tokens;
  const Buffer normed(tokens * dim), wide(wide_size), narrow(narrow_size), stream(tokens * dim),
      small(tokens * max_of(heads, 2)), before(fewer ? tokens * dim : 1);
  if (!normed || !wide || !narrow || !stream || !small || !before) return EVERGRAD_NO_MEMORY;
  if (blocks == 0) {
    if (fewer)
      pick_last(spans, span, dim, x, out);
    else
      std::memcpy(out, x, static_cast<std::size_t>(tokens * dim) * sizeof(float));
  }
  // The residual stream goes from one buffer to the other, twice in a block, and so ends in out.
  float* const other = fewer ? before.get() : out;
  const float* now = x;
  for (i64 i = 0; i < blocks; ++i) {
    const evergrad_decoder_block& b = block[i];
    float* const layer = cache + i * cache_layer;
    int status = apply(b.norm_1, tokens, dim, now, normed.get(), small.get());
    if (status == EVERGRAD_OK)
      status = apply(b.qkv, tokens, normed.get(), EVERGRAD_ACTIVATION_NONE, nullptr, wide.get());
    if (status == EVERGRAD_OK && cos) {
      const i64 row = b.qkv.features;
      const evergrad_heads turned{wide.get(), tokens * row, row, b.head_dim};
      status = evergrad_rotary(1, tokens, b.heads + b.kv_heads, b.head_dim, rotary_dim, 0, turned,
                               cos, sin, nullptr, 0, turned);
    }
    // Whatever lies above the last block's keys and values is for its output alone.
    const bool narrows = fewer && i + 1 == blocks;
    const i64 rows = narrows ? last : tokens;
    for (i64 s = 0, row = 0; s < spans && status == EVERGRAD_OK; ++s) {
      if (span[s].tokens == 0) continue;
      const i64 first = narrows ? row : span[s].first;
      append(b, layer, capacity, span[s], wide.get());
      status = attend(b, layer, capacity, span[s], narrows ? 1 : span[s].tokens, wide.get(),
                      small.get(), narrow.get() + first * b.heads * b.head_dim);
      row += span[s].slots;
    }
    if (narrows) {  // norm_2 writes there after proj has read it
      pick_last(spans, span, dim, now, normed.get());
      now = normed.get();
    }
    float* const after = i + 1 == blocks ? out : other;
    if (status == EVERGRAD_OK)
      status = apply(b.proj, rows, narrow.get(), EVERGRAD_ACTIVATION_NONE, now, stream.get());
    if (status == EVERGRAD_OK)
      status = apply(b.norm_2, rows, dim, stream.get(), normed.get(), small.get());
    if (status == EVERGRAD_OK)
      status = mlp(b, rows, normed.get(), stream.get(), wide.get(), narrow.get(), after);
    if (status != EVERGRAD_OK) return status;
    now = after;
  }
  return EVERGRAD_OK;
}
