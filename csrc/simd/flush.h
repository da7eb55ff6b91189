// Subnormal numbers taken for 0, and written as 0, for as long as an object of this type lives.
//
// Some cores take more than a hundred cycles for an operation on a vector with a subnormal in it.
// What shrinks by a factor again and again ends there, and stays: 0.9 x rounds to x at 1.4e-45.
#pragma once

#include "common.h"

namespace evergrad {
namespace {

class FlushSubnormals {
 public:
  EVG_INLINE explicit FlushSubnormals(bool flushes = true) : before_(control()) {
    if (flushes) set(before_ | bits);
  }
  EVG_INLINE ~FlushSubnormals() { set(before_); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
#if defined(__SSE__)
  using Control = uint32_t;
  static constexpr Control bits = 0x8040;  // flush to zero, denormals are zero
  EVG_INLINE static Control control() { return __builtin_ia32_stmxcsr(); }
  EVG_INLINE static void set(Control c) {
    fence();
    __builtin_ia32_ldmxcsr(c);
    fence();
  }
#elif defined(__aarch64__)
  using Control = uint64_t;
  static constexpr Control bits = 1 << 24;  // flush to zero, both ways
  EVG_INLINE static Control control() {
    Control c;
    __asm__ volatile("mrs %0, fpcr" : "=r"(c));
    return c;
  }
  EVG_INLINE static void set(Control c) { __asm__ volatile("msr fpcr, %0" : : "r"(c) : "memory"); }
#else
  using Control = int;
  static constexpr Control bits = 0;
  EVG_INLINE static Control control() { return 0; }
  EVG_INLINE static void set(Control) {}
#endif
  // The compiler does not know what the control register does; memory it keeps in order.
  EVG_INLINE static void fence() { __asm__ volatile("" ::: "memory"); }

  Control before_;
};

}  // namespace
}  // namespace evergrad
