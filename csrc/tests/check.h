// What the native checks share: a count of what passed, and buffers that notice a stray access.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <string>
#include <vector>

namespace check {

inline int passed = 0, failed = 0;

inline void expect(bool ok, const std::string& what) {
  ++(ok ? passed : failed);
  if (!ok) printf("FAILED %s\n", what.c_str());
}

inline int summary() {
  printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}

inline uint32_t bits_of(float x) {
  uint32_t b;
  memcpy(&b, &x, 4);
  return b;
}
inline float float_of(uint32_t b) {
  float x;
  memcpy(&x, &b, 4);
  return x;
}

// Floats between two guards. A guard is a NaN of its own: a stray write changes it, a stray read
// poisons the result. It has an odd length, so the data is never aligned to a vector. The address
// sanitizer does better with exact allocations.
#ifdef EVERGRAD_EXACT_BUFFERS
constexpr int64_t guard = 0;
#else
constexpr int64_t guard = 67;
#endif

class Buffer {
 public:
  explicit Buffer(int64_t n, float fill = float_of(sentinel))
      : all_(static_cast<size_t>(n + 2 * guard), float_of(sentinel)), n_(n) {
    for (int64_t i = 0; i < n; ++i) (*this)[i] = fill;
  }

  float* data() { return all_.data() + guard; }
  float& operator[](int64_t i) { return data()[i]; }
  int64_t size() const { return n_; }

  bool intact() const {
    for (int64_t i = 0; i < guard; ++i) {
      if (bits_of(all_[static_cast<size_t>(i)]) != sentinel) return false;
      if (bits_of(all_[static_cast<size_t>(guard + n_ + i)]) != sentinel) return false;
    }
    return true;
  }

 private:
  static constexpr uint32_t sentinel = 0x7fc0dead;
  std::vector<float> all_;
  int64_t n_;
};

// Deterministic draws (splitmix64).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t bits() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  float uniform(float low, float high) {
    return low + (high - low) * static_cast<float>(bits() >> 40) * 0x1p-24f;
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(bits() % static_cast<uint64_t>(n)); }
  Buffer uniform(int64_t n, float low = -3.0f, float high = 3.0f) {
    Buffer b(n);
    for (int64_t i = 0; i < n; ++i) b[i] = uniform(low, high);
    return b;
  }

 private:
  uint64_t state_;
};

}  // namespace check
