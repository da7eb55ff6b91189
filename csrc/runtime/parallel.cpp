#include "runtime/parallel.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>

#include "evergrad/evergrad.h"
#include "runtime/cgroup.h"
#include "runtime/fork.h"

namespace evergrad {
namespace {

constexpr int most_configured = 1024;
std::atomic<int> configured{0};  // 0: not set, follow the default
int initial_omp_threads = 1;

int cores() {
  int n = 1;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
  const double quota = cgroup_cores();
  if (quota > 0 && quota < n) n = static_cast<int>(std::ceil(quota));
  return n < 1 ? 1 : n;
}

int detect_default() {
  initial_omp_threads = omp_get_max_threads();
  threads_are_used();
  const char* env = std::getenv("OMP_NUM_THREADS");
  const long wanted = env ? std::strtol(env, nullptr, 10) : 0;  // the first of a list
  return wanted > 0 ? static_cast<int>(std::min(wanted, long{most_configured})) : cores();
}

}  // namespace

int default_num_threads() noexcept {
  static const int n = detect_default();
  return n;
}

i64 workers_here() noexcept {
  if (omp_in_parallel()) return 1;
  const i64 threads = evergrad_get_num_threads();
  return threads < most_workers ? threads : most_workers;
}

// Each worker has a stretch of the tasks to itself, the same one every time: what it wrote in one
// op it finds in its own cache in the next. Whoever is done helps the others, since causal
// attention, the edges of a matrix and busy cores are uneven.
void run_tasks(i64 tasks, void (*task)(void*, i64, int), void* context, i64 most) noexcept {
  struct alignas(128) Stretch {
    std::atomic<i64> next;
    i64 end;
  };
  const i64 here = workers_here(), limit = here < most ? here : most;
  const i64 workers = tasks < limit ? tasks : limit;
  if (workers <= 1) {
    for (i64 i = 0; i < tasks; ++i) task(context, i, 0);
    return;
  }
  Stretch stretches[most_workers];
  for (i64 w = 0; w < workers; ++w) {
    stretches[w].next.store(w * tasks / workers, std::memory_order_relaxed);
    stretches[w].end = (w + 1) * tasks / workers;
  }
#pragma omp parallel num_threads(static_cast<int>(workers))
  {
    const int worker = omp_get_thread_num();
    for (i64 w = 0; w < workers; ++w) {
      Stretch& stretch = stretches[(worker + w) % workers];
      for (i64 i = stretch.next.fetch_add(1, std::memory_order_relaxed); i < stretch.end;
           i = stretch.next.fetch_add(1, std::memory_order_relaxed))
        task(context, i, worker);
    }
  }
}

}  // namespace evergrad

using namespace evergrad;

int evergrad_get_num_threads(void) noexcept {
  if (is_forked_child()) return 1;
  const int fallback = default_num_threads();
  const int set = configured.load(std::memory_order_relaxed);
  const int wanted = set > 0 ? set : fallback;
  // threadpoolctl and omp_set_num_threads restrict us too: whoever lowered OpenMP's number meant
  // it.
  const int omp = omp_get_max_threads();
  return omp < initial_omp_threads && omp < wanted ? omp : wanted;
}

void evergrad_set_num_threads(int n) noexcept {
  configured.store(std::clamp(n, 1, most_configured));  // so that a few times as many are a number
}
