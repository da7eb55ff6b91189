#include "bindings/common.h"

namespace evergrad {
namespace {

Array relative_position_buckets(const Array& limits, int64_t tokens_q, int64_t tokens_k,
                                bool bidirectional) {
  py::array_t<int64_t> result({tokens_q, tokens_k});
  const int64_t count = limits.shape(0), *pl = indices(limits);
  int64_t* po = result.mutable_data();
  call([&] {
    return evergrad_relative_position_buckets(count, pl, tokens_q, tokens_k, bidirectional, po);
  });
  return result;
}

}  // namespace

void register_position(py::module_& m) {
  m.def("relative_position_buckets", &relative_position_buckets, py::arg("limits"),
        py::arg("tokens_q"), py::arg("tokens_k"), py::arg("bidirectional"));
}

}  // namespace evergrad
