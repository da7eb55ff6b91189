#include "bindings/common.h"

namespace evergrad {
namespace {

// [batch | 1, heads | 1, tokens_q | 1, tokens_k]: an axis of size 1 has stride 0.
evergrad_scores scores_of(const Optional& x) {
  if (!x) return {};
  const auto stride = [&](int axis) {
    return x->shape(axis) == 1 ? 0 : x->strides(axis) / x->itemsize();
  };
  return {const_cast<void*>(x->data()), stride(0), stride(1), stride(2)};
}

evergrad_attention_shape shape_from(const Array& query, const Array& key, double scale,
                                    const Optional& cu_q, const Optional& cu_k) {
  const py::ssize_t rank = query.ndim();
  evergrad_attention_shape s{};
  s.tokens_q = query.shape(rank - 3);
  s.tokens_k = key.shape(rank - 3);
  s.heads = query.shape(rank - 2);
  s.kv_heads = key.shape(rank - 2);
  s.head_dim = query.shape(rank - 1);
  s.sequences = cu_q ? cu_q->shape(0) - 1 : query.shape(0);
  s.cu_q = cu_q ? indices(*cu_q) : nullptr;
  s.cu_k = cu_k ? indices(*cu_k) : nullptr;
  s.lse_head = s.tokens_q;
  s.lse_batch = s.heads * s.tokens_q;
  s.scale = static_cast<float>(scale);
  return s;
}

using Window = std::pair<int64_t, int64_t>;

evergrad_attention_options options_from(const Optional& attn_mask, const Optional& bias,
                                        double dropout_p, const Window& window, double softcap,
                                        const Optional& alibi_slopes, uint64_t seed,
                                        uint64_t offset) {
  evergrad_attention_options o{};
  o.window_left = window.first;
  o.window_right = window.second;
  o.softcap = static_cast<float>(softcap);
  if (alibi_slopes) {
    o.alibi_slopes = data(*alibi_slopes);
    o.alibi_batch = alibi_slopes->ndim() == 2 ? alibi_slopes->shape(1) : 0;
  }
  o.bias = scores_of(bias);
  (attn_mask && attn_mask->dtype().kind() == 'b' ? o.mask : o.add) = scores_of(attn_mask);
  o.dropout_p = dropout_p;
  o.seed = seed;
  o.offset = offset;
  return o;
}

std::pair<Array, Array> attention(const Array& query, const Array& key, const Array& value,
                                  const Optional& attn_mask, const Optional& bias, double dropout_p,
                                  double scale, const Window& window, double softcap,
                                  const Optional& alibi_slopes, const Optional& cu_seqlens_q,
                                  const Optional& cu_seqlens_k, uint64_t seed, uint64_t offset,
                                  const Optional& out) {
  const auto shape = shape_from(query, key, scale, cu_seqlens_q, cu_seqlens_k);
  const auto options =
      options_from(attn_mask, bias, dropout_p, window, softcap, alibi_slopes, seed, offset);
  Array result = or_like(out, query);
  Array lse = cu_seqlens_q ? empty({shape.heads, shape.tokens_q})
                           : empty({shape.sequences, shape.heads, shape.tokens_q});
  const evergrad_heads q = heads_of(query), k = heads_of(key), v = heads_of(value),
                       o = heads_of(result);
  float* pl = mutable_data(lse);
  call([&] { return evergrad_attention(&shape, &options, q, k, v, o, pl); });
  return {result, lse};
}

std::tuple<Array, Array, Array, Optional> attention_backward(
    const Array& dout, const Array& query, const Array& key, const Array& value, const Array& out,
    const Array& lse, const Optional& attn_mask, const Optional& bias, double dropout_p,
    double scale, const Window& window, double softcap, const Optional& alibi_slopes,
    const Optional& cu_seqlens_q, const Optional& cu_seqlens_k, uint64_t seed, uint64_t offset,
    const Optional& dquery, const Optional& dkey, const Optional& dvalue, const Optional& dbias) {
  const auto shape = shape_from(query, key, scale, cu_seqlens_q, cu_seqlens_k);
  const auto options =
      options_from(attn_mask, bias, dropout_p, window, softcap, alibi_slopes, seed, offset);
  Array gq = or_like(dquery, query), gk = or_like(dkey, key), gv = or_like(dvalue, value);
  Optional gb = bias ? wanted(true, dbias, shape_of(*bias)) : std::nullopt;
  const evergrad_heads d = heads_of(dout), q = heads_of(query), k = heads_of(key),
                       v = heads_of(value), o = heads_of(out), hq = heads_of(gq), hk = heads_of(gk),
                       hv = heads_of(gv);
  const evergrad_scores hb = scores_of(gb);
  const float* pl = data(lse);
  call([&] {
    return evergrad_attention_backward(&shape, &options, d, q, k, v, o, pl, hq, hk, hv, hb);
  });
  return {gq, gk, gv, gb};
}

}  // namespace

void register_attention(py::module_& m) {
  m.def("attention", &attention, py::arg("query"), py::arg("key"), py::arg("value"),
        py::arg("attn_mask").none(true), py::arg("bias").none(true), py::arg("dropout_p"),
        py::arg("scale"), py::arg("window_size"), py::arg("softcap"),
        py::arg("alibi_slopes").none(true), py::arg("cu_seqlens_q").none(true),
        py::arg("cu_seqlens_k").none(true), py::arg("seed"), py::arg("offset"),
        py::arg("out").none(true));
  m.def("attention_backward", &attention_backward, py::arg("dout"), py::arg("query"),
        py::arg("key"), py::arg("value"), py::arg("out"), py::arg("lse"),
        py::arg("attn_mask").none(true), py::arg("bias").none(true), py::arg("dropout_p"),
        py::arg("scale"), py::arg("window_size"), py::arg("softcap"),
        py::arg("alibi_slopes").none(true), py::arg("cu_seqlens_q").none(true),
        py::arg("cu_seqlens_k").none(true), py::arg("seed"), py::arg("offset"),
        py::arg("dquery").none(true), py::arg("dkey").none(true), py::arg("dvalue").none(true),
        py::arg("dbias").none(true));
}

}  // namespace evergrad
