#include "runtime/pool.h"

#include <sys/mman.h>
#include <pthread.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>

#include "runtime/cgroup.h"

namespace evergrad {
namespace {

// In front of every buffer, padded to a cache line so that the data keeps its alignment.
struct alignas(64) Header {
  std::size_t bytes;  // of the block behind it: its size class
  Header* next;       // while it is cached
  void* memory;       // what the system gave
};

// Large blocks lie this far into a page. NumPy's lie 16 bytes and PyTorch's 64 bytes into theirs:
// an output just behind its input within the page, as 64 is behind 16, makes each load wait for a
// store that only seems to be to the same place.
constexpr std::size_t large_offset = 512;

constexpr std::size_t huge_page = std::size_t(2) << 20;

// Eight classes between a power of two and the next: at most an eighth is wasted.
int class_of(std::size_t bytes, std::size_t* rounded) {
  const int log2 = 63 - __builtin_clzll(bytes);
  const std::size_t step = std::size_t(1) << (log2 > 3 ? log2 - 3 : 0);
  *rounded = (bytes + step - 1) & ~(step - 1);
  const int log2r = 63 - __builtin_clzll(*rounded);
  const std::size_t stepr = std::size_t(1) << (log2r > 3 ? log2r - 3 : 0);
  return log2r * 8 + static_cast<int>((*rounded - (std::size_t(1) << log2r)) / stepr);
}

// A large block of a class so far above will do where its own has none: each class to itself, a
// training step held a sixth more than was ever in use at once.
constexpr std::size_t large = std::size_t(1) << 18;
constexpr int most_above = 8;

class Pool {
 public:
  Pool() {
    const long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    std::size_t memory =
        pages > 0 && size > 0 ? std::size_t(pages) * std::size_t(size) : huge_page * 1024;
    // What is kept for later must not be what a container is killed for.
    const double ours = cgroup_memory();
    if (ours > 0 && ours < static_cast<double>(memory)) memory = static_cast<std::size_t>(ours);
    cache_limit_ = memory / 4;
  }

  void* alloc(std::size_t bytes) {
    if (bytes > SIZE_MAX / 4) return nullptr;
    std::size_t block;
    const int index = class_of(bytes < 64 ? 64 : bytes, &block);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      const int last = block >= large ? index + most_above : index;
      for (int i = index; i <= last; ++i)
        if (Header* head = free_[i]) {
          free_[i] = head->next;
          stats_.cached_bytes -= head->bytes;
          stats_.live_bytes += head->bytes;
          return head + 1;
        }
    }
    Header* fresh = from_system(block);
    if (!fresh) {
      trim();
      fresh = from_system(block);
      if (!fresh) return nullptr;
    }
    fresh->bytes = block;
    std::lock_guard<std::mutex> lock(mutex_);
    stats_.live_bytes += block;
    ++stats_.system_allocations;
    return fresh + 1;
  }

  void free(void* p) {
    Header* head = static_cast<Header*>(p) - 1;
    std::size_t block;
    const int index = class_of(head->bytes, &block);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stats_.live_bytes -= block;
      if (stats_.cached_bytes + block <= cache_limit_) {
        stats_.cached_bytes += block;
        head->next = free_[index];
        free_[index] = head;
        return;
      }
    }
    std::free(head->memory);
  }

  void trim() {
    std::lock_guard<std::mutex> lock(mutex_);
    for (Header*& head : free_)
      while (head) {
        Header* next = head->next;
        std::free(head->memory);
        head = next;
      }
    stats_.cached_bytes = 0;
  }

  PoolStats stats() {
    std::lock_guard<std::mutex> lock(mutex_);
    return stats_;
  }

  // A fork may happen while another thread holds the lock; the child must not inherit it locked.
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  // The size is not rounded up to whole huge pages, and the last, incomplete one is ordinary: sizes
  // of matrices are often a multiple of a huge page, and the header would cost them a further one.
  static Header* from_system(std::size_t block) {
    const bool huge = block >= 2 * huge_page;
    const std::size_t shift = huge ? large_offset - sizeof(Header) : 0;
    const std::size_t size = shift + sizeof(Header) + block;
    void* p;
    if (posix_memalign(&p, huge ? huge_page : 64, size)) return nullptr;
    if (huge)  // fewer faults, fewer TLB misses; only advice
      madvise(p, size / huge_page * huge_page, MADV_HUGEPAGE);
    Header* head = reinterpret_cast<Header*>(static_cast<char*>(p) + shift);
    head->memory = p;
    return head;
  }

  std::mutex mutex_;
  Header* free_[64 * 8] = {};
  PoolStats stats_ = {};
  std::size_t cache_limit_;
};

// Never destroyed: arrays may outlive the module at interpreter exit.
Pool& pool();
Pool& make_pool() {
  static Pool* p = new Pool;
  pthread_atfork([] { pool().lock(); }, [] { pool().unlock(); }, [] { pool().unlock(); });
  return *p;
}
Pool& pool() {
  static Pool& p = make_pool();
  return p;
}

}  // namespace

PoolStats pool_stats() noexcept { return pool().stats(); }
void pool_trim() noexcept { pool().trim(); }

}  // namespace evergrad

void* evergrad_pool_alloc(size_t bytes) noexcept { return evergrad::pool().alloc(bytes); }

void evergrad_pool_free(void* p) noexcept {
  if (p) evergrad::pool().free(p);
}
