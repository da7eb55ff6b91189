// Checks one Vec (EVERGRAD_VEC_HEADER) against plain C++, lane by lane, and the functions of
// simd/math.h against libm in float64: the largest error must stay within what math.h states.
//
// Usage: simd_check [stride]      every stride-th float32 is tried; 1 tries them all (minutes)
#include EVERGRAD_VEC_HEADER

#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "simd/math.h"

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
  float out[width];
  store(out, swap_pairs(to_float(simd::iotai())));
  for (int k = 0; k < width; ++k)
    check::expect(out[k] == static_cast<float>(width > 1 ? k ^ 1 : k), "swap_pairs");
  store(out, to_float(simd::iotai()));
  for (int k = 0; k < width; ++k) check::expect(out[k] == static_cast<float>(k), "iotai");
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
      "log", 1.0, [](Vec x) { return log(x); }, [](double x) { return ::log(x); }, 0);
  function(
      "log1p", 1.0, [](Vec x) { return log1p(x); }, [](double x) { return ::log1p(x); }, -1);
  function(
      "sigmoid", 2.6, [](Vec x) { return sigmoid(x); }, sigmoid_exact);
  function(
      "tanh", 2.6, [](Vec x) { return tanh(x); }, [](double x) { return ::tanh(x); });
  const float low = fused ? -INFINITY : -2.0f, high = fused ? INFINITY : 2.0f;
  function(
      "cdf", 6.0, [](Vec x) { return normal(x).cdf; }, cdf, low);
  function(
      "pdf", fused ? 2.2 : 3.0, [](Vec x) { return normal(x).pdf; }, pdf, low, high);
}

}  // namespace

int main(int argc, char** argv) {
  check_floats();
  check_masks();
  check_integers();
  check_memory();
  if (argc > 1) stride = static_cast<uint32_t>(atoi(argv[1]));
  check_math();
  return check::summary();
}
