// Scaled dot-product attention of one head, tiled (Dao et al. 2022): scores exist only as a block
// of `block_q` query rows by `block_k` keys that stays in L1/L2.
//
// Layouts of operands, all products run on the register tile of gemm.h:
//   S = Q K^T       A = Q panels (packed, scaled),  B = key panels: keys are lanes, head_dim is
//   depth O += P V        A = P as it lies (row stride block_k), B = value panels per key block:
//   depth is keys dP = dO V^T     like S with dO for Q and V for K dV += P^T dO    A = P read down
//   its columns (depth stride block_k), B = dO panels: depth is rows dK += dS^T Q    likewise;  dQ
//   += dS K  like O += P V
// P is never packed: its row stride is a constant, so every element of a tile's column folds into
// an address. Keys and values are packed once per head and serve all query rows of the group.
//
// Causal masking is bottom-right: row i of tokens_q sees keys j < i + 1 + tokens_k - tokens_q.
// Tiles that lie wholly beyond it are skipped, in S and in the depth of every product.
#pragma once

#include "kernels/softmax.h"

namespace evergrad {
namespace {

constexpr i64 block_k = 128;
constexpr i64 block_q = 64 / mr * mr + (64 % mr ? mr : 0);
static_assert(block_k % nr == 0 && block_q % mr == 0, "blocks hold whole tiles");

// Scores of a block, and room for the last tile of P^T to read past the last row.
constexpr i64 score_size = block_q * block_k + mr;

EVG_INLINE i64 visible(const AttentionHead& h, i64 row) {
  if (!h.causal) return h.tokens_k;
  return max_of(0, min_of(h.tokens_k, row + 1 + h.tokens_k - h.tokens_q));
}

// Keys or values as lanes, depth = head_dim; short panels padded with zeros.
EVG_INLINE i64 lanes_size(i64 tokens, i64 head_dim) { return round_up(tokens, nr) * head_dim; }
// Keys or values as depth, block by block, lanes = head_dim.
EVG_INLINE i64 depth_size(i64 tokens, i64 head_dim) { return tokens * round_up(head_dim, nr); }

EVG_INLINE void pack_depth(const AttentionHead& h, const float* x, i64 stride, float* packed) {
  for (i64 j = 0; j < h.tokens_k; j += block_k)
    pack_panels<nr>(h.head_dim, min_of(block_k, h.tokens_k - j), x + j * stride, 1, stride,
                    packed + j * round_up(h.head_dim, nr));
}

EVG_INLINE i64 span(i64 rest, i64 step) { return min_of(step, rest); }

// S[rows, keys j0...] = A B^T for the tiles that some row sees.
EVG_INLINE void scores(const AttentionHead& h, i64 q0, i64 rows, i64 j0, i64 keys, const float* a,
                       const float* lanes, float* s) {
  for (i64 j = 0; j < keys; j += nr)
    for (i64 i = 0; i < rows; i += mr) {
      const i64 last = min_of(rows, i + mr) - 1;
      if (visible(h, q0 + last) <= j0 + j) continue;
      tile<mr>(h.head_dim, a + i * h.head_dim, 1, mr, lanes + (j0 + j) * h.head_dim,
               s + i * block_k + j, block_k, mr, nr, false);
    }
}

// How many keys of a block the tile of rows that holds row i sees: the depth of P B.
EVG_INLINE i64 tile_depth(const AttentionHead& h, i64 q0, i64 rows, i64 i, i64 j0, i64 keys) {
  const i64 last = min_of(rows, i / mr * mr + mr) - 1;
  return max_of(0, min_of(keys, visible(h, q0 + last) - j0));
}

// C[rows, head_dim] += P B with B's depth along the keys of this block.
EVG_INLINE void times_block(const AttentionHead& h, i64 q0, i64 rows, i64 j0, i64 keys,
                            const float* p, const float* depth_panels, float* c, i64 c_stride) {
  for (i64 n = 0; n < h.head_dim; n += nr)
    for (i64 i = 0; i < rows; i += mr) {
      const i64 depth = tile_depth(h, q0, rows, i, j0, keys);
      if (depth == 0) continue;
      tile<mr>(depth, p + i * block_k, block_k, 1, depth_panels + n * keys, c + i * c_stride + n,
               c_stride, static_cast<int>(span(rows - i, mr)),
               static_cast<int>(span(h.head_dim - n, nr)), true);
    }
}

// C[keys, head_dim] += P^T B with B's depth along the query rows of this block.
EVG_INLINE void transposed_times(const AttentionHead& h, i64 q0, i64 rows, i64 j0, i64 keys,
                                 const float* p, const float* row_panels, float* c, i64 c_stride) {
  for (i64 n = 0; n < h.head_dim; n += nr)
    for (i64 i = 0; i < keys; i += mr) {
      // The first row that sees key j0 + i; rows before it hold zeros or were never written.
      i64 start = 0;
      if (h.causal) start = max_of(0, j0 + i - (h.tokens_k - h.tokens_q) - q0);
      if (start >= rows) continue;
      tile<mr>(rows - start, p + start * block_k + i, 1, block_k,
               row_panels + n * rows + start * nr, c + i * c_stride + n, c_stride,
               static_cast<int>(span(keys - i, mr)), static_cast<int>(span(h.head_dim - n, nr)),
               true);
    }
}

i64 attention_scratch(i64 tokens_k, i64 head_dim) {
  return lanes_size(tokens_k, head_dim) + depth_size(tokens_k, head_dim) + block_q * head_dim +
         score_size + block_q * round_up(head_dim, Vec::width) + 2 * block_q;
}

void attention(const AttentionHead* head, i64 begin, i64 end, float* scratch) {
  const AttentionHead& h = *head;
  const i64 d = h.head_dim;
  float* key_lanes = scratch;
  float* value_depth = key_lanes + lanes_size(h.tokens_k, d);
  float* a = value_depth + depth_size(h.tokens_k, d);  // query panels
  float* s = a + block_q * d;
  float* acc = s + score_size;  // unnormalised output, [block_q, d]
  float* row_m = acc + block_q * round_up(d, Vec::width);
  float* row_l = row_m + block_q;
  pack_panels<nr>(h.tokens_k, d, h.key, h.key_token, 1, key_lanes);
  pack_depth(h, h.value, h.value_token, value_depth);
  for (i64 i = 0; i < score_size; ++i) s[i] = 0.0f;

  for (i64 g = 0; g < h.group; ++g)
    for (i64 q0 = begin; q0 < end; q0 += block_q) {
      const i64 rows = span(end - q0, block_q);
      pack_panels<mr>(rows, d, h.query + g * h.query_head + q0 * h.query_token, h.query_token, 1,
                      a);
      const Vec scale = set1(h.scale);
      map(round_up(rows, mr) * d, a, [=](i64 i, Mask m) { return load(a + i, m) * scale; });
      map(rows * d, acc, [](i64, Mask) { return zero(); });
      for (i64 i = 0; i < rows; ++i) {
        row_m[i] = -infinity;
        row_l[i] = 0.0f;
      }
      const i64 last_key = visible(h, q0 + rows - 1);
      for (i64 j0 = 0; j0 < last_key; j0 += block_k) {
        const i64 keys = span(h.tokens_k - j0, block_k);
        scores(h, q0, rows, j0, keys, a, key_lanes, s);
        for (i64 i = 0; i < rows; ++i) {
          float* row = s + i * block_k;
          const i64 seen = max_of(0, min_of(keys, visible(h, q0 + i) - j0));
          if (seen > 0) {
            // The running maximum m moves up: what was summed under the old one shrinks by
            // exp(m_old - m_new).
            const float block_max = row_max(seen, row);
            const float m = block_max > row_m[i] ? block_max : row_m[i];
            if (m != row_m[i] && j0 > 0) {
              alignas(64) float shrink[Vec::width];
              store(shrink, exp(set1(row_m[i] - m)));
              const Vec by = set1(shrink[0]);
              float* o = acc + i * d;
              map(d, o, [=](i64 c, Mask k) { return load(o + c, k) * by; });
              row_l[i] *= shrink[0];
            }
            row_m[i] = m;
            row_l[i] += row_exp(seen, row, m, row);
          }
          // What the other rows of its tile see and this one does not counts as zero.
          map(tile_depth(h, q0, rows, i, j0, keys) - seen, row + seen,
              [](i64, Mask) { return zero(); });
        }
        times_block(h, q0, rows, j0, keys, s, value_depth + j0 * round_up(d, nr), acc, d);
      }
      for (i64 i = 0; i < rows; ++i) {
        const float l = row_l[i];
        const Vec inv = set1(l == 0.0f ? 0.0f : 1.0f / l);
        const float* o = acc + i * d;
        map(d, h.out + g * h.out_head + (q0 + i) * h.out_token,
            [=](i64 c, Mask k) { return load(o + c, k) * inv; });
        alignas(64) float log_l[Vec::width];
        store(log_l, log(set1(l)));
        h.lse[g * h.lse_head + q0 + i] = l == 0.0f ? -infinity : row_m[i] + log_l[0];
      }
    }
}

i64 attention_backward_scratch(i64 tokens_k, i64 head_dim) {
  return 2 * lanes_size(tokens_k, head_dim) + depth_size(tokens_k, head_dim) +
         2 * tokens_k * head_dim + 2 * block_q * head_dim + 2 * block_q * round_up(head_dim, nr) +
         2 * score_size + block_q * head_dim + block_q;
}

// Every query row of the group in turn adds to this head's dkey and dvalue: a fixed order.
void attention_backward(const AttentionHead* head, float* scratch) {
  const AttentionHead& h = *head;
  const i64 d = h.head_dim, tk = h.tokens_k;
  float* key_lanes = scratch;
  float* value_lanes = key_lanes + lanes_size(tk, d);
  float* key_depth = value_lanes + lanes_size(tk, d);
  float* dk = key_depth + depth_size(tk, d);  // [tokens_k, d], without the factor scale
  float* dv = dk + tk * d;
  float* q_rows = dv + tk * d;  // query as A
  float* do_rows = q_rows + block_q * d;
  float* q_depth = do_rows + block_q * d;  // query as B, rows as depth
  float* do_depth = q_depth + block_q * round_up(d, nr);
  float* p = do_depth + block_q * round_up(d, nr);
  float* ds = p + score_size;
  float* dq = ds + score_size;  // [block_q, d]
  float* delta = dq + block_q * d;
  pack_panels<nr>(tk, d, h.key, h.key_token, 1, key_lanes);
  pack_panels<nr>(tk, d, h.value, h.value_token, 1, value_lanes);
  pack_depth(h, h.key, h.key_token, key_depth);
  map(2 * tk * d, dk, [](i64, Mask) { return zero(); });
  for (i64 i = 0; i < 2 * score_size; ++i) p[i] = 0.0f;
  const Vec scale = set1(h.scale);

  for (i64 g = 0; g < h.group; ++g)
    for (i64 q0 = 0; q0 < h.tokens_q; q0 += block_q) {
      const i64 rows = span(h.tokens_q - q0, block_q);
      const float* query = h.query + g * h.query_head + q0 * h.query_token;
      const float* dout = h.dout + g * h.dout_head + q0 * h.dout_token;
      const float* out = h.out + g * h.out_head + q0 * h.out_token;
      pack_panels<mr>(rows, d, query, h.query_token, 1, q_rows);
      pack_panels<mr>(rows, d, dout, h.dout_token, 1, do_rows);
      pack_panels<nr>(d, rows, query, 1, h.query_token, q_depth);
      pack_panels<nr>(d, rows, dout, 1, h.dout_token, do_depth);
      for (i64 i = 0; i < rows; ++i) {
        const float* dy = dout + i * h.dout_token;
        const float* y = out + i * h.out_token;
        delta[i] = row_sum(d, [=](i64 c, Mask k) { return load(dy + c, k) * load(y + c, k); });
      }
      map(rows * d, dq, [](i64, Mask) { return zero(); });
      const i64 last_key = visible(h, q0 + rows - 1);
      for (i64 j0 = 0; j0 < last_key; j0 += block_k) {
        const i64 keys = span(tk - j0, block_k);
        scores(h, q0, rows, j0, keys, q_rows, key_lanes, p);
        scores(h, q0, rows, j0, keys, do_rows, value_lanes, ds);
        for (i64 i = 0; i < rows; ++i) {
          float* prow = p + i * block_k;
          float* dsrow = ds + i * block_k;
          const i64 seen = max_of(0, min_of(keys, visible(h, q0 + i) - j0));
          const Vec lse = set1(h.lse[g * h.lse_head + q0 + i]), shift = set1(delta[i]);
          map(seen, prow, [=](i64 c, Mask k) {
            const Vec e = exp(fma(load(prow + c, k), scale, neg(lse)));
            store(dsrow + c, e * (load(dsrow + c, k) - shift), k);
            return e;
          });
          // A row whose scores are all -inf has lse = -inf and probabilities 0, not NaN.
          const bool empty = h.lse[g * h.lse_head + q0 + i] == -infinity;
          const i64 keep = empty ? 0 : seen;
          map(block_k - keep, prow + keep, [](i64, Mask) { return zero(); });
          map(block_k - keep, dsrow + keep, [](i64, Mask) { return zero(); });
        }
        transposed_times(h, q0, rows, j0, keys, p, do_depth, dv + j0 * d, d);
        transposed_times(h, q0, rows, j0, keys, ds, q_depth, dk + j0 * d, d);
        times_block(h, q0, rows, j0, keys, ds, key_depth + j0 * round_up(d, nr), dq, d);
      }
      for (i64 i = 0; i < rows; ++i) {
        const float* from = dq + i * d;
        map(d, h.dquery + g * h.dquery_head + (q0 + i) * h.dquery_token,
            [=](i64 c, Mask k) { return load(from + c, k) * scale; });
      }
    }
  for (i64 j = 0; j < tk; ++j) {
    const float *k_row = dk + j * d, *v_row = dv + j * d;
    map(d, h.dkey + j * h.dkey_token, [=](i64 c, Mask k) { return load(k_row + c, k) * scale; });
    map(d, h.dvalue + j * h.dvalue_token, [=](i64 c, Mask k) { return load(v_row + c, k); });
  }
}

}  // namespace
}  // namespace evergrad
