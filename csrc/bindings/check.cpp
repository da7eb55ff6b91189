// Short cuts through the checks that every op begins with (evergrad/ops/_check.py): "all is plainly
// well", or else let the checks look, one by one, and find the words.
//
// Plain C functions: pybind11 would take several times as long to hand their arguments over.
#include "bindings/common.h"

namespace evergrad {
namespace {

using Proxy = py::detail::PyArray_Proxy;
using Flags = py::detail::npy_api::constants;

constexpr Py_ssize_t MOST = 16;
constexpr int READABLE = Flags::NPY_ARRAY_C_CONTIGUOUS_ | Flags::NPY_ARRAY_ALIGNED_;
constexpr int WRITABLE = READABLE | Flags::NPY_ARRAY_WRITEABLE_;

// The array, if x is one (of no subclass) of numbers of type T with these flags.
template <class T>
const Proxy* array_of(PyObject* x, int flags) {
  static PyObject* const dtype = py::dtype::of<T>().release().ptr();
  if (Py_TYPE(x) != py::detail::npy_api::get().PyArray_Type_) return nullptr;
  const Proxy* array = py::detail::array_proxy(x);
  return array->descr == dtype && (array->flags & flags) == flags ? array : nullptr;
}

bool has_shape(const Proxy* x, PyObject* shape) {
  if (shape == Py_None) return true;
  if (!PyTuple_CheckExact(shape) || PyTuple_GET_SIZE(shape) != x->nd) return false;
  for (int i = 0; i < x->nd; ++i)
    if (PyLong_AsSsize_t(PyTuple_GET_ITEM(shape, i)) != x->dimensions[i]) return false;
  return true;
}

PyObject* wrong(const char* expected) {
  if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, expected);
  return nullptr;
}

PyObject* plain(PyObject*, PyObject* const* args, Py_ssize_t count) {
  const Py_ssize_t arrays = (count - 1) / 2;
  if (count % 2 == 0 || arrays > MOST || !PyLong_CheckExact(args[0]))
    return wrong("plain: expected outs, then up to 16 arrays with a shape behind each");
  const Py_ssize_t inputs = arrays - PyLong_AsSsize_t(args[0]);
  struct {
    const char *first, *last;
  } seen[MOST];
  Py_ssize_t held = 0;
  for (Py_ssize_t i = 0; i < arrays; ++i) {
    PyObject* x = args[1 + 2 * i];
    if (x == Py_None) continue;
    const bool written = i >= inputs;
    const Proxy* array = array_of<float>(x, written ? WRITABLE : READABLE);
    if (!array || !has_shape(array, args[2 + 2 * i])) {
      if (PyErr_Occurred()) return nullptr;
      Py_RETURN_FALSE;
    }
    std::size_t size = sizeof(float);
    for (int axis = 0; axis < array->nd; ++axis)
      size *= static_cast<std::size_t>(array->dimensions[axis]);
    const char *first = array->data, *last = first + size;
    for (Py_ssize_t j = 0; written && j < held; ++j)
      if (first < seen[j].last && seen[j].first < last) Py_RETURN_FALSE;
    seen[held++] = {first, last};
  }
  Py_RETURN_TRUE;
}

PyObject* within(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2) return wrong("within: expected indices and a bound");
  const Py_ssize_t upper = PyLong_AsSsize_t(args[1]);
  if (upper < 0) return wrong("within: expected a bound of 0 or more");
  const Proxy* array = array_of<int64_t>(args[0], READABLE);
  if (!array) Py_RETURN_FALSE;
  std::size_t size = 1;
  for (int axis = 0; axis < array->nd; ++axis)
    size *= static_cast<std::size_t>(array->dimensions[axis]);
  // The sign of x or that of (upper - 1) - x: what every x86-64 adds and ors two at a time, while
  // it compares numbers of 64 bits one by one.
  const auto* x = reinterpret_cast<const uint64_t*>(array->data);
  const uint64_t last = static_cast<uint64_t>(upper) - 1;
  uint64_t beyond = 0;
  for (std::size_t i = 0; i < size; ++i) beyond |= x[i] | (last - x[i]);
  return PyBool_FromLong(beyond >> 63 == 0);
}

PyObject* rising(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2) return wrong("rising: expected offsets and the last, or None");
  const Proxy* array = array_of<int64_t>(args[0], READABLE);
  if (!array || array->nd != 1 || array->dimensions[0] == 0) Py_RETURN_FALSE;
  const auto* x = reinterpret_cast<const int64_t*>(array->data);
  const Py_ssize_t n = array->dimensions[0];
  bool rises = x[0] == 0;
  for (Py_ssize_t i = 1; i < n; ++i) rises = rises && x[i - 1] <= x[i];
  if (args[1] != Py_None) {
    const Py_ssize_t last = PyLong_AsSsize_t(args[1]);
    if (last == -1 && PyErr_Occurred()) return nullptr;
    rises = rises && x[n - 1] == last;
  }
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
         "True if each array, unless it is None, is a C-contiguous, aligned float32 array of the\n"
         "shape behind it (of any, for None), and the last `outs` are writable and apart from all\n"
         "before them: ``plain(outs, x, shape, y, shape, ...)``."),
    fast("within", within,
         "True if x is a C-contiguous int64 array of numbers in [0, upper): ``within(x, upper)``."),
    fast("rising", rising,
         "True if x is a contiguous int64 array that rises from 0 to `last` (to anything, for\n"
         "None), never falling: ``rising(x, last)``."),
};

}  // namespace

void register_check(py::module_& m) {
  for (PyMethodDef& method : methods)
    m.attr(method.ml_name) =
        py::reinterpret_steal<py::object>(PyCFunction_NewEx(&method, nullptr, nullptr));
}

}  // namespace evergrad
