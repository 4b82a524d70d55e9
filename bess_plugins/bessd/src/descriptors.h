// SPDX-License-Identifier: BSD-3-Clause
// What the build puts into each plugin: its message types, and the daemon that it was built for.
#pragma once

#include <cstddef>

namespace e2 {

extern const unsigned char kDescriptorSet[];  // a serialised FileDescriptorSet
extern const size_t kDescriptorSetBytes;
extern const char kDaemonVersion[];

}  // namespace e2
