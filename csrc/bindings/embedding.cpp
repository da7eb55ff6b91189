#include "bindings/common.h"

namespace evergrad {
namespace {

Array embedding(const Array& input, const Array& weight, bool accumulate, const Optional& out) {
  const int64_t n = input.shape(0), dim = weight.shape(1);
  Array result = or_empty(out, {n, dim});
  const int64_t* pi = indices(input);
  const float* pw = data(weight);
  float* po = mutable_data(result);
  call([&] { return evergrad_embedding(n, dim, pi, pw, accumulate, po); });
  return result;
}

Array embedding_sum(const Array& input, const Array& weight, const Array& positions,
                    const Array& position_weight, const Optional& segments,
                    const Optional& segment_weight, const Optional& out) {
  const int64_t n = input.shape(0), dim = weight.shape(1);
  Array result = or_empty(out, {n, dim});
  const int64_t* from[] = {indices(input), indices(positions),
                           segments ? indices(*segments) : nullptr};
  const float* tables[] = {data(weight), data(position_weight), data(segment_weight)};
  float* po = mutable_data(result);
  call([&] { return evergrad_embedding_sum(n, dim, segments ? 3 : 2, from, tables, po); });
  return result;
}

Array embedding_backward(const Array& dout, const Array& input, int64_t num_embeddings,
                         const Optional& dweight) {
  const int64_t n = input.shape(0), dim = dout.shape(1);
  Array result = dweight ? *dweight : zeros({num_embeddings, dim});
  const int64_t* pi = indices(input);
  const float* pd = data(dout);
  float* pw = mutable_data(result);
  call([&] { return evergrad_embedding_backward(n, dim, pd, pi, pw); });
  return result;
}

}  // namespace

void register_embedding(py::module_& m) {
  m.def("embedding", &embedding, py::arg("indices"), py::arg("weight"), py::arg("accumulate"),
        py::arg("out").none(true));
  m.def("embedding_sum", &embedding_sum, py::arg("input"), py::arg("weight"), py::arg("positions"),
        py::arg("position_weight"), py::arg("segments").none(true),
        py::arg("segment_weight").none(true), py::arg("out").none(true));
  m.def("embedding_backward", &embedding_backward, py::arg("dout"), py::arg("indices"),
        py::arg("num_embeddings"), py::arg("dweight").none(true));
}

}  // namespace evergrad
