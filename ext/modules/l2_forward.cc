// SPDX-License-Identifier: BSD-3-Clause
// L2Forward: sends frames to the gate of their destination MAC address.
//
// The table is what its commands put in; nothing is learned. Frames to an address that is not in
// it, broadcast and multicast ones too, go to the default gate, which is 8192 (drop) at first.
//
// Family: matching
// Gates: in 1, out 8192.
// Arguments: L2ForwardArg
// Commands:
//   add               adds addresses, all or none; EEXIST where one is there, ENOMEM without room
//   delete            removes addresses, all or none; ENOENT where one is not there
//   set_default_gate  where frames to unknown addresses go
//   lookup            the gates of addresses; ENOENT where one is not there
//   populate          adds consecutive addresses; those that are there keep their gate
// Metadata: none.
// Drop reasons:
//   "unknown address"   gate 8192 as the default
//   "entry"             gate 8192 in an entry
//   "packet too short"  no whole Ethernet header
// Method: a hash table of one word per address (mac_table.h), looked up a batch at a time. Commands
// change it while packets flow (live_table.h).
// Origin: the module of this name in BESS; the code is new. BESS's `populate` puts the first four
// bytes of its base where the last four belong.
#include <algorithm>
#include <atomic>

#include "host/live_table.h"
#include "modules/addresses.h"
#include "modules/gate_args.h"
#include "modules/mac_table.h"

namespace e2 {
namespace {

constexpr uint64_t kDefaultSize = 1024;
constexpr uint64_t kMaxSize = 1ULL << 26;
constexpr uint64_t kMaxBucket = 4;

bool is_power_of_two(uint64_t value) { return value != 0 && (value & (value - 1)) == 0; }

// As the address lies in a frame, in the low bytes of a word.
uint64_t as_word(uint64_t mac) { return __builtin_bswap64(mac << 16); }

class L2Forward final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    unknown_drop_ = drop_gate(add_drop_reason("unknown address"));
    entry_drop_ = drop_gate(add_drop_reason("entry"));
    short_drop_ = drop_gate(add_drop_reason("packet too short"));
    default_gate_ = unknown_drop_;
    const uint64_t size = args["size"].as_uint() == 0 ? kDefaultSize : args["size"].as_uint();
    const uint64_t bucket = args["bucket"].as_uint() == 0 ? kMaxBucket : args["bucket"].as_uint();
    if (!is_power_of_two(size) || size > kMaxSize) {
      return Status::invalid("L2Forward.size is " + std::to_string(size) +
                             "; must be a power of two up to " + std::to_string(kMaxSize));
    }
    if (!is_power_of_two(bucket) || bucket > kMaxBucket) {
      return Status::invalid("L2Forward.bucket is " + std::to_string(bucket) +
                             "; must be 1, 2 or 4");
    }
    return table_.try_change([&](MacTable& table) { return table.init(size * bucket); });
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    Gate gates[kMaxBatch];
    uint64_t frames[kMaxBatch];
    uint64_t places[kMaxBatch];
    const Gate fallback = default_gate_.load(std::memory_order_relaxed);
    bool any_short = false;
    auto table = table_.read(ctx);
    for (uint32_t i = 0; i < batch.size; ++i) {
      const bool whole = batch[i]->len() >= kEthernetBytes;
      any_short |= !whole;
      frames[i] = 0;
      if (whole) std::memcpy(&frames[i], batch[i]->data(), sizeof frames[i]);
      places[i] = table->place(frames[i]);
      table->prefetch(places[i]);
    }
    for (uint32_t i = 0; i < batch.size; ++i) {
      gates[i] = table->find(frames[i], places[i], fallback);
    }
    table.release();
    if (any_short) {
      for (uint32_t i = 0; i < batch.size; ++i) {
        if (batch[i]->len() < kEthernetBytes) gates[i] = short_drop_;
      }
    }
    emit_by_gate(ctx, batch, gates);
  }

  std::string description() const override {
    return std::to_string(table_.look()->size()) + " addresses";
  }

  Status add(const Args& args, Args&) {
    const Args::List& list = args["entries"].as_list();
    std::vector<uint64_t> words(list.size());
    std::vector<Gate> gates(list.size());
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string where = "add: entries[" + std::to_string(i) + "]";
      Status status = read_mac(list[i]["addr"], where + ".addr", words[i]);
      if (status.ok()) status = read_gate(list[i]["gate"], where + ".gate", entry_drop_, gates[i]);
      if (!status.ok()) return status;
      words[i] = as_word(words[i]);
    }
    std::vector<uint64_t> sorted = words;
    std::sort(sorted.begin(), sorted.end());
    return table_.try_change([&](MacTable& table) {
      for (size_t i = 0; i < list.size(); ++i) {
        const auto range = std::equal_range(sorted.begin(), sorted.end(), words[i]);
        if (!table.has(words[i]) && range.second - range.first == 1) continue;
        return Status::error(EEXIST, "add: entries[" + std::to_string(i) + "].addr " +
                                         list[i]["addr"].as_string() + " is there already");
      }
      Status status = check_room(table, "add", list.size());
      if (!status.ok()) return status;
      for (size_t i = 0; i < words.size(); ++i) table.add(words[i], gates[i]);
      return Status{};
    });
  }

  Status remove(const Args& args, Args&) {
    std::vector<uint64_t> words;
    Status status = read_known(*table_.look(), args["addrs"].as_list(), "delete: addrs", words);
    if (!status.ok()) return status;
    std::sort(words.begin(), words.end());
    if (std::adjacent_find(words.begin(), words.end()) != words.end()) {
      return Status::error(ENOENT, "delete: addrs has an address twice");
    }
    table_.change([&words](MacTable& table) {
      for (const uint64_t word : words) table.erase(word);
    });
    return {};
  }

  Status set_default_gate(const Args& args, Args&) {
    Gate gate = 0;
    Status status = read_gate(args["gate"], "set_default_gate: gate", unknown_drop_, gate);
    if (status.ok()) default_gate_.store(gate, std::memory_order_relaxed);
    return status;
  }

  Status lookup(const Args& args, Args& response) {
    const auto table = table_.look();
    std::vector<uint64_t> words;
    Status status = read_known(*table, args["addrs"].as_list(), "lookup: addrs", words);
    if (!status.ok()) return status;
    Args::List gates;
    for (const uint64_t word : words) {
      gates.emplace_back(gate_number(table->find(word, table->place(word), 0)));
    }
    response.set("gates", std::move(gates));
    return {};
  }

  Status populate(const Args& args, Args&) {
    uint64_t base = 0;
    Status status = read_mac(args["base"], "populate: base", base);
    if (!status.ok()) return status;
    const int64_t count = args["count"].as_int();
    const int64_t gate_count = args["gate_count"].as_int();
    const uint64_t capacity = table_.look()->capacity();
    if (count < 0 || static_cast<uint64_t>(count) > capacity) {
      return Status::invalid("populate: count is " + std::to_string(count) +
                             "; must be 0 to the table's " + std::to_string(capacity));
    }
    if (gate_count < 1 || gate_count > kMaxGates) {
      return Status::invalid("populate: gate_count is " + std::to_string(gate_count) +
                             "; must be 1 to " + std::to_string(kMaxGates));
    }
    return table_.try_change([&](MacTable& table) {
      std::vector<std::pair<uint64_t, Gate>> added;
      for (int64_t i = 0; i < count; ++i) {
        const uint64_t mac = (base + static_cast<uint64_t>(i)) & MacTable::kAddressMask;
        const uint64_t word = as_word(mac);
        if (!table.has(word)) added.emplace_back(word, static_cast<Gate>(i % gate_count));
      }
      Status status = check_room(table, "populate", added.size());
      if (!status.ok()) return status;
      for (const auto& entry : added) table.add(entry.first, entry.second);
      return Status{};
    });
  }

 private:
  static Status check_room(const MacTable& table, const std::string& command, size_t count) {
    if (count <= table.capacity() - table.size()) return {};
    return Status::error(ENOMEM, command + ": the table has " + std::to_string(table.size()) +
                                     " of " + std::to_string(table.capacity()) +
                                     " addresses, no room for " + std::to_string(count));
  }

  // Addresses that are in the table.
  static Status read_known(const MacTable& table, const Args::List& list, const std::string& where,
                           std::vector<uint64_t>& words) {
    words.resize(list.size());
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string item = where + "[" + std::to_string(i) + "]";
      Status status = read_mac(list[i], item, words[i]);
      if (!status.ok()) return status;
      words[i] = as_word(words[i]);
      if (!table.has(words[i])) {
        return Status::error(ENOENT, item + " " + list[i].as_string() + " is not in the table");
      }
    }
    return {};
  }

  Live<MacTable> table_;
  std::atomic<Gate> default_gate_{0};
  Gate unknown_drop_ = 0;
  Gate entry_drop_ = 0;
  Gate short_drop_ = 0;
};

const ModuleClass kClass = {
    "L2Forward",
    "l2_forward",
    "classifies packets with destination MAC address",
    "L2ForwardArg",
    1,
    kMaxGates,
    {{"add", "L2ForwardCommandAddArg", "EmptyArg", true, command(&L2Forward::add)},
     {"delete", "L2ForwardCommandDeleteArg", "EmptyArg", true, command(&L2Forward::remove)},
     {"set_default_gate", "L2ForwardCommandSetDefaultGateArg", "EmptyArg", true,
      command(&L2Forward::set_default_gate)},
     {"lookup", "L2ForwardCommandLookupArg", "L2ForwardCommandLookupResponse", true,
      command(&L2Forward::lookup)},
     {"populate", "L2ForwardCommandPopulateArg", "EmptyArg", true, command(&L2Forward::populate)}},
    make_module<L2Forward>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
