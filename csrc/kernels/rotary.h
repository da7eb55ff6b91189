// Rotary position embedding (Su et al. 2021): pairs of a head's numbers turn by an angle.
//
//   (a, b) -> (a cos - b sin, b cos + a sin); the inverse, which is also the gradient, turns back.
//
// The pairs are (j, j + dim / 2), the halves of Llama and NeoX, or (2 j, 2 j + 1) of GPT-J.
#pragma once

#include "kernels/activation.h"

namespace evergrad {
namespace {

template <class M>
EVG_INLINE Vec signed_sin(const float* sin, M mask, bool inverse) {
  const Vec s = load(sin, mask);
  return inverse ? neg(s) : s;
}

EVG_INLINE void rotate_halves(i64 half, const float* x, const float* cos, const float* sin,
                              bool inverse, float* out) {
  map(half, out, [=](i64 j, auto m) {
    const Vec a = load(x + j, m), b = load(x + half + j, m);
    const Vec c = load(cos + j, m), s = signed_sin(sin + j, m, inverse);
    store(out + half + j, fma(a, s, b * c), m);
    return fnma(b, s, a * c);
  });
}

// Neighbours: x cos + swapped(x) (-sin, sin). The factors of a pair stand twice in a row, made once
// for all heads of the token.
constexpr i64 rotary_block = 128;

EVG_INLINE void rotate_pairs(i64 n, const float* x, const float* cos2, const float* sin2,
                             float* out) {
  if constexpr (Vec::width == 1) {
    for (i64 j = 0; j < n; j += 2) {
      const float a = x[j], b = x[j + 1];
      out[j] = a * cos2[j] + b * sin2[j];
      out[j + 1] = b * cos2[j + 1] + a * sin2[j + 1];
    }
  } else {
    map(n, out, [=](i64 j, auto m) {
      const Vec v = load(x + j, m);
      return fma(swap_pairs(v), load(sin2 + j, m), v * load(cos2 + j, m));
    });
  }
}

void rotary(i64 heads, i64 head_dim, i64 dim, bool interleaved, const float* x, i64 x_head,
            const float* cos, const float* sin, bool inverse, float* out, i64 out_head) {
  if (interleaved) {
    float cos2[rotary_block], sin2[rotary_block];
    for (i64 start = 0; start < dim; start += rotary_block) {
      const i64 n = min_of(rotary_block, dim - start);
      for (i64 j = 0; j < n; j += 2) {
        const float c = cos[(start + j) / 2], s = sin[(start + j) / 2];
        cos2[j] = cos2[j + 1] = c;
        sin2[j] = inverse ? s : -s;
        sin2[j + 1] = inverse ? -s : s;
      }
      for (i64 h = 0; h < heads; ++h)
        rotate_pairs(n, x + h * x_head + start, cos2, sin2, out + h * out_head + start);
    }
  } else {
    for (i64 h = 0; h < heads; ++h)
      rotate_halves(dim / 2, x + h * x_head, cos, sin, inverse, out + h * out_head);
  }
  if (dim == head_dim || x == out) return;
  for (i64 h = 0; h < heads; ++h) {
    const float* from = x + h * x_head;
    map(head_dim - dim, out + h * out_head + dim,
        [=](i64 j, auto m) { return load(from + dim + j, m); });
  }
}

}  // namespace
}  // namespace evergrad
