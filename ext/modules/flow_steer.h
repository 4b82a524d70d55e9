// SPDX-License-Identifier: BSD-3-Clause
// FlowSteer's state: what its packets (flow_steer.cc) and its commands (flow_steer_commands.cc)
// share.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "host/module.h"
#include "modules/flow_aging.h"
#include "modules/flow_ranges.h"
#include "modules/flow_table.h"

namespace e2 {

class FlowSteer final : public Module {
 public:
  Status init(Host&, const Args& args) override;
  void process(Context& ctx, Batch& batch, Gate) override;
  std::string description() const override;

  Status update(const Args& args, Args& response);
  Status split(const Args& args, Args& response);
  Status get_status(const Args& args, Args& response);
  Status get_flows(const Args& args, Args& response);

 private:
  static constexpr uint32_t kMostSplits = 64;

  // Written by commands, but for `left` and `told`.
  struct Split {
    uint64_t number = 0;
    Gate gate = 0;
    Gate new_gate = 0;
    uint32_t cut = 0;
    uint64_t end = 0;
    uint64_t threshold = 0;
    Field<uint64_t> left{};  // exceptions; 0: free for another split
    std::atomic<bool> told{false};
  };
  struct Change {  // what an update does, once all of it is known to work
    FlowRanges ranges;
    bool has_ranges = false;
    struct Exception {
      FlowKey key;
      Gate gate;
    };
    std::vector<Exception> add;
    std::vector<uint32_t> remove;  // entries
  };

  template <bool kSymmetric, bool kIdAttr>
  void steer(Context& ctx, Batch& batch);
  template <bool kIdAttr>
  uint32_t id_of(const Packet& packet, const FlowKey& key) const;
  template <bool kIdAttr>
  uint32_t find_or_add(const Packet& packet, const FlowKey& key, uint64_t place, uint64_t now);
  uint32_t add(const FlowKey& key, uint64_t place, uint32_t id, Gate gate, uint64_t now);
  void note_ends(FlowEntry& entry, uint8_t tcp_flags, bool reverse);

  void end_flow(uint32_t at);
  void end_exception(FlowEntry& entry);
  void tell(Split& split, uint64_t left);
  // Calls f(its number) for each flow that is alive, and ends the others.
  template <typename F>
  void each_flow(uint64_t now, F f) {
    for (uint32_t at = 0; at < table_.end(); ++at) {
      if (table_[at].state == 0) continue;
      if (aging_.alive(table_[at], now)) {
        f(at);
      } else {
        end_flow(at);
      }
    }
  }

  Status read_update(const Args& args, uint64_t now, Change& change);
  void set_gates(uint64_t now);

  FlowAffinity affinity_;
  FlowRanges ranges_;
  FlowTable table_;
  FlowAging aging_;
  Gate other_gate_ = 0;
  Gate gate_drop_ = 0;
  uint32_t few_exceptions_ = 0;  // the event
  bool has_id_attr_ = false;     // else ids come from keys
  Field<uint64_t> untracked_{};
  uint64_t splits_made_ = 0;
  Split splits_[kMostSplits];
  std::unique_ptr<uint64_t[]> packets_;  // by gate number; one writer
  size_t id_attr_ = 0;
};

}  // namespace e2
