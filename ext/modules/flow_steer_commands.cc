// SPDX-License-Identifier: BSD-3-Clause
// FlowSteer's commands. Those that change something run while no worker does; get_status only reads
// atomic members of entries, beside a worker.
#include <algorithm>
#include <map>
#include <set>

#include "modules/flow_steer.h"

namespace e2 {
namespace {

constexpr uint64_t kDefaultShown = 100;
constexpr uint64_t kNsPerMs = 1'000'000;

struct KeyLess {
  bool operator()(const FlowKey& a, const FlowKey& b) const {
    return std::memcmp(a.words, b.words, sizeof a.words) < 0;
  }
};

Args describe_range(const FlowRanges::Range& range) {
  Args args;
  args.set("start", range.start);
  args.set("end", range.end);
  args.set("gate", gate_number(range.gate));
  return args;
}

std::string indexed(const char* list, size_t i) {
  return std::string(list) + "[" + std::to_string(i) + "]";
}

}  // namespace

Status FlowSteer::read_update(const Args& args, uint64_t now, Change& change) {
  const Args::List& ranges = args["ranges"].as_list();
  const Args::List& add = args["add_exceptions"].as_list();
  const Args::List& remove = args["remove_exceptions"].as_list();
  if (ranges.empty() && add.empty() && remove.empty()) {
    return Status::invalid(
        "update: has nothing to change; must have ranges, add_exceptions or "
        "remove_exceptions");
  }
  change.has_ranges = !ranges.empty();
  if (change.has_ranges) {
    Status status = change.ranges.read(ranges, "update: ranges", gate_drop_);
    if (!status.ok()) return status;
  }
  uint64_t room = table_.capacity() - table_.size();
  std::set<uint32_t> removed;
  for (size_t i = 0; i < remove.size(); ++i) {
    const std::string where = "update: " + indexed("remove_exceptions", i);
    FlowKey key;
    Status status = affinity_.read(remove[i], where, key);
    if (!status.ok()) return status;
    const uint32_t at = table_.find(key, table_.place(key));
    if (at == FlowTable::kNone || (table_[at].state & FlowEntry::kException) == 0 ||
        !aging_.alive(table_[at], now)) {
      return Status::error(ENOENT, where + ": that flow is no exception, or it has ended");
    }
    if (!removed.insert(at).second) {
      return Status::invalid(where + ": is the same flow as one before it; name each once");
    }
    room += (table_[at].state & FlowEntry::kNoId) != 0;
    change.remove.push_back(at);
  }
  std::map<FlowKey, size_t, KeyLess> added;
  uint64_t new_flows = 0;
  for (size_t i = 0; i < add.size(); ++i) {
    const std::string where = "update: " + indexed("add_exceptions", i);
    Change::Exception exception;
    Status status = affinity_.read(add[i]["flow"], where + ".flow", exception.key);
    if (status.ok()) {
      status = read_gate(add[i]["gate"], where + ".gate", gate_drop_, exception.gate);
    }
    if (!status.ok()) return status;
    const auto [same, fresh] = added.emplace(exception.key, i);
    if (!fresh) {
      return Status::invalid(where + ".flow: is the same flow as that of " +
                             indexed("add_exceptions", same->second) + "; name each once");
    }
    const uint32_t at = table_.find(exception.key, table_.place(exception.key));
    new_flows += at == FlowTable::kNone ||
                 ((table_[at].state & FlowEntry::kNoId) != 0 && removed.count(at) != 0);
    change.add.push_back(exception);
  }
  if (new_flows > room) {
    return Status::error(ENOSPC, "update: add_exceptions has " + std::to_string(new_flows) +
                                     " flows that are new, and the table has room for " +
                                     std::to_string(room) + " (max_flows is " +
                                     std::to_string(table_.capacity()) + ")");
  }
  return {};
}

Status FlowSteer::update(const Args& args, Args&) {
  const uint64_t now = aging_.now_ns();
  each_flow(now, [](uint32_t) {});
  Change change;
  Status status = read_update(args, now, change);
  if (!status.ok()) return status;
  for (uint32_t at : change.remove) {
    if ((table_[at].state & FlowEntry::kNoId) != 0) {
      end_flow(at);  // which none of its packets began
      continue;
    }
    end_exception(table_[at]);
    table_[at].gate = ranges_.gate(table_.id(at));
  }
  if (change.has_ranges) {
    ranges_ = std::move(change.ranges);
    set_gates(now);
  }
  for (const Change::Exception& exception : change.add) {
    const uint64_t place = table_.place(exception.key);
    uint32_t at = table_.find(exception.key, place);
    if (at == FlowTable::kNone) {
      const uint32_t id = has_id_attr_ ? 0 : exception.key.id();
      at = add(exception.key, place, id, exception.gate, now);
      if (has_id_attr_) table_[at].state = FlowEntry::kUsed | FlowEntry::kNoId;
    }
    FlowEntry& entry = table_[at];
    end_exception(entry);
    entry.gate = exception.gate;
    entry.used_ns = now;
    entry.state = static_cast<uint8_t>(entry.state | FlowEntry::kException);
  }
  return {};
}

// After a change of ranges: flows that are no exceptions move, and a split's exception is none any
// more where its range has its gate.
void FlowSteer::set_gates(uint64_t now) {
  each_flow(now, [this](uint32_t at) {
    FlowEntry& entry = table_[at];
    const Gate gate = ranges_.gate(table_.id(at));
    if ((entry.state & FlowEntry::kException) == 0) {
      entry.gate = gate;
    } else if (entry.split != 0 && entry.gate == gate) {
      end_exception(entry);
    }
  });
}

Status FlowSteer::split(const Args& args, Args& response) {
  Gate gate = 0;
  Gate new_gate = 0;
  Status status = read_gate(args["gate"], "split: gate", gate_drop_, gate);
  if (status.ok()) status = read_gate(args["new_gate"], "split: new_gate", gate_drop_, new_gate);
  if (!status.ok()) return status;
  const std::vector<FlowRanges::Range>& ranges = ranges_.list();
  if (std::none_of(ranges.begin(), ranges.end(),
                   [gate](const FlowRanges::Range& range) { return range.gate == gate; })) {
    return Status::error(ENOENT, "split: gate " + std::to_string(gate_number(gate)) +
                                     " has no range; get_status tells which gates have one");
  }
  if (gate == new_gate) {
    return Status::invalid("split: new_gate is " + std::to_string(gate_number(gate)) +
                           ", as gate is; must be another");
  }
  const uint64_t cut = args["cut"].as_uint();
  if (cut >= FlowRanges::kEnd || ranges_.gate(static_cast<uint32_t>(cut)) != gate) {
    return Status::invalid("split: cut " + std::to_string(cut) +
                           " is outside of the ranges of "
                           "gate " +
                           std::to_string(gate_number(gate)));
  }
  const uint64_t range_end = ranges_.at(static_cast<uint32_t>(cut)).end;
  const uint64_t end = args["end"].as_uint() == 0 ? range_end : args["end"].as_uint();
  if (end <= cut || end > range_end) {
    return Status::invalid("split: end " + std::to_string(end) + " must be above cut, " +
                           std::to_string(cut) + ", and at most " + std::to_string(range_end) +
                           ", the end of its range");
  }
  FlowRanges changed = ranges_.split(cut, end, new_gate);
  if (changed.list().size() > FlowRanges::kMostRanges) {
    return Status::error(ENOSPC, "split: there are " + std::to_string(ranges.size()) +
                                     " ranges, and at most " +
                                     std::to_string(FlowRanges::kMostRanges) + " are possible");
  }
  const uint64_t now = aging_.now_ns();
  each_flow(now, [](uint32_t) {});
  Split* const split =
      std::find_if(splits_, splits_ + kMostSplits, [](const Split& s) { return s.left == 0; });
  if (split == splits_ + kMostSplits) {
    return Status::error(EBUSY, "split: " + std::to_string(kMostSplits) +
                                    " earlier splits still have exceptions; must be fewer, which "
                                    "time brings, or update");
  }
  split->number = ++splits_made_;
  split->gate = gate;
  split->new_gate = new_gate;
  split->cut = static_cast<uint32_t>(cut);
  split->end = end;
  split->threshold = std::max<uint64_t>(1, args["threshold"].as_uint());
  split->told = false;
  uint64_t left = 0;
  each_flow(now, [&](uint32_t at) {
    if (table_.id(at) < cut || table_.id(at) >= end) return;
    FlowEntry& entry = table_[at];
    const bool exception = (entry.state & FlowEntry::kException) != 0;
    if (!exception) {
      entry.state = static_cast<uint8_t>(entry.state | FlowEntry::kException);
      entry.split = static_cast<uint16_t>(split - splits_ + 1);
      ++left;
    } else if (entry.split != 0 && entry.gate == new_gate) {
      end_exception(entry);
    }
  });
  split->left = left;
  ranges_ = std::move(changed);
  if (left < split->threshold) tell(*split, left);
  response.set("split", split->number);
  response.set("exceptions", left);
  return {};
}

Status FlowSteer::get_status(const Args&, Args& response) {
  struct Count {
    uint64_t flows = 0;
    uint64_t exceptions = 0;
  };
  std::map<uint64_t, Count> counts;
  for (const FlowRanges::Range& range : ranges_.list()) counts[gate_number(range.gate)];
  for (uint64_t gate = 0; gate <= kMaxGates; ++gate) {
    if (packets_[gate] != 0) counts[gate];
  }
  const uint64_t now = aging_.now_ns();
  Count all;
  uint64_t left[kMostSplits] = {};
  for (uint32_t at = 0; at < table_.end(); ++at) {
    const FlowEntry& entry = table_[at];
    const uint8_t state = entry.state;
    if (state == 0 || !aging_.alive(entry, now)) continue;
    const uint64_t exception = (state & FlowEntry::kException) != 0;
    Count& count = counts[gate_number(entry.gate)];
    ++count.flows;
    ++all.flows;
    count.exceptions += exception;
    all.exceptions += exception;
    if (const uint16_t split = entry.split; split != 0) ++left[split - 1];
  }
  Args::List gates;
  for (const auto& [gate, count] : counts) {
    Args entry;
    entry.set("gate", gate);
    entry.set("packets", packets_[gate]);
    entry.set("flows", count.flows);
    entry.set("exceptions", count.exceptions);
    gates.push_back(std::move(entry));
  }
  Args::List ranges;
  for (const FlowRanges::Range& range : ranges_.list()) ranges.push_back(describe_range(range));
  Args::List splits;
  for (uint32_t i = 0; i < kMostSplits; ++i) {
    Split& split = splits_[i];
    if (split.left == 0) continue;
    if (left[i] < split.threshold) tell(split, left[i]);
    if (left[i] == 0) continue;
    Args entry;
    entry.set("split", split.number);
    entry.set("gate", gate_number(split.gate));
    entry.set("new_gate", gate_number(split.new_gate));
    entry.set("cut", static_cast<uint64_t>(split.cut));
    entry.set("end", split.end);
    entry.set("exceptions", left[i]);
    entry.set("threshold", split.threshold);
    splits.push_back(std::move(entry));
  }
  response.set("gates", std::move(gates));
  response.set("ranges", std::move(ranges));
  response.set("splits", std::move(splits));
  response.set("flows", all.flows);
  response.set("exceptions", all.exceptions);
  response.set("max_flows", static_cast<uint64_t>(table_.capacity()));
  response.set("untracked_packets", static_cast<uint64_t>(untracked_));
  return {};
}

Status FlowSteer::get_flows(const Args& args, Args& response) {
  const bool all = !args.has("gate");
  Gate gate = 0;
  if (!all) {
    Status status = read_gate(args["gate"], "get_flows: gate", gate_drop_, gate);
    if (!status.ok()) return status;
  }
  const uint64_t start = args["start"].as_uint();
  const uint64_t end = args["end"].as_uint() == 0 ? FlowRanges::kEnd : args["end"].as_uint();
  const bool every_id = start == 0 && end == FlowRanges::kEnd;
  if (start >= end || end > FlowRanges::kEnd) {
    return Status::invalid("get_flows: start " + std::to_string(start) + " must be below end, " +
                           std::to_string(end) + ", and that at most 4294967296");
  }
  uint64_t limit = args["limit"].as_uint();
  if (limit == 0) limit = kDefaultShown;
  const uint64_t now = aging_.now_ns();
  Args::List flows;
  uint64_t total = 0;
  each_flow(now, [&](uint32_t at) {
    const FlowEntry& entry = table_[at];
    if (!all && entry.gate != gate) return;
    if (!every_id &&
        ((entry.state & FlowEntry::kNoId) != 0 || table_.id(at) < start || table_.id(at) >= end)) {
      return;
    }
    if (++total > limit) return;
    Args flow;
    flow.set("flow", FlowAffinity::describe(table_.key(at)));
    if ((entry.state & FlowEntry::kNoId) == 0) flow.set("id", uint64_t{table_.id(at)});
    flow.set("gate", gate_number(entry.gate));
    flow.set("exception", (entry.state & FlowEntry::kException) != 0);
    flow.set("idle_ms", (now - entry.used_ns) / kNsPerMs);
    flows.push_back(std::move(flow));
  });
  response.set("flows", std::move(flows));
  response.set("total", total);
  return {};
}

}  // namespace e2
