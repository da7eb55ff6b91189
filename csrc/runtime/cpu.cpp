#include "runtime/cpu.h"

#include <unistd.h>
#if defined(EVERGRAD_HAVE_AVX2) || defined(EVERGRAD_HAVE_AVX512)
#include <cpuid.h>
#endif

#include <atomic>
#include <cstring>

#include "evergrad/evergrad.h"

#ifdef EVERGRAD_HAVE_SCALAR
extern "C" const evergrad::KernelTable evergrad_kernels_scalar;
#endif
#ifdef EVERGRAD_HAVE_AVX2
extern "C" const evergrad::KernelTable evergrad_kernels_avx2;
#endif
#ifdef EVERGRAD_HAVE_AVX512
extern "C" const evergrad::KernelTable evergrad_kernels_avx512;
#endif
#ifdef EVERGRAD_HAVE_NEON
extern "C" const evergrad::KernelTable evergrad_kernels_neon;
#endif

namespace evergrad {
namespace {

constexpr int max_isas = 4;

struct Available {
  const KernelTable* tables[max_isas];
  const char* names[max_isas + 1];
  int count;
};

#if defined(EVERGRAD_HAVE_AVX2) || defined(EVERGRAD_HAVE_AVX512)
// Conversion of half-precision numbers; not every compiler's __builtin_cpu_supports knows its name.
bool has_f16c() {
  unsigned a, b, c = 0, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

// __builtin_cpu_supports reads cpuid and, for the wide registers, xgetbv: an operating system that
// does not save them counts as not having them.
Available detect() {
  Available found{};
  auto add = [&found](const KernelTable* table) {
    found.tables[found.count] = table;
    found.names[found.count++] = table->isa;
  };
  add(&evergrad_kernels_scalar);
#if defined(EVERGRAD_HAVE_AVX2) || defined(EVERGRAD_HAVE_AVX512)
  __builtin_cpu_init();
#endif
#ifdef EVERGRAD_HAVE_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c())
    add(&evergrad_kernels_avx2);
#endif
#ifdef EVERGRAD_HAVE_AVX512
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("fma") && has_f16c())
    add(&evergrad_kernels_avx512);
#endif
#ifdef EVERGRAD_HAVE_NEON
  add(&evergrad_kernels_neon);  // part of the base of aarch64
#endif
  return found;
}

const Available& available() {
  static const Available found = detect();
  return found;
}

std::atomic<const KernelTable*> current{nullptr};

}  // namespace

const KernelTable& kernels() {
  const KernelTable* table = current.load(std::memory_order_relaxed);
  if (!table) {
    table = available().tables[available().count - 1];
    current.store(table, std::memory_order_relaxed);
  }
  return *table;
}

bool has_byte_dots() noexcept {
#ifdef EVERGRAD_HAVE_AVX512
  static const bool has = __builtin_cpu_supports("avx512vnni");
  return has;
#else
  return false;
#endif
}

long l2_bytes() noexcept {
  static const long bytes = [] {
    long size = 0;
#ifdef _SC_LEVEL2_CACHE_SIZE
    size = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    return size > 0 ? size : 512L << 10;
  }();
  return bytes;
}

}  // namespace evergrad

using namespace evergrad;

int evergrad_api_version(void) noexcept { return EVERGRAD_API_VERSION; }

const char* const* evergrad_available_isas(void) noexcept { return available().names; }

const char* evergrad_get_isa(void) noexcept { return kernels().isa; }

int evergrad_set_isa(const char* name) noexcept {
  for (int i = 0; i < available().count; ++i)
    if (std::strcmp(available().names[i], name) == 0) {
      current.store(available().tables[i], std::memory_order_relaxed);
      return EVERGRAD_OK;
    }
  return EVERGRAD_UNAVAILABLE;
}
