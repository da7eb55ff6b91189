// Scaled dot-product attention of one key/value head, tiled (Dao et al. 2022): scores exist only as
// a block of `block_k` keys by one panel of query rows, which stays in L1.
//
// A panel is `nr` query rows side by side in vector lanes; scores stand transposed, a row of a
// block is one key. So maximum, sum and exponential of the softmax run down the block without a
// reduction across lanes, and keys and values are operands as they lie in memory:
//
//   S^T = K Q^T          dP^T = V dO^T         A = rows of K or V,        depth is head_dim
//   O^T += V^T P^T       dQ^T += K^T dS^T      A = the same rows, read across, depth is keys
//   dV += P^T dO         dK += dS^T Q          A = rows of the block,     depth is queries
//
// Only the panel of queries is transposed. Keys and values are copied block by block into padded
// rows, so that every tile is whole and their strides do not matter.
//
// The query heads of a group share their keys: row r of the panels is query r / group of head
// r % group, and a few queries of many heads fill the lanes too.
//
// Query i stands at p = i + tokens_k - tokens_q among the keys (bottom-right) and sees the keys
// from p - left to p + right. What no lane of a vector sees is neither computed nor read.
#pragma once

#include "kernels/dropout.h"
#include "kernels/softmax.h"

namespace evergrad {
namespace {

// Rows of a register tile. gemm.h's mr would waste an eighth of a head_dim of 64.
constexpr int tile_rows = Vec::width == 16 ? 8 : Vec::width == 8 ? 6 : 4;
// A head_dim is cut finer: 32 would be padded to 36.
constexpr int row_unit = Vec::width == 8 ? 2 : tile_rows;
constexpr i64 block_k = 128 / tile_rows * tile_rows;
constexpr i64 panels_at_once = 8;                 // that share a copied block of keys
constexpr i64 chunk_k = 512 / block_k * block_k;  // keys of the backward whose gradients stay in L2
constexpr i64 few_rows = 8;  // up to here rows need no panel, and keys are read in place

EVG_INLINE i64 padded_dim(i64 head_dim) { return round_up(head_dim, row_unit); }
EVG_INLINE i64 vector_dim(i64 head_dim) { return round_up(head_dim, Vec::width); }

// ---- products ----------------------------------------------------------------------------------

// C[Rows, Cols vectors] (+)= A B. A's element (i, k) is at a[i * stride + k], or, read across, at
// a[i + k * stride].
template <int Rows, int Cols, bool across>
EVG_INLINE void tile_product(i64 depth, const float* a, i64 a_stride, const float* b, i64 b_stride,
                             float* c, i64 c_stride, bool accumulate) {
  Vec acc[Rows][Cols];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Cols; ++j)
      acc[i][j] = accumulate ? load(c + i * c_stride + j * Vec::width) : zero();
  constexpr int steps = Vec::width == 8 ? 4 : 2;  // see depth_steps
  const i64 a_row = across ? 1 : a_stride, a_step = across ? a_stride : 1;
  for (; depth >= steps; depth -= steps)
#pragma GCC unroll 4
    for (int t = 0; t < steps; ++t, a += a_step, b += b_stride) add_step(a, a_row, b, acc);
  for (; depth > 0; --depth, a += a_step, b += b_stride) add_step(a, a_row, b, acc);
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Cols; ++j) store(c + i * c_stride + j * Vec::width, acc[i][j]);
}

// The rows of one or nv vectors, as many at a time as there are.
template <int Cols, bool across, int Rows = tile_rows>
EVG_INLINE void product_rows(i64 m, i64 depth, const float* a, i64 a_stride, const float* b,
                             i64 b_stride, float* c, i64 c_stride, bool accumulate) {
  for (; m >= Rows; m -= Rows, a += Rows * (across ? 1 : a_stride), c += Rows * c_stride)
    tile_product<Rows, Cols, across>(depth, a, a_stride, b, b_stride, c, c_stride, accumulate);
  if constexpr (Rows > row_unit)
    product_rows<Cols, across, Rows - row_unit>(m, depth, a, a_stride, b, b_stride, c, c_stride,
                                                accumulate);
}

// C[m, vectors] (+)= A B; m is a multiple of row_unit.
template <bool across>
void product(i64 m, i64 vectors, i64 depth, const float* a, i64 a_stride, const float* b,
             i64 b_stride, float* c, i64 c_stride, bool accumulate) {
  i64 v = 0;
  for (; v + nv <= vectors; v += nv)
    product_rows<nv, across>(m, depth, a, a_stride, b + v * Vec::width, b_stride,
                             c + v * Vec::width, c_stride, accumulate);
  for (; v < vectors; ++v)
    product_rows<1, across>(m, depth, a, a_stride, b + v * Vec::width, b_stride, c + v * Vec::width,
                            c_stride, accumulate);
}

// ---- who sees whom -----------------------------------------------------------------------------

struct Range {
  i64 begin, end;
};

EVG_INLINE bool is_empty(Range r) { return r.begin >= r.end; }

// The keys of [k_begin, k_end) that rows first to last see: all of them together, and each of them.
EVG_INLINE Range seen_by_any(const AttentionHead& h, i64 first, i64 last, Range keys) {
  const i64 shift = h.tokens_k - h.tokens_q;
  return {max_of(keys.begin, first / h.group + shift - h.left),
          min_of(keys.end, last / h.group + shift + h.right + 1)};
}
EVG_INLINE Range seen_by_all(const AttentionHead& h, i64 first, i64 last, Range keys) {
  const i64 shift = h.tokens_k - h.tokens_q;
  return {max_of(keys.begin, last / h.group + shift - h.left),
          min_of(keys.end, first / h.group + shift + h.right + 1)};
}

// The lanes of a panel that see key j; may lie outside of it.
EVG_INLINE Range lanes_of(const AttentionHead& h, i64 first_row, i64 j) {
  const i64 p = j - (h.tokens_k - h.tokens_q);
  return {(p - h.right) * h.group - first_row, (p + h.left + 1) * h.group - first_row};
}

// `nr` consecutive rows, the last panel fewer.
struct Panel {
  i64 first, rows, vectors;
};

EVG_INLINE i64 rows_of(const AttentionHead& h) { return h.tokens_q * h.group; }

EVG_INLINE Panel panel_at(const AttentionHead& h, i64 index) {
  const i64 first = index * nr, rows = min_of(nr, rows_of(h) - first);
  return {first, rows, (rows + Vec::width - 1) / Vec::width};
}

EVG_INLINE i64 last_row(const Panel& p, i64 v) {
  return p.first + min_of(p.rows, (v + 1) * Vec::width) - 1;
}

EVG_INLINE Range seen_by_panel(const AttentionHead& h, const Panel& p, Range keys) {
  return seen_by_any(h, p.first, p.first + p.rows - 1, keys);
}

// The part of a block of keys that each vector of a panel needs, in whole tiles, counted from the
// start of the block. Both ends rise with v.
struct Part {
  Range rows[nv];

  Range all() const {
    Range r = {rows[0].begin, rows[0].end};
    for (i64 v = 1; v < nv; ++v) {
      if (is_empty(rows[v])) continue;
      r = is_empty(r) ? rows[v] : Range{r.begin, rows[v].end};
    }
    return r;
  }
};

EVG_INLINE Part part_of(const AttentionHead& h, const Panel& p, Range keys, i64 j0, i64 height) {
  Part part;
  for (i64 v = 0; v < nv; ++v) {
    part.rows[v] = {0, 0};
    if (v >= p.vectors) continue;
    const Range seen = seen_by_any(h, p.first + v * Vec::width, last_row(p, v), keys);
    const i64 begin = max_of(0, seen.begin - j0) / tile_rows * tile_rows;
    const i64 end = round_up(min_of(height, seen.end - j0), tile_rows);
    if (begin < end) part.rows[v] = {begin, end};
  }
  return part;
}

// Calls f(v, vectors, rows) so that every vector meets its rows: all of them together where they
// share rows, else one by one.
template <class F>
EVG_INLINE void for_parts(const Part& part, F f) {
  const Range shared = {part.rows[nv - 1].begin, part.rows[0].end};
  if (is_empty(shared) || is_empty(part.rows[nv - 1])) {
    for (i64 v = 0; v < nv; ++v)
      if (!is_empty(part.rows[v])) f(v, 1, part.rows[v]);
    return;
  }
  for (i64 v = 0; v < nv; ++v)
    if (part.rows[v].begin < shared.begin) f(v, 1, Range{part.rows[v].begin, shared.begin});
  f(0, nv, shared);
  for (i64 v = 0; v < nv; ++v)
    if (part.rows[v].end > shared.end) f(v, 1, Range{shared.end, part.rows[v].end});
}

// -inf where a lane does not see the key of a row.
EVG_INLINE void hide(const AttentionHead& h, const Panel& p, Range keys, const Part& part, i64 j0,
                     float* s) {
  for (i64 v = 0; v < p.vectors; ++v) {
    const Range rows = part.rows[v];
    const Range whole = seen_by_all(h, p.first + v * Vec::width, last_row(p, v), keys);
    for (i64 r = rows.begin; r < rows.end; ++r) {
      const i64 j = j0 + r;
      if (j >= whole.begin && j < whole.end) {
        r = whole.end - j0 - 1;  // on to the first row beyond
        continue;
      }
      Range lanes = {0, 0};
      if (j >= keys.begin && j < keys.end) lanes = lanes_of(h, p.first + v * Vec::width, j);
      const auto inside = [](i64 n) { return static_cast<int>(max_of(0, min_of(Vec::width, n))); };
      const Mask seen = and_(first(inside(lanes.end)), not_(first(inside(lanes.begin))));
      float* x = s + r * nr + v * Vec::width;
      store(x, select(seen, load(x), set1(-infinity)));
    }
  }
}

// ---- what changes scores and probabilities -----------------------------------------------------

EVG_INLINE bool changes_scores(const AttentionHead& h) {
  return h.softcap != 0.0f || h.slopes || h.bias || h.add || h.mask;
}

// f(lane, query head within the group, query) for the rows of a panel.
template <class F>
EVG_INLINE void for_rows(const AttentionHead& h, const Panel& p, F f) {
  i64 q = p.first / h.group, g = p.first - q * h.group;
  for (i64 lane = 0; lane < p.rows; ++lane) {
    f(lane, g, q);
    if (++g == h.group) g = 0, ++q;
  }
}

// What is added to the scores of a block: bias and masks, transposed to [keys, nr]. Only the rows
// of the block that some vector needs.
inline void gather_added(const AttentionHead& h, const Panel& p, Range keys, Range rows, i64 j0,
                         float* lines, float* added) {
  const i64 end = min_of(rows.end, keys.end - j0);
  for_rows(h, p, [&](i64 lane, i64 g, i64 q) {
    float* line = lines + lane * block_k;
    const float* bias = h.bias ? h.bias + g * h.bias_head + q * h.bias_row + j0 : nullptr;
    const float* add = h.add ? h.add + g * h.add_head + q * h.add_row + j0 : nullptr;
    const uint8_t* mask = h.mask ? h.mask + g * h.mask_head + q * h.mask_row + j0 : nullptr;
    for (i64 j = rows.begin; j < end; ++j) line[j] = bias ? bias[j] : 0.0f;
    // What either hides stays hidden, whatever the other holds: -inf + inf would be NaN.
    if (add)
      for (i64 j = rows.begin; j < end; ++j)
        line[j] = line[j] == -infinity || add[j] == -infinity ? -infinity : line[j] + add[j];
    if (mask)
      for (i64 j = rows.begin; j < end; ++j) line[j] = mask[j] ? line[j] : -infinity;
  });
  pack_panels<nr>(nr, rows.end - rows.begin, lines + rows.begin, block_k, 1,
                  added + rows.begin * nr);
}

// s = softcap tanh(s / softcap) - slope |p - j| + what is added, -inf where that is -inf.
// `derivative` receives the softcap's, 1 - tanh^2, where it is not null.
inline void change_scores(const AttentionHead& h, const Panel& p, Range keys, const Part& part,
                          i64 j0, float* lines, float* added, float* s, float* derivative) {
  const bool adds = h.bias || h.add || h.mask;
  if (adds) gather_added(h, p, keys, part.all(), j0, lines, added);
  alignas(64) float slopes[nr] = {}, places[nr] = {};
  if (h.slopes)
    for_rows(h, p, [&](i64 lane, i64 g, i64 q) {
      slopes[lane] = h.slopes[g];
      places[lane] = static_cast<float>(q + h.tokens_k - h.tokens_q - j0);
    });
  const Vec cap = set1(h.softcap), inverse_cap = set1(1.0f / h.softcap);
  for (i64 v = 0; v < p.vectors; ++v) {
    const Vec slope = load(slopes + v * Vec::width), place = load(places + v * Vec::width);
    for (i64 j = part.rows[v].begin; j < part.rows[v].end; ++j) {
      const i64 at = j * nr + v * Vec::width;
      Vec x = load(s + at);
      if (h.softcap != 0.0f) {
        const Vec t = tanh(x * inverse_cap);
        if (derivative) store(derivative + at, fnma(t, t, set1(1.0f)));
        x = t * cap;
      }
      if (h.slopes) x = fnma(slope, abs(place - set1(static_cast<float>(j))), x);
      if (adds) {
        const Vec a = load(added + at);
        x = select(eq(a, set1(-infinity)), a, x + a);
      }
      store(s + at, x);
    }
  }
}

// The counters of a panel's lanes at the first key of a block, and their keys: those of the
// counter, and those behind the next multiple of 2^32.
struct DropoutLanes {
  alignas(64) float counter[nr], key0[nr], key1[nr], next0[nr], next1[nr];
};

inline DropoutLanes dropout_lanes(const AttentionHead& h, const Panel& p, i64 j0) {
  DropoutLanes lanes = {};
  uint64_t high = 0;
  DropoutKey key = {}, next = {};
  for_rows(h, p, [&](i64 lane, i64 g, i64 q) {
    const uint64_t counter =
        h.counter + static_cast<uint64_t>(g * h.counter_head + q * h.counter_row + j0);
    if (lane == 0 || counter >> 32 != high) {
      high = counter >> 32;
      key = dropout_key(h.seed, high);
      next = dropout_key(h.seed, (high + 1) & 0xffffffffu);
    }
    const uint32_t low = static_cast<uint32_t>(counter);
    __builtin_memcpy(lanes.counter + lane, &low, 4);
    __builtin_memcpy(lanes.key0 + lane, &key.low, 4);
    __builtin_memcpy(lanes.key1 + lane, &key.high, 4);
    __builtin_memcpy(lanes.next0 + lane, &next.low, 4);
    __builtin_memcpy(lanes.next1 + lane, &next.high, 4);
  });
  return lanes;
}

// x / (1 - p) in the lanes of vector v that keep key j of the block, else 0.
EVG_INLINE Vec drop(const AttentionHead& h, const DropoutLanes& lanes, i64 v, i64 j, Vec x) {
  const auto at = [=](const float* y) { return as_int(load(y + v * Vec::width)); };
  const VecI start = at(lanes.counter), c = start + set1i(static_cast<int32_t>(j));
  const Mask wrapped = ltu(c, start);
  const VecI key0 = selecti(wrapped, at(lanes.next0), at(lanes.key0));
  const VecI key1 = selecti(wrapped, at(lanes.next1), at(lanes.key1));
  return select(is_dropped(c, key0, key1, h.threshold), zero(), x * set1(h.keep_scale));
}

// ---- copies ------------------------------------------------------------------------------------

// The rows of a panel, of the head that comes next, on their way into L2. They are short and lie
// far apart, so that the hardware does not see them coming.
template <bool backward>
inline void fetch_next(const AttentionHead& head, const Panel& p) {
  if (!head.next) return;
  const AttentionHead& h = *head.next;
  const auto fetch = [&](const float* row) {
    for (i64 c = 0; c < h.head_dim; c += 64 / static_cast<i64>(sizeof(float)))
      __builtin_prefetch(row + c, 0, 2);
  };
  for_rows(head, p, [&](i64, i64 g, i64 q) {
    if (q >= h.tokens_q) return;
    fetch(h.query + g * h.query_head + q * h.query_token);
    fetch(h.out + g * h.out_head + q * h.out_token);
    if (backward) {
      fetch(h.dout + g * h.dout_head + q * h.dout_token);
      fetch(h.dquery + g * h.dquery_head + q * h.dquery_token);
    }
    if (g > 0 || q >= h.tokens_k) return;
    fetch(h.key + q * h.key_token);
    fetch(h.value + q * h.value_token);
    if (backward) {
      fetch(h.dkey + q * h.dkey_token);
      fetch(h.dvalue + q * h.dvalue_token);
    }
  });
}

// Rows of head_dim floats into rows of `width`, padded with zeros, as are rows up to `padded`.
EVG_INLINE void copy_rows(i64 rows, i64 padded, i64 d, const float* x, i64 stride, i64 width,
                          float* out) {
  for (i64 i = 0; i < rows; ++i, out += width) {
    const float* from = x + i * stride;
    map(d, out, [=](i64 c, auto m) { return load(from + c, m); });
    if (d < width) map(width - d, out + d, [](i64, auto) { return zero(); });
  }
  map((padded - rows) * width, out, [](i64, auto) { return zero(); });
}

// The rows of a panel out of [tokens, heads, head_dim], times a factor; zeros for lanes without.
EVG_INLINE void gather_rows(const AttentionHead& h, const Panel& p, const float* x, i64 token,
                            i64 head, float factor, float* out) {
  const i64 d = h.head_dim, width = vector_dim(d);
  const Vec by = set1(factor);
  for_rows(h, p, [=](i64 lane, i64 g, i64 q) {
    const float* from = x + g * head + q * token;
    float* to = out + lane * width;
    map(d, to, [=](i64 c, auto m) { return load(from + c, m) * by; });
    if (d < width) map(width - d, to + d, [](i64, auto) { return zero(); });
  });
  map((nr - p.rows) * width, out + p.rows * width, [](i64, auto) { return zero(); });
}

// [nr rows of vector_dim] -> [head_dim, nr]
EVG_INLINE void to_lanes(i64 d, const float* rows, float* lanes) {
  pack_panels<nr>(nr, d, rows, vector_dim(d), 1, lanes);
}

// Columns of a panel's lanes as rows, from [count, nr]: f(lane, query head, query, first of the
// columns, how many, numbers).
template <class F>
EVG_INLINE void from_lanes(const AttentionHead& h, const Panel& p, i64 count, const float* lanes,
                           float* scratch, F f) {
  pack_panels<nr>(count, p.rows, lanes, nr, 1, scratch);
  for (i64 c = 0; c < count; c += nr, scratch += nr * p.rows)
    for_rows(h, p, [&](i64 lane, i64 g, i64 q) {
      f(lane, g, q, c, min_of(nr, count - c), scratch + lane * nr);
    });
}

// ---- forward -----------------------------------------------------------------------------------

// A few rows need no panel: keys are read where they lie, once.
EVG_INLINE bool are_few(const AttentionHead& h) {
  return rows_of(h) <= few_rows && h.head_dim % Vec::width == 0;
}

constexpr i64 rows_ahead = 16;

EVG_INLINE void few_scores(const AttentionHead& h, i64 rows, Range keys, i64 j0, const Part& part,
                           const float* q, float* s) {
  const i64 d = h.head_dim;
  const Range all = part.all();
  const i64 end = min_of(all.end, keys.end - j0);
  for (i64 j = all.begin; j < end; j += dot_long) {
    const i64 some = min_of(dot_long, end - j);
    // Rows of one head may lie far apart, which hides from the hardware what comes next.
    for (i64 i = j0 + j; i < j0 + j + some; ++i) {
      const i64 ahead = min_of(i + rows_ahead, keys.end - 1);
      for (i64 c = 0; c < d; c += 64 / static_cast<i64>(sizeof(float))) {
        __builtin_prefetch(h.key + ahead * h.key_token + c);
        __builtin_prefetch(h.value + i * h.value_token + c);
      }
    }
    const float* key = h.key + (j0 + j) * h.key_token;
    if (some == dot_long)
      dot_rows<from_memory, dot_long>(rows, d, key, h.key_token, q, d, s + j * nr, nr, 1, false);
    else
      for (i64 i = 0; i < some; ++i)
        dot_rows<from_memory, 1>(rows, d, key + i * h.key_token, h.key_token, q, d,
                                 s + (j + i) * nr, nr, 1, false);
  }
}

// acc [rows, head_dim] += the values of a block, weighted by the columns of s: up to so many rows
// at a time, since all of them read the same values.
template <int Rows>
EVG_INLINE void few_rows_output(i64 rows, i64 depth, i64 d, const float* s, const float* value,
                                i64 value_token, float* acc) {
  constexpr int cols = Vec::width == 8 ? 2 : 4;
  for (; rows >= Rows; rows -= Rows, s += Rows, acc += Rows * d) {
    i64 c = 0;
    for (; c + cols * Vec::width <= d; c += cols * Vec::width)
      tile_product<Rows, cols, true>(depth, s, nr, value + c, value_token, acc + c, d, true);
    for (; c < d; c += Vec::width)
      tile_product<Rows, 1, true>(depth, s, nr, value + c, value_token, acc + c, d, true);
  }
  if constexpr (Rows > 1) few_rows_output<Rows - 1>(rows, depth, d, s, value, value_token, acc);
}

EVG_INLINE void few_outputs(const AttentionHead& h, i64 rows, Range keys, i64 j0, const Part& part,
                            const float* s, float* acc) {
  for (i64 r = 0; r < rows; r += Vec::width) {
    const Range seen = part.rows[r / Vec::width];
    few_rows_output<4>(min_of(Vec::width, rows - r), min_of(seen.end, keys.end - j0) - seen.begin,
                       h.head_dim, s + seen.begin * nr + r,
                       h.value + (j0 + seen.begin) * h.value_token, h.value_token,
                       acc + r * h.head_dim);
  }
}

// exp(x) for x <= 0, to a rounding of 1: the further below, the fewer digits it has right.
EVG_INLINE Vec weight(Vec x) { return exp2_finite(x * set1(log2_e)); }

// The softmax of a block: the running maximum m moves up, what was summed under the old one shrinks
// by exp(m_old - m), and scores become exp(s - m).
EVG_INLINE void soften(const AttentionHead& h, const Panel& p, const Part& part, i64 j0, float* s,
                       float* m, float* l, float* shrink) {
  DropoutLanes lanes;
  if (h.threshold) lanes = dropout_lanes(h, p, j0);
  for (i64 v = 0; v < p.vectors; ++v) {
    const i64 at = v * Vec::width, begin = part.rows[v].begin, end = part.rows[v].end;
    float* x = s + at;
    Vec peak[2] = {set1(-infinity), set1(-infinity)};
    i64 j = begin;
    for (; j + 2 <= end; j += 2)
      for (int u = 0; u < 2; ++u) peak[u] = max(peak[u], load(x + (j + u) * nr));
    if (j < end) peak[0] = max(peak[0], load(x + j * nr));
    const Vec old = load(m + at);
    const Vec top = max(old, max(peak[0], peak[1]));
    const Vec shift = select(eq(top, set1(-infinity)), zero(), top);
    Vec sum[2] = {zero(), zero()};
    if (h.threshold) {
      for (j = begin; j < end; ++j) {
        const Vec e = weight(load(x + j * nr) - shift);
        sum[0] = sum[0] + e;
        store(x + j * nr, drop(h, lanes, v, j, e));
      }
    } else {
      for (j = begin; j + 2 <= end; j += 2)
        for (int u = 0; u < 2; ++u) {
          const Vec e = weight(load(x + (j + u) * nr) - shift);
          sum[u] = sum[u] + e;
          store(x + (j + u) * nr, e);
        }
      if (j < end) {
        const Vec e = weight(load(x + j * nr) - shift);
        sum[0] = sum[0] + e;
        store(x + j * nr, e);
      }
    }
    const Vec by = weight(old - shift);
    store(m + at, top);
    store(l + at, fma(load(l + at), by, sum[0] + sum[1]));
    store(shrink + at, by);
  }
}

// Floats that one panel keeps from block to block: queries, unnormalised outputs, m, l.
EVG_INLINE i64 panel_size(i64 d) { return (vector_dim(d) + padded_dim(d) + 2) * nr; }
EVG_INLINE i64 lines_size(i64 d) {
  return nr * max_of(round_up(block_k, nr), max_of(vector_dim(d), round_up(d, nr)));
}

i64 attention_scratch(i64 head_dim) {
  return panels_at_once * panel_size(head_dim) + 2 * block_k * padded_dim(head_dim) +
         2 * block_k * nr + lines_size(head_dim) + nr;
}

EVG_INLINE void finish(const AttentionHead& h, const Panel& p, bool few, float* acc, const float* m,
                       float* l, float* scratch) {
  alignas(64) float lse[nr];
  for (i64 v = 0; v < nr; v += Vec::width) {
    const Vec sum = load(l + v);
    const Mask none = eq(sum, zero());
    store(lse + v, select(none, set1(-infinity), load(m + v) + log(sum)));
    store(l + v, select(none, zero(), set1(1.0f) / sum));
  }
  const auto emit = [&](i64 lane, i64 g, i64 q, i64 c, i64 n, const float* x) {
    const Vec inverse = set1(l[lane]);
    map(n, h.out + g * h.out_head + q * h.out_token + c,
        [=](i64 i, auto k) { return load(x + i, k) * inverse; });
  };
  for_rows(h, p, [&](i64 lane, i64 g, i64 q) {
    h.lse[g * h.lse_head + q] = lse[lane];
    if (few) emit(lane, g, q, 0, h.head_dim, acc + lane * h.head_dim);
  });
  if (!few) from_lanes(h, p, h.head_dim, acc, scratch, emit);
}

i64 attention_panels(i64 rows) { return (rows + nr - 1) / nr; }

void attention(const AttentionHead* head, i64 panel_begin, i64 panel_end, i64 k_begin, i64 k_end,
               float* scratch) {
  const AttentionHead& h = *head;
  const Range keys = {k_begin, k_end};
  const i64 d = h.head_dim, dp = padded_dim(d);
  const bool few = are_few(h), changed = changes_scores(h);
  float* key = scratch;
  float* value = key + block_k * dp;
  float* s = value + block_k * dp;
  float* added = s + block_k * nr;
  float* lines = added + block_k * nr;
  float* shrink = lines + lines_size(d);
  float* states = shrink + nr;

  for (i64 at = panel_begin; at < panel_end; at += panels_at_once) {
    const i64 count = min_of(panels_at_once, panel_end - at);
    Panel panels[panels_at_once];
    Range all = {k_end, k_begin};
    for (i64 i = 0; i < count; ++i) {
      const Panel p = panels[i] = panel_at(h, at + i);
      fetch_next<false>(h, p);
      float *q = states + i * panel_size(d), *acc = q + nr * vector_dim(d), *m = acc + nr * dp;
      gather_rows(h, p, h.query, h.query_token, h.query_head, h.scale, few ? q : lines);
      if (!few) to_lanes(d, lines, q);
      map(nr * dp, acc, [](i64, auto) { return zero(); });
      map(nr, m, [](i64, auto) { return set1(-infinity); });
      map(nr, m + nr, [](i64, auto) { return zero(); });
      const Range seen = seen_by_panel(h, p, keys);
      all = {min_of(all.begin, seen.begin), max_of(all.end, seen.end)};
    }
    const i64 start = k_begin + max_of(0, all.begin - k_begin) / block_k * block_k;
    for (i64 j0 = start; j0 < all.end; j0 += block_k) {
      const i64 height = min_of(block_k, k_end - j0);
      bool copied = few;
      for (i64 i = 0; i < count; ++i) {
        const Panel& p = panels[i];
        const Part part = part_of(h, p, keys, j0, height);
        if (is_empty(part.all())) continue;
        if (!copied) {
          const i64 padded = round_up(height, tile_rows);
          copy_rows(height, padded, d, h.key + j0 * h.key_token, h.key_token, dp, key);
          copy_rows(height, padded, d, h.value + j0 * h.value_token, h.value_token, dp, value);
          copied = true;
        }
        float *q = states + i * panel_size(d), *acc = q + nr * vector_dim(d), *m = acc + nr * dp;
        if (few)
          few_scores(h, p.rows, keys, j0, part, q, s);
        else
          for_parts(part, [&](i64 v, i64 vectors, Range r) {
            product<false>(r.end - r.begin, vectors, d, key + r.begin * dp, dp, q + v * Vec::width,
                           nr, s + r.begin * nr + v * Vec::width, nr, false);
          });
        if (changed) change_scores(h, p, keys, part, j0, lines, added, s, nullptr);
        hide(h, p, keys, part, j0, s);
        soften(h, p, part, j0, s, m, m + nr, shrink);
        if (few) {
          for (i64 r = 0; r < p.rows; ++r) {
            float* o = acc + r * d;
            const Vec by = set1(shrink[r]);
            map(d, o, [=](i64 c, auto k) { return load(o + c, k) * by; });
          }
          few_outputs(h, p.rows, keys, j0, part, s, acc);
          continue;
        }
        if (j0 > start)
          for (i64 v = 0; v < p.vectors; ++v) {
            const Vec by = load(shrink + v * Vec::width);
            for (i64 c = 0; c < dp; ++c) {
              float* o = acc + c * nr + v * Vec::width;
              store(o, load(o) * by);
            }
          }
        for_parts(part, [&](i64 v, i64 vectors, Range r) {
          product<true>(dp, vectors, r.end - r.begin, value + r.begin * dp, dp,
                        s + r.begin * nr + v * Vec::width, nr, acc + v * Vec::width, nr, true);
        });
      }
    }
    for (i64 i = 0; i < count; ++i) {
      float *q = states + i * panel_size(d), *acc = q + nr * vector_dim(d), *m = acc + nr * dp;
      finish(h, panels[i], few, acc, m, m + nr, lines);
    }
  }
}

// ---- merging key ranges ------------------------------------------------------------------------

// The softmax over all keys from those over parts of them: out = sum_s exp(lse_s - lse) out_s.
void attention_merge(i64 parts, i64 d, const float* outs, i64 out_part, const float* lses,
                     i64 lse_part, float* out, float* lse) {
  float top = -infinity;
  for (i64 s = 0; s < parts; ++s) top = lses[s * lse_part] > top ? lses[s * lse_part] : top;
  const Vec shift = set1(top == -infinity ? 0.0f : top);
  map(d, out, [](i64, auto) { return zero(); });
  Vec sum = zero();
  for (i64 s = 0; s < parts; ++s) {
    const Vec weight = exp(set1(lses[s * lse_part]) - shift);
    const float* x = outs + s * out_part;
    sum = sum + weight;
    map(d, out, [=](i64 c, auto m) { return fma(weight, load(x + c, m), load(out + c, m)); });
  }
  const Vec inverse = select(eq(sum, zero()), zero(), set1(1.0f) / sum);
  map(d, out, [=](i64 c, auto m) { return load(out + c, m) * inverse; });
  alignas(64) float total[Vec::width];
  store(total, select(eq(sum, zero()), set1(-infinity), shift + log(sum)));
  *lse = total[0];
}

// ---- backward ----------------------------------------------------------------------------------

i64 attention_backward_scratch(i64 head_dim) {
  const i64 dp = padded_dim(head_dim), dw = vector_dim(head_dim);
  return 2 * chunk_k * dp + 2 * chunk_k * dw + 4 * block_k * nr + 2 * nr * head_dim + 2 * nr * dw +
         nr * dp + lines_size(head_dim) + 2 * nr;
}

// With P = exp(S - lse), D = dropout / (1 - p), delta = rowsum(dO * O):
//   dV = (D P)^T dO,   dS = P (D dP - delta),   dbias = dS,   then through the softcap,
//   dQ = scale dS K,   dK = dS^T (scale Q).
EVG_INLINE void probabilities(const AttentionHead& h, const Panel& p, const Part& part, i64 j0,
                              const float* shifts, const float* delta, float* s, float* ds) {
  DropoutLanes lanes;
  if (h.threshold) lanes = dropout_lanes(h, p, j0);
  for (i64 v = 0; v < p.vectors; ++v) {
    const i64 at = v * Vec::width;
    const Vec shift = load(shifts + at), dot = load(delta + at);
    const i64 begin = part.rows[v].begin, end = part.rows[v].end;
    if (h.threshold) {
      for (i64 j = begin; j < end; ++j) {
        float *x = s + j * nr + at, *y = ds + j * nr + at;
        const Vec e = weight(load(x) - shift);
        store(y, e * (drop(h, lanes, v, j, load(y)) - dot));
        store(x, drop(h, lanes, v, j, e));
      }
      continue;
    }
    for (i64 j = begin; j < end; ++j) {
      float *x = s + j * nr + at, *y = ds + j * nr + at;
      const Vec e = weight(load(x) - shift);
      store(y, e * (load(y) - dot));
      store(x, e);
    }
  }
}

EVG_INLINE void add_dbias(const AttentionHead& h, const Panel& p, Range keys, const Part& part,
                          i64 j0, const float* ds, float* lines) {
  const Range all = part.all();
  const i64 last = min_of(all.end, keys.end - j0);
  from_lanes(h, p, last - all.begin, ds + all.begin * nr, lines,
             [&](i64 lane, i64 g, i64 q, i64 c, i64 n, const float* x) {
               const Range rows = part.rows[lane / Vec::width];
               const i64 first = all.begin + c, begin = max_of(rows.begin, first);
               float* to = h.dbias + g * h.dbias_head + q * h.dbias_row + j0 + begin;
               x += begin - first;
               map(min_of(rows.end, first + n) - begin, to,
                   [=](i64 i, auto k) { return load(to + i, k) + load(x + i, k); });
             });
}

void attention_backward(const AttentionHead* head, i64 k_begin, i64 k_end, float* scratch) {
  const AttentionHead& h = *head;
  const Range keys = {k_begin, k_end};
  const i64 d = h.head_dim, dp = padded_dim(d), dw = vector_dim(d);
  const bool few = are_few(h), changed = changes_scores(h);
  float* key = scratch;
  float* value = key + chunk_k * dp;
  float* dk = value + chunk_k * dp;
  float* dv = dk + chunk_k * dw;
  float* s = dv + chunk_k * dw;
  float* ds = s + block_k * nr;
  float* derivative = ds + block_k * nr;
  float* added = derivative + block_k * nr;
  float* q = added + block_k * nr;  // queries in lanes, [head_dim, nr]
  float* dout = q + nr * d;
  float* q_rows = dout + nr * d;  // and in rows, [nr, vector_dim]
  float* dout_rows = q_rows + nr * dw;
  float* dq = dout_rows + nr * dw;
  float* lines = dq + nr * dp;
  float* shift = lines + lines_size(d);
  float* delta = shift + nr;
  const i64 panels = attention_panels(rows_of(h));

  for (i64 c0 = k_begin; c0 < k_end || c0 == k_begin; c0 += chunk_k) {
    const i64 size = min_of(chunk_k, k_end - c0), padded = round_up(size, tile_rows);
    copy_rows(size, padded, d, h.key + c0 * h.key_token, h.key_token, dp, key);
    copy_rows(size, padded, d, h.value + c0 * h.value_token, h.value_token, dp, value);
    map(padded * dw, dk, [](i64, auto) { return zero(); });
    map(padded * dw, dv, [](i64, auto) { return zero(); });
    for (i64 index = 0; index < panels; ++index) {
      const Panel p = panel_at(h, index);
      fetch_next<true>(h, p);
      const Range seen = seen_by_panel(h, p, {c0, c0 + size});
      if (is_empty(seen) && c0 > k_begin) continue;
      map(nr * dp, dq, [](i64, auto) { return zero(); });
      if (!is_empty(seen)) {
        gather_rows(h, p, h.query, h.query_token, h.query_head, h.scale, q_rows);
        gather_rows(h, p, h.dout, h.dout_token, h.dout_head, 1.0f, dout_rows);
        to_lanes(d, q_rows, q);
        to_lanes(d, dout_rows, dout);
        for (i64 lane = 0; lane < nr; ++lane) shift[lane] = delta[lane] = 0.0f;
        for_rows(h, p, [&](i64 lane, i64 g, i64 q) {
          const float lse = h.lse[g * h.lse_head + q];
          const float* y = h.out + g * h.out_head + q * h.out_token;
          const float* dy = dout_rows + lane * dw;
          shift[lane] = lse == -infinity ? 0.0f : lse;
          delta[lane] = row_sum(d, [=](i64 c, auto k) { return load(dy + c, k) * load(y + c, k); });
        });
      }
      const i64 start = max_of(0, seen.begin - c0) / block_k * block_k;
      for (i64 b0 = start; !is_empty(seen) && c0 + b0 < seen.end; b0 += block_k) {
        const i64 j0 = c0 + b0, height = min_of(block_k, size - b0);
        const Part part = part_of(h, p, keys, j0, height);
        const float *k_block = key + b0 * dp, *v_block = value + b0 * dp;
        // The bits of the way forth: those of large scores are all that their probabilities have.
        if (few) few_scores(h, p.rows, keys, j0, part, q_rows, s);
        for_parts(part, [&](i64 v, i64 vectors, Range r) {
          const i64 at = r.begin * nr + v * Vec::width;
          if (!few)
            product<false>(r.end - r.begin, vectors, d, k_block + r.begin * dp, dp,
                           q + v * Vec::width, nr, s + at, nr, false);
          product<false>(r.end - r.begin, vectors, d, v_block + r.begin * dp, dp,
                         dout + v * Vec::width, nr, ds + at, nr, false);
        });
        if (changed)
          change_scores(h, p, keys, part, j0, lines, added, s,
                        h.softcap != 0.0f ? derivative : nullptr);
        hide(h, p, keys, part, j0, s);
        probabilities(h, p, part, j0, shift, delta, s, ds);
        if (h.dbias) add_dbias(h, p, keys, part, j0, ds, lines);
        if (h.softcap != 0.0f)
          for (i64 v = 0; v < p.vectors; ++v)
            for (i64 j = part.rows[v].begin; j < part.rows[v].end; ++j) {
              const i64 at = j * nr + v * Vec::width;
              // Hidden keys have no part in it: 0, whatever the derivative is there (0 inf = NaN).
              const Vec d_score = load(ds + at);
              store(ds + at, select(eq(d_score, zero()), zero(), d_score * load(derivative + at)));
            }
        const Range rows = part.all();
        for (i64 i = rows.begin; i < rows.end; i += tile_rows) {
          // The lanes that see some key of the tile.
          const i64 last = min_of(j0 + i + tile_rows, k_end) - 1;
          const i64 from = max_of(0, lanes_of(h, p.first, j0 + i).begin);
          const i64 to = min_of(p.rows, lanes_of(h, p.first, last).end);
          if (from >= to) continue;
          const i64 at = (b0 + i) * dw;
          product<false>(tile_rows, dw / Vec::width, to - from, s + i * nr + from, nr,
                         dout_rows + from * dw, dw, dv + at, dw, true);
          product<false>(tile_rows, dw / Vec::width, to - from, ds + i * nr + from, nr,
                         q_rows + from * dw, dw, dk + at, dw, true);
        }
        for_parts(part, [&](i64 v, i64 vectors, Range r) {
          product<true>(dp, vectors, r.end - r.begin, k_block + r.begin * dp, dp,
                        ds + r.begin * nr + v * Vec::width, nr, dq + v * Vec::width, nr, true);
        });
      }
      const Vec scale = set1(h.scale);
      from_lanes(h, p, d, dq, lines, [&](i64, i64 g, i64 q, i64 c, i64 n, const float* x) {
        float* to = h.dquery + g * h.dquery_head + q * h.dquery_token + c;
        if (c0 == k_begin)
          map(n, to, [=](i64 i, auto m) { return load(x + i, m) * scale; });
        else
          map(n, to, [=](i64 i, auto m) { return fma(load(x + i, m), scale, load(to + i, m)); });
      });
    }
    for (i64 j = 0; j < size; ++j) {
      const float *k_row = dk + j * dw, *v_row = dv + j * dw;
      map(d, h.dkey + (c0 + j) * h.dkey_token, [=](i64 c, auto m) { return load(k_row + c, m); });
      map(d, h.dvalue + (c0 + j) * h.dvalue_token,
          [=](i64 c, auto m) { return load(v_row + c, m); });
    }
  }
}

}  // namespace
}  // namespace evergrad
