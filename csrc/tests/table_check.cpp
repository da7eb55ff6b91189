// Runs every kernel of two tables, the scalar one and EVERGRAD_ISA's, on the same inputs, and
// compares.
//
// Sizes straddle the tails of every vector width. A kernel must give the scalar table's result up
// to roundings, the same bits when called again, and touch nothing beside its outputs.
#include <math.h>

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "check.h"
#include "kernels/table.h"

#define EVERGRAD_PASTE(a, b) a##b
#define EVERGRAD_KERNELS(isa) EVERGRAD_PASTE(evergrad_kernels_, isa)

extern "C" const evergrad::KernelTable evergrad_kernels_scalar;
extern "C" const evergrad::KernelTable EVERGRAD_KERNELS(EVERGRAD_ISA);

namespace {

using check::Buffer;
using check::Random;
using evergrad::Activation;
using evergrad::AttentionHead;
using evergrad::Epilogue;
using evergrad::i64;
using evergrad::KernelTable;
using evergrad::peaks_of;
using evergrad::QuantKind;
using Outputs = std::vector<Buffer>;

constexpr i64 sizes[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 97};
constexpr i64 rows = 3;
constexpr uint64_t seed = 20240229;

constexpr Activation activations[] = {Activation::none, Activation::relu, Activation::sigmoid,
                                      Activation::tanh, Activation::gelu, Activation::gelu_tanh,
                                      Activation::silu};

// Tolerances count roundings of the largest number of an output, or of 1, the size of the inputs,
// where terms cancel: an elementwise formula takes a handful, a sum of n terms up to one more for
// each term.
constexpr double exact = 0;
constexpr double elementwise = 8;
constexpr double sum_of(i64 n) { return 16 + static_cast<double>(n); }

bool same_class(float a, float b) {
  return isfinite(a) ? isfinite(b) : isnan(a) ? isnan(b) : a == b;
}

bool close(Buffer& got, Buffer& want, double roundings) {
  if (got.size() != want.size()) return false;
  double largest = 1;
  for (i64 i = 0; i < want.size(); ++i)
    if (isfinite(want[i])) largest = std::max(largest, static_cast<double>(fabsf(want[i])));
  for (i64 i = 0; i < want.size(); ++i) {
    if (!same_class(got[i], want[i])) return false;
    if (!isfinite(want[i])) continue;
    if (fabs(static_cast<double>(got[i]) - want[i]) > roundings * 0x1p-24 * largest) return false;
  }
  return true;
}

bool same_bits(Buffer& a, Buffer& b) {
  if (a.size() != b.size()) return false;
  return a.size() == 0 || memcmp(a.data(), b.data(), static_cast<size_t>(a.size()) * 4) == 0;
}

// `run` draws its inputs from a fresh Random, calls one kernel and returns all it wrote to.
template <class Run>
void compare(const std::string& name, double roundings, Run run) {
  const KernelTable& tested = EVERGRAD_KERNELS(EVERGRAD_ISA);
  Outputs want = run(evergrad_kernels_scalar, Random(seed));
  Outputs got = run(tested, Random(seed));
  Outputs again = run(tested, Random(seed));
  bool is_close = true, is_same = true, is_intact = true;
  for (size_t i = 0; i < want.size(); ++i) {
    is_close = is_close && close(got[i], want[i], roundings);
    is_same = is_same && same_bits(got[i], again[i]);
    is_intact = is_intact && got[i].intact() && want[i].intact();
  }
  check::expect(is_close, name + ": differs from scalar");
  check::expect(is_same, name + ": differs from call to call");
  check::expect(is_intact, name + ": wrote beside its output");
}

template <class... B>
Outputs outputs(B&&... buffers) {
  Outputs all;
  (all.push_back(std::move(buffers)), ...);
  return all;
}

std::string label(const char* name, std::initializer_list<std::pair<const char*, i64>> arguments) {
  std::string s = name;
  for (const auto& [key, value] : arguments)
    s += std::string(" ") + key + "=" + std::to_string(value);
  return s;
}

// Packing has a definition of its own, and its layout differs between tables: panels of `width`
// lanes, depth outwards, short panels padded with zeros.
void check_pack(i64 lanes, i64 depth, bool lanes_contiguous) {
  for (const KernelTable* t : {&evergrad_kernels_scalar, &EVERGRAD_KERNELS(EVERGRAD_ISA)}) {
    const std::pair<decltype(t->gemm_pack_a), i64> packs[] = {{t->gemm_pack_a, t->gemm_mr},
                                                              {t->gemm_pack_b, t->gemm_nr}};
    for (const auto& [pack, panel] : packs) {
      const i64 padded = (lanes + panel - 1) / panel * panel;
      const i64 lane_stride = lanes_contiguous ? 1 : depth,
                depth_stride = lanes_contiguous ? lanes : 1;
      Buffer x = Random(seed).uniform(lanes * depth), packed(padded * depth);
      pack(lanes, depth, x.data(), lane_stride, depth_stride, packed.data());
      bool ok = packed.intact();
      for (i64 i = 0; i < padded; ++i)
        for (i64 d = 0; d < depth; ++d) {
          const float want = i < lanes ? x[i * lane_stride + d * depth_stride] : 0.0f;
          ok = ok && packed[i / panel * panel * depth + d * panel + i % panel] == want;
        }
      check::expect(ok, label("gemm_pack", {{"panel", panel}, {"lanes", lanes}, {"depth", depth}}) +
                            " " + t->isa);
    }
  }
}

void check_gemm(i64 m, i64 n, i64 k, bool accumulate) {
  compare(label("gemm_tile", {{"m", m}, {"n", n}, {"k", k}, {"accumulate", accumulate}}), sum_of(k),
          [=](const KernelTable& t, Random random) {
            const i64 m_padded = (m + t.gemm_mr - 1) / t.gemm_mr * t.gemm_mr;
            const i64 n_padded = (n + t.gemm_nr - 1) / t.gemm_nr * t.gemm_nr;
            const i64 c_stride = n + 5;  // the gap between rows stays as it was
            Buffer a = random.uniform(m * k), b = random.uniform(k * n),
                   c = random.uniform(m * c_stride);
            Buffer a_packed(m_padded * k), b_packed(n_padded * k);
            t.gemm_pack_a(m, k, a.data(), k, 1, a_packed.data());
            t.gemm_pack_b(n, k, b.data(), 1, n, b_packed.data());
            t.gemm_tile(m, n, k, a_packed.data(), b_packed.data(), c.data(), c_stride, accumulate,
                        nullptr, a_packed.data(), 0);
            return outputs(c);
          });
}

// B where it lies: the same bits as packed, since every sum is one chain over depth.
void check_unpacked(i64 m, i64 k, bool accumulate) {
  for (const KernelTable* t : {&evergrad_kernels_scalar, &EVERGRAD_KERNELS(EVERGRAD_ISA)}) {
    const i64 n = 2 * t->gemm_nr, b_row = n + 3, stride = n + 5;
    Random random(seed);
    Buffer a = random.uniform(m * k), b = random.uniform((k - 1) * b_row + n);
    Buffer unpacked = random.uniform((m - 1) * stride + n), packed = unpacked;
    Buffer a_packed((m + t->gemm_mr - 1) / t->gemm_mr * t->gemm_mr * k), b_packed(n * k);
    t->gemm_pack_a(m, k, a.data(), k, 1, a_packed.data());
    t->gemm_pack_b(n, k, b.data(), 1, b_row, b_packed.data());
    t->gemm_tile(m, n, k, a_packed.data(), b_packed.data(), packed.data(), stride, accumulate,
                 nullptr, a_packed.data(), 0);
    Buffer panels(n * k, 0.0f);
    t->gemm_unpacked(m, n, k, a_packed.data(), b.data(), b_row, panels.data(), unpacked.data(),
                     stride, accumulate);
    check::expect(same_bits(unpacked, packed) && unpacked.intact() &&
                      same_bits(panels, b_packed) && panels.intact(),
                  label("gemm_unpacked", {{"m", m}, {"k", k}, {"accumulate", accumulate}}) + " " +
                      t->isa);
  }
}

// One row times what lies in the caches, or in memory: fetched otherwise, to the same bits.
void check_single_row(i64 n, i64 k, bool accumulate) {
  const auto label_of = [=](const char* name, bool is_cached) {
    return label(name, {{"n", n}, {"k", k}, {"accumulate", accumulate}, {"cached", is_cached}});
  };
  const auto dot = [=](const KernelTable& t, Random random, bool is_cached) {
    Buffer x = random.uniform(n * k), y = random.uniform(k), c = random.uniform(n);
    t.gemm_dot(n, 1, k, x.data(), k, y.data(), k, c.data(), 1, n, accumulate, is_cached);
    return outputs(c);
  };
  const auto sweep = [=](const KernelTable& t, Random random, bool is_cached) {
    Buffer a = random.uniform(k), b = random.uniform(k * n), c = random.uniform(n);
    t.gemm_sweep(1, n, k, a.data(), k, 1, b.data(), n, c.data(), n, accumulate, is_cached);
    return outputs(c);
  };
  const auto both = [=](const char* name, auto run) {
    for (const bool is_cached : {false, true})
      compare(label_of(name, is_cached), sum_of(k),
              [=](const KernelTable& t, Random random) { return run(t, random, is_cached); });
    const KernelTable& t = EVERGRAD_KERNELS(EVERGRAD_ISA);
    Outputs from_memory = run(t, Random(seed), false), from_caches = run(t, Random(seed), true);
    check::expect(same_bits(from_memory[0], from_caches[0]),
                  label_of(name, true) + ": differs from what comes from memory");
  };
  both("gemm_dot", dot);
  both("gemm_sweep", sweep);
}

// C turned, B's columns where they lie: the same bits, too, with an epilogue and without.
void check_turned(i64 m, i64 n, i64 k, bool accumulate, bool finishes) {
  for (const KernelTable* t : {&evergrad_kernels_scalar, &EVERGRAD_KERNELS(EVERGRAD_ISA)}) {
    const i64 b_col = k + 3, stride = n + 5;
    Random random(seed);
    Buffer a = random.uniform(m * k), b = random.uniform((n - 1) * b_col + k);
    Buffer turned = random.uniform((m - 1) * stride + n), packed = turned;
    Buffer bias = random.uniform(n), residual = random.uniform(m * n);
    Buffer pre(m * n, 0.0f), turned_pre(m * n, 0.0f);
    const auto epilogue = [&](Buffer& to) {
      return Epilogue{bias.data(), Activation::gelu, residual.data(), n, to.data(), n};
    };
    const Epilogue one = epilogue(pre), other = epilogue(turned_pre);
    const auto whole = [](i64 lanes, i64 panel) { return (lanes + panel - 1) / panel * panel; };
    Buffer a_packed(whole(m, t->gemm_mr) * k), b_packed(whole(n, t->gemm_nr) * k);
    t->gemm_pack_a(m, k, a.data(), k, 1, a_packed.data());
    t->gemm_pack_b(n, k, b.data(), b_col, 1, b_packed.data());
    t->gemm_tile(m, n, k, a_packed.data(), b_packed.data(), packed.data(), stride, accumulate,
                 finishes ? &one : nullptr, a_packed.data(), 0);
    Buffer lanes(whole(m, t->gemm_nr) * k);
    t->gemm_pack_b(m, k, a.data(), k, 1, lanes.data());
    t->gemm_turned(m, n, k, lanes.data(), b.data(), b_col, turned.data(), stride, accumulate,
                   finishes ? &other : nullptr);
    check::expect(same_bits(turned, packed) && turned.intact() && same_bits(turned_pre, pre),
                  label("gemm_turned", {{"m", m},
                                        {"n", n},
                                        {"k", k},
                                        {"accumulate", accumulate},
                                        {"finishes", finishes}}) +
                      " " + t->isa);
  }
}

void check_epilogue(i64 n, Activation activation, bool bias, bool residual, bool pre) {
  compare(label("gemm_epilogue", {{"n", n},
                                  {"activation", static_cast<i64>(activation)},
                                  {"bias", bias},
                                  {"residual", residual},
                                  {"pre", pre}}),
          elementwise, [=](const KernelTable& t, Random random) {
            const i64 stride = n + 3;
            Buffer c = random.uniform(rows * stride), p(rows * stride, 0.0f);
            Buffer b = random.uniform(n), r = random.uniform(rows * stride);
            const Epilogue epilogue = {bias ? b.data() : nullptr,     activation,
                                       residual ? r.data() : nullptr, stride,
                                       pre ? p.data() : nullptr,      stride};
            t.gemm_epilogue(rows, n, c.data(), stride, &epilogue);
            return outputs(c, p);
          });
}

// Whole tiles, which finish in registers, and those at the edges: the same bits as the epilogue
// after the product.
void check_finished_tile(Activation activation, bool accumulate, bool bias, bool residual,
                         bool pre) {
  const KernelTable& t = EVERGRAD_KERNELS(EVERGRAD_ISA);
  const i64 k = 5, m = 2 * t.gemm_mr + 1, n = 2 * t.gemm_nr + 3, stride = n + 3;
  const i64 m_padded = 3 * t.gemm_mr, n_padded = 3 * t.gemm_nr;
  Random random(seed);
  Buffer a = random.uniform(m_padded * k), b = random.uniform(n_padded * k);
  Buffer shift = random.uniform(n), r = random.uniform(m * stride);
  Buffer fused = random.uniform(m * stride), apart = fused;
  Buffer fused_pre(m * stride, 0.0f), apart_pre(m * stride, 0.0f);
  Epilogue epilogue = {bias ? shift.data() : nullptr,     activation,
                       residual ? r.data() : nullptr,     stride,
                       pre ? fused_pre.data() : nullptr, stride};
  t.gemm_tile(m, n, k, a.data(), b.data(), fused.data(), stride, accumulate, &epilogue, a.data(),
              0);
  epilogue.pre = pre ? apart_pre.data() : nullptr;
  t.gemm_tile(m, n, k, a.data(), b.data(), apart.data(), stride, accumulate, nullptr, a.data(), 0);
  t.gemm_epilogue(m, n, apart.data(), stride, &epilogue);
  check::expect(same_bits(fused, apart) && same_bits(fused_pre, apart_pre) && fused.intact() &&
                    fused_pre.intact(),
                label("gemm_tile finished", {{"activation", static_cast<i64>(activation)},
                                             {"accumulate", accumulate},
                                             {"bias", bias},
                                             {"residual", residual},
                                             {"pre", pre}}));
}

// A kind of weight in few bits: numbers and bytes of a block, where its 16-bit floats are.
struct Stored {
  QuantKind kind;
  i64 numbers, bytes, first_half, second_half;  // -1: none
};

constexpr Stored kinds[] = {{QuantKind::f16, 1, 2, 0, -1},       {QuantKind::bf16, 1, 2, -1, -1},
                            {QuantKind::q8_0, 32, 34, 0, -1},    {QuantKind::q4_0, 32, 18, 0, -1},
                            {QuantKind::q4_1, 32, 20, 0, 2},     {QuantKind::q5_0, 32, 22, 0, -1},
                            {QuantKind::q5_1, 32, 24, 0, 2},     {QuantKind::q4_k, 256, 144, 0, 2},
                            {QuantKind::q6_k, 256, 210, 208, -1}};

// Rows of any bytes, but for scales and minimums of a size between 1/64 and 1/8; at an odd address.
struct StoredRows {
  StoredRows(const Stored& s, i64 count, i64 n, Random& random)
      : row_bytes(n / s.numbers * s.bytes), all(static_cast<size_t>(1 + count * row_bytes)) {
    for (uint8_t& b : all) b = static_cast<uint8_t>(random.bits());
    for (size_t block = 1; block < all.size(); block += static_cast<size_t>(s.bytes)) {
      if (s.kind == QuantKind::bf16) all[block + 1] = 0x3d;
      for (const i64 at : {s.first_half, s.second_half})
        if (at >= 0) all[block + static_cast<size_t>(at) + 1] = 0x24 + random.below(12);
    }
  }
  const uint8_t* data() const { return all.data() + 1; }

  i64 row_bytes;
  std::vector<uint8_t> all;
};

// Whether a table's dots of bytes can run here: where the processor has them, or emulated.
bool runs_byte_dots(const KernelTable& t) {
#if defined(__x86_64__) && !defined(EVERGRAD_EMULATED)
  if (!__builtin_cpu_supports("avx512vnni")) return false;
#endif
  return t.quant_dot_bytes != nullptr;
}

// Rows decoded into a panel at once are those decoded one by one and packed.
void check_unpack_panel(const Stored& s, i64 n) {
  for (const KernelTable* t : {&evergrad_kernels_scalar, &EVERGRAD_KERNELS(EVERGRAD_ISA)})
    for (const i64 count : {1, t->gemm_nr - 1, t->gemm_nr}) {
      Random random(seed);
      const i64 most = t->gemm_nr;
      const StoredRows w(s, count, n, random);
      Buffer rows(count * n), decoded(count * n), packed(most * n), panel(most * n);
      for (i64 i = 0; i < count; ++i)
        t->unpack(s.kind, n, w.data() + i * w.row_bytes, rows.data() + i * n);
      t->gemm_pack_b(count, n, rows.data(), n, 1, packed.data());
      t->unpack_panel(s.kind, count, n, w.data(), w.row_bytes, decoded.data(), panel.data());
      bool same = panel.intact() && decoded.intact();
      for (i64 i = 0; i < most * n; ++i) same = same && panel[i] == packed[i];
      const auto kind = static_cast<i64>(s.kind);
      check::expect(same, label("unpack_panel", {{"kind", kind}, {"n", n}, {"rows", count}}) + " " +
                              t->isa);
    }
}

void check_quant(const Stored& s, i64 n) {
  const auto arguments = {std::pair<const char*, i64>{"kind", static_cast<i64>(s.kind)}, {"n", n}};
  const i64 features = 7;  // more than are taken together, and one
  compare(label("unpack", arguments), exact, [=](const KernelTable& t, Random random) {
    const StoredRows w(s, 1, n, random);
    Buffer out(n);
    t.unpack(s.kind, n, w.data(), out.data());
    return outputs(out);
  });
  compare(label("quant_dot", arguments), sum_of(n), [=](const KernelTable& t, Random random) {
    const StoredRows w(s, features, n, random);
    const bool grouped = s.numbers > 1;
    Buffer x = random.uniform(n), out(features);
    Buffer prepared(grouped ? evergrad::quant_sums(n) + n : 0);
    if (grouped) t.quant_prepare(s.kind, n, x.data(), prepared.data());
    t.quant_dot(s.kind, features, n, w.data(), w.row_bytes, x.data(), prepared.data(), out.data());
    return outputs(out);
  });
  const bool halves_of_bytes = s.kind == QuantKind::q4_0 || s.kind == QuantKind::q4_1;
  if (halves_of_bytes && n >= 128)
    compare(label("quant_dot_bytes", arguments), sum_of(n), [=](const KernelTable& t, Random r) {
      Random random = r;
      const StoredRows w(s, features, n, random);
      Buffer x = random.uniform(n), out(features);
      // As different as they come, block by block: each has a scale of its own.
      for (i64 i = 0; i < n; ++i) x[i] *= i / 32 % 3 == 0 ? 0x1p-20f : i / 32 % 3 == 1 ? 1 : 3;
      if (runs_byte_dots(t)) {
        Buffer prepared(evergrad::quant_records(n));
        t.quant_prepare_bytes(s.kind, n, x.data(), prepared.data());
        t.quant_dot_bytes(s.kind, features, n, w.data(), w.row_bytes, prepared.data(), out.data());
      } else {
        Buffer prepared(evergrad::quant_sums(n) + n);
        t.quant_prepare(s.kind, n, x.data(), prepared.data());
        t.quant_dot(s.kind, features, n, w.data(), w.row_bytes, x.data(), prepared.data(),
                    out.data());
      }
      return outputs(out);
    });
  for (i64 count = 1; count <= evergrad_kernels_scalar.most_quant_dots; ++count)
    compare(label("quant_dots", {{"kind", static_cast<i64>(s.kind)}, {"n", n}, {"rows", count}}),
            sum_of(2 * n), [=](const KernelTable& t, Random random) {
              const StoredRows w(s, features, n, random);
              const i64 x_row = n + 3, out_row = features + 2;
              Buffer x = random.uniform(count * x_row), out(count * out_row);
              t.quant_dots(s.kind, features, n, w.data(), w.row_bytes, count, x.data(), x_row,
                           out.data(), out_row, false);
              t.quant_dots(s.kind, features, n, w.data(), w.row_bytes, count, x.data() + 1, x_row,
                           out.data(), out_row, true);
              return outputs(out);
            });
}

void check_column_sum(i64 n) {
  compare(label("column_sum", {{"n", n}}), sum_of(rows), [=](const KernelTable& t, Random random) {
    Buffer x = random.uniform(rows * (n + 2)), out = random.uniform(n);
    t.column_sum(rows, n, x.data(), n + 2, out.data());
    return outputs(out);
  });
}

// Keys and values [tokens_k, head_dim], queries [tokens_q, group, head_dim], all inside wider rows;
// `changed`: with everything that changes scores and probabilities.
struct Attention {
  i64 tokens_q, tokens_k, head_dim, group, left, right;
  bool changed;

  i64 rows() const { return tokens_q * group; }
  i64 query_size() const { return tokens_q * (group * head_dim + 3); }
  i64 key_size() const { return tokens_k * (head_dim + 1); }
  i64 pairs() const { return rows() * tokens_k; }
};

struct AttentionInputs {
  Buffer query, key, value, slopes, bias, add;
  std::vector<uint8_t> mask;
};

AttentionInputs attention_inputs(const Attention& c, Random& random) {
  AttentionInputs in = {random.uniform(c.query_size()),
                        random.uniform(c.key_size()),
                        random.uniform(c.key_size()),
                        random.uniform(c.group),
                        random.uniform(c.pairs()),
                        random.uniform(c.pairs()),
                        std::vector<uint8_t>(static_cast<size_t>(c.pairs()))};
  for (uint8_t& m : in.mask) m = random.below(4) > 0;
  return in;
}

AttentionHead attention_head(const Attention& c, AttentionInputs& in, Buffer& out, Buffer& lse) {
  AttentionHead h = {};
  h.query = in.query.data(), h.key = in.key.data(), h.value = in.value.data();
  h.out = out.data(), h.lse = lse.data();
  h.query_head = h.out_head = c.head_dim;
  h.query_token = h.out_token = c.group * c.head_dim + 3;
  h.key_token = h.value_token = c.head_dim + 1;
  h.lse_head = c.tokens_q;
  h.tokens_q = c.tokens_q, h.tokens_k = c.tokens_k, h.head_dim = c.head_dim, h.group = c.group;
  h.scale = 1.0f / sqrtf(static_cast<float>(c.head_dim));
  h.left = c.left, h.right = c.right;
  if (!c.changed) return h;
  h.softcap = 1.5f;
  h.slopes = in.slopes.data(), h.bias = in.bias.data(), h.add = in.add.data();
  h.mask = in.mask.data();
  h.bias_head = h.add_head = h.mask_head = c.tokens_q * c.tokens_k;
  h.bias_row = h.add_row = h.mask_row = c.tokens_k;
  h.seed = 77, h.counter = 0xfffffff0u;  // the counters' high half changes on the way
  h.counter_head = c.tokens_q * c.tokens_k, h.counter_row = c.tokens_k;
  h.threshold = 0x40000000u, h.keep_scale = 4.0f / 3.0f;
  return h;
}

// The panels in two calls, as threads would share them out.
void run_attention(const KernelTable& t, const AttentionHead& h, i64 k_begin, i64 k_end) {
  Buffer scratch(t.attention_scratch(h.head_dim));
  const i64 panels = t.attention_panels(h.tokens_q * h.group), half = panels / 2;
  t.attention(&h, 0, half, k_begin, k_end, scratch.data());
  t.attention(&h, half, panels, k_begin, k_end, scratch.data());
  check::expect(scratch.intact(), "attention scratch");
}

void check_attention(const Attention& c) {
  const auto arguments = {std::pair<const char*, i64>{"tokens_q", c.tokens_q},
                          {"tokens_k", c.tokens_k},
                          {"head_dim", c.head_dim},
                          {"group", c.group},
                          {"left", c.left},
                          {"right", c.right},
                          {"changed", c.changed}};
  const double forward_tolerance = sum_of(2 * c.tokens_k + c.head_dim);
  compare(label("attention", arguments), forward_tolerance,
          [=](const KernelTable& t, Random random) {
            AttentionInputs in = attention_inputs(c, random);
            Buffer out(c.query_size(), 0.0f), lse(c.rows());
            const AttentionHead h = attention_head(c, in, out, lse);
            run_attention(t, h, 0, c.tokens_k);
            return outputs(out, lse);
          });
  compare(label("attention_merge", arguments), forward_tolerance,
          [=](const KernelTable& t, Random random) {
            AttentionInputs in = attention_inputs(c, random);
            Buffer outs(2 * c.query_size(), 0.0f), lses(2 * c.rows());
            Buffer out(c.query_size(), 0.0f), lse(c.rows());
            AttentionHead h = attention_head(c, in, outs, lses);
            const i64 half = c.tokens_k / 2;
            run_attention(t, h, 0, half);
            h.out += c.query_size(), h.lse += c.rows();
            run_attention(t, h, half, c.tokens_k);
            for (i64 q = 0; q < c.tokens_q; ++q)
              for (i64 g = 0; g < c.group; ++g) {
                const i64 row = q * h.out_token + g * h.out_head, at = g * c.tokens_q + q;
                t.attention_merge(2, c.head_dim, outs.data() + row, c.query_size(),
                                  lses.data() + at, c.rows(), out.data() + row, lse.data() + at);
              }
            return outputs(out, lse);
          });
  compare(label("attention_backward", arguments), 8 * sum_of(c.rows() + c.tokens_k + c.head_dim),
          [=](const KernelTable& t, Random random) {
            AttentionInputs in = attention_inputs(c, random);
            Buffer out(c.query_size(), 0.0f), lse(c.rows()), dout = random.uniform(c.query_size());
            Buffer dquery(2 * c.query_size(), 0.0f), dkey(c.key_size(), 0.0f),
                dvalue(c.key_size(), 0.0f), dbias(c.pairs(), 0.0f);
            AttentionHead h = attention_head(c, in, out, lse);
            run_attention(t, h, 0, c.tokens_k);
            h.dout = dout.data(), h.dquery = dquery.data();
            h.dout_token = h.dquery_token = h.query_token;
            h.dout_head = h.dquery_head = h.query_head;
            h.dkey_token = h.dvalue_token = h.key_token;
            if (c.changed) h.dbias = dbias.data();
            h.dbias_head = h.bias_head, h.dbias_row = h.bias_row;
            Buffer scratch(t.attention_backward_scratch(c.head_dim));
            const i64 half = c.tokens_k / 2;
            h.dkey = dkey.data(), h.dvalue = dvalue.data();
            t.attention_backward(&h, 0, half, scratch.data());
            h.dquery += c.query_size();
            t.attention_backward(&h, half, c.tokens_k, scratch.data());
            check::expect(scratch.intact(), label("attention_backward scratch", arguments));
            return outputs(dquery, dkey, dvalue, dbias);
          });
}

void check_softmax(i64 n, bool past_caches) {
  compare(label("softmax", {{"n", n}, {"past_caches", past_caches}}), sum_of(n),
          [=](const KernelTable& t, Random random) {
            Buffer x = random.uniform(rows * n, -20.0f, 20.0f), out(rows * n);
            for (i64 j = 0; j < n; ++j) x[n + j] = -INFINITY;  // the middle row: zeros
            x[0] = -INFINITY;
            t.softmax(rows, n, x.data(), out.data(), past_caches);
            return outputs(out);
          });
  compare(label("softmax_backward", {{"n", n}}), sum_of(n),
          [=](const KernelTable& t, Random random) {
            Buffer dout = random.uniform(rows * n), out = random.uniform(rows * n, 0.0f, 1.0f),
                   dx(rows * n);
            t.softmax_backward(rows, n, dout.data(), out.data(), dx.data(), past_caches);
            return outputs(dx);
          });
}

void check_log_softmax(i64 n, bool past_caches) {
  compare(label("log_softmax", {{"n", n}}), sum_of(n), [=](const KernelTable& t, Random random) {
    Buffer x = random.uniform(rows * n, -20.0f, 20.0f), out(rows * n);
    for (i64 j = 0; j < n; ++j) x[n + j] = -INFINITY;  // the middle row stays
    t.log_softmax(rows, n, x.data(), out.data(), past_caches);
    return outputs(out);
  });
  compare(label("log_softmax_backward", {{"n", n}}), sum_of(n),
          [=](const KernelTable& t, Random random) {
            Buffer dout = random.uniform(rows * n), out = random.uniform(rows * n, -5.0f, 0.0f),
                   dx(rows * n);
            t.log_softmax_backward(rows, n, dout.data(), out.data(), dx.data(), past_caches);
            return outputs(dx);
          });
}

// More rows than are worked on together, and a rest.
constexpr i64 norm_rows = 7;

void check_norms(i64 n, bool affine, bool residual) {
  const auto arguments = {
      std::pair<const char*, i64>{"n", n}, {"affine", affine}, {"residual", residual}};
  const i64 size = norm_rows * n;
  const auto optional = [](bool given, Buffer& b) { return given ? b.data() : nullptr; };
  compare(label("layer_norm", arguments), sum_of(n), [=](const KernelTable& t, Random random) {
    Buffer x = random.uniform(size), skip = random.uniform(size), weight = random.uniform(n),
           bias = random.uniform(n);
    Buffer total(size, 0.0f), out(size), mean(norm_rows), rstd(norm_rows);
    t.layer_norm(norm_rows, n, x.data(), optional(residual, skip), optional(affine, weight),
                 optional(affine, bias), 1e-2f, optional(residual, total), out.data(), mean.data(),
                 rstd.data());
    return outputs(total, out, mean, rstd);
  });
  compare(label("rms_norm", arguments), sum_of(n), [=](const KernelTable& t, Random random) {
    Buffer x = random.uniform(size), skip = random.uniform(size), weight = random.uniform(n);
    Buffer total(size, 0.0f), out(size), rstd(norm_rows);
    t.rms_norm(norm_rows, n, x.data(), optional(residual, skip), optional(affine, weight), 1e-2f,
               optional(residual, total), out.data(), rstd.data());
    return outputs(total, out, rstd);
  });
  for (const bool centred : {false, true})
    compare(label(centred ? "layer_norm_backward" : "rms_norm_backward", arguments), sum_of(n),
            [=](const KernelTable& t, Random random) {
              Buffer dout = random.uniform(size), x = random.uniform(size);
              Buffer mean = random.uniform(norm_rows, -0.5f, 0.5f),
                     rstd = random.uniform(norm_rows, 0.5f, 2.0f);
              Buffer weight = random.uniform(n), dresidual = random.uniform(size), dx(size);
              Buffer dweight = random.uniform(n), dbias = random.uniform(n);
              if (centred)
                t.layer_norm_backward(norm_rows, n, dout.data(), x.data(), mean.data(), rstd.data(),
                                      optional(affine, weight), optional(residual, dresidual),
                                      dx.data(), optional(affine, dweight),
                                      optional(affine, dbias));
              else
                t.rms_norm_backward(norm_rows, n, dout.data(), x.data(), rstd.data(),
                                    optional(affine, weight), optional(residual, dresidual),
                                    dx.data(), optional(affine, dweight));
              return outputs(dx, dweight, dbias);
            });
}

// Heads of n numbers, the last `rest` of which pass; in place or into rows of another stride.
void check_rotary(i64 n, i64 rest, bool interleaved, bool inverse, bool in_place) {
  constexpr i64 heads = 3;
  const i64 dim = n / 2 * 2, head_dim = dim + rest, x_head = head_dim + 2,
            out_head = in_place ? x_head : head_dim + 5;
  compare(label("rotary", {{"dim", dim},
                           {"rest", rest},
                           {"interleaved", interleaved},
                           {"inverse", inverse},
                           {"in_place", in_place}}),
          elementwise, [=](const KernelTable& t, Random random) {
            Buffer x = random.uniform(heads * x_head), cos = random.uniform(dim / 2),
                   sin = random.uniform(dim / 2), out(heads * out_head, 0.0f);
            t.rotary(heads, head_dim, dim, interleaved, x.data(), x_head, cos.data(), sin.data(),
                     inverse, in_place ? x.data() : out.data(), out_head);
            return outputs(in_place ? x : out);
          });
}

void check_activation(i64 n, Activation kind, bool past_caches) {
  compare(label("activation", {{"kind", static_cast<i64>(kind)}, {"n", n}}), elementwise,
          [=](const KernelTable& t, Random random) {
            Buffer x = random.uniform(n, -8.0f, 8.0f), out(n);
            x[n / 2] = NAN;
            t.activation(kind, n, x.data(), out.data(), past_caches);
            return outputs(out);
          });
  compare(label("activation_backward", {{"kind", static_cast<i64>(kind)}, {"n", n}}), elementwise,
          [=](const KernelTable& t, Random random) {
            Buffer dout = random.uniform(n), saved = random.uniform(n, -1.0f, 1.0f), dx(n);
            t.activation_backward(kind, n, dout.data(), saved.data(), dx.data(), past_caches);
            return outputs(dx);
          });
}

// gate and up are halves of one array, and so are their gradients.
void check_gated(i64 n, Activation kind) {
  const auto arguments = {std::pair<const char*, i64>{"kind", static_cast<i64>(kind)}, {"n", n}};
  compare(label("gated", arguments), 4 * elementwise, [=](const KernelTable& t, Random random) {
    Buffer both = random.uniform(rows * 2 * n, -8.0f, 8.0f), out(rows * n);
    t.gated(kind, rows, n, both.data(), 2 * n, both.data() + n, 2 * n, out.data());
    return outputs(out);
  });
  compare(label("gated_backward", arguments), 4 * elementwise,
          [=](const KernelTable& t, Random random) {
            Buffer dout = random.uniform(rows * n), both = random.uniform(rows * 2 * n),
                   dboth(rows * 2 * n);
            t.gated_backward(kind, rows, n, dout.data(), both.data(), 2 * n, both.data() + n, 2 * n,
                             dboth.data(), 2 * n, dboth.data() + n, 2 * n);
            return outputs(dboth);
          });
}

void check_add_rows(i64 n) {
  compare(label("add_rows", {{"n", n}}), exact, [=](const KernelTable& t, Random random) {
    Buffer x = random.uniform(n), out = random.uniform(n);
    t.add_rows(n, x.data(), out.data());
    return outputs(out);
  });
}

void check_embedding(i64 n, int tables, bool accumulate) {
  constexpr i64 tokens = 9, entries = 5;
  const auto drawn = [=](Random& random) {
    std::vector<i64> indices(tokens);
    for (i64& i : indices) i = random.below(entries);
    return indices;
  };
  compare(label("gather_rows", {{"n", n}, {"tables", tables}, {"accumulate", accumulate}}), exact,
          [=](const KernelTable& t, Random random) {
            Buffer first = random.uniform(entries * n), second = random.uniform(entries * n),
                   out = random.uniform(tokens * n);
            const std::vector<i64> some = drawn(random), others = drawn(random);
            const i64* const indices[] = {some.data(), others.data()};
            const float* const weights[] = {first.data(), second.data()};
            t.gather_rows(tokens, n, tables, indices, weights, accumulate, out.data());
            return outputs(out);
          });
  compare(label("scatter_rows", {{"n", n}}), exact, [=](const KernelTable& t, Random random) {
    const i64 stride = n + 4;
    Buffer x = random.uniform(tokens * stride), table = random.uniform(entries * stride);
    const std::vector<i64> indices = drawn(random);
    t.scatter_rows(tokens, n, x.data(), indices.data(), stride, table.data());
    return outputs(table);
  });
}

void check_pooling(i64 n, i64 tokens) {
  compare(label("mean_rows", {{"n", n}, {"tokens", tokens}}), exact,
          [=](const KernelTable& t, Random random) {
            Buffer x = random.uniform(tokens * n), out(n);
            t.mean_rows(tokens, n, x.data(), out.data());
            return outputs(out);
          });
  compare(label("spread_mean", {{"n", n}, {"tokens", tokens}}), exact,
          [=](const KernelTable& t, Random random) {
            Buffer x = random.uniform(n), out(tokens * n);
            t.spread_mean(tokens, n, x.data(), out.data());
            return outputs(out);
          });
}

void check_cross_entropy(i64 n, float smoothing) {
  constexpr i64 ignore = -100;
  const evergrad::CrossEntropy plain = {n, ignore, smoothing, 0.0f};
  const auto targets = [=](Random& random) {
    return std::vector<i64>{random.below(n), ignore, random.below(n)};
  };
  compare(label("cross_entropy", {{"n", n}, {"smoothed", smoothing != 0}}), sum_of(n),
          [=](const KernelTable& t, Random random) {
            Buffer logits = random.uniform(rows * n), losses(rows), lse(rows);
            const std::vector<i64> target = targets(random);
            t.cross_entropy(rows, logits.data(), target.data(), &plain, losses.data(), lse.data());
            return outputs(losses, lse);
          });
  // The classes in two parts, of rows that lie apart.
  compare(label("cross_entropy_scan", {{"n", n}, {"smoothed", smoothing != 0}}), sum_of(n),
          [=](const KernelTable& t, Random random) {
            const i64 stride = n + 5, half = n / 2;
            Buffer logits = random.uniform(rows * stride), losses(rows), lse(rows);
            const std::vector<i64> target = targets(random);
            std::vector<evergrad::RowOfLogits> state(rows, {-INFINITY, 0.0f, 0.0f, 0.0f});
            t.cross_entropy_scan(rows, half, logits.data(), stride, 0, target.data(), &plain,
                                 state.data());
            t.cross_entropy_scan(rows, n - half, logits.data() + half, stride, half, target.data(),
                                 &plain, state.data());
            t.cross_entropy_finish(rows, target.data(), &plain, state.data(), losses.data(),
                                   lse.data());
            return outputs(losses, lse);
          });
  compare(label("softcap", {{"n", n}}), elementwise, [=](const KernelTable& t, Random random) {
    Buffer logits = random.uniform(rows * (n + 3), -20.0f, 20.0f);
    t.softcap(rows, n, 5.0f, logits.data(), n + 3);
    return outputs(logits);
  });
  for (const float softcap : {0.0f, 4.0f})
    for (const bool in_place : {false, true})
      for (const i64 first : {i64{0}, i64{7}})
        compare(label("cross_entropy_backward", {{"n", n},
                                                 {"smoothed", smoothing != 0},
                                                 {"in_place", in_place},
                                                 {"capped", softcap != 0},
                                                 {"first", first}}),
                elementwise, [=](const KernelTable& t, Random random) {
                  const i64 stride = n + 2;
                  const evergrad::CrossEntropy p = {n + first, ignore, smoothing, softcap};
                  Buffer logits = random.uniform(rows * stride), drows = random.uniform(rows),
                         dlogits(rows * stride, 0.0f);
                  Buffer lse = random.uniform(rows, 3.0f, 6.0f);
                  const std::vector<i64> target = targets(random);
                  t.cross_entropy_backward(rows, n, drows.data(), logits.data(), stride, first,
                                           target.data(), lse.data(), &p,
                                           in_place ? logits.data() : dlogits.data(), stride);
                  return outputs(in_place ? logits : dlogits);
                });
}

void check_elementwise_losses(i64 n, i64 dout_stride) {
  const auto loss = [=](auto kernel, double roundings, const char* name) {
    compare(label(name, {{"n", n}}), roundings, [=](const KernelTable& t, Random random) {
      Buffer x = random.uniform(n, -20.0f, 20.0f), target = random.uniform(n, 0.0f, 1.0f), out(n);
      (t.*kernel)(n, x.data(), target.data(), out.data());
      return outputs(out);
    });
  };
  const auto gradient = [=](auto kernel, double roundings, const char* name) {
    compare(label(name, {{"n", n}, {"dout_stride", dout_stride}}), roundings,
            [=](const KernelTable& t, Random random) {
              Buffer dout = random.uniform(dout_stride ? n : 1), x = random.uniform(n),
                     target = random.uniform(n), dx(n);
              (t.*kernel)(n, dout.data(), dout_stride, x.data(), target.data(), dx.data());
              return outputs(dx);
            });
  };
  const auto sum = [=](auto kernel, const char* name) {
    compare(label(name, {{"n", 40 * n}}), 16, [=](const KernelTable& t, Random random) {
      Buffer x = random.uniform(40 * n, -20.0f, 20.0f), target = random.uniform(40 * n, 0.0f, 1.0f);
      return outputs(Buffer(1, static_cast<float>((t.*kernel)(40 * n, x.data(), target.data()))));
    });
  };
  sum(&KernelTable::mse_sum, "mse_sum");
  sum(&KernelTable::bce_sum, "bce_sum");
  loss(&KernelTable::mse, exact, "mse");
  loss(&KernelTable::bce, elementwise, "bce");
  gradient(&KernelTable::mse_backward, exact, "mse_backward");
  gradient(&KernelTable::bce_backward, elementwise, "bce_backward");
}

void check_sampling(i64 n) {
  for (const bool spoiled : {false, true})
    compare(label("block_peaks", {{"n", n}, {"nan", spoiled}}), exact,
            [=](const KernelTable& t, Random random) {
              Buffer logits = random.uniform(n), peaks(peaks_of(n));
              if (spoiled) logits[n / 2] = NAN;
              const float peak = t.block_peaks(n, logits.data(), peaks.data());
              // The block with the NaN in it may have any.
              return spoiled ? outputs(Buffer(1, peak)) : outputs(peaks, Buffer(1, peak));
            });
  compare(label("sample_weights", {{"n", n}}), elementwise,
          [=](const KernelTable& t, Random random) {
            Buffer logits = random.uniform(n), weights(n);
            logits[n / 2] = 2.0f;
            t.sample_weights(n, logits.data(), 2.0f, 1.25f, weights.data());
            return outputs(weights);
          });
}

// The mask is a matter of integers: the same in every table. Counters wrap at 2^32.
void check_dropout(i64 n, uint64_t counter, uint32_t threshold) {
  const i64 first = static_cast<i64>(counter);
  compare(label("dropout", {{"n", n}, {"counter", first}, {"threshold", threshold}}), exact,
          [=](const KernelTable& t, Random random) {
            Buffer x = random.uniform(n), out(n);
            t.dropout(n, x.data(), counter, 0x85ebca6b9e3779b9u, threshold, 1.25f, out.data());
            return outputs(out);
          });
}

void check_optimizers(i64 n, bool flag) {
  compare(label("adam", {{"n", n}, {"decoupled", flag}}), elementwise,
          [=](const KernelTable& t, Random random) {
            Buffer param = random.uniform(n), grad = random.uniform(n), m = random.uniform(n),
                   v = random.uniform(n, 0.0f, 4.0f);
            const evergrad::AdamParams p = {1e-2f, 0.95f, 0.1f,  0.05f, 1e-8f,
                                            0.1f,  0.5f,  0.19f, 0.31f, flag};
            t.adam(n, param.data(), grad.data(), m.data(), v.data(), &p);
            return outputs(param, m, v);
          });
  for (const bool buffered : {false, true})
    for (const bool first : {false, true})
      compare(
          label("sgd", {{"n", n}, {"buffered", buffered}, {"nesterov", flag}, {"first", first}}),
          elementwise, [=](const KernelTable& t, Random random) {
            Buffer param = random.uniform(n), grad = random.uniform(n), buffer = random.uniform(n);
            const evergrad::SgdParams p = {1e-2f, 0.9f, 0.9f, 0.1f, 0.5f, flag, first};
            t.sgd(n, param.data(), grad.data(), buffered ? buffer.data() : nullptr, &p);
            return outputs(param, buffer);
          });
  compare(label("rmsprop", {{"n", n}}), elementwise, [=](const KernelTable& t, Random random) {
    Buffer param = random.uniform(n), grad = random.uniform(n), v = random.uniform(n, 0.0f, 4.0f);
    const evergrad::RmspropParams p = {1e-2f, 0.99f, 0.01f, 1e-8f, 0.1f, 0.5f};
    t.rmsprop(n, param.data(), grad.data(), v.data(), &p);
    return outputs(param, v);
  });
}

void check_scale(i64 n) {
  compare(label("scale", {{"n", n}}), exact, [=](const KernelTable& t, Random random) {
    Buffer x = random.uniform(n);
    t.scale(n, 0.7f, x.data());
    return outputs(x);
  });
}

void check_sums(i64 n) {
  compare(label("sum_of_squares", {{"n", n}}), exact, [=](const KernelTable& t, Random random) {
    Buffer x = random.uniform(n);
    const double sum = t.sum_of_squares(n, x.data());
    return outputs(Buffer(1, static_cast<float>(sum)));
  });
  // Whole rounds of every width, so that all tables read the same numbers.
  compare(label("read_sum", {{"n", 128 * n}}), sum_of(128 * n),
          [=](const KernelTable& t, Random random) {
            Buffer x = random.uniform(128 * n);
            return outputs(Buffer(1, t.read_sum(x.size(), x.data())));
          });
  compare(label("fma_rounds", {{"rounds", n}}), sum_of(n), [=](const KernelTable& t, Random) {
    return outputs(Buffer(1, t.fma_rounds(n) / static_cast<float>(t.width)));
  });
}

}  // namespace

int main() {
  for (const Activation kind : activations)
    for (const bool accumulate : {false, true})
      for (const bool bias : {false, true})
        for (const bool residual : {false, true})
          for (const bool pre : {false, true})
            check_finished_tile(kind, accumulate, bias, residual, pre);
  for (const i64 n : sizes) {
    for (const i64 depth : {i64{1}, i64{5}, i64{37}})
      for (const bool lanes_contiguous : {false, true}) check_pack(n, depth, lanes_contiguous);
    for (const i64 m : {1, 3, 4, 6, 7, 12, 13, 25})
      for (const bool accumulate : {false, true}) {
        check_gemm(m, n, 19, accumulate);
        check_gemm(m, 17, n, accumulate);
        check_unpacked(m, n, accumulate);
        for (const i64 k : {i64{1}, i64{7}, i64{40}}) {
          for (const bool finishes : {false, true}) check_turned(m, n, k, accumulate, finishes);
          check_turned(m + 32, n, k, accumulate, true);
        }
      }
    for (const i64 k : {1, 7, 40, 701})
      for (const bool accumulate : {false, true}) check_single_row(n, k, accumulate);
    for (const Activation kind : activations) {
      check_epilogue(n, kind, true, true, true);
      check_epilogue(n, kind, false, false, false);
      check_epilogue(n, kind, true, false, true);
      for (const bool past_caches : {false, true}) check_activation(n, kind, past_caches);
    }
    for (const bool flag : {false, true}) {
      for (const bool residual : {false, true}) check_norms(n, flag, residual);
      for (const bool inverse : {false, true}) {
        check_rotary(n, 5, flag, inverse, false);
        check_rotary(n, 0, flag, inverse, true);
      }
      check_cross_entropy(n, flag ? 0.1f : 0.0f);
      check_elementwise_losses(n, flag);
      check_optimizers(n, flag);
      const i64 right = flag ? 0 : 1000;
      check_attention({n, n, 16, 1, 1000, right, false});
      check_attention({5, n, n, 2, 1000, right, false});
      check_attention({n, 5, 7, 1, 1000, right, false});
      check_attention({n, n, 16, 2, 3, right, flag});
    }
    check_column_sum(n);
    for (const bool past_caches : {false, true}) {
      check_softmax(n, past_caches);
      check_log_softmax(n, past_caches);
    }
    check_scale(n);
    for (const Activation kind : {Activation::gelu, Activation::gelu_tanh, Activation::silu})
      check_gated(n, kind);
    check_add_rows(n);
    check_embedding(n, 1, false);
    check_embedding(n, 2, false);
    check_embedding(n, 2, true);
    for (const i64 tokens : {0, 1, 5}) check_pooling(n, tokens);
    for (const uint32_t threshold : {0u, 0x40000000u, 0xc0000000u})
      check_dropout(n, 12345, threshold);
    check_dropout(n, (uint64_t{1} << 32) - static_cast<uint64_t>(n / 2), 0x80000000u);
    check_sampling(n);
    check_sums(n);
  }
  for (const Stored& s : kinds) {
    for (const i64 blocks : {1, 2, 5, 11}) {
      check_quant(s, blocks * s.numbers);
      check_unpack_panel(s, blocks * s.numbers);
    }
    for (const i64 n : sizes)
      if (s.numbers == 1) check_quant(s, n), check_unpack_panel(s, n);
  }
  for (const i64 right : {0, 1000}) {  // more than one panel of queries and block of keys
    for (const bool changed : {false, true}) {
      check_attention({70, 133, 40, 2, 1000, right, changed});
      check_attention({133, 70, 24, 1, 1000, right, changed});
      check_attention({150, 150, 32, 1, 20, right, changed});
      check_attention({2, 300, 32, 3, 1000, right, changed});
    }
    check_attention({261, 561, 64, 1, 1000, right, false});
  }
  return check::summary();
}
