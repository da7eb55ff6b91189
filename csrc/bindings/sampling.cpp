#include "bindings/common.h"

namespace evergrad {
namespace {

Array sample(const Array& logits, double temperature, int64_t top_k, double top_p, double min_p,
             uint64_t seed, uint64_t offset) {
  const int64_t rows = logits.shape(0), n = logits.shape(1);
  py::array_t<int64_t> result(rows);
  const float* pz = data(logits);
  int64_t* po = result.mutable_data();
  call([&] {
    return evergrad_sample(rows, n, pz, temperature, top_k, top_p, min_p, seed, offset, po);
  });
  return result;
}

}  // namespace

void register_sampling(py::module_& m) {
  m.def("sample", &sample, py::arg("logits"), py::arg("temperature"), py::arg("top_k"),
        py::arg("top_p"), py::arg("min_p"), py::arg("seed"), py::arg("offset"));
}

}  // namespace evergrad
