// Subnormal numbers taken for 0, and written as 0, for the length of a call.
//
// Some cores take more than a hundred cycles for an operation on a vector with a subnormal in it.
// What shrinks by a factor again and again ends there, and stays: 0.9 x rounds to x at 1.4e-45.
#pragma once

#include "common.h"

namespace evergrad {
namespace {

#if defined(__SSE__)
using Control = uint32_t;
constexpr Control flush_bits = 0x8040;  // flush to zero, denormals are zero
EVG_INLINE Control control() { return __builtin_ia32_stmxcsr(); }
EVG_INLINE void set_control(Control c) { __builtin_ia32_ldmxcsr(c); }
#elif defined(__aarch64__)
using Control = uint64_t;
constexpr Control flush_bits = 1 << 24;  // flush to zero, both ways
EVG_INLINE Control control() {
  Control c;
  __asm__ volatile("mrs %0, fpcr" : "=r"(c));
  return c;
}
EVG_INLINE void set_control(Control c) { __asm__ volatile("msr fpcr, %0" : : "r"(c)); }
#else
using Control = int;
constexpr Control flush_bits = 0;
EVG_INLINE Control control() { return 0; }
EVG_INLINE void set_control(Control) {}
#endif

// Calls f. Not an object that restores in its destructor: units of kernels know no exceptions, and
// that would make them refer to the C++ runtime.
template <class F>
EVG_INLINE void flush_subnormals(bool flushes, F f) {
  // The compiler does not know what the control register does; memory it keeps in order.
  const auto fence = [] { __asm__ volatile("" ::: "memory"); };
  const Control before = control();
  if (flushes) set_control(before | flush_bits);
  fence();
  f();
  fence();
  set_control(before);
}

}  // namespace
}  // namespace evergrad
