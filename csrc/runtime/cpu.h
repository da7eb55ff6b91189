// Which table of kernels runs.
#pragma once

#include "kernels/table.h"

namespace evergrad {

// The table in use. Chosen once at start-up: the widest that the CPU and the operating system
// support, capped by EVERGRAD_ISA.
const KernelTable& kernels();

// Whether the CPU has AVX-512's dots of bytes (VNNI), which came later than the rest.
bool has_byte_dots() noexcept;

// Bytes of one core's second-level cache; a modest guess where the system does not say.
long l2_bytes() noexcept;

}  // namespace evergrad
