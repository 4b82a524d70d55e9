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
#pragma once

#include <cstdint>

#include "host/status.h"

#if defined(__x86_64__)
#define E2_TARGET_AVX2 [[gnu::target("avx2,bmi,bmi2,fma")]]
#define E2_TARGET_AVX512 \
  [[gnu::target("avx2,bmi,bmi2,fma,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")]]
#endif

namespace e2 {

enum class Isa : uint8_t { kPortable, kAvx2, kAvx512 };

// Read once. Where E2_ISA is not usable here, check_isa() says why and this is kPortable.
Isa isa();
Status check_isa();
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
