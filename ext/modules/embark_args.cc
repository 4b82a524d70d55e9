// SPDX-License-Identifier: BSD-3-Clause
#include "modules/embark_args.h"

#include <algorithm>
#include <cstring>

#include "modules/addresses.h"

namespace e2 {
namespace {

Address as_address(const std::string& bytes) {
  if (bytes.size() == 4) return map_ipv4(load_be32(bytes.data()));
  Address address;
  std::copy(bytes.begin(), bytes.end(), address.begin());
  return address;
}

// A prefix to its first address and how many there are: UINT64_MAX for more than a pool may have.
bool read_pool_prefix(const std::string& text, Address& first, uint64_t& count) {
  std::string bytes;
  uint32_t given = 0;
  if (!parse_prefix(text, bytes, given)) return false;
  first = as_address(bytes);
  const uint32_t host_bits = static_cast<uint32_t>(bytes.size() * 8) - given;
  if (host_bits > 16) {
    count = UINT64_MAX;
    return true;
  }
  count = uint64_t{1} << host_bits;
  return (load_be32(first.data() + 12) & (count - 1)) == 0;
}

}  // namespace

Status read_site_key(const Args& args, const std::string& where,
                     std::shared_ptr<const SiteKeys>& keys, uint8_t& epoch) {
  const uint64_t number = args["epoch"].as_uint();
  if (number >= KeyRing::kEpochs) {
    return Status::invalid(where + ".epoch is " + std::to_string(number) +
                           "; must be within 0..255");
  }
  const std::string& file = args["file"].as_string();
  if (file.empty()) return Status::invalid(where + ".file is missing; must be a key file");
  epoch = static_cast<uint8_t>(number);
  Status status = read_site_keys(file, keys);
  if (!status.ok()) status.message = where + ".file: " + status.message;
  return status;
}

Status read_key_ring(const Args& args, const std::string& where, KeyRing& ring) {
  const Args::List& list = args.as_list();
  if (list.empty()) return Status::invalid(where + " is empty; must have a key");
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string here = where + "[" + std::to_string(i) + "]";
    std::shared_ptr<const SiteKeys> keys;
    uint8_t epoch;
    Status status = read_site_key(list[i], here, keys, epoch);
    if (!status.ok()) return status;
    if (ring.of[epoch] != nullptr) {
      return Status::error(EEXIST, here + ".epoch " + std::to_string(epoch) + " is given twice");
    }
    ring.of[epoch] = std::move(keys);
  }
  return {};
}

Status read_pool(const Args& args, const std::string& where, AddressPool& pool) {
  const Args::List& list = args.as_list();
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string here = where + "[" + std::to_string(i) + "].prefix";
    const std::string& text = list[i]["prefix"].as_string();
    Address address;
    uint64_t count;
    if (!read_pool_prefix(text, address, count)) {
      return Status::invalid(here + " is \"" + text +
                             "\"; must be an address or a prefix such as 192.0.2.0/28");
    }
    if (count > AddressPool::kMaxAddresses - pool.entries().size()) {
      return Status::error(ENOSPC, here + " " + text + ": a pool must have at most " +
                                       std::to_string(AddressPool::kMaxAddresses) + " addresses");
    }
    const uint32_t first = load_be32(address.data() + 12);
    for (uint32_t n = 0; n < count; ++n) {
      store_be32(address.data() + 12, first + n);
      if (!pool.add(address, list[i]["nat"].as_bool())) {
        return Status::error(EEXIST,
                             here + " " + text + ": " + address_text(address) + " is given twice");
      }
    }
  }
  return {};
}

Status read_macs(const Args& args, const std::string& where, uint8_t* macs) {
  uint64_t src = 0;
  uint64_t dst = 0;
  Status status = read_mac(args["src_mac"], where + ".src_mac", src);
  if (status.ok()) status = read_mac(args["dst_mac"], where + ".dst_mac", dst);
  store_be64(macs, dst << 16 | src >> 32);
  store_be32(macs + 8, static_cast<uint32_t>(src));
  return status;
}

std::string address_text(const Address& address) {
  char text[INET6_ADDRSTRLEN];
  const bool ipv4 = is_mapped_ipv4(address);
  inet_ntop(ipv4 ? AF_INET : AF_INET6, address.data() + (ipv4 ? kMappedBytes : 0), text,
            sizeof text);
  return text;
}

}  // namespace e2
