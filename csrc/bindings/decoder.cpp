#include "bindings/common.h"

namespace evergrad {
namespace {

// Python's halves of a block: NamedTuples of evergrad.ops.decoder, checked there.
evergrad_map map_of(const py::handle& map) {
  const auto weight = map.attr("weight").cast<Array>();
  const auto kind = map.attr("kind").cast<std::optional<std::string>>();
  evergrad_map m{};
  m.kind = kind ? kind_code(*kind) : EVERGRAD_F32;
  m.in = map.attr("in_features").cast<int64_t>();
  m.features = weight.shape(0);
  m.weight = weight.data();
  m.bias = data(map.attr("bias").cast<Optional>());
  return m;
}

evergrad_norm norm_of(const py::handle& norm) {
  return {norm.attr("is_rms").cast<bool>(), norm.attr("eps").cast<float>(),
          data(norm.attr("weight").cast<Optional>()), data(norm.attr("bias").cast<Optional>())};
}

evergrad_decoder_block block_of(const py::handle& block) {
  evergrad_decoder_block b{};
  b.norm_1 = norm_of(block.attr("norm_1"));
  b.norm_2 = norm_of(block.attr("norm_2"));
  b.qkv = map_of(block.attr("qkv"));
  b.proj = map_of(block.attr("proj"));
  b.up = map_of(block.attr("up"));
  b.down = map_of(block.attr("down"));
  b.activation = activation_code(block.attr("activation").cast<std::optional<std::string>>());
  b.is_gated = block.attr("is_gated").cast<bool>();
  b.heads = block.attr("heads").cast<int64_t>();
  b.kv_heads = block.attr("kv_heads").cast<int64_t>();
  b.head_dim = block.attr("head_dim").cast<int64_t>();
  b.window_left = block.attr("window_left").cast<int64_t>();
  b.scale = block.attr("scale").cast<float>();
  return b;
}

// Blocks with the addresses of their weights, which live as long as it does.
class Decoder {
 public:
  explicit Decoder(const py::sequence& blocks) : held_(blocks) {
    for (const py::handle block : blocks) blocks_.push_back(block_of(block));
  }

  // x [tokens, dim]; cache [blocks, slots, 2 kv_heads, capacity, head_dim]; spans of (slot, slots,
  // first, start, tokens); to [tokens, dim], or [slots that get tokens, dim].
  Array run(const Array& x, Array& cache, const std::vector<std::array<int64_t, 5>>& spans,
            const Optional& cos, const Optional& sin, bool last_only) const {
    std::vector<evergrad_span> all;
    int64_t slots = 0;
    for (const auto& s : spans) {
      all.push_back({s[0], s[1], s[2], s[3], s[4]});
      if (s[4] > 0) slots += s[1];
    }
    const int64_t tokens = x.shape(0), dim = x.shape(1), capacity = cache.shape(3);
    Array out = last_only ? empty({slots, dim}) : or_like(std::nullopt, x);
    const int64_t layer = cache.strides(0) / static_cast<py::ssize_t>(sizeof(float));
    const int64_t rotary_dim = cos ? 2 * cos->shape(1) : 0;
    const float *px = data(x), *pc = data(cos), *ps = data(sin);
    float *po = mutable_data(out), *pk = mutable_data(cache);
    call([&] {
      return evergrad_decoder(static_cast<int64_t>(blocks_.size()), blocks_.data(), tokens, dim, pc,
                              ps, rotary_dim, pk, layer, capacity, static_cast<int64_t>(all.size()),
                              all.data(), last_only, px, po);
    });
    return out;
  }

 private:
  py::sequence held_;
  std::vector<evergrad_decoder_block> blocks_;
};

}  // namespace

void register_decoder(py::module_& m) {
  py::class_<Decoder>(m, "Decoder")
      .def(py::init<const py::sequence&>(), py::arg("blocks"))
      .def("run", &Decoder::run, py::arg("x"), py::arg("cache"), py::arg("spans"),
           py::arg("cos").none(true), py::arg("sin").none(true), py::arg("last_only"));
}

}  // namespace evergrad
