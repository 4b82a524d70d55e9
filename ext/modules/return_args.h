// SPDX-License-Identifier: BSD-3-Clause
// What PrefixMatchEncrypt's arguments and commands say about a table of returns.
#pragma once

#include <string>
#include <vector>

#include "modules/header_encryptor.h"

namespace e2 {

// Prefixes of sources.
Status read_sources(const Args::List& list, const std::string& where,
                    std::vector<EncryptReturns::Prefix>& sources);

// Endpoints that the table knows, by those of the same flows under `plan`, which it knows then too.
Status reencrypt_sources(const EncryptPlan& plan, ReturnTable& table, uint64_t now_ns,
                         const Args& args, Args& response);

}  // namespace e2
