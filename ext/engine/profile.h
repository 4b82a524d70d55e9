// SPDX-License-Identifier: BSD-3-Clause
// What it costs to account cycles to modules, so that it can be taken out of the figures.
#pragma once

#include "host/module.h"

namespace e2 {

// Measures for less than a millisecond.
ProfileCost measure_profile_cost();

}  // namespace e2
