// SPDX-License-Identifier: BSD-3-Clause
// Files with secrets in them: read only where nobody but their owner can use them.
#pragma once

#include <string>

#include "host/status.h"

namespace e2 {

// EACCES where others may read or write it, EFBIG where it has more than `max_bytes`.
Status read_private_file(const std::string& path, size_t max_bytes, std::string& bytes);

}  // namespace e2
