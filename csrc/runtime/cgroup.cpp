#include "runtime/cgroup.h"

#include <cstdio>
#include <cstring>

namespace evergrad {
namespace {

// The quotient of a file's first two numbers, or of the first and `period` where there is no other;
// 0 without a number.
double quota_of(const char* path, double period) {
  std::FILE* file = std::fopen(path, "r");
  if (!file) return 0;
  double quota = 0;
  const int fields = std::fscanf(file, "%lf %lf", &quota, &period);
  std::fclose(file);
  return fields >= 1 && quota > 0 && period > 0 ? quota / period : 0;
}

// Of our group's file in version 2, of the root's (our own, as a container sees it), or else of the
// one in version 1.
double limit(const char* name, const char* path_v1, double period) {
  char line[512], path[640];
  if (std::FILE* file = std::fopen("/proc/self/cgroup", "r")) {
    while (std::fgets(line, sizeof line, file))
      if (std::strncmp(line, "0::", 3) == 0) {
        line[std::strcspn(line, "\n")] = 0;
        std::snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s", line + 3, name);
        if (const double quota = quota_of(path, period)) {
          std::fclose(file);
          return quota;
        }
      }
    std::fclose(file);
  }
  std::snprintf(path, sizeof path, "/sys/fs/cgroup/%s", name);
  if (const double quota = quota_of(path, period)) return quota;
  return quota_of(path_v1, period);
}

}  // namespace

double cgroup_cores() { return limit("cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", 100000); }

double cgroup_memory() {
  return limit("memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes", 1);
}

}  // namespace evergrad
