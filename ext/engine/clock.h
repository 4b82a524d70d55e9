// SPDX-License-Identifier: BSD-3-Clause
// Clocks: a cycle counter for accounting, and its rate.
#pragma once

#include <cstdint>
#include <ctime>

namespace e2 {

inline uint64_t monotonic_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

// The CPU's constant-rate counter; nanoseconds on CPUs where user code can't read one.
inline uint64_t read_tsc() {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  uint64_t ticks;
  asm volatile("mrs %0, cntvct_el0" : "=r"(ticks));
  return ticks;
#else
  return monotonic_ns();
#endif
}

// Ticks of read_tsc() per second, measured once (about 10 ms).
double tsc_hz();

}  // namespace e2
