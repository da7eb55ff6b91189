#include "bindings/common.h"
#include "runtime/distance.h"
#include "runtime/fork.h"
#include "runtime/parallel.h"
#include "runtime/pool.h"

namespace evergrad {
namespace {

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const char* const* name = evergrad_available_isas(); *name; ++name)
    names.emplace_back(*name);
  return names;
}

void set_isa(const std::string& name) {
  if (evergrad_set_isa(name.c_str()) == EVERGRAD_OK) return;
  std::string had;
  for (const std::string& isa : isas()) had += (had.empty() ? "" : ", ") + isa;
  throw py::value_error("isa: expected one that this CPU and build have (" + had + "), got '" +
                        name + "'");
}

}  // namespace

void register_runtime(py::module_& m) {
  m.attr("api_version") = evergrad_api_version();
  m.def("available_isas", &isas, "ISAs that this CPU and build have, slowest first.");
  m.def("get_isa", &evergrad_get_isa, "The ISA whose kernels run.");
  m.def("set_isa", &set_isa, py::arg("name"), "Run the kernels of another ISA.");
  m.def("get_num_threads", &evergrad_get_num_threads);
  m.def("set_num_threads", &evergrad_set_num_threads, py::arg("n"));
  m.def("is_forked_child", &is_forked_child,
        "True in a forked child that may lack OpenMP's threads, where loops run on one.");
  m.def(
      "empty", [](const Shape& shape) { return empty(shape); }, py::arg("shape"),
      "An uninitialised float32 array from the pool.");
  m.def("empty", [](py::ssize_t n) { return empty({n}); }, py::arg("shape"));
  m.def(
      "zero_",
      [](Array& x) {
        float* p = mutable_data(x);
        const int64_t n = x.size();
        call([&] { return evergrad_zero(n, p); });
      },
      py::arg("x"));
  m.def(
      "pool_stats",
      [] {
        const PoolStats s = pool_stats();
        py::dict stats;
        stats["live_bytes"] = s.live_bytes;
        stats["cached_bytes"] = s.cached_bytes;
        stats["system_allocations"] = s.system_allocations;
        return stats;
      },
      "Bytes in use, bytes kept for reuse, and how often the system was asked.");
  m.def(
      "pool_trim",
      [] {
        call([] {
          pool_trim();
          return EVERGRAD_OK;
        });
      },
      "Give the buffers kept for reuse back to the system.");
  m.def(
      "round_trip", [] { return without_gil(round_trip); },
      "Nanoseconds of a cache line's way to the second worker and back; 0 without one.");
  m.def(
      "measure_fma_peak",
      [](double seconds) {
        return without_gil([=] { return evergrad_measure_fma_peak(seconds); });
      },
      py::arg("seconds"), "GFLOP/s of fused multiply-adds, with the threads in use.");
  m.def(
      "measure_bandwidth",
      [](double seconds) {
        return without_gil([=] { return evergrad_measure_bandwidth(seconds); });
      },
      py::arg("seconds"), "GB/s to and from memory, with the threads in use.");
}

}  // namespace evergrad
