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

int attend(const evergrad_decoder_block& b, float* cache, i64 capacity, const evergrad_span& span,
           float* qkv, float* lse, float* out) {
  const i64 d = b.head_dim, inner = b.heads * d, heads = 2 * b.kv_heads, row = inner + heads * d;
  const i64 head = capacity * d, slot = heads * head, end = span.start + span.tokens;
  qkv += span.first * row;
  cache += span.slot * slot;
  for (i64 i = 0; i < span.slots; ++i)
    for (i64 h = 0; h < heads; ++h)
      for (i64 t = 0; t < span.tokens; ++t)
        std::memcpy(cache + i * slot + h * head + (span.start + t) * d,
                    qkv + (i * span.tokens + t) * row + inner + h * d,
                    static_cast<std::size_t>(d) * sizeof(float));
  evergrad_attention_shape shape{};
  shape.sequences = span.slots;
  shape.tokens_q = span.tokens;
  shape.tokens_k = end;
  shape.heads = b.heads;
  shape.kv_heads = b.kv_heads;
  shape.head_dim = b.head_dim;
  shape.lse_head = span.tokens;
  shape.lse_batch = b.heads * span.tokens;
  shape.scale = b.scale;
  evergrad_attention_options options{};
  options.window_left = b.window_left;
  const evergrad_heads query{qkv, span.tokens * row, row, d};
  const evergrad_heads key{cache, slot, d, head};
  const evergrad_heads value{cache + b.kv_heads * head, slot, d, head};
  const evergrad_heads mixed{out + span.first * inner, span.tokens * inner, inner, d};
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

}  // namespace

int evergrad_decoder(int64_t blocks, const evergrad_decoder_block* block, int64_t tokens,
                     int64_t dim, const float* cos, const float* sin, int64_t rotary_dim,
                     float* cache, int64_t cache_layer, int64_t capacity, int64_t spans,
                     const evergrad_span* span, const float* x, float* out) noexcept {
  i64 wide_size = 0, narrow_size = 0, heads = 0;
  for (i64 i = 0; i < blocks; ++i) {
    const evergrad_decoder_block& b = block[i];
    wide_size = max_of(wide_size, tokens * max_of(b.qkv.features, b.up.features));
    narrow_size = max_of(narrow_size, tokens * max_of(b.proj.in, b.down.in));
    heads = max_of(heads, b.heads);
  }
  const Buffer normed(tokens * dim), wide(wide_size), narrow(narrow_size), stream(tokens * dim),
      small(tokens * max_of(heads, 2));
  if (!normed || !wide || !narrow || !stream || !small) return EVERGRAD_NO_MEMORY;
  // The residual stream goes from one buffer to the other, twice in a block, and so ends in out.
  if (blocks == 0) std::memcpy(out, x, static_cast<std::size_t>(tokens * dim) * sizeof(float));
  const float* now = x;
  for (i64 i = 0; i < blocks; ++i) {
    const evergrad_decoder_block& b = block[i];
    int status = apply(b.norm_1, tokens, dim, now, normed.get(), small.get());
    if (status == EVERGRAD_OK)
      status = apply(b.qkv, tokens, normed.get(), EVERGRAD_ACTIVATION_NONE, nullptr, wide.get());
    if (status == EVERGRAD_OK && cos) {
      const i64 row = b.qkv.features;
      const evergrad_heads turned{wide.get(), tokens * row, row, b.head_dim};
      status = evergrad_rotary(1, tokens, b.heads + b.kv_heads, b.head_dim, rotary_dim, 0, turned,
                               cos, sin, nullptr, 0, turned);
    }
    for (i64 s = 0; s < spans && status == EVERGRAD_OK; ++s)
      status = attend(b, cache + i * cache_layer, capacity, span[s], wide.get(), small.get(),
                      narrow.get());
    if (status == EVERGRAD_OK)
      status = apply(b.proj, tokens, narrow.get(), EVERGRAD_ACTIVATION_NONE, now, stream.get());
    if (status == EVERGRAD_OK)
      status = apply(b.norm_2, tokens, dim, stream.get(), normed.get(), small.get());
    if (status == EVERGRAD_OK)
      status = mlp(b, tokens, normed.get(), stream.get(), wide.get(), narrow.get(), out);
    if (status != EVERGRAD_OK) return status;
    now = out;
  }
  return EVERGRAD_OK;
}
