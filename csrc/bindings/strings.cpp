// Vocabularies: tens of thousands of short strings, most of which nobody ever looks at. An object
// for each would take a fifth of the time that a program needs to load a model and begin to write,
// so they stay bytes.
#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string_view>

#include "bindings/common.h"

namespace evergrad {
namespace {

using std::size_t;
using std::string_view;

// The memory of an object, in one piece.
struct Bytes {
  explicit Bytes(const py::object& data) {
    if (PyObject_GetBuffer(data.ptr(), &buffer, PyBUF_SIMPLE)) throw py::error_already_set();
  }
  ~Bytes() { PyBuffer_Release(&buffer); }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;

  string_view view() const {
    return {static_cast<const char*>(buffer.buf), static_cast<size_t>(buffer.len)};
  }

  Py_buffer buffer;
};

// Whether bytes are UTF-8 as Python takes it: the shortest form, no surrogates, nothing beyond
// U+10FFFF. (Table 3-7 of the Unicode Standard.)
bool is_utf8(string_view text) {
  const auto* at = reinterpret_cast<const unsigned char*>(text.data());
  const auto* const end = at + text.size();
  while (at < end) {
    const unsigned lead = *at++;
    if (lead < 0x80) continue;
    const int more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
    if (lead < 0xC2 || lead > 0xF4 || end - at < more) return false;
    const unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (*at < low || *at > high) return false;
    for (int i = 1; i < more; ++i)
      if ((at[i] & 0xC0) != 0x80) return false;
    at += more;
  }
  return true;
}

py::str to_python(string_view text) { return py::str(text.data(), text.size()); }

// Of a string; lone surrogates have none.
string_view utf8_of(const py::handle& text) {
  if (!PyUnicode_Check(text.ptr()))
    throw py::type_error("expected a string, got " + std::string(py::str(py::type::of(text))));
  Py_ssize_t size;
  const char* const bytes = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (!bytes) throw py::error_already_set();
  return {bytes, static_cast<size_t>(size)};
}

// A sequence of strings, and where in it one is.
class Strings {
 public:
  Strings() = default;
  explicit Strings(const py::iterable& texts) {
    for (const py::handle text : texts) add(utf8_of(text));
  }

  // Strings as GGUF files hold them: 8 bytes of length, then so many of UTF-8, one after the other.
  // `count` of them from `start` on, or as many as are whole and UTF-8; and where they end.
  static std::pair<Strings, size_t> prefixed(string_view data, size_t start, size_t count) {
    Strings found;
    for (; count > 0; --count) {
      uint64_t length;
      if (start > data.size() || data.size() - start < sizeof length) break;
      std::memcpy(&length, data.data() + start, sizeof length);
      if (length > data.size() - start - sizeof length) break;
      const string_view text = data.substr(start + sizeof length, length);
      if (!is_utf8(text)) break;
      found.add(text);
      start += sizeof length + length;
    }
    return {std::move(found), start};
  }

  size_t size() const { return ends_.size(); }
  string_view at(size_t i) const {
    const uint32_t begin = i == 0 ? 0 : ends_[i - 1];
    return {bytes_.data() + begin, ends_[i] - begin};
  }

  // The last place where this string is, or -1.
  int64_t find(string_view text) const {
    if (slots_.empty()) fill_slots();
    const uint64_t hash = std::hash<string_view>{}(text);
    for (size_t slot = hash;; ++slot) {
      const Slot& here = slots_[slot & (slots_.size() - 1)];
      if (here.place < 0) return -1;
      if (here.hash == static_cast<uint32_t>(hash >> 32) &&
          at(static_cast<size_t>(here.place)) == text)
        return here.place;
    }
  }

  // Whether no string is there twice.
  bool are_distinct() const {
    if (slots_.empty()) fill_slots();
    return distinct_ == size();
  }

  // Those of them that occur in a text, and their places.
  py::dict within(string_view text) const {
    size_t longest = 0;
    for (size_t i = 0; i < size(); ++i) longest = std::max(longest, at(i).size());
    py::dict found;
    if (text.size() * longest > bytes_.size()) {  // to look for all its parts would take longer
      for (size_t i = 0; i < size(); ++i)
        if (!at(i).empty() && text.find(at(i)) != string_view::npos) found[to_python(at(i))] = i;
      return found;
    }
    for (size_t begin = 0; begin < text.size(); ++begin)
      for (size_t length = 1; length <= std::min(longest, text.size() - begin); ++length) {
        const string_view part = text.substr(begin, length);
        if (const int64_t place = find(part); place >= 0) found[to_python(part)] = place;
      }
    return found;
  }

  // Those of them that are among some, in their order, as often as they come.
  py::list among(const Strings& some) const {
    py::list found;
    for (size_t i = 0; i < size(); ++i)
      if (some.find(at(i)) >= 0) found.append(to_python(at(i)));
    return found;
  }

  // The place of the first that is not two of `tokens` with a blank between, which together make a
  // third; or -1.
  int64_t first_unmerged(const Strings& tokens) const {
    std::string joined;
    for (size_t i = 0; i < size(); ++i) {
      const string_view merge = at(i);
      const size_t cut = std::min(merge.find(' '), merge.size());
      const string_view left = merge.substr(0, cut);
      const string_view right = merge.substr(std::min(cut + 1, merge.size()));
      joined.assign(left).append(right);
      if (left.empty() || right.empty() || tokens.find(left) < 0 || tokens.find(right) < 0 ||
          tokens.find(joined) < 0)
        return static_cast<int64_t>(i);
    }
    return -1;
  }

 private:
  struct Slot {
    uint32_t hash = 0;
    int32_t place = -1;
  };

  void add(string_view text) {
    constexpr size_t most = std::numeric_limits<int32_t>::max();
    if (size() >= most || text.size() > most - bytes_.size())
      throw std::length_error("strings: expected less than 2 GiB in one array");
    bytes_.append(text);
    ends_.push_back(static_cast<uint32_t>(bytes_.size()));
    slots_.clear();
  }

  // Half of the slots stay empty. Each string begins to look at the one that its hash names.
  void fill_slots() const {
    size_t count = 2;
    while (count < 2 * size()) count *= 2;
    slots_.assign(count, Slot{});
    distinct_ = 0;
    for (size_t i = 0; i < size(); ++i) {
      const uint64_t hash = std::hash<string_view>{}(at(i));
      const Slot mine{static_cast<uint32_t>(hash >> 32), static_cast<int32_t>(i)};
      for (size_t slot = hash;; ++slot) {
        Slot& here = slots_[slot & (count - 1)];
        const bool is_free = here.place < 0;
        if (!is_free && (here.hash != mine.hash || at(static_cast<size_t>(here.place)) != at(i)))
          continue;
        here = mine;
        distinct_ += is_free;
        break;
      }
    }
  }

  std::string bytes_;           // of all, one behind the other
  std::vector<uint32_t> ends_;  // of each
  mutable std::vector<Slot> slots_;
  mutable size_t distinct_ = 0;
};

py::list to_list(const Strings& strings) {
  py::list all(strings.size());
  for (size_t i = 0; i < strings.size(); ++i) all[i] = to_python(strings.at(i));
  return all;
}

// What has no UTF-8 form is nowhere.
int64_t find_in(const Strings& strings, const py::object& text) {
  try {
    return strings.find(utf8_of(text));
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_UnicodeEncodeError)) throw;
    return -1;
  }
}

}  // namespace

void register_strings(py::module_& m) {
  py::class_<Strings>(m, "Strings", "A sequence of strings, made when they are looked at.")
      .def(py::init<const py::iterable&>(), py::arg("texts"))
      .def("__len__", &Strings::size)
      .def("__getitem__",
           [](const Strings& self, int64_t i) {
             const auto size = static_cast<int64_t>(self.size());
             if (i < -size || i >= size) throw py::index_error("string index out of range");
             return to_python(self.at(static_cast<size_t>(i < 0 ? i + size : i)));
           })
      .def("__getitem__",
           [](const Strings& self, const py::slice& slice) -> py::object {
             return to_list(self)[slice];
           })
      .def("__iter__", [](const Strings& self) { return py::iter(to_list(self)); })
      .def("__contains__",
           [](const Strings& self, const py::object& text) {
             return py::isinstance<py::str>(text) && find_in(self, text) >= 0;
           })
      .def("__eq__",
           [](const Strings& self, const py::object& other) {
             if (py::isinstance<Strings>(other))
               return to_list(self).equal(to_list(other.cast<const Strings&>()));
             return py::isinstance<py::list>(other) && to_list(self).equal(other);
           })
      .def("__hash__", [](const Strings& self) { return py::hash(py::tuple(to_list(self))); })
      .def("__repr__", [](const Strings& self) { return py::repr(to_list(self)); })
      .def(py::pickle([](const Strings& self) { return to_list(self); },
                      [](const py::list& texts) { return Strings(texts); }))
      .def(
          "find", [](const Strings& self, const py::str& text) { return find_in(self, text); },
          py::arg("text"), "The last place of a string, or -1.")
      .def("are_distinct", &Strings::are_distinct, "Whether no string is there twice.")
      .def(
          "within",
          [](const Strings& self, const py::str& text) { return self.within(utf8_of(text)); },
          py::arg("text"), "Those that occur in a text, and their places.")
      .def("among", &Strings::among, py::arg("some"), "Those that are among some, in their order.")
      .def("first_unmerged", &Strings::first_unmerged, py::arg("tokens"),
           "The place of the first that is not two tokens which make a third, or -1.");
  m.def(
      "prefixed_strings",
      [](const py::object& data, size_t start, size_t count) {
        const Bytes bytes(data);
        return Strings::prefixed(bytes.view(), start, count);
      },
      py::arg("data"), py::arg("start"), py::arg("count"));
}

}  // namespace evergrad
