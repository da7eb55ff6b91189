// Whether OpenMP's threads were left behind by a fork: a loop that waits for them hangs.
#pragma once

namespace evergrad {

bool is_forked_child() noexcept;

// Ours may run from now on.
void threads_are_used() noexcept;

}  // namespace evergrad
