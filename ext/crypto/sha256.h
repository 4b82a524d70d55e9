// SPDX-License-Identifier: BSD-3-Clause
// SHA-256 (FIPS 180-4), HMAC (RFC 2104) and HKDF (RFC 5869): keys from a key, and whether a file is
// whole. For control operations, not for packets. Constant in time but for lengths.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace e2 {

constexpr size_t kSha256Bytes = 32;
using Sha256Digest = std::array<uint8_t, kSha256Bytes>;

Sha256Digest sha256(std::string_view data);
Sha256Digest hmac_sha256(std::string_view key, std::string_view data);

// HKDF-Extract, then HKDF-Expand to `out_bytes` (at most kSha256Bytes: one block of it).
Sha256Digest hkdf_extract(std::string_view salt, std::string_view key);
void hkdf_expand(const Sha256Digest& extracted, std::string_view info, uint8_t* out,
                 size_t out_bytes);

}  // namespace e2
