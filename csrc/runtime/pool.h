// The buffer pool: output arrays and scratch come from here and go back.
//
// The kernel hands out fresh pages zeroed, one fault each: for a large output that costs as much as
// computing it. Buffers that are freed are kept by size and handed out again: up to a quarter of
// the memory that the machine has, or that the control group leaves us.
#pragma once

#include <cstddef>

#include "evergrad/evergrad.h"
#include "kernels/table.h"

namespace evergrad {

struct PoolStats {
  std::size_t live_bytes, cached_bytes, system_allocations;
};

PoolStats pool_stats() noexcept;
void pool_trim() noexcept;  // give the cached buffers back to the system

// Scratch for the length of a scope.
class Buffer {
 public:
  explicit Buffer(i64 floats)
      : data_(static_cast<float*>(
            evergrad_pool_alloc(static_cast<std::size_t>(floats) * sizeof(float)))) {}
  ~Buffer() { evergrad_pool_free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  float* get() const { return data_; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  float* data_;
};

}  // namespace evergrad
