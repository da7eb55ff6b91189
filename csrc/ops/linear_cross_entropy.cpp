// The last layer of a classifier and its loss, in blocks: the logits never exist as a whole.
//
// A product of [rows, in] by [in, classes] costs 2 rows in classes flops. The loss takes one, its
// gradients three: the logits again, dx and dweight. Where the cotangents are known beforehand, the
// logits of a chunk of rows are kept over all classes until their log-sum-exp is known, and become
// their own gradient: three products in all instead of four.
#include <cstring>
#include <limits>

#include "evergrad/evergrad.h"
#include "ops/gemm.h"
#include "ops/sizes.h"
#include "runtime/cpu.h"
#include "runtime/parallel.h"
#include "runtime/pool.h"

using namespace evergrad;

namespace {

// The cuts depend on the shape alone. A block of logits (most_rows x class_block at most) is
// produced, scanned and used for both gradients while it lies in L3. More rows in a chunk mean
// fewer passes over weight and dweight.
constexpr i64 class_block = 4096;
constexpr i64 most_rows = 512;
constexpr i64 most_kept = i64{1} << 24;  // floats: 64 MB

using Args = evergrad_linear_cross_entropy_args;

// Nearly equal chunks of at most `limit` rows: the size of one.
i64 chunk_of(i64 rows, i64 limit) { return parts_of(rows, parts_of(rows, limit)); }

class Chunk {
 public:
  Chunk(const Args& args, i64 begin, i64 rows)
      : args_(args), begin_(begin), rows_(rows), x_(args.x + begin * args.in) {}

  const i64* target() const { return args_.target + begin_; }
  CrossEntropy params() const {
    return {args_.classes, args_.ignore_index, args_.smoothing, args_.softcap};
  }

  // logits [rows, n] of classes [first, first + n)
  int logits(i64 first, i64 n, float* z) const {
    const Epilogue bias{
        args_.bias ? args_.bias + first : nullptr, Activation::none, nullptr, 0, nullptr, 0};
    const int status =
        gemm(rows_, n, args_.in, {x_, args_.in, 1}, {args_.weight + first * args_.in, 1, args_.in},
             z, n, false, args_.bias ? &bias : nullptr);
    if (args_.softcap != 0.0f)
      over_rows(n, [&](const KernelTable& t, i64 begin, i64 end) {
        t.softcap(end - begin, n, args_.softcap, z + begin * n, n);
      });
    return status;
  }

  void scan(i64 first, i64 n, const float* z, RowOfLogits* state) const {
    const CrossEntropy p = params();
    over_rows(n, [&](const KernelTable& t, i64 begin, i64 end) {
      t.cross_entropy_scan(end - begin, n, z + begin * n, n, first, target() + begin, &p,
                           state + begin);
    });
  }

  // z becomes its own gradient, and is used up.
  int gradients(i64 first, i64 n, const float* drows, const float* lse, float* z, float* dx,
                float* dweight, float* dbias) const {
    const CrossEntropy p = params();
    over_rows(n, [&](const KernelTable& t, i64 begin, i64 end) {
      float* block = z + begin * n;
      t.cross_entropy_backward(end - begin, n, drows + begin_ + begin, block, n, first,
                               target() + begin, lse + begin, &p, block, n);
    });
    const i64 in = args_.in;
    const Matrix d{z, n, 1};
    int status = EVERGRAD_OK;
    if (dx)
      status |= gemm(rows_, in, n, d, {args_.weight + first * in, in, 1}, dx + begin_ * in, in,
                     first > 0, nullptr);
    if (dweight)
      status |=
          gemm(n, in, rows_, d.transposed(), {x_, in, 1}, dweight + first * in, in, true, nullptr);
    if (dbias)
      parallel_ranges(n, rows_ * n < elements_per_task ? n : 64, [&](i64 begin, i64 end) {
        kernels().column_sum(rows_, end - begin, z + begin, n, dbias + first + begin);
      });
    return status;
  }

 private:
  template <class F>
  void over_rows(i64 n, F f) const {
    const KernelTable& t = kernels();
    parallel_rows(rows_, n, [&](i64 begin, i64 end) { f(t, begin, end); });
  }

  const Args& args_;
  i64 begin_, rows_;
  const float* x_;
};

// f(first, n) for each block of classes, until one fails.
template <class F>
int over_classes(i64 classes, F f) {
  int status = EVERGRAD_OK;
  for (i64 first = 0; first < classes && status == EVERGRAD_OK; first += class_block)
    status = f(first, min_of(class_block, classes - first));
  return status;
}

// Losses, or gradients, or both.
struct Wanted {
  float *losses, *lse;  // null: no losses,
  const float* given;   // and this is the lse
  const float* drows;   // null: no gradients
  float *dx, *dweight, *dbias;
};

int run(const Args& args, const Wanted& w) {
  const i64 rows = args.rows, classes = args.classes;
  if (rows == 0) return EVERGRAD_OK;
  if (classes == 0 && w.dx)
    std::memset(w.dx, 0, static_cast<std::size_t>(rows * args.in) * sizeof(float));
  const bool both = w.losses && w.drows;
  const i64 kept = both ? classes : min_of(classes, class_block);
  const i64 chunk = chunk_of(rows, max_of(1, min_of(most_rows, most_kept / max_of(1, kept))));
  const Buffer logits(max_of(1, chunk * kept)), state(4 * chunk);
  if (!logits || !state) return EVERGRAD_NO_MEMORY;
  const KernelTable& t = kernels();
  const float* const lse = w.losses ? w.lse : w.given;
  auto* const row_state = reinterpret_cast<RowOfLogits*>(state.get());

  for (i64 begin = 0; begin < rows; begin += chunk) {
    const i64 height = min_of(chunk, rows - begin);
    const Chunk part(args, begin, height);
    const CrossEntropy p = part.params();
    // Blocks of kept logits lie one after the other, each contiguous.
    auto block = [&](i64 first) { return logits.get() + (both ? height * first : 0); };
    int status = EVERGRAD_OK;
    if (w.losses) {
      for (i64 i = 0; i < height; ++i)
        row_state[i] = {-std::numeric_limits<float>::infinity(), 0.0f, 0.0f, 0.0f};
      status = over_classes(classes, [&](i64 first, i64 n) {
        const int s = part.logits(first, n, block(first));
        part.scan(first, n, block(first), row_state);
        return s;
      });
      t.cross_entropy_finish(height, part.target(), &p, row_state, w.losses + begin, w.lse + begin);
    }
    if (w.drows && status == EVERGRAD_OK)
      status = over_classes(classes, [&](i64 first, i64 n) {
        const int s = w.losses ? EVERGRAD_OK : part.logits(first, n, block(first));
        if (s != EVERGRAD_OK) return s;
        return part.gradients(first, n, w.drows, lse + begin, block(first), w.dx, w.dweight,
                              w.dbias);
      });
    if (status != EVERGRAD_OK) return status;
  }
  return EVERGRAD_OK;
}

}  // namespace

int evergrad_linear_cross_entropy(const Args* args, float* losses, float* lse) noexcept {
  return run(*args, {losses, lse, nullptr, nullptr, nullptr, nullptr, nullptr});
}

int evergrad_linear_cross_entropy_backward(const Args* args, const float* drows, const float* lse,
                                           float* dx, float* dweight, float* dbias) noexcept {
  return run(*args, {nullptr, nullptr, lse, drows, dx, dweight, dbias});
}

int evergrad_linear_cross_entropy_with_grads(const Args* args, const float* drows, float* losses,
                                             float* dx, float* dweight, float* dbias) noexcept {
  const Buffer lse(max_of(1, args->rows));
  if (!lse) return EVERGRAD_NO_MEMORY;
  return run(*args, {losses, lse.get(), nullptr, drows, dx, dweight, dbias});
}
