// SPDX-License-Identifier: BSD-3-Clause
// NetworkMonitor: counts packets and bytes of every flow, in bounded memory.
//
// A flow is source, destination, both ports and protocol, in one direction. Fragments other than
// the first have no ports and count to the flow with ports 0, as do ICMP and other protocols.
// Packets pass unchanged.
//
// Family: network functions
// Gates: in 1, out 1.
// Arguments: NetworkMonitorArg
// Commands:
//   top  the flows with the most bytes; counts of a batch in flight may be missing
// Metadata: none.
// Drop reasons: none.
// Limits: flows stay until the module goes. A flow that finds no place is not followed; its packets
// are in the module's description as "untracked". Bytes are frame bytes as they were on the wire.
// Origin: original to this project.
#include <arpa/inet.h>

#include <algorithm>
#include <atomic>
#include <map>

#include "host/flow_hash.h"
#include "host/module.h"

namespace e2 {
namespace {

constexpr uint64_t kDefaultFlows = 65536;
constexpr uint64_t kMaxFlows = 1u << 22;
constexpr uint64_t kDefaultTop = 10;
constexpr uint32_t kMaxProbes = 64;

// A slot is claimed through `state` and never given back. One that another worker is just filling
// is passed over: then a flow has two slots, which reading adds up.
enum State : uint16_t { kEmpty, kClaimed, kReady };

struct alignas(kCacheLineBytes) Slot {
  std::atomic<uint16_t> state{kEmpty};
  FiveTuple key = {};
  std::atomic<uint64_t> packets{0};
  std::atomic<uint64_t> bytes{0};
};
static_assert(sizeof(Slot) == kCacheLineBytes, "a flow is one cache line");

struct Total {
  uint64_t packets = 0;
  uint64_t bytes = 0;
};

std::string address_text(const uint8_t* address, uint8_t version) {
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(version == 4 ? AF_INET : AF_INET6, address, text, sizeof text);
  return text;
}

struct KeyLess {
  bool operator()(const FiveTuple& a, const FiveTuple& b) const {
    return std::memcmp(&a, &b, sizeof a) < 0;
  }
};

class NetworkMonitor final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    capacity_ = args["flows"].as_uint();
    if (capacity_ == 0) capacity_ = kDefaultFlows;
    if (capacity_ > kMaxFlows) {
      return Status::invalid("NetworkMonitor.flows is " + std::to_string(capacity_) +
                             "; must be between 1 and " + std::to_string(kMaxFlows));
    }
    slot_count_ = 2;
    while (slot_count_ < 2 * capacity_) slot_count_ *= 2;
    slots_ = std::make_unique<Slot[]>(slot_count_);
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    FiveTuple keys[kMaxBatch];
    uint64_t hashes[kMaxBatch];
    uint32_t from[kMaxBatch];
    uint32_t count = 0;
    for (uint32_t i = 0; i < batch.size; i++) {
      const uint8_t* data = batch[i]->data();
      if (!flow_key(data, parse_headers(data, batch[i]->len()), keys[count])) continue;
      hashes[count] = flow_hash(keys[count]);
      __builtin_prefetch(&slots_[hashes[count] & (slot_count_ - 1)], 1);
      from[count++] = i;
    }
    for (uint32_t k = 0; k < count; k++) {
      const Packet* packet = batch[from[k]];
      Slot* slot = find(keys[k], hashes[k]);
      if (slot == nullptr) {
        untracked_.fetch_add(1, std::memory_order_relaxed);
        continue;
      }
      uint32_t bytes = packet->wire_len() != 0 ? packet->wire_len() : packet->len();
      slot->packets.fetch_add(1, std::memory_order_relaxed);
      slot->bytes.fetch_add(bytes, std::memory_order_relaxed);
    }
    emit(ctx, batch);
  }

  Status top(const Args& args, Args& response) {
    uint64_t n = args["n"].as_uint();
    if (n == 0) n = kDefaultTop;
    std::map<FiveTuple, Total, KeyLess> totals;
    for (size_t i = 0; i < slot_count_; i++) {
      const Slot& slot = slots_[i];
      if (slot.state.load(std::memory_order_acquire) != kReady) continue;
      Total& total = totals[slot.key];
      total.packets += slot.packets.load(std::memory_order_relaxed);
      total.bytes += slot.bytes.load(std::memory_order_relaxed);
    }
    std::vector<std::pair<FiveTuple, Total>> flows(totals.begin(), totals.end());
    size_t shown = static_cast<size_t>(std::min<uint64_t>(n, flows.size()));
    auto end = flows.begin() + static_cast<std::ptrdiff_t>(shown);
    std::partial_sort(flows.begin(), end, flows.end(), [](const auto& a, const auto& b) {
      if (a.second.bytes != b.second.bytes) return a.second.bytes > b.second.bytes;
      return KeyLess()(a.first, b.first);
    });
    Args::List list;
    for (auto flow = flows.begin(); flow != end; ++flow) {
      const FiveTuple& key = flow->first;
      list.emplace_back(Args::Map{{"src", address_text(key.src, key.version)},
                                  {"dst", address_text(key.dst, key.version)},
                                  {"sport", uint64_t{key.sport}},
                                  {"dport", uint64_t{key.dport}},
                                  {"proto", uint64_t{key.proto}},
                                  {"packets", flow->second.packets},
                                  {"bytes", flow->second.bytes}});
    }
    response.set("flows", std::move(list));
    response.set("total_flows", uint64_t{flows.size()});
    return {};
  }

  std::string description() const override {
    return std::to_string(used_.load(std::memory_order_relaxed)) + " flows, " +
           std::to_string(untracked_.load(std::memory_order_relaxed)) + " packets untracked";
  }

 private:
  // The flow's slot, claimed if need be; nullptr where there is no place. Never waits.
  Slot* find(const FiveTuple& key, uint64_t hash) {
    for (uint32_t probe = 0; probe < kMaxProbes; probe++) {
      Slot& slot = slots_[(hash + probe) & (slot_count_ - 1)];
      uint16_t state = slot.state.load(std::memory_order_acquire);
      if (state == kReady && slot.key == key) return &slot;
      if (state != kEmpty) continue;
      if (used_.load(std::memory_order_relaxed) >= capacity_) return nullptr;
      if (used_.fetch_add(1, std::memory_order_relaxed) < capacity_) {
        if (slot.state.compare_exchange_strong(state, kClaimed, std::memory_order_relaxed)) {
          slot.key = key;
          slot.state.store(kReady, std::memory_order_release);
          return &slot;
        }
        used_.fetch_sub(1, std::memory_order_relaxed);
        continue;
      }
      used_.fetch_sub(1, std::memory_order_relaxed);
      return nullptr;
    }
    return nullptr;
  }

  std::unique_ptr<Slot[]> slots_;
  uint64_t capacity_ = 0;
  size_t slot_count_ = 0;
  alignas(kCacheLineBytes) std::atomic<uint64_t> used_{0};
  std::atomic<uint64_t> untracked_{0};
};

const ModuleClass kClass = {
    "NetworkMonitor",
    "network_monitor",
    "counts packets and bytes per flow",
    "NetworkMonitorArg",
    1,
    1,
    {{"top", "NetworkMonitorCommandTopArg", "NetworkMonitorCommandTopResponse", true,
      command(&NetworkMonitor::top)}},
    make_module<NetworkMonitor>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
