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

// How an array lies within its bytes: `inner` of them, again at every `period`.
struct Pieces {
  Py_ssize_t period, inner;
};

// The shortest period that leaves gaps between the pieces; false where there is none.
bool pieces_of(const Proxy* x, Py_ssize_t itemsize, Pieces* pieces) {
  pieces->period = 0;
  for (int i = 0; i < x->nd; ++i) {
    const Py_ssize_t period = x->dimensions[i] > 1 ? x->strides[i] : 0;
    if (period <= 0 || (pieces->period > 0 && period >= pieces->period)) continue;
    Py_ssize_t inner = itemsize;
    for (int j = 0; j < x->nd; ++j) {
      const Py_ssize_t reach = (x->dimensions[j] - 1) * x->strides[j];
      if (reach < 0) return false;
      if (reach > 0 && x->strides[j] % period != 0) inner += reach;
    }
    if (inner < period) *pieces = {period, inner};
  }
  return pieces->period > 0;
}

// The bytes that an array lies within: [first, last).
struct Span {
  const char *first, *last;
  const Proxy* array;
  Py_ssize_t itemsize;

  // False where no element is shared; true where that takes more than a glance, too.
  bool meets(const Span& other) const {
    if (first >= other.last || other.first >= last) return false;
    // Slices of one array, such as the heads of queries and of keys: between two pieces of the one
    // there is room for a piece of the other, in every period.
    Pieces mine, others;
    if (!pieces_of(array, itemsize, &mine) || !pieces_of(other.array, other.itemsize, &others) ||
        mine.period != others.period)
      return true;
    Py_ssize_t behind = (other.first - first) % mine.period;
    if (behind < 0) behind += mine.period;
    return behind < mine.inner || behind + others.inner > mine.period;
  }
};

// Of a C-contiguous array of floats.
Span span_of(const Proxy* x) {
  return {x->data, x->data + elements(x) * sizeof(float), x, sizeof(float)};
}

// Of an array with any strides.
Span strided_span_of(const Proxy* x, Py_ssize_t itemsize) {
  Span span{x->data, x->data, x, itemsize};
  if (elements(x) == 0) return span;
  span.last += itemsize;
  for (int i = 0; i < x->nd; ++i) {
    const Py_ssize_t reach = (x->dimensions[i] - 1) * x->strides[i];
    (reach < 0 ? span.first : span.last) += reach;
  }
  return span;
}

// Whether an array that is not empty has floats side by side in its last axis and whole floats
// between those of any other, none of them backwards.
bool has_rows(const Proxy* x) {
  constexpr Py_ssize_t size = sizeof(float);
  if (x->nd == 0 || elements(x) == 0) return false;
  for (int i = 0; i < x->nd; ++i)
    if (x->strides[i] < 0 || x->strides[i] % size != 0) return false;
  return x->strides[x->nd - 1] == size || x->dimensions[x->nd - 1] == 1;
}

// Whether, of an array that has rows, each axis steps past all that lies within those behind it.
bool is_nested(const Proxy* x) {
  Py_ssize_t extent = 0;
  for (int i = x->nd - 1; i >= 0; --i) {
    if (x->dimensions[i] == 1) continue;
    if (x->strides[i] <= extent) return false;
    extent += (x->dimensions[i] - 1) * x->strides[i];
  }
  return true;
}

bool has_shape(const Proxy* x, PyObject* shape) {
  if (shape == Py_None) return true;
  if (PyLong_CheckExact(shape)) return whole_number(shape) == x->nd;
  if (!PyTuple_CheckExact(shape) || PyTuple_GET_SIZE(shape) != x->nd) return false;
  for (int i = 0; i < x->nd; ++i)
    if (whole_number(PyTuple_GET_ITEM(shape, i)) != x->dimensions[i]) return false;
  return true;
}

PyObject* misused(const char* expected) {
  PyErr_SetString(PyExc_TypeError, expected);
  return nullptr;
}

// What `plain` and `rowwise` ask, of arrays that are contiguous or have rows.
PyObject* all_well(PyObject* const* args, Py_ssize_t count, bool contiguous) {
  const Py_ssize_t arrays = (count - 1) / 2, outs = count > 0 ? whole_number(args[0]) : -1;
  if (count % 2 == 0 || arrays > most_arrays || outs < 0 || outs > arrays)
    return misused("expected how many are written, then arrays with a shape behind each");
  const Py_ssize_t inputs = arrays - outs;
  const int dropped = contiguous ? 0 : Flags::NPY_ARRAY_C_CONTIGUOUS_;
  Span seen[most_arrays];
  Py_ssize_t held = 0;
  for (Py_ssize_t i = 0; i < arrays; ++i) {
    PyObject* x = args[1 + 2 * i];
    if (x == Py_None && !PyLong_CheckExact(args[2 + 2 * i])) continue;
    const bool written = i >= inputs;
    const Proxy* array = array_of(x, float32_dtype, (written ? writable : readable) & ~dropped);
    if (!array || !has_shape(array, args[2 + 2 * i])) Py_RETURN_FALSE;
    if (!contiguous && (!has_rows(array) || (written && !is_nested(array)))) Py_RETURN_FALSE;
    const Span span = contiguous ? span_of(array) : strided_span_of(array, sizeof(float));
    for (Py_ssize_t j = 0; written && j < held; ++j)
      if (span.meets(seen[j])) Py_RETURN_FALSE;
    seen[held++] = span;
  }
  Py_RETURN_TRUE;
}

PyObject* plain(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return all_well(args, count, true);
}

PyObject* rowwise(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return all_well(args, count, false);
}

PyObject* apart(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count == 0) return misused("apart: expected an array, and others or None");
  Span span{};
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (i > 0 && args[i] == Py_None) continue;
    if (!PyObject_TypeCheck(args[i], py::detail::npy_api::get().PyArray_Type_)) Py_RETURN_FALSE;
    const Span other = strided_span_of(py::detail::array_proxy(args[i]),
                                       py::reinterpret_borrow<py::array>(args[i]).itemsize());
    if (i == 0)
      span = other;
    else if (span.meets(other))
      Py_RETURN_FALSE;
  }
  Py_RETURN_TRUE;
}

// The memory of a matrix, if x is one that has elements, and rows or columns that are contiguous.
bool matrix_span(const Proxy* x, Span* span) {
  constexpr Py_ssize_t size = sizeof(float);
  if (!x || x->nd != 2) return false;
  const Py_ssize_t rows = x->dimensions[0], columns = x->dimensions[1];
  const Py_ssize_t row = x->strides[0], column = x->strides[1];
  if (rows < 1 || columns < 1 || row < 0 || column < 0 || (row != size && column != size))
    return false;
  *span = {x->data, x->data + (rows - 1) * row + (columns - 1) * column + size, x, size};
  return true;
}

PyObject* multiplies(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 3) return misused("multiplies: expected two matrices, and where to, or None");
  constexpr int aligned = Flags::NPY_ARRAY_ALIGNED_;
  const Proxy *a = array_of(args[0], float32_dtype, aligned),
              *b = array_of(args[1], float32_dtype, aligned);
  Span in_a, in_b, in_out;
  if (!matrix_span(a, &in_a) || !matrix_span(b, &in_b) || a->dimensions[1] != b->dimensions[0])
    Py_RETURN_FALSE;
  if (args[2] == Py_None) Py_RETURN_TRUE;
  const Proxy* out = array_of(args[2], float32_dtype, writable);
  return PyBool_FromLong(matrix_span(out, &in_out) && out->dimensions[0] == a->dimensions[0] &&
                         out->dimensions[1] == b->dimensions[1] && !in_out.meets(in_a) &&
                         !in_out.meets(in_b));
}

// Whether x has the shape of `like` but for its last dimension, which is `last`.
bool has_shape_of(const Proxy* x, const Proxy* like, Py_ssize_t last) {
  if (x->nd != like->nd || x->dimensions[x->nd - 1] != last) return false;
  for (int i = 0; i + 1 < x->nd; ++i)
    if (x->dimensions[i] != like->dimensions[i]) return false;
  return true;
}

PyObject* affine(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 5)
    return misused("affine: expected x, weight, and a bias, a residual, an out, or None");
  const Proxy *x = array_of(args[0], float32_dtype, readable),
              *weight = array_of(args[1], float32_dtype, readable);
  if (!x || !weight || x->nd < 1 || weight->nd != 2 ||
      weight->dimensions[1] != x->dimensions[x->nd - 1])
    Py_RETURN_FALSE;
  const Py_ssize_t features = weight->dimensions[0];
  Span read[4] = {span_of(x), span_of(weight)};
  int held = 2;
  if (args[2] != Py_None) {
    const Proxy* bias = array_of(args[2], float32_dtype, readable);
    if (!bias || bias->nd != 1 || bias->dimensions[0] != features) Py_RETURN_FALSE;
    read[held++] = span_of(bias);
  }
  if (args[3] != Py_None) {
    const Proxy* residual = array_of(args[3], float32_dtype, readable);
    if (!residual || !has_shape_of(residual, x, features)) Py_RETURN_FALSE;
    read[held++] = span_of(residual);
  }
  if (args[4] == Py_None) Py_RETURN_TRUE;
  const Proxy* out = array_of(args[4], float32_dtype, writable);
  if (!out || !has_shape_of(out, x, features)) Py_RETURN_FALSE;
  const Span written = span_of(out);
  for (int i = 0; i < held; ++i)
    if (written.meets(read[i])) Py_RETURN_FALSE;
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
    fast(
        "plain", plain,
        "``plain(outs, x, shape, y, shape, ...)``: True if each array, unless it is None, is a\n"
        "C-contiguous, aligned float32 array of the shape behind it (of any, for None; of so many\n"
        "dimensions, and not None, for an int), and the last `outs` of them are writable and\n"
        "apart from all before them."),
    fast(
        "rowwise", rowwise,
        "``rowwise(outs, x, shape, y, shape, ...)``: as ``plain``, but only the last axis of each\n"
        "has to be contiguous; none may be empty."),
    fast("apart", apart,
         "``apart(x, y, ...)``: True if x shares no memory with the others, which may be None,\n"
         "as far as a glance tells."),
    fast("multiplies", multiplies,
         "``multiplies(a, b, out)``: True if a and b are aligned float32 matrices that have\n"
         "elements, rows or columns that are contiguous, and a product; and if out, unless it is\n"
         "None, is C-contiguous, writable, of the product's shape, and apart from both."),
    fast(
        "affine", affine,
        "``affine(x, weight, bias, residual, out)``: True if all that are there are C-contiguous,\n"
        "aligned float32 arrays, their shapes fit x [..., in] and weight [features, in], and out\n"
        "is writable and apart from the others. The last three may be None."),
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
