// What this machine can do at most, with the threads in use: the denominators of every benchmark.
#include <chrono>
#include <initializer_list>

#include "evergrad/evergrad.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"
#include "runtime/pool.h"

using namespace evergrad;

namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

volatile float sink;  // keeps the work alive

}  // namespace

// The best of many short rounds: a limit is what was reached undisturbed.
double evergrad_measure_fma_peak(double seconds) noexcept {
  const KernelTable& t = kernels();
  const i64 threads = evergrad_get_num_threads(), rounds = 200000;
  double best = 0;
  for (const auto start = Clock::now(); since(start) < seconds;) {
    const auto begin = Clock::now();
    parallel_for(threads, [&](i64) { sink = t.fma_rounds(rounds); });
    const double flops = 24.0 * t.width * static_cast<double>(rounds * threads);
    const double rate = flops / since(begin) * 1e-9;
    if (rate > best) best = rate;
  }
  return best;
}

double evergrad_measure_bandwidth(double seconds) noexcept {
  const KernelTable& t = kernels();
  constexpr i64 floats = i64(64) << 20, piece = i64(1) << 14;  // 256 MB: far beyond any cache
  const Buffer buffer(floats);
  if (!buffer) return 0;
  parallel_ranges(floats, piece, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) buffer.get()[i] = 1.0f;
  });
  double best = 0;
  for (const auto start = Clock::now(); since(start) < seconds;) {
    // Reading alone, and updating one half by the other (two reads, one write): what moves more
    // bytes is the limit. On some machines one stream per core does not fill the memory's queue.
    auto begin = Clock::now();
    parallel_ranges(floats, piece,
                    [&](i64 from, i64 to) { sink = t.read_sum(to - from, buffer.get() + from); });
    const double bytes = static_cast<double>(floats) * sizeof(float);
    const double read = bytes / since(begin);
    begin = Clock::now();
    parallel_ranges(floats / 2, piece, [&](i64 from, i64 to) {
      t.add_rows(to - from, buffer.get() + from, buffer.get() + floats / 2 + from);
    });
    const double update = 1.5 * bytes / since(begin);
    for (const double rate : {read, update})
      if (rate * 1e-9 > best) best = rate * 1e-9;
  }
  return best;
}
