#include "runtime/distance.h"

#include <atomic>
#include <chrono>

#include "runtime/parallel.h"

namespace evergrad {
namespace {

using Clock = std::chrono::steady_clock;

struct alignas(128) Line {
  std::atomic<int> turn{0};

  // False where nobody writes: the other worker may be asleep, or its core busy.
  bool reaches(int wanted) const {
    constexpr int patience = 1 << 18;  // 100 us: time to wake up
    for (int i = 0; i < patience; ++i)
      if (turn.load(std::memory_order_acquire) >= wanted) return true;
    return false;
  }
};

}  // namespace

double round_trip() noexcept {
  constexpr int turns = 12;
  Line there, back;
  double best = 0;
  if (workers_here() < 2) return best;
  parallel_for(2, [&](i64 side) {
    for (int turn = 1; turn <= turns; ++turn) {
      if (side == 1) {
        if (!there.reaches(turn)) return;
        back.turn.store(turn, std::memory_order_release);
        continue;
      }
      const auto begin = Clock::now();
      there.turn.store(turn, std::memory_order_release);
      if (!back.reaches(turn)) return;
      const double time = std::chrono::duration<double, std::nano>(Clock::now() - begin).count();
      if (turn == 1 || time < best) best = time;
    }
  });
  return best;
}

bool workers_are_near() noexcept {
  constexpr double far = 300;
  constexpr auto pause = std::chrono::milliseconds(100);
  static std::atomic<bool> near{false};
  static std::atomic<Clock::rep> next{0};
  if (workers_here() < 2) return false;
  const auto now = Clock::now().time_since_epoch();
  if (now.count() >= next.load(std::memory_order_relaxed)) {
    next.store((now + pause).count(), std::memory_order_relaxed);
    if (const double time = round_trip(); time > 0) near.store(time < far);
  }
  return near.load(std::memory_order_relaxed);
}

}  // namespace evergrad
