// SPDX-License-Identifier: BSD-3-Clause
// What went wrong with registrations: they run while a library is loaded, and can't say it.
#pragma once

#include <string>

namespace e2 {

// Why a class was not registered since the last call; empty where all were.
std::string take_refusal();

}  // namespace e2
