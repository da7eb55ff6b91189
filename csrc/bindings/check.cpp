// Short cuts through the checks that every op begins with (evergrad/ops/_check.py): "all is plainly
// well", or else let the checks look, one by one, and find the words.
//
// Plain C functions: pybind11 would take several times as long to hand their arguments over.
// Whatever is not plainly well, an argument of the wrong kind too, is a no: the checks know what to
// say.
#include "bindings/common.h"

namespace evergrad {
namespace {

using Proxy = py::detail::PyArray_Proxy;
using Flags = py::detail::npy_api::constants;

constexpr Py_ssize_t most_arrays = 16;
constexpr int readable = Flags::NPY_ARRAY_C_CONTIGUOUS_ | Flags::NPY_ARRAY_ALIGNED_;
constexpr int writable = readable | Flags::NPY_ARRAY_WRITEABLE_;

// NumPy's own, fetched when the module is imported: fetching may run Python, and with it threads
// that would wait for whoever fetches first.
PyObject *float32_dtype = nullptr, *int64_dtype = nullptr;

// The array, if x is one (of no subclass) of this dtype with these flags.
const Proxy* array_of(PyObject* x, PyObject* dtype, int flags) {
  if (Py_TYPE(x) != py::detail::npy_api::get().PyArray_Type_) return nullptr;
  const Proxy* array = py::detail::array_proxy(x);
  return array->descr == dtype && (array->flags & flags) == flags ? array : nullptr;
}

// An int of 0 or more; -1 for anything else.
Py_ssize_t whole_number(PyObject* x) {
  if (!PyLong_CheckExact(x)) return -1;
  const Py_ssize_t n = PyLong_AsSsize_t(x);
  if (n == -1) PyErr_Clear();  // too large
  return n < 0 ? -1 : n;
}

std::size_t elements(const Proxy* x) {
  std::size_t n = 1;
  for (int i = 0; i < x->nd; ++i) n *= static_cast<std::size_t>(x->dimensions[i]);
  return n;
}

bool has_shape(const Proxy* x, PyObject* shape) {
  if (shape == Py_None) return true;
  if (!PyTuple_CheckExact(shape) || PyTuple_GET_SIZE(shape) != x->nd) return false;
  for (int i = 0; i < x->nd; ++i)
    if (whole_number(PyTuple_GET_ITEM(shape, i)) != x->dimensions[i]) return false;
  return true;
}

PyObject* misused(const char* expected) {
  PyErr_SetString(PyExc_TypeError, expected);
  return nullptr;
}

PyObject* plain(PyObject*, PyObject* const* args, Py_ssize_t count) {
  const Py_ssize_t arrays = (count - 1) / 2, outs = count > 0 ? whole_number(args[0]) : -1;
  if (count % 2 == 0 || arrays > most_arrays || outs < 0 || outs > arrays)
    return misused("plain: expected how many are written, then arrays with a shape behind each");
  const Py_ssize_t inputs = arrays - outs;
  struct {
    const char *first, *last;
  } seen[most_arrays];
  Py_ssize_t held = 0;
  for (Py_ssize_t i = 0; i < arrays; ++i) {
    PyObject* x = args[1 + 2 * i];
    if (x == Py_None) continue;
    const bool written = i >= inputs;
    const Proxy* array = array_of(x, float32_dtype, written ? writable : readable);
    if (!array || !has_shape(array, args[2 + 2 * i])) Py_RETURN_FALSE;
    const char *first = array->data, *last = first + elements(array) * sizeof(float);
    for (Py_ssize_t j = 0; written && j < held; ++j)
      if (first < seen[j].last && seen[j].first < last) Py_RETURN_FALSE;
    seen[held++] = {first, last};
  }
  Py_RETURN_TRUE;
}

PyObject* within(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2) return misused("within: expected indices and a bound");
  const Py_ssize_t upper = whole_number(args[1]);
  const Proxy* array = array_of(args[0], int64_dtype, readable);
  if (!array || upper < 0) Py_RETURN_FALSE;
  const std::size_t n = elements(array);
  // The sign of x or that of (upper - 1) - x: what every x86-64 adds and ors two at a time, while
  // it compares numbers of 64 bits one by one.
  const auto* x = reinterpret_cast<const uint64_t*>(array->data);
  const uint64_t last = static_cast<uint64_t>(upper) - 1;
  uint64_t beyond = 0;
  for (std::size_t i = 0; i < n; ++i) beyond |= x[i] | (last - x[i]);
  return PyBool_FromLong(beyond >> 63 == 0);
}

PyObject* rising(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2) return misused("rising: expected offsets and the last, or None");
  const Proxy* array = array_of(args[0], int64_dtype, readable);
  if (!array || array->nd != 1 || array->dimensions[0] == 0) Py_RETURN_FALSE;
  const auto* x = reinterpret_cast<const int64_t*>(array->data);
  const Py_ssize_t n = array->dimensions[0];
  bool rises = x[0] == 0;
  for (Py_ssize_t i = 1; i < n; ++i) rises = rises && x[i - 1] <= x[i];
  if (args[1] != Py_None) rises = rises && x[n - 1] == whole_number(args[1]);
  return PyBool_FromLong(rises);
}

using Fast = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t);

PyMethodDef fast(const char* name, Fast function, const char* doc) {
  // Which of the signatures it has, Python reads from the flag.
  auto* any = reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
  return {name, any, METH_FASTCALL, doc};
}

PyMethodDef methods[] = {
    fast("plain", plain,
         "``plain(outs, x, shape, y, shape, ...)``: True if each array, unless it is None, is a\n"
         "C-contiguous, aligned float32 array of the shape behind it (of any, for None), and the\n"
         "last `outs` of them are writable and apart from all before them."),
    fast("within", within,
         "``within(x, upper)``: True if x is a C-contiguous, aligned int64 array of numbers in\n"
         "[0, upper)."),
    fast("rising", rising,
         "``rising(x, last)``: True if x is a C-contiguous, aligned, one-dimensional int64 array\n"
         "that rises from 0 to `last` (to anything, for None) and never falls."),
};

}  // namespace

void register_check(py::module_& m) {
  float32_dtype = py::dtype::of<float>().release().ptr();
  int64_dtype = py::dtype::of<int64_t>().release().ptr();
  for (PyMethodDef& method : methods)
    m.attr(method.ml_name) =
        py::reinterpret_steal<py::object>(PyCFunction_NewEx(&method, nullptr, nullptr));
}

}  // namespace evergrad
