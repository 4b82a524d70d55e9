// SPDX-License-Identifier: BSD-3-Clause
// Arguments that Embark's modules share.
#pragma once

#include <memory>
#include <string>

#include "crypto/address_pool.h"
#include "crypto/site_keys.h"
#include "host/args.h"
#include "host/status.h"

namespace e2 {

// The keys of a receiver, by epoch.
struct KeyRing {
  static constexpr size_t kEpochs = 256;
  std::shared_ptr<const SiteKeys> of[kEpochs];
};

// A SiteKey; `where` names it.
Status read_site_key(const Args& args, const std::string& where,
                     std::shared_ptr<const SiteKeys>& keys, uint8_t& epoch);
// One or more, of different epochs.
Status read_key_ring(const Args& args, const std::string& where, KeyRing& ring);
// Several ProviderAddresses into a new pool.
Status read_pool(const Args& args, const std::string& where, AddressPool& pool);
// src_mac and dst_mac, as a frame starts.
Status read_macs(const Args& args, const std::string& where, uint8_t* macs);

std::string address_text(const Address& address);

}  // namespace e2
