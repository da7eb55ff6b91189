#include "bindings/common.h"

namespace evergrad {
namespace {

evergrad_attention_shape shape_from(const Array& query, const Array& key, bool is_causal,
                                    double scale, const Optional& cu_q, const Optional& cu_k) {
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
  s.causal = is_causal;
  return s;
}

std::pair<Array, Array> attention(const Array& query, const Array& key, const Array& value,
                                  bool is_causal, double scale, const Optional& cu_seqlens_q,
                                  const Optional& cu_seqlens_k, const Optional& out) {
  const auto shape = shape_from(query, key, is_causal, scale, cu_seqlens_q, cu_seqlens_k);
  Array result = or_like(out, query);
  Array lse = cu_seqlens_q ? empty({shape.heads, shape.tokens_q})
                           : empty({shape.sequences, shape.heads, shape.tokens_q});
  const evergrad_heads q = heads_of(query), k = heads_of(key), v = heads_of(value),
                       o = heads_of(result);
  float* pl = mutable_data(lse);
  call([&] { return evergrad_attention(&shape, q, k, v, o, pl); });
  return {result, lse};
}

std::tuple<Array, Array, Array> attention_backward(
    const Array& dout, const Array& query, const Array& key, const Array& value, const Array& out,
    const Array& lse, bool is_causal, double scale, const Optional& cu_seqlens_q,
    const Optional& cu_seqlens_k, const Optional& dquery, const Optional& dkey,
    const Optional& dvalue) {
  const auto shape = shape_from(query, key, is_causal, scale, cu_seqlens_q, cu_seqlens_k);
  Array gq = or_like(dquery, query), gk = or_like(dkey, key), gv = or_like(dvalue, value);
  const evergrad_heads d = heads_of(dout), q = heads_of(query), k = heads_of(key),
                       v = heads_of(value), o = heads_of(out), hq = heads_of(gq), hk = heads_of(gk),
                       hv = heads_of(gv);
  const float* pl = data(lse);
  call([&] { return evergrad_attention_backward(&shape, d, q, k, v, o, pl, hq, hk, hv); });
  return {gq, gk, gv};
}

}  // namespace

void register_attention(py::module_& m) {
  m.def("attention", &attention, py::arg("query"), py::arg("key"), py::arg("value"),
        py::arg("is_causal"), py::arg("scale"), py::arg("cu_seqlens_q").none(true),
        py::arg("cu_seqlens_k").none(true), py::arg("out").none(true));
  m.def("attention_backward", &attention_backward, py::arg("dout"), py::arg("query"),
        py::arg("key"), py::arg("value"), py::arg("out"), py::arg("lse"), py::arg("is_causal"),
        py::arg("scale"), py::arg("cu_seqlens_q").none(true), py::arg("cu_seqlens_k").none(true),
        py::arg("dquery").none(true), py::arg("dkey").none(true), py::arg("dvalue").none(true));
}

}  // namespace evergrad
