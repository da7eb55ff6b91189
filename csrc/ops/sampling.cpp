// Drawing a token from each row of logits, without sorting the row.
//
// The tokens that may be drawn are a beginning of the row sorted by likelihood, whatever of top-k
// and top-p is asked for. Logits are counted into bins by their distance from the largest, each bin
// with its mass; only a bin that a boundary falls into is sorted.
#include <algorithm>
#include <array>
#include <atomic>

#include "evergrad/evergrad.h"
#include "ops/random.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"
#include "runtime/pool.h"

using namespace evergrad;

namespace {

constexpr int bins = 1024;
constexpr float bins_per_unit = 32.0f;  // of (max - z) / temperature: the last holds all beyond 32

class Row {
 public:
  // `tokens` has room for n of them.
  Row(i64 n, const float* z, const float* w, float peak, float inverse_temperature, float least,
      i64* tokens)
      : n_(n),
        z_(z),
        w_(w),
        peak_(peak),
        scale_(bins_per_unit * inverse_temperature),
        least_(least),
        tokens_(tokens) {
    for (i64 j = 0; j < n; ++j)
      if (counts(j)) {
        const int b = bin(j);
        mass_[at(b)] += static_cast<double>(w[j]);
        ++count_[at(b)];
        last_.bin = std::max(last_.bin, b);
      }
    for (int b = 0; b <= last_.bin; ++b) last_.mass += mass_[at(b)];
    last_.within = count_[at(last_.bin)];
  }

  void keep_most_likely(i64 k) {
    double mass = 0;
    for (int b = 0; b <= last_.bin; k -= count_[at(b)], mass += mass_[at(b)], ++b)
      if (k < count_[at(b)]) {
        const i64* tokens = sorted(b);
        last_ = {b, k, mass};
        for (i64 i = 0; i < k; ++i) last_.mass += static_cast<double>(w_[tokens[i]]);
        return;
      }
  }

  void keep_mass(double fraction) {
    const double target = fraction * last_.mass;
    last_ = reach([=](double mass) { return mass >= target; });
  }

  i64 draw(double u) const {
    const double target = u * last_.mass;
    return reach([=](double mass) { return mass > target; }).token;
  }

 private:
  // A beginning of the sorted row: the bins before `bin`, and so many of its own tokens.
  struct Beginning {
    int bin = 0;
    i64 within = 0;
    double mass = 0;
    i64 token = -1;  // the last one
  };

  static std::size_t at(int b) { return static_cast<std::size_t>(b); }
  bool counts(i64 j) const { return w_[j] > 0.0f && w_[j] >= least_; }

  int bin(i64 j) const {
    if (z_[j] == peak_) return 0;
    const float place = (peak_ - z_[j]) * scale_;
    return place < bins - 1 ? static_cast<int>(place) : bins - 1;
  }

  const i64* sorted(int b) const {
    i64* end = tokens_;
    for (i64 j = 0; j < n_; ++j)
      if (counts(j) && bin(j) == b) *end++ = j;
    const float* z = z_;
    std::sort(tokens_, end, [z](i64 i, i64 j) { return z[i] > z[j] || (z[i] == z[j] && i < j); });
    return tokens_;
  }

  // The shortest beginning, of what is kept, whose mass is enough.
  template <class Enough>
  Beginning reach(Enough enough) const {
    double mass = 0;
    int b = 0;
    for (; b < last_.bin && !enough(mass + mass_[at(b)]); ++b) mass += mass_[at(b)];
    const i64 limit = b == last_.bin ? last_.within : count_[at(b)];
    const i64* tokens = sorted(b);
    Beginning found;
    for (i64 i = 0; i < limit; ++i) {
      const i64 token = tokens[i];
      mass += static_cast<double>(w_[token]);
      found = {b, i + 1, mass, token};
      if (enough(mass)) break;
    }
    return found;
  }

  i64 n_;
  const float *z_, *w_;
  float peak_, scale_, least_;
  i64* tokens_;
  std::array<double, bins> mass_ = {};
  std::array<i64, bins> count_ = {};
  Beginning last_;
};

}  // namespace

int evergrad_sample(int64_t rows, int64_t n, const float* logits, double temperature, int64_t top_k,
                    double top_p, double min_p, uint64_t seed, uint64_t offset,
                    int64_t* out) noexcept {
  const KernelTable& t = kernels();
  const float inverse = static_cast<float>(1.0 / temperature);
  const Buffer weights(rows * n > 0 ? rows * n : 1);
  if (!weights) return EVERGRAD_NO_MEMORY;
  std::atomic<int> status{EVERGRAD_OK};
  parallel_rows(rows, n, [&](i64 begin, i64 end) {
    const Buffer tokens(n * static_cast<i64>(sizeof(i64) / sizeof(float)) + 1);
    if (!tokens) return status.store(EVERGRAD_NO_MEMORY);
    for (i64 i = begin; i < end; ++i) {
      const float* z = logits + i * n;
      float* w = weights.get() + i * n;
      const float peak = t.sample_weights(n, z, inverse, w);
      out[i] = -1;
      if (peak != peak) continue;
      Row row(n, z, w, peak, inverse, static_cast<float>(min_p),
              reinterpret_cast<i64*>(tokens.get()));
      if (top_k > 0) row.keep_most_likely(top_k);
      if (top_p < 1) row.keep_mass(top_p);
      out[i] = row.draw(uniform(seed, offset + static_cast<uint64_t>(i)));
    }
  });
  return status.load();
}
