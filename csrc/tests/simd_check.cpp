// Checks one Vec (EVERGRAD_VEC_HEADER) against plain C++, lane by lane, and the functions of
// simd/math.h against libm in float64: the largest error must stay within what math.h states.
//
// Usage: simd_check [stride]      every stride-th float32 is tried; 1 tries them all (minutes)
#include EVERGRAD_VEC_HEADER

#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "simd/math.h"
#include "simd/pair.h"

namespace {

using check::bits_of;
using check::Buffer;
using check::float_of;
using evergrad::Mask;
using evergrad::Vec;
using evergrad::VecI;
namespace simd = evergrad;

constexpr int width = Vec::width;

const std::vector<float> numbers = {0.0f,  -0.0f,       1.0f,       -1.5f,   2.5f, 3.5f,
                                    -0.5f, 0.49999997f, 8388609.0f, -1e-40f, 2e9f, -2e9f,
                                    3e38f, INFINITY,    -INFINITY,  NAN};
const std::vector<uint32_t> words = {0,          1,          0x7fffffff, 0x80000000,
                                     0xffffffff, 0x12345678, 0xdeadbeef, 0x00ff00ff};

bool same(float a, float b) { return isnan(a) ? isnan(b) : bits_of(a) == bits_of(b); }

// Lanes differ from one another, so that a swapped lane shows.
template <class T>
Vec rotated(const std::vector<T>& from, size_t start, T* lane) {
  float packed[width];
  for (size_t k = 0; k < width; ++k) {
    lane[k] = from[(start + k) % from.size()];
    memcpy(&packed[k], &lane[k], 4);
  }
  return simd::load(packed);
}

// ok(a, b, result) must hold in every lane of op(a, b), for every pair of operands.
template <class Op, class Ok>
void floats(const char* name, Op op, Ok ok) {
  bool all = true;
  float a[width], b[width], out[width];
  for (size_t i = 0; i < numbers.size(); ++i)
    for (size_t j = 0; j < numbers.size(); ++j) {
      const Vec x = rotated(numbers, i, a), y = rotated(numbers, j, b);
      store(out, op(x, y));
      for (int k = 0; k < width; ++k) all = all && ok(a[k], b[k], out[k]);
    }
  check::expect(all, name);
}

// op on Vec must give the bits of `want` on floats; where one lambda can say both, it does.
template <class Op, class Want>
void exactly(const char* name, Op op, Want want) {
  floats(name, op, [=](float a, float b, float r) { return same(r, want(a, b)); });
}
template <class Op>
void exactly(const char* name, Op op) {
  exactly(name, op, op);
}

template <class Op, class Want>
void mask(const char* name, Op op, Want want) {
  const auto as_number = [=](Vec a, Vec b) {
    return select(op(a, b), simd::set1(1), simd::zero());
  };
  exactly(name, as_number, [=](float a, float b) { return want(a, b) ? 1.0f : 0.0f; });
}

template <class Op, class Want>
void integers(const char* name, Op op, Want want) {
  bool all = true;
  uint32_t a[width], b[width];
  float out[width];
  for (size_t i = 0; i < words.size(); ++i)
    for (size_t j = 0; j < words.size(); ++j) {
      const VecI x = as_int(rotated(words, i, a)), y = as_int(rotated(words, j, b));
      store(out, as_float(op(x, y)));
      for (int k = 0; k < width; ++k) {
        const auto expected = static_cast<uint32_t>(want(a[k], b[k]));
        all = all && bits_of(out[k]) == expected;
      }
    }
  check::expect(all, name);
}
template <class Op>
void integers(const char* name, Op op) {
  integers(name, op, op);
}

int32_t sign(uint32_t a) { return static_cast<int32_t>(a); }

void check_floats() {
  exactly("+", [](auto a, auto b) { return a + b; });
  exactly("-", [](auto a, auto b) { return a - b; });
  exactly("*", [](auto a, auto b) { return a * b; });
  exactly("/", [](auto a, auto b) { return a / b; });
  exactly(
      "sqrt", [](Vec a, Vec) { return sqrt(a); }, [](float a, float) { return sqrtf(a); });
  exactly(
      "abs", [](Vec a, Vec) { return abs(a); }, [](float a, float) { return fabsf(a); });
  exactly(
      "neg", [](Vec a, Vec) { return neg(a); }, [](float a, float) { return -a; });
  exactly(
      "copysign", [](Vec a, Vec b) { return copysign(a, b); }, copysignf);

  // Fused, or with two roundings where there is no such instruction.
  const auto fused = [](float a, float b, float r) {
    return same(r, fmaf(a, b, 0.1f)) || same(r, a * b + 0.1f);
  };
  floats(
      "fma", [](Vec a, Vec b) { return fma(a, b, simd::set1(0.1f)); }, fused);
  floats(
      "fnma", [](Vec a, Vec b) { return fnma(neg(a), b, simd::set1(0.1f)); }, fused);

  // A NaN in b comes through, a NaN in a may; the sign of a zero is free.
  const auto picks = [](auto pick) {
    return [=](float a, float b, float r) {
      if (isnan(a) || isnan(b)) return isnan(r) || (isnan(a) && r == b);
      return r == pick(a, b);
    };
  };
  floats(
      "min", [](Vec a, Vec b) { return min(a, b); }, picks(fminf));
  floats(
      "max", [](Vec a, Vec b) { return max(a, b); }, picks(fmaxf));

  const auto rounded = [](float a, float, float r) {
    return !(fabsf(a) < 0x1p31f) || sign(bits_of(r)) == static_cast<int32_t>(rintf(a));
  };
  floats(
      "to_int", [](Vec a, Vec) { return as_float(to_int(a)); }, rounded);
}

void check_masks() {
  mask(
      "lt", [](Vec a, Vec b) { return lt(a, b); }, [](float a, float b) { return a < b; });
  mask(
      "le", [](Vec a, Vec b) { return le(a, b); }, [](float a, float b) { return a <= b; });
  mask(
      "gt", [](Vec a, Vec b) { return gt(a, b); }, [](float a, float b) { return a > b; });
  mask(
      "ge", [](Vec a, Vec b) { return ge(a, b); }, [](float a, float b) { return a >= b; });
  mask(
      "eq", [](Vec a, Vec b) { return eq(a, b); }, [](float a, float b) { return a == b; });
  mask(
      "is_nan", [](Vec a, Vec) { return is_nan(a); }, [](float a, float) { return isnan(a); });
  mask(
      "and_", [](Vec a, Vec b) { return and_(lt(a, b), lt(a, simd::zero())); },
      [](float a, float b) { return a < b && a < 0; });
  mask(
      "or_", [](Vec a, Vec b) { return or_(lt(a, b), is_nan(a)); },
      [](float a, float b) { return a < b || isnan(a); });
  mask(
      "not_", [](Vec a, Vec b) { return not_(lt(a, b)); },
      [](float a, float b) { return !(a < b); });
  exactly(
      "select", [](Vec a, Vec b) { return select(lt(a, b), a, b); },
      [](float a, float b) { return a < b ? a : b; });
}

void check_integers() {
  integers("+ int", [](auto a, auto b) { return a + b; });
  integers("- int", [](auto a, auto b) { return a - b; });
  integers("&", [](auto a, auto b) { return a & b; });
  integers("|", [](auto a, auto b) { return a | b; });
  integers("^", [](auto a, auto b) { return a ^ b; });
  integers(
      "mullo", [](VecI a, VecI b) { return mullo(a, b); },
      [](uint32_t a, uint32_t b) { return a * b; });
  integers(
      "shl", [](VecI a, VecI) { return simd::shl<5>(a); },
      [](uint32_t a, uint32_t) { return a << 5; });
  integers(
      "shr", [](VecI a, VecI) { return simd::shr<5>(a); },
      [](uint32_t a, uint32_t) { return a >> 5; });
  integers(
      "sar", [](VecI a, VecI) { return simd::sar<5>(a); },
      [](uint32_t a, uint32_t) { return sign(a) >> 5; });
  integers(
      "ltu", [](VecI a, VecI b) { return selecti(ltu(a, b), a, b); },
      [](uint32_t a, uint32_t b) { return a < b ? a : b; });
  integers(
      "gti", [](VecI a, VecI b) { return selecti(gti(a, b), a, b); },
      [](uint32_t a, uint32_t b) { return sign(a) > sign(b) ? a : b; });
  integers(
      "to_float", [](VecI a, VecI) { return as_int(to_float(a)); },
      [](uint32_t a, uint32_t) { return bits_of(static_cast<float>(sign(a))); });
  integers(
      "set1i", [](VecI a, VecI) { return a - a + simd::set1i(INT32_MIN); },
      [](uint32_t, uint32_t) { return 0x80000000u; });
}

void check_memory() {
  for (int n = 0; n <= width; ++n) {
    const std::string suffix = " of " + std::to_string(n) + " lanes";
    Buffer from(n), to(n), out(width);
    for (int k = 0; k < n; ++k) from[k] = static_cast<float>(k + 1);
    const Vec loaded = simd::load(from.data(), simd::first(n));
    store(out.data(), loaded);
    bool ok = true;
    for (int k = 0; k < width; ++k) ok = ok && out[k] == (k < n ? static_cast<float>(k + 1) : 0.0f);
    check::expect(ok, "load" + suffix);

    store(to.data(), loaded, simd::first(n));
    for (int k = 0; k < n; ++k) ok = ok && to[k] == from[k];
    check::expect(ok && to.intact(), "store" + suffix);

    float sum = 0.0f;
    for (int k = 0; k < n; ++k) sum += from[k];
    check::expect(reduce_add(loaded) == sum, "reduce_add" + suffix);
    check::expect(reduce_max(loaded) == static_cast<float>(n), "reduce_max" + suffix);
    check::expect(reduce_max(loaded - simd::set1(100.0f)) == static_cast<float>(n - 100),
                  "reduce_max < 0" + suffix);
  }
  // Numbers whose sum depends on the order: four at once have to keep to that of one.
  float rough[4][width], sums[4];
  simd::Vec rows[4];
  for (int i = 0; i < 4; ++i) {
    for (int k = 0; k < width; ++k)
      rough[i][k] = std::ldexp(1.0f + static_cast<float>(k + 3 * i) / 7.0f, 5 * (k * (i + 1) % 11));
    rows[i] = simd::load(rough[i]);
  }
  reduce_add4(rows, sums);
  for (int i = 0; i < 4; ++i)
    check::expect(sums[i] == reduce_add(rows[i]), "reduce_add4 " + std::to_string(i));

  float out[width];
  store(out, swap_pairs(to_float(simd::iotai())));
  for (int k = 0; k < width; ++k)
    check::expect(out[k] == static_cast<float>(width > 1 ? k ^ 1 : k), "swap_pairs");
  store(out, to_float(simd::iotai()));
  for (int k = 0; k < width; ++k) check::expect(out[k] == static_cast<float>(k), "iotai");
}

// The value of a half, by its definition.
double half(uint16_t h) {
  const int exponent = h >> 10 & 31, fraction = h & 1023;
  const double sign = h >> 15 ? -1.0 : 1.0;
  if (exponent == 31) return fraction ? static_cast<double>(NAN) : sign * HUGE_VAL;
  return sign * (exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24));
}

// Small numbers as they lie in files: any address, little-endian.
void check_bytes() {
  bool halves = true;
  for (int h = 0; h < 1 << 16; ++h) {
    const uint16_t bits = static_cast<uint16_t>(h);
    const double want = half(bits);
    const float got = simd::half_to_float(bits);
    halves = halves && (isnan(want) ? isnan(got) : got == want && signbit(got) == signbit(want));
  }
  check::expect(halves, "half_to_float");
  bool low_halves = true;
  for (int h = 0; h < 1 << 16; ++h) {
    const float want = simd::half_to_float(static_cast<uint16_t>(h));
    float got[width];
    store(got, simd::low_halves(simd::set1i(h | 0x5a3c << 16)));  // what lies above does not count
    for (int k = 0; k < width; ++k)
      low_halves = low_halves && (isnan(want) ? isnan(got[k]) : memcmp(&got[k], &want, 4) == 0);
  }
  check::expect(low_halves, "low_halves");

  // Blocks of 20 bytes behind an odd address: two halves and 16 bytes.
  constexpr int stride = 20, blocks = width < 4 ? 1 : width / 4;
  uint8_t memory[1 + blocks * stride + 2 * width];
  for (size_t i = 0; i < sizeof(memory); ++i) memory[i] = static_cast<uint8_t>(37 * i + 200);
  const uint8_t* const p = memory + 1;
  float u8[width], i8[width], u16[width], low[width], lower[width];
  store(u8, to_float(simd::load_u8(p)));
  store(i8, to_float(simd::load_i8(p)));
  store(u16, to_float(simd::load_u16(p)));
  store(low, simd::low_nibbles<0>(simd::load_u8(p)));
  store(lower, simd::low_nibbles<-8>(simd::load_u8(p)));
  bool ok[5] = {true, true, true, true, true};
  for (int k = 0; k < width; ++k) {
    ok[0] = ok[0] && u8[k] == p[k];
    ok[1] = ok[1] && i8[k] == static_cast<int8_t>(p[k]);
    ok[2] = ok[2] && u16[k] == static_cast<float>(p[2 * k] + 256 * p[2 * k + 1]);
    ok[3] = ok[3] && low[k] == static_cast<float>(p[k] % 16);
    ok[4] = ok[4] && lower[k] == static_cast<float>(p[k] % 16 - 8);
  }
  const char* const names[] = {"load_u8", "load_i8", "load_u16", "low_nibbles", "low_nibbles<-8>"};
  for (int i = 0; i < 5; ++i) check::expect(ok[i], names[i]);

  uint8_t numbered[blocks * stride];
  float sums[2 * blocks], expected_first = 0, expected_second = 0;
  for (int b = 0; b < blocks; ++b) {
    const uint16_t pair[] = {static_cast<uint16_t>(0x3c00 + 16 * b),   // 1 + b / 64
                             static_cast<uint16_t>(0xc000 + 64 * b)};  // -(2 + b / 8)
    memcpy(numbered + b * stride, pair, 4);
    for (int i = 0; i < 16; ++i) numbered[b * stride + 4 + i] = static_cast<uint8_t>(16 * b + i);
    sums[2 * b] = static_cast<float>(b + 1), sums[2 * b + 1] = static_cast<float>(2 * b + 3);
    expected_first += static_cast<float>(half(pair[0])) * sums[2 * b];
    expected_second += static_cast<float>(half(pair[1])) * sums[2 * b + 1];
  }
  const simd::Pair pair = simd::fma_pair(simd::halves_at(numbered), sums, simd::pair_of(1, 2));
  check::expect(first_in(pair) == 2.0f && second_in(pair) == -4.0f, "halves_at, fma_pair");

  const simd::Pairs pairs = simd::pairs_at<stride>(numbered);
  const simd::Pairs products = fma_pairs(pairs, sums, simd::no_pairs());
  check::expect(sum_firsts(products) == expected_first, "sum_firsts");
  check::expect(sum_seconds(products) == expected_second, "sum_seconds");
  float firsts[width];
  store(firsts, simd::firsts(pairs));
  bool right = true;
  for (int k = 0; k < width; ++k)
    right = right && firsts[k] == static_cast<float>(1 + k / 4 / 64.0);
  check::expect(right, "firsts");
}

// Words of rows that lie apart, at any address.
void check_words() {
  constexpr int stride = 21;
  uint8_t memory[1 + (width - 1) * stride + 16];
  for (size_t i = 0; i < sizeof(memory); ++i) memory[i] = static_cast<uint8_t>(91 * i + 5);
  VecI words[4];
  simd::load_words(memory + 1, stride, words);
  bool right = true;
  for (int w = 0; w < 4; ++w) {
    float lanes[width];  // their bits
    store(lanes, simd::as_float(words[w]));
    for (int k = 0; k < width; ++k)
      right = right && memcmp(&lanes[k], memory + 1 + k * stride + 4 * w, 4) == 0;
  }
  check::expect(right, "load_words");
}

// The last 16 bytes of each block.
template <int stride>
void check_quads() {
  constexpr int blocks = width / 4;
  uint8_t numbered[blocks * stride + 1] = {};
  uint8_t* const p = numbered + 1;
  for (int b = 0; b < blocks; ++b)
    for (int i = 0; i < 16; ++i) p[(b + 1) * stride - 16 + i] = static_cast<uint8_t>(16 * b + i);
  const VecI lanes = simd::quads_at<stride>(p);
  float bytes[width];
  bool right = true;
  for (int i = 0; i < 4; ++i) {
    const VecI shifted = i == 0   ? lanes
                         : i == 1 ? simd::shr<8>(lanes)
                         : i == 2 ? simd::shr<16>(lanes)
                                  : simd::shr<24>(lanes);
    store(bytes, to_float(shifted & simd::set1i(255)));
    for (int k = 0; k < width; ++k) right = right && bytes[k] == static_cast<float>(4 * k + i);
  }
  check::expect(right, stride == 18 ? "quads_at<18>" : "quads_at<20>");
  // Of those of 18 bytes the first pair is one half, and the second two bytes of numbers.
  float firsts[width];
  for (int b = 0; b < blocks; ++b) p[b * stride] = 0, p[b * stride + 1] = 0x3c + 4 * (b % 2);
  store(firsts, simd::firsts(simd::pairs_at<stride>(p)));
  for (int k = 0; k < width; ++k) right = right && firsts[k] == (k / 4 % 2 ? 2.0f : 1.0f);
  check::expect(right, stride == 18 ? "pairs_at<18>" : "pairs_at<20>");
}

// The distance of float32 neighbours at |y|, y in the normal range.
double ulp(double y) {
  int exponent;
  frexp(y, &exponent);
  return ldexp(1.0, exponent - 24);
}

constexpr double smallest_normal = 0x1p-126;
constexpr double overflow = 0x1.ffffffp127;  // half an ulp beyond the largest

uint32_t stride = 10007;

// The largest error over every stride-th float32 in [low, high] must not exceed `stated` ULP.
// Results that are subnormal may be anything from 0 to the smallest normal, of the right sign.
template <class F, class Exact>
void function(const char* name, double stated, F f, Exact exact, float low = -INFINITY,
              float high = INFINITY) {
  double worst = 0;
  float worst_at = 0, in[width], out[width];
  int filled = 0;
  bool special = true;
  for (uint64_t word = 0; word < (1ull << 32); word += stride) {
    const float x = float_of(static_cast<uint32_t>(word));
    if (!(x >= low && x <= high)) continue;
    in[filled++] = x;
    if (filled < width) continue;
    filled = 0;
    store(out, f(simd::load(in)));
    for (int k = 0; k < width; ++k) {
      const double want = exact(static_cast<double>(in[k])), got = out[k];
      if (fabs(want) < smallest_normal) {
        special = special && fabs(got) <= smallest_normal && got * want >= 0;
      } else if (fabs(want) >= overflow) {
        special = special && isinf(got) && got * want > 0;
      } else {
        const double error = fabs(got - want) / ulp(want);
        if (!(error <= worst)) worst = error, worst_at = in[k];
      }
    }
  }
  const float beside[] = {
      INFINITY, -INFINITY, 0.0f, -1.5f, float_of(0x7fc001ff), float_of(0xff800001)};
  for (const float x : beside) {
    store(out, f(simd::set1(x)));
    const double want = exact(static_cast<double>(x));
    if (isnan(want)) special = special && isnan(out[0]);
    if (isinf(want)) special = special && out[0] == want;
  }
  printf("%-8s %.2f ULP at %.9g, stated %.1f, x in [%g, %g]\n", name, worst,
         static_cast<double>(worst_at), stated, static_cast<double>(low),
         static_cast<double>(high));
  check::expect(worst <= stated, std::string(name) + ": error beyond what is stated");
  check::expect(special, std::string(name) + ": zero, infinity, NaN or overflow");
}

// The bounds are those of the table in math.h.
void check_math() {
  const bool fused = width > 1;
  const auto sigmoid_exact = [](double x) { return 1 / (1 + ::exp(-x)); };
  const auto cdf = [](double x) { return 0.5 * erfc(-x * 0.70710678118654752440); };
  const auto pdf = [](double x) { return ::exp(-0.5 * x * x) * 0.39894228040143267794; };
  function(
      "exp", fused ? 1.0 : 1.2, [](Vec x) { return exp(x); }, [](double x) { return ::exp(x); });
  function(
      "exp2", fused ? 1.0 : 1.3, [](Vec x) { return exp2(x); },
      [](double x) { return ::exp2(x); });
  function(
      "log", 1.0, [](Vec x) { return log(x); }, [](double x) { return ::log(x); }, 0);
  function(
      "log1p", 1.0, [](Vec x) { return log1p(x); }, [](double x) { return ::log1p(x); }, -1);
  function(
      "sigmoid", 2.6, [](Vec x) { return sigmoid(x); }, sigmoid_exact);
  function(
      "tanh", 2.6, [](Vec x) { return tanh(x); }, [](double x) { return ::tanh(x); });
  const auto ours = [](Vec x) {
    const auto n = normal(x);
    return select(lt(x, simd::zero()), n.tail, simd::set1(1.0f) - n.tail);
  };
  const float end = fused ? 12.94f : 2.0f;
  function(
      "cdf", 6.0, ours, cdf, fused ? -INFINITY : -2.0f);
  function(
      "pdf", fused ? 2.2 : 3.0, [](Vec x) { return normal(x).pdf; }, pdf, -end, end);
}

}  // namespace

int main(int argc, char** argv) {
  check_floats();
  check_masks();
  check_integers();
  check_memory();
  check_bytes();
  check_words();
  if constexpr (width >= 4) check_quads<18>(), check_quads<20>();
  if (argc > 1) stride = static_cast<uint32_t>(atoi(argv[1]));
  check_math();
  return check::summary();
}
