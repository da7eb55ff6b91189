// Drawing a token from each row of logits, without sorting the row.
//
// The tokens that may be drawn are a beginning of the row sorted by likelihood, whatever of top-k
// and top-p is asked for. Most tokens are beyond it by a bound that takes a look at each; what is
// left is counted into bins by its distance from the largest, each bin with its mass, and only a
// bin that a boundary falls into is sorted.
#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <limits>

#include "evergrad/evergrad.h"
#include "ops/random.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"
#include "runtime/pool.h"

using namespace evergrad;

namespace {

constexpr int bins = 1024;
constexpr float bins_per_unit = 32.0f;  // of (max - z) / temperature: the last holds all beyond 32

// Where x is at least `floor`, in order: fills `places`, and returns how many. Blocks whose peak is
// below are not looked at.
i64 places_from(i64 n, const float* x, const float* peaks, float floor, i64* places) {
  i64 count = 0;
  for (i64 block = 0; block < peaks_of(n); ++block)
    if (peaks[block] >= floor)
      for (i64 j = block * peak_block; j < std::min(n, (block + 1) * peak_block); ++j) {
        places[count] = j;
        count += x[j] >= floor;
      }
  return count;
}

// The sum of what is at least `floor`.
double sum_from(i64 n, const float* x, float floor) {
  constexpr i64 chains = 8;  // hide the latency of an addition
  double sums[chains] = {};
  const auto counted = [=](i64 j) { return x[j] >= floor ? static_cast<double>(x[j]) : 0.0; };
  i64 j = 0;
  for (; j + chains <= n; j += chains)
    for (i64 c = 0; c < chains; ++c) sums[c] += counted(j + c);
  for (; j < n; ++j) sums[0] += counted(j);
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

// Tokens, with logits and weights, of which a beginning by likelihood may be drawn.
class Candidates {
 public:
  // `order` has room for n places. `mass` is that of all tokens that a boundary by mass goes by,
  // also of those that are not here as they cannot be reached; with top-k, it is found anew.
  Candidates(i64 n, const float* z, const float* w, float peak, float inverse_temperature,
             double mass, i64* order)
      : n_(n),
        z_(z),
        w_(w),
        peak_(peak),
        scale_(bins_per_unit * inverse_temperature),
        order_(order) {
    for (i64 j = 0; j < n; ++j) {
      const int b = bin(j);
      mass_[at(b)] += static_cast<double>(w[j]);
      ++count_[at(b)];
      last_.bin = std::max(last_.bin, b);
    }
    last_.mass = mass;
    last_.within = count_[at(last_.bin)];
  }

  void keep_most_likely(i64 k) {
    double mass = 0;
    for (int b = 0; b <= last_.bin; k -= count_[at(b)], mass += mass_[at(b)], ++b)
      if (k < count_[at(b)]) {
        const i64* order = sorted(b);
        last_ = {b, k, mass};
        for (i64 i = 0; i < k; ++i) last_.mass += static_cast<double>(w_[order[i]]);
        return;
      }
  }

  void keep_mass(double fraction) {
    const double target = fraction * last_.mass;
    last_ = reach([=](double mass) { return mass >= target; });
  }

  // The place of the one that is drawn.
  i64 draw(double u) const {
    const double target = u * last_.mass;
    return reach([=](double mass) { return mass > target; }).place;
  }

 private:
  // A beginning of the sorted row: the bins before `bin`, and so many of its own tokens.
  struct Beginning {
    int bin = 0;
    i64 within = 0;
    double mass = 0;
    i64 place = -1;  // of the last one
  };

  static std::size_t at(int b) { return static_cast<std::size_t>(b); }

  int bin(i64 j) const {
    if (z_[j] == peak_) return 0;
    const float distance = (peak_ - z_[j]) * scale_;
    return distance < bins - 1 ? static_cast<int>(distance) : bins - 1;
  }

  const i64* sorted(int b) const {
    i64* end = order_;
    for (i64 j = 0; j < n_; ++j)
      if (bin(j) == b) *end++ = j;
    const float* z = z_;
    std::sort(order_, end, [z](i64 i, i64 j) { return z[i] > z[j] || (z[i] == z[j] && i < j); });
    return order_;
  }

  // The shortest beginning, of what is kept, whose mass is enough.
  template <class Enough>
  Beginning reach(Enough enough) const {
    double mass = 0;
    int b = 0;
    for (; b < last_.bin && !enough(mass + mass_[at(b)]); ++b) mass += mass_[at(b)];
    const i64 limit = b == last_.bin ? last_.within : count_[at(b)];
    const i64* order = sorted(b);
    Beginning found;
    for (i64 i = 0; i < limit; ++i) {
      const i64 place = order[i];
      mass += static_cast<double>(w_[place]);
      found = {b, i + 1, mass, place};
      if (enough(mass)) break;
    }
    return found;
  }

  i64 n_;
  const float *z_, *w_;
  float peak_, scale_;
  i64* order_;
  std::array<double, bins> mass_ = {};
  std::array<i64, bins> count_ = {};
  Beginning last_;
};

struct Options {
  float inverse_temperature;
  i64 top_k;
  double top_p;
  float min_p;
};

// For one row of n logits at a time.
class Scratch {
 public:
  explicit Scratch(i64 n)
      : floats_(2 * n + 2 * peaks_of(n) + 1),
        places_(3 * n * static_cast<i64>(sizeof(i64) / sizeof(float)) + 1),
        logits(floats_.get()),
        weights(logits + n),
        peaks(weights + n),
        ranked(peaks + peaks_of(n)),
        likely(reinterpret_cast<i64*>(places_.get())),
        within(likely + n),
        order(within + n) {}
  explicit operator bool() const { return floats_ && places_; }

 private:
  const Buffer floats_, places_;

 public:
  float *const logits, *const weights, *const peaks, *const ranked;
  i64 *const likely, *const within, *const order;
};

void gather(i64 n, const float* x, const i64* places, float* out) {
  for (i64 i = 0; i < n; ++i) out[i] = x[places[i]];
}

// The token that u in [0, 1) falls on, or -1 where there is none.
i64 draw(const KernelTable& t, i64 n, const float* z, const Options& options, double u,
         const Scratch& s) {
  const float peak = t.block_peaks(n, z, s.peaks);
  if (!(peak > -std::numeric_limits<float>::infinity())) return -1;

  // Of the peaks, k are at least as large as the k-th of them, and so are k tokens or more.
  const i64 k = options.top_k;
  const bool few = k > 0 && k < peaks_of(n);
  if (few) {
    float* end = std::copy(s.peaks, s.peaks + peaks_of(n), s.ranked);
    std::nth_element(s.ranked, s.ranked + (k - 1), end, std::greater<float>());
    n = places_from(n, z, s.peaks, s.ranked[k - 1], s.likely);
    gather(n, z, s.likely, s.logits);
    z = s.logits;
  }

  t.sample_weights(n, z, peak, options.inverse_temperature, s.weights);
  // Not 0, and no subnormal number, which may count as 0; the exponential gives none.
  float floor = std::max(options.min_p, std::numeric_limits<float>::min());
  const double mass = sum_from(n, s.weights, floor);
  if (k == 0) {
    // All tokens below this together weigh less than what may be missing at the boundary; a little
    // lower, for sums are rounded.
    const double missing = 1 - (options.top_p < 1 ? options.top_p : u);
    const double share = (0.99 * missing - 1e-9) * mass / static_cast<double>(n);
    floor = std::max(floor, static_cast<float>(share));
  }
  if (!(t.block_peaks(n, s.weights, s.peaks) > 0)) return -1;  // NaN: no such temperature
  n = places_from(n, s.weights, s.peaks, floor, s.within);
  gather(n, z, s.within, s.logits);
  gather(n, s.weights, s.within, s.weights);

  Candidates candidates(n, s.logits, s.weights, peak, options.inverse_temperature, mass, s.order);
  if (k > 0) candidates.keep_most_likely(k);
  if (options.top_p < 1) candidates.keep_mass(options.top_p);
  const i64 place = s.within[candidates.draw(u)];
  return few ? s.likely[place] : place;
}

}  // namespace

int evergrad_sample(int64_t rows, int64_t n, const float* logits, double temperature, int64_t top_k,
                    double top_p, double min_p, uint64_t seed, uint64_t offset,
                    int64_t* out) noexcept {
  const KernelTable& t = kernels();
  const Options options = {static_cast<float>(1.0 / temperature), top_k, top_p,
                           static_cast<float>(min_p)};
  std::atomic<int> status{EVERGRAD_OK};
  parallel_rows(rows, n, [&](i64 begin, i64 end) {
    const Scratch scratch(n);
    if (!scratch) return status.store(EVERGRAD_NO_MEMORY);
    for (i64 i = begin; i < end; ++i)
      out[i] = draw(t, n, logits + i * n, options, uniform(seed, offset + static_cast<uint64_t>(i)),
                    scratch);
  });
  return status.load();
}
