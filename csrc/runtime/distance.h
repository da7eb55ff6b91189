// How far apart the cores are that work for us, and how far from them data is.
//
// Cores of one virtual machine may lie in one complex or in two, and the hypervisor moves them
// while they run; what is in a cache that others use too, nobody knows. So it is measured.
#pragma once

#include "kernels/table.h"

namespace evergrad {

// Nanoseconds in which a cache line goes from the first worker to the second and another comes
// back; 0 where there is no second one, or it does not answer all the time. Takes a few
// microseconds, but a millisecond or more where the other core is busy.
double round_trip() noexcept;

// Whether the second worker lies near enough to take part in what takes some tens of microseconds:
// inside a complex a round trip takes 100 to 200 ns, between two of them 500. Measured anew ten
// times a second, and less often as long as there is no answer; then it is not near.
bool workers_are_near() noexcept;

// Whether rows at a stride, 8 or more, are in the caches, by the time in which the first numbers of some come:
// 40 ns, or 500 from memory. Where there is no clock for so little, nothing is.
bool is_cached(const float* x, i64 rows, i64 stride) noexcept;

}  // namespace evergrad
