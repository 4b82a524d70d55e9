// SPDX-License-Identifier: BSD-3-Clause
// Files with secrets in them: read only where nobody but their owner can use them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "host/status.h"

namespace e2 {

// EACCES where others may read or write it, EFBIG where it has more than `max_bytes`.
Status read_private_file(const std::string& path, size_t max_bytes, std::string& bytes);

// What digits stand for, two to a byte; false where they are no hexadecimal digits, or an odd
// number.
bool read_hex(std::string_view digits, uint8_t* bytes);

}  // namespace e2
