// SPDX-License-Identifier: BSD-3-Clause
#include "modules/return_table.h"

#include <cerrno>
#include <map>
#include <mutex>
#include <utility>

namespace e2 {

bool ReturnTable::init(uint64_t flows, uint64_t timeout_ms) {
  uint64_t buckets = 2;
  while (buckets * kWays < 2 * flows) buckets *= 2;
  bucket_mask_ = buckets - 1;
  capacity_ = flows;
  timeout_ms_ = timeout_ms;
  timeout_ = static_cast<uint16_t>((timeout_ms * 1'000'000 >> 30) + 1);
  return buckets_.allocate(buckets) && lines_.allocate(buckets * kWays);
}

void ReturnTable::note(const uint8_t* encrypted, const Flow& flow, uint16_t now) {
  const uint64_t tag = tag_of(encrypted);
  std::atomic<uint64_t>* chosen = nullptr;
  uint64_t seen = 0;
  uint64_t line_number = 0;
  bool has_room = false;
  uint16_t oldest = 0;
  for (const uint64_t at : {bucket_of(encrypted), other_bucket_of(encrypted)}) {
    for (uint32_t way = 0; way < kWays; ++way) {
      std::atomic<uint64_t>& place = buckets_[at].marks[way];
      const uint64_t mark = place.load(std::memory_order_relaxed);
      if (mark >> kTagShift == tag) {
        uint64_t expected = mark;
        const uint64_t renewed = (mark & ~uint64_t{0xffff}) | now;
        place.compare_exchange_strong(expected, renewed, std::memory_order_relaxed);
        return;
      }
      if (mark == kBusy) continue;
      const bool room = mark == 0 || !alive(mark, now);
      if (has_room || (!room && age(mark, now) < oldest)) continue;
      has_room = room;
      oldest = age(mark, now);
      chosen = &place;
      seen = mark;
      line_number = at * kWays + way;
    }
  }
  // Where another worker is faster, the flow's next packet tries again.
  if (chosen == nullptr ||
      !chosen->compare_exchange_strong(seen, kBusy, std::memory_order_acquire)) {
    return;
  }
  if (!has_room) displaced_.fetch_add(1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  uint64_t words[kLineWords];
  std::memcpy(words, encrypted, 16);
  std::memcpy(words + 2, flow.src, 16);
  std::memcpy(words + 4, flow.dst, 16);
  words[6] = flow.sport | uint64_t{flow.dport} << 16 | uint64_t{flow.protocol} << 32 |
             uint64_t{flow.ipv6} << 40;
  Line& line = lines_[line_number];
  for (uint32_t w = 0; w < kLineWords; ++w) {
    line.words[w].store(words[w], std::memory_order_relaxed);
  }
  const uint64_t version = ((seen >> kVersionShift) + 1) & 0xff;
  chosen->store(tag << kTagShift | version << kVersionShift | now, std::memory_order_release);
}

bool ReturnTable::find(const uint8_t* encrypted, uint8_t protocol, uint16_t now, Flow& flow) const {
  const uint64_t tag = tag_of(encrypted);
  for (const uint64_t at : {bucket_of(encrypted), other_bucket_of(encrypted)}) {
    for (uint32_t way = 0; way < kWays; ++way) {
      const std::atomic<uint64_t>& place = buckets_[at].marks[way];
      const uint64_t mark = place.load(std::memory_order_acquire);
      if (mark >> kTagShift != tag || !alive(mark, now)) continue;
      const Line& line = lines_[at * kWays + way];
      uint64_t words[kLineWords];
      for (uint32_t w = 0; w < kLineWords; ++w) {
        words[w] = line.words[w].load(std::memory_order_relaxed);
      }
      std::atomic_thread_fence(std::memory_order_acquire);
      const uint64_t after = place.load(std::memory_order_relaxed);
      if ((mark ^ after) >> kVersionShift != 0) continue;  // it became another's meanwhile
      uint8_t known[16];
      std::memcpy(known, words, sizeof known);
      if (std::memcmp(known + kPrefixBytes, encrypted + kPrefixBytes,
                      sizeof known - kPrefixBytes) != 0 ||
          static_cast<uint8_t>(words[6] >> 32) != protocol) {
        continue;
      }
      std::memcpy(flow.src, words + 2, 16);
      std::memcpy(flow.dst, words + 4, 16);
      flow.sport = static_cast<uint16_t>(words[6]);
      flow.dport = static_cast<uint16_t>(words[6] >> 16);
      flow.protocol = protocol;
      flow.ipv6 = words[6] >> 40 != 0;
      return true;
    }
  }
  return false;
}

uint64_t ReturnTable::flows(uint16_t now) const {
  uint64_t count = 0;
  for (uint64_t at = 0; at <= bucket_mask_; ++at) {
    for (const std::atomic<uint64_t>& place : buckets_[at].marks) {
      const uint64_t mark = place.load(std::memory_order_relaxed);
      count += mark >> kTagShift != 0 && alive(mark, now);
    }
  }
  return count;
}

Status SharedReturns::make(uint64_t flows, uint64_t timeout_ms, const std::string& where) {
  if (flows > ReturnTable::kMostFlows) {
    return Status::invalid(where + ".max_flows is " + std::to_string(flows) +
                           "; must be between 1 and " + std::to_string(ReturnTable::kMostFlows));
  }
  if (timeout_ms > ReturnTable::kMostTimeoutMs) {
    return Status::invalid(where + ".timeout_ms is " + std::to_string(timeout_ms) +
                           "; must be between 1 and " +
                           std::to_string(ReturnTable::kMostTimeoutMs));
  }
  if (const ReturnTable* const table = get(); table != nullptr) {
    const bool same = (flows == 0 || flows == table->capacity()) &&
                      (timeout_ms == 0 || timeout_ms == table->timeout_ms());
    if (same) return {};
    return Status::error(EEXIST, where + ": another module has made it with max_flows " +
                                     std::to_string(table->capacity()) + " and timeout_ms " +
                                     std::to_string(table->timeout_ms()) +
                                     "; must be the same, or left out");
  }
  auto table = std::make_unique<ReturnTable>();
  if (flows == 0) flows = ReturnTable::kDefaultFlows;
  if (timeout_ms == 0) timeout_ms = ReturnTable::kDefaultTimeoutMs;
  if (!table->init(flows, timeout_ms)) {
    return Status::error(ENOMEM, where + ".max_flows is " + std::to_string(flows) +
                                     ", for which there is no memory; 144 to 288 bytes each");
  }
  owned_ = std::move(table);
  table_.store(owned_.get(), std::memory_order_release);
  return {};
}

std::shared_ptr<SharedReturns> SharedReturns::of(const Host& host, const std::string& name) {
  static std::mutex mutex;
  static std::map<std::pair<const Host*, std::string>, std::weak_ptr<SharedReturns>> all;
  const std::lock_guard<std::mutex> lock(mutex);
  for (auto it = all.begin(); it != all.end();) it = it->second.expired() ? all.erase(it) : ++it;
  std::weak_ptr<SharedReturns>& known = all[{&host, name}];
  std::shared_ptr<SharedReturns> found = known.lock();
  if (found == nullptr) {
    found = std::make_shared<SharedReturns>();
    known = found;
  }
  return found;
}

}  // namespace e2
