// Parallel loops. The only room that knows OpenMP.
//
// A loop is a number of independent tasks whose cut does not depend on the number of threads, or
// cannot be seen in the result: that is what makes results the same for any number of threads.
#pragma once

#include <type_traits>

#include "kernels/table.h"
#include "runtime/distance.h"

namespace evergrad {

constexpr i64 most_workers = 256;

// Runs task(context, i, worker) once for each i in [0, tasks), in any order; no two tasks run at
// once under one number of worker, which is below `most` (no more than most_workers) and
// evergrad_get_num_threads(). Whoever has room for so many workers says so in `most`: another
// thread may raise the number of threads at any time. Serial inside another parallel loop, and in a
// forked child (OpenMP's threads do not survive a fork).
void run_tasks(i64 tasks, void (*task)(void*, i64, int), void* context, i64 most) noexcept;

// How many workers a loop that begins here has at most.
i64 workers_here() noexcept;

// OMP's own limit and the cores that affinity and cgroups leave us; what EVERGRAD_NUM_THREADS is
// measured against.
int default_num_threads() noexcept;

// f(i) or f(i, worker), on `most` workers at most.
template <class F>
void parallel_for(i64 tasks, F&& f, i64 most = most_workers) noexcept {
  using Function = std::remove_reference_t<F>;
  const auto task = [](void* context, i64 i, int worker) {
    if constexpr (std::is_invocable_v<Function, i64, int>)
      (*static_cast<Function*>(context))(i, worker);
    else
      (*static_cast<Function*>(context))(i);
  };
  if (tasks == 1 || most <= 1) {
    for (i64 i = 0; i < tasks; ++i) task(&f, i, 0);
    return;
  }
  run_tasks(tasks, task, &f, most);
}

// f(begin, end) over [0, n) in fixed pieces of `grain`.
template <class F>
void parallel_ranges(i64 n, i64 grain, F&& f) noexcept {
  if (n <= 0) return;
  parallel_for((n + grain - 1) / grain, [&](i64 i) {
    const i64 begin = i * grain;
    f(begin, begin + grain < n ? begin + grain : n);
  });
}

// Under this, waking a thread costs more than it brings.
constexpr double serial_flops = 5e5;

// For parallel_for: all workers, or a serial loop.
constexpr i64 workers_if(bool worth) { return worth ? most_workers : 1; }

// Elements per task: enough work (microseconds) to pay for waking a thread.
constexpr i64 elements_per_task = 16384;

// More of them in a large array: each task then walks many pages, which prefetching likes.
inline i64 elements_in_task(i64 n) noexcept {
  constexpr i64 most = 8;
  const i64 wanted = n / (32 * elements_per_task);
  return elements_per_task * (wanted < 1 ? 1 : wanted > most ? most : wanted);
}

// Independent elements: f(begin, end).
template <class F>
void parallel_elements(i64 n, F&& f) noexcept {
  parallel_ranges(n, elements_in_task(n), f);
}

// Where an element is a few loads and stores, up to some L2 of them: fetching lines that another
// core holds takes longer than going on alone.
constexpr i64 moves_alone = 1 << 18;

// The same for a pass over a flat buffer, in which both halves keep to their cores from one pass to
// the next, if not so far that what others read and write of them costs more.
constexpr i64 flat_alone = 1 << 16;
template <class F>
void parallel_flat(i64 n, F&& f) noexcept {
  if (n >= moves_alone || (n >= flat_alone && workers_are_near()))
    parallel_elements(n, f);
  else if (n > 0)
    f(i64{0}, n);
}

// Rows of n elements, whole rows per task.
template <class F>
void parallel_rows(i64 rows, i64 n, F&& f) noexcept {
  const i64 elements = elements_in_task(n > 0 && rows > INT64_MAX / n ? INT64_MAX : rows * n);
  const i64 grain = n >= elements ? 1 : elements / (n > 0 ? n : 1);
  parallel_ranges(rows, grain, f);
}

// Whether an output of so many floats will have left the caches before it is read again, so that it
// is better written past them. Not just behind an input within a page: a load is then taken to read
// what a store in flight writes, and waits for it until it has reached memory.
template <class... Inputs>
bool past_caches(i64 floats, const float* out, const Inputs*... inputs) noexcept {
  constexpr i64 many = i64{4} << 20;
  constexpr uintptr_t page = 4096, just_behind = 256;
  const auto apart = [=](const float* in) {
    const uintptr_t distance =
        (reinterpret_cast<uintptr_t>(out) - reinterpret_cast<uintptr_t>(in)) % page;
    return distance == 0 || distance >= just_behind;
  };
  return floats >= many && (apart(inputs) && ...);
}

}  // namespace evergrad
