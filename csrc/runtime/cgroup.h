// What the control group that we run in leaves us: containers and services are limited so.
#pragma once

namespace evergrad {

// Cores; 0 where there is no limit.
double cgroup_cores();

// Bytes of memory; 0 where there is no limit.
double cgroup_memory();

}  // namespace evergrad
