// What every binding shares: arrays from the pool, pointers out of arrays, statuses into
// exceptions.
//
// Arguments arrive checked (evergrad/ops/_check.py): here they are only taken apart.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <unistd.h>

#include <array>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "evergrad/evergrad.h"

namespace evergrad {

namespace py = pybind11;
using Array = py::array;
using Optional = std::optional<py::array>;
using Shape = std::vector<py::ssize_t>;

// A float32 array whose memory returns to the pool when the last view of it dies.
inline Array empty(const Shape& shape) {
  std::size_t size = 1;
  for (const py::ssize_t n : shape) {
    if (n < 0)
      throw py::value_error("shape: expected no negative dimension, got " + std::to_string(n));
    if (__builtin_mul_overflow(size, static_cast<std::size_t>(n), &size)) throw std::bad_alloc();
  }
  if (__builtin_mul_overflow(size, sizeof(float), &size)) throw std::bad_alloc();
  std::unique_ptr<void, void (*)(void*)> memory(evergrad_pool_alloc(size), &evergrad_pool_free);
  if (!memory) throw std::bad_alloc();
  const py::capsule owner(memory.get(), &evergrad_pool_free);
  return py::array_t<float>(shape, static_cast<const float*>(memory.release()), owner);
}

inline Shape shape_of(const Array& x) { return Shape(x.shape(), x.shape() + x.ndim()); }

inline Array or_empty(const Optional& out, const Shape& shape) { return out ? *out : empty(shape); }
inline Array or_like(const Optional& out, const Array& x) {
  return out ? *out : empty(shape_of(x));
}

inline const float* data(const Array& x) { return static_cast<const float*>(x.data()); }
inline const float* data(const Optional& x) { return x ? data(*x) : nullptr; }
inline float* mutable_data(Array& x) { return static_cast<float*>(x.mutable_data()); }
inline float* mutable_data(Optional& x) { return x ? mutable_data(*x) : nullptr; }
inline const int64_t* indices(const Array& x) { return static_cast<const int64_t*>(x.data()); }

// The C API's number of an activation's name.
int activation_code(const std::optional<std::string>& name);

// The C API's number of a format of few bits.
int kind_code(const std::string& name);

// What f, which throws nothing, gives without the GIL.
template <class F>
auto without_gil(F&& f) {
  PyThreadState* const thread = PyEval_SaveThread();
  const auto result = f();
  // Before 3.14, Python ends a daemon thread that wants the GIL of an interpreter that is ending by
  // unwinding its stack: past destructors that need the GIL, and through any that may not throw
  // (as pybind11's own), which ends the process. As in 3.14, such a thread waits for the end.
  try {
    PyEval_RestoreThread(thread);
  } catch (...) {
    for (;;) pause();
  }
  return result;
}

// Runs f without the GIL and turns its status into an exception.
template <class F>
void call(F&& f) {
  if (without_gil(f) == EVERGRAD_NO_MEMORY) throw std::bad_alloc();
}

inline Array zeros(const Shape& shape) {
  Array out = empty(shape);
  float* p = mutable_data(out);
  const int64_t n = out.size();
  call([&] { return evergrad_zero(n, p); });
  return out;
}

// [batch, tokens, heads, head_dim], or packed [total, heads, head_dim].
inline evergrad_heads heads_of(const Array& x) {
  const py::ssize_t rank = x.ndim(), size = static_cast<py::ssize_t>(sizeof(float));
  return {const_cast<float*>(data(x)), rank == 4 ? x.strides(0) / size : 0,
          x.strides(rank - 3) / size, x.strides(rank - 2) / size};
}

// A wish for a gradient: the array handed over, a fresh one of zeros, or none.
inline Optional wanted(bool need, const Optional& given, const Shape& shape) {
  if (!need) return std::nullopt;
  return given ? *given : zeros(shape);
}

void register_runtime(py::module_& m);
void register_check(py::module_& m);
void register_strings(py::module_& m);
void register_gemm(py::module_& m);
void register_quant(py::module_& m);
void register_attention(py::module_& m);
void register_decoder(py::module_& m);
void register_softmax(py::module_& m);
void register_norm(py::module_& m);
void register_gated(py::module_& m);
void register_rotary(py::module_& m);
void register_activation(py::module_& m);
void register_embedding(py::module_& m);
void register_pooling(py::module_& m);
void register_loss(py::module_& m);
void register_linear_cross_entropy(py::module_& m);
void register_sampling(py::module_& m);
void register_position(py::module_& m);
void register_dropout(py::module_& m);
void register_optimizer(py::module_& m);

}  // namespace evergrad
