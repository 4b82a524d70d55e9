// SPDX-License-Identifier: BSD-3-Clause
// The searches of IntervalIndex, per instruction set.
#pragma once

#include <cstdint>

#include "crypto/interval_index.h"

namespace e2 {

struct IntervalKernels {
  void (*find_ipv4)(const Ipv4Table& table, const uint32_t* values, uint32_t count, Cell* prefixes);
  void (*find_wide)(const WideTable& table, const uint64_t* high, const uint64_t* low,
                    uint32_t count, Cell* prefixes);
};

const IntervalKernels& interval_kernels();

}  // namespace e2
