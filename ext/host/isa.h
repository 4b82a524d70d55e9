// SPDX-License-Identifier: BSD-3-Clause
// Which vector instructions the kernels may use: the best that this CPU has, or what E2_ISA names.
//
// A kernel is written once per level, with the level's target attribute, and picked when first
// used:
//
//   void sum_portable(...) { ... }
//   E2_TARGET_AVX2 void sum_avx2(...) { ... }
//   E2_TARGET_AVX512 void sum_avx512(...) { ... }
//   static const Sum sum = pick<Sum>(sum_portable, sum_avx2, sum_avx512);
//
// AES and its relatives come beside the vectors and not with them, so that kernels that need them
// ask isa_extras().
#pragma once

#include <cstdint>

#include "host/status.h"

#if defined(__x86_64__)
#define E2_AVX512 "avx2,bmi,bmi2,fma,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512"
#define E2_TARGET_AESNI [[gnu::target("aes,pclmul,ssse3,sse4.1")]]
#define E2_TARGET_AVX2 [[gnu::target("avx2,bmi,bmi2,fma")]]
#define E2_TARGET_AVX512 [[gnu::target(E2_AVX512)]]
#define E2_TARGET_VAES [[gnu::target(E2_AVX512 ",aes,pclmul,vaes,vpclmulqdq")]]
#endif

#pragma GCC visibility push(default)  // for plugins
namespace e2 {

// kAesni has no vectors beyond the baseline's: to all but cryptography it is kPortable.
enum class Isa : uint8_t { kPortable, kAesni, kAvx2, kAvx512 };

// What a CPU may lack at its level. All are false below the level named.
struct IsaExtras {
  bool aes = false;   // AES-NI and PCLMULQDQ; from kAesni on
  bool vaes = false;  // VAES and VPCLMULQDQ on 512 bits; kAvx512
  bool gfni = false;  // GFNI on 512 bits; kAvx512
};

// Read once. Where E2_ISA is not usable here, check_isa() says why and this is kPortable.
Isa isa();
const IsaExtras& isa_extras();
Status check_isa();
Isa best_isa();  // of this CPU, whatever E2_ISA says
const char* isa_name(Isa isa);

template <typename Function>
Function pick(Function portable, Function avx2, Function avx512) {
  switch (isa()) {
    case Isa::kAvx512:
      return avx512;
    case Isa::kAvx2:
      return avx2;
    default:
      return portable;
  }
}

}  // namespace e2
#pragma GCC visibility pop
