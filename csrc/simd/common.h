// What every vec_*.h shares.
//
// A kernel unit is compiled with the flags of one ISA, so the linker may see nothing of it but its
// table: a function shared between units could be taken from the unit of a wider ISA and run on a
// machine that lacks it. Hence the unnamed namespace around all of simd/ and kernels/, forced
// inlining, and no <cmath> or other header of the standard library (they define inline, that is
// weak, functions). Include as "simd/...", never with -Isimd: math.h would hide the system's.
#pragma once

#include <stdint.h>

#define EVG_INLINE [[maybe_unused]] inline __attribute__((always_inline))

namespace evergrad {
namespace {

// A value that a generic lambda can use as a template argument.
template <auto x>
struct Constant {
  static constexpr auto value = x;
};

}  // namespace
}  // namespace evergrad
