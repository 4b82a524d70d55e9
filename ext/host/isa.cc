// SPDX-License-Identifier: BSD-3-Clause
#include "host/isa.h"

#include <cstdlib>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace e2 {
namespace {

constexpr const char* kNames[] = {"portable", "aesni", "avx2", "avx512"};

// What the CPU has, at whatever level.
IsaExtras cpu_extras() {
  IsaExtras extras;
#if defined(__x86_64__)
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0) {
    extras.aes = (ecx & bit_AES) != 0 && (ecx & bit_PCLMUL) != 0;
  }
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0) {
    extras.vaes = extras.aes && (ecx & bit_VAES) != 0 && (ecx & bit_VPCLMULQDQ) != 0;
    extras.gfni = (ecx & bit_GFNI) != 0;
  }
#endif
  return extras;
}

struct Choice {
  Isa isa = Isa::kPortable;
  IsaExtras extras;
  Status status;
};

Choice choose_level() {
  const char* wanted = std::getenv("E2_ISA");
  const Isa best = best_isa();
  if (wanted == nullptr || *wanted == '\0') return {best, {}, {}};
  for (size_t level = 0; level < sizeof kNames / sizeof *kNames; ++level) {
    if (std::string(wanted) != kNames[level]) continue;
    if (level <= static_cast<size_t>(best)) return {static_cast<Isa>(level), {}, {}};
    return {Isa::kPortable,
            {},
            Status::invalid("E2_ISA is '" + std::string(wanted) +
                            "', which this CPU does not have; at most '" + isa_name(best) +
                            "' works here")};
  }
  return {Isa::kPortable,
          {},
          Status::invalid("E2_ISA is '" + std::string(wanted) +
                          "'; must be portable, aesni, avx2 or avx512")};
}

Choice choose() {
  Choice made = choose_level();
  const IsaExtras extras = cpu_extras();
  made.extras.aes = extras.aes && made.isa >= Isa::kAesni;
  made.extras.vaes = extras.vaes && made.isa == Isa::kAvx512;
  made.extras.gfni = extras.gfni && made.isa == Isa::kAvx512;
  return made;
}

const Choice& choice() {
  static const Choice made = choose();
  return made;
}

}  // namespace

Isa best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
                    __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2) return avx512 ? Isa::kAvx512 : Isa::kAvx2;
  if (cpu_extras().aes) return Isa::kAesni;
#endif
  return Isa::kPortable;
}

Isa isa() { return choice().isa; }
const IsaExtras& isa_extras() { return choice().extras; }
Status check_isa() { return choice().status; }
const char* isa_name(Isa isa) { return kNames[static_cast<uint8_t>(isa)]; }

}  // namespace e2
