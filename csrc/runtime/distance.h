// How far apart the cores are that work for us.
//
// Cores of one virtual machine may lie in one complex or in two, and the hypervisor moves them
// while they run: no table of the system tells. So it is measured.
#pragma once

namespace evergrad {

// Nanoseconds in which a cache line goes from the first worker to the second and another comes
// back; 0 where there is no second one, or it does not answer all the time. Takes a few
// microseconds, but a millisecond or more where the other core is busy.
double round_trip() noexcept;

// Whether the second worker lies near enough to take part in what takes some tens of microseconds:
// inside a complex a round trip takes 100 to 200 ns, between two of them 500. Measured anew ten
// times a second, and less often as long as there is no answer; then it is not near.
bool workers_are_near() noexcept;

}  // namespace evergrad
