// SPDX-License-Identifier: BSD-3-Clause
#include "crypto/address_pool.h"

#include <string>

namespace e2 {
namespace {

constexpr size_t kPrefixBytes = 4;  // no prefix is longer
constexpr size_t kNumberAt = 12;

}  // namespace

Address map_ipv4(uint32_t address) {
  Address mapped = {};
  mapped[10] = mapped[11] = 0xff;
  store_be32(mapped.data() + kMappedBytes, address);
  return mapped;
}

bool is_mapped_ipv4(const Address& address) {
  return address == map_ipv4(load_be32(address.data() + kMappedBytes));
}

AddressPool::AddressPool(const AesKey& key) : slots_(kSlotsPerEntry, kNone) {
  uint8_t block[kAesBlock] = {};
  aes_blocks(key, block, block, 1);
  std::memcpy(&mark_, block, sizeof mark_);
  mask_ = load_be32(block + sizeof mark_);
}

void AddressPool::put(uint32_t entry) {
  Words address;
  std::memcpy(address.of, entries_[entry].clear.data(), sizeof address);
  size_t slot = slot_of(address);
  while (slots_[slot] != kNone) slot = (slot + 1) & (slots_.size() - 1);
  slots_[slot] = entry;
}

bool AddressPool::add(const Address& clear, bool nat) {
  if (find_clear(clear.data()) != kNone) return false;
  const auto number = static_cast<uint32_t>(entries_.size());
  Entry entry = {clear, {}, nat};
  std::memcpy(entry.encrypted.data() + kPrefixBytes, &mark_, sizeof mark_);
  store_be32(entry.encrypted.data() + kNumberAt, number ^ mask_);
  entries_.push_back(entry);
  if (entries_.size() * kSlotsPerEntry > slots_.size()) {
    slots_.assign(slots_.size() * 2, kNone);
    for (uint32_t i = 0; i < number; ++i) put(i);
  }
  put(number);
  return true;
}

void AddressPool::set_prefixes(const PrefixMap& sources, const PrefixMap& destinations) {
  const uint8_t no_flow[kAesBlock] = {};
  for (Entry& entry : entries_) {
    const PrefixMap& map = entry.nat ? sources : destinations;
    uint8_t encrypted[kAesBlock];
    map.encrypt_wide(entry.clear.data(), no_flow, encrypted, 1);
    std::memcpy(entry.encrypted.data(), encrypted, kPrefixBytes);
  }
}

uint32_t AddressPool::find_from(size_t slot, const Words& address) const {
  for (;; slot = (slot + 1) & (slots_.size() - 1)) {
    const uint32_t entry = slots_[slot];
    if (entry == kNone) return kNone;
    if (std::memcmp(entries_[entry].clear.data(), address.of, sizeof address) == 0) return entry;
  }
}

uint32_t AddressPool::find_encrypted(const uint8_t* address) const {
  uint64_t mark;
  std::memcpy(&mark, address + kPrefixBytes, sizeof mark);
  const uint32_t number = load_be32(address + kNumberAt) ^ mask_;
  return mark == mark_ && number < entries_.size() ? number : kNone;
}

Status encrypt_pool(const SiteKeys& keys, const EncryptedPrefixes& sources,
                    const EncryptedPrefixes& destinations,
                    std::vector<AddressPool::Entry>& entries) {
  if (entries.size() > AddressPool::kMaxAddresses) {
    return Status::error(ENOSPC, "a pool must have at most " +
                                     std::to_string(AddressPool::kMaxAddresses) + " addresses");
  }
  AddressPool pool(keys.pool);
  for (size_t i = 0; i < entries.size(); ++i) {
    if (!pool.add(entries[i].clear, entries[i].nat)) {
      return Status::error(EEXIST, "address " + std::to_string(i) + " of the pool is given twice");
    }
  }
  pool.set_prefixes(PrefixMap(sources, keys.field[kSrcAddress]),
                    PrefixMap(destinations, keys.field[kDstAddress]));
  entries = pool.entries();
  return {};
}

}  // namespace e2
