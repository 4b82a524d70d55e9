// SPDX-License-Identifier: BSD-3-Clause
// A file with the interval maps of all four fields, which a controller makes and gateways load.
//
// The maps are what two gateways, and a gateway before and after a restart, must have in common.
// They tell which prefix stands for which addresses, so the file is as secret as a key.
//
//   "E2PM" ‖ version 1 ‖ for source and destination address, source and destination port:
//     bits of the domain ‖ bits of a prefix ‖ number of intervals, 4 bytes ‖
//     for each interval: its last value, 16 bytes ‖ its prefix, 4 bytes
//   ‖ SHA-256 of all before
//
// Numbers are big-endian. Only `intervals`, `domain_bits` and `prefix_bits` of a map are kept.
#pragma once

#include <string>
#include <vector>

#include "crypto/encrypt_prefixes.h"
#include "host/status.h"

namespace e2 {

constexpr size_t kFileMaps = 4;
using FileMaps = std::vector<EncryptedPrefixes>;  // kFileMaps of them

// The contents; maps that have other domains than their fields are refused.
Status encode_prefix_maps(const std::vector<const EncryptedPrefixes*>& maps, std::string& bytes);
Status decode_prefix_maps(const std::string& bytes, FileMaps& maps);

// The file: replaced as a whole or not at all, private to its owner (0600).
Status write_prefix_maps(const std::string& path,
                         const std::vector<const EncryptedPrefixes*>& maps);
// EACCES where others can use it too.
Status read_prefix_maps(const std::string& path, FileMaps& maps);

}  // namespace e2
