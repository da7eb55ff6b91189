// Arrays of strings as GGUF files hold them: 8 bytes of length, then so many of UTF-8, one after
// the other. Vocabularies are long, and a loop in Python takes ten times as long.
#include <cstring>

#include "bindings/common.h"

namespace evergrad {
namespace {

// The memory of an object, in one piece.
struct Bytes {
  explicit Bytes(const py::object& data) {
    if (PyObject_GetBuffer(data.ptr(), &buffer, PyBUF_SIMPLE)) throw py::error_already_set();
  }
  ~Bytes() { PyBuffer_Release(&buffer); }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;

  Py_buffer buffer;
};

// The first strings of `data` from `start`, and where they end: `count`, or as many as are whole
// and UTF-8. What is wrong with the next one, the caller says.
py::tuple prefixed_strings(const py::object& data, std::size_t start, std::size_t count) {
  const Bytes view(data);
  const auto size = static_cast<std::size_t>(view.buffer.len);
  const char* bytes = static_cast<const char*>(view.buffer.buf);
  py::list found;
  for (; count > 0; --count) {
    uint64_t length;
    if (start > size || size - start < sizeof length) break;
    std::memcpy(&length, bytes + start, sizeof length);
    if (length > size - start - sizeof length) break;
    PyObject* text = PyUnicode_DecodeUTF8(bytes + start + sizeof length,
                                          static_cast<Py_ssize_t>(length), nullptr);
    if (!text) {
      if (!PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) throw py::error_already_set();
      PyErr_Clear();
      break;
    }
    found.append(py::reinterpret_steal<py::str>(text));
    start += sizeof length + length;
  }
  return py::make_tuple(found, start);
}

}  // namespace

void register_strings(py::module_& m) {
  m.def("prefixed_strings", &prefixed_strings, py::arg("data"), py::arg("start"), py::arg("count"));
}

}  // namespace evergrad
