// Arithmetic of cuts.
#pragma once

#include "kernels/table.h"

namespace evergrad {

inline i64 min_of(i64 a, i64 b) { return a < b ? a : b; }
inline i64 max_of(i64 a, i64 b) { return a > b ? a : b; }
inline i64 parts_of(i64 a, i64 step) { return (a + step - 1) / step; }
inline i64 round_up(i64 a, i64 step) { return parts_of(a, step) * step; }

}  // namespace evergrad
