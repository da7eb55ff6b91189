#include "runtime/fork.h"

#include <elf.h>
#include <link.h>
#include <pthread.h>

#include <atomic>
#include <cstring>

namespace evergrad {
namespace {

std::atomic<bool> used{false};            // by us
std::atomic<bool> used_by_others{false};  // perhaps
std::atomic<bool> forked{false};

bool begins_with(const char* text, const char* start) {
  return std::strncmp(text, start, std::strlen(start)) == 0;
}

bool is_openmp(const char* library) {
  return begins_with(library, "libgomp") || begins_with(library, "libomp") ||
         begins_with(library, "libiomp");
}

bool lies_in(const dl_phdr_info& object, const void* address) {
  const auto place = reinterpret_cast<ElfW(Addr)>(address) - object.dlpi_addr;
  for (int i = 0; i < object.dlpi_phnum; ++i) {
    const auto& part = object.dlpi_phdr[i];
    if (part.p_type == PT_LOAD && place - part.p_vaddr < part.p_memsz) return true;
  }
  return false;
}

bool needs_openmp(const dl_phdr_info& object) {
  const ElfW(Dyn)* entries = nullptr;
  for (int i = 0; i < object.dlpi_phnum; ++i)
    if (object.dlpi_phdr[i].p_type == PT_DYNAMIC)
      entries = reinterpret_cast<const ElfW(Dyn)*>(object.dlpi_addr + object.dlpi_phdr[i].p_vaddr);
  if (!entries) return false;
  ElfW(Addr) names = 0;
  for (const auto* e = entries; e->d_tag != DT_NULL; ++e)
    if (e->d_tag == DT_STRTAB) names = e->d_un.d_ptr;
  if (!names) return false;
  // glibc has made an address of it, but for objects that it did not load itself.
  if (names < object.dlpi_addr) names += object.dlpi_addr;
  for (const auto* e = entries; e->d_tag != DT_NULL; ++e)
    if (e->d_tag == DT_NEEDED && is_openmp(reinterpret_cast<const char*>(names + e->d_un.d_val)))
      return true;
  return false;
}

// OpenMP cannot be asked whether threads of it wait for this one. So whatever is loaded beside us
// and needs it counts, and a program that we are part of.
int is_other_user(dl_phdr_info* object, std::size_t, void*) {
  const bool is_program = object->dlpi_name[0] == 0;
  return needs_openmp(*object) && (is_program || !lies_in(*object, &used));
}

void before_fork() {
  if (!used.load()) used_by_others.store(dl_iterate_phdr(is_other_user, nullptr) != 0);
}

void in_child() {
  if (used.load() || used_by_others.load()) forked.store(true);
}

// When we are loaded: others may have been used, and fork, before we are.
__attribute__((constructor)) void watch_forks() { pthread_atfork(before_fork, nullptr, in_child); }

}  // namespace

bool is_forked_child() noexcept { return forked.load(std::memory_order_relaxed); }

void threads_are_used() noexcept { used.store(true); }

}  // namespace evergrad
