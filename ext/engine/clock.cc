// SPDX-License-Identifier: BSD-3-Clause
#include "engine/clock.h"

#include "host/module.h"

namespace e2 {
namespace {

double measure_tsc_hz() {
  const uint64_t start_ns = monotonic_ns();
  const uint64_t start = read_tsc();
  uint64_t now_ns = start_ns;
  while (now_ns - start_ns < 10'000'000) now_ns = monotonic_ns();
  return static_cast<double>(read_tsc() - start) * 1e9 / static_cast<double>(now_ns - start_ns);
}

}  // namespace

double tsc_hz() {
  static const double hz = measure_tsc_hz();
  return hz;
}

uint64_t clock_ns() {
  struct Anchor {
    uint64_t ns = monotonic_ns();
    uint64_t tsc = read_tsc();
    double ns_per_tick = 1e9 / tsc_hz();
  };
  static const Anchor anchor;
  const auto ticks = static_cast<double>(read_tsc() - anchor.tsc);
  return anchor.ns + static_cast<uint64_t>(ticks * anchor.ns_per_tick);
}

}  // namespace e2
