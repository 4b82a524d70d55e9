// SPDX-License-Identifier: BSD-3-Clause
#include "host/isa.h"

#include <cstdlib>
#include <string>

namespace e2 {
namespace {

constexpr const char* kNames[] = {"portable", "avx2", "avx512"};

Isa best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
                    __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2) return avx512 ? Isa::kAvx512 : Isa::kAvx2;
#endif
  return Isa::kPortable;
}

struct Choice {
  Isa isa = Isa::kPortable;
  Status status;
};

Choice choose() {
  const char* wanted = std::getenv("E2_ISA");
  const Isa best = best_isa();
  if (wanted == nullptr || *wanted == '\0') return {best, {}};
  for (size_t level = 0; level < sizeof kNames / sizeof *kNames; ++level) {
    if (std::string(wanted) != kNames[level]) continue;
    if (level <= static_cast<size_t>(best)) return {static_cast<Isa>(level), {}};
    return {Isa::kPortable, Status::invalid("E2_ISA is '" + std::string(wanted) +
                                            "', which this CPU does not have; at most '" +
                                            isa_name(best) + "' works here")};
  }
  return {Isa::kPortable, Status::invalid("E2_ISA is '" + std::string(wanted) +
                                          "'; must be portable, avx2 or avx512")};
}

const Choice& choice() {
  static const Choice made = choose();
  return made;
}

}  // namespace

Isa isa() { return choice().isa; }
Status check_isa() { return choice().status; }
const char* isa_name(Isa isa) { return kNames[static_cast<uint8_t>(isa)]; }

}  // namespace e2
