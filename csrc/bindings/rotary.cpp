#include "bindings/common.h"

namespace evergrad {
namespace {

// x [batch, tokens, heads, head_dim], or [total, heads, head_dim] packed; positions has the shape
// of the tokens, and is there when they are packed.
Array rotary(const Array& x, const Array& cos, const Array& sin, bool interleaved,
             const Optional& positions, bool inverse, const Optional& out) {
  Array result = or_like(out, x);
  const py::ssize_t rank = x.ndim();
  const int64_t batch = rank == 4 ? x.shape(0) : 1, tokens = x.shape(rank - 3),
                heads = x.shape(rank - 2), head_dim = x.shape(rank - 1), dim = 2 * cos.shape(1);
  const evergrad_heads from = heads_of(x), to = heads_of(result);
  const float *pc = data(cos), *ps = data(sin);
  const int64_t* pp = positions ? indices(*positions) : nullptr;
  call([&] {
    return evergrad_rotary(batch, tokens, heads, head_dim, dim, interleaved, from, pc, ps, pp,
                           inverse, to);
  });
  return result;
}

}  // namespace

void register_rotary(py::module_& m) {
  m.def("rotary", &rotary, py::arg("x"), py::arg("cos"), py::arg("sin"), py::arg("interleaved"),
        py::arg("positions").none(true), py::arg("inverse"), py::arg("out").none(true));
}

}  // namespace evergrad
