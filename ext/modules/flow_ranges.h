// SPDX-License-Identifier: BSD-3-Clause
// FlowRanges: disjoint ranges that cover all flow ids, each with a gate.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "modules/gate_args.h"

namespace e2 {

class FlowRanges {
 public:
  static constexpr uint64_t kEnd = uint64_t{1} << 32;
  static constexpr size_t kMostRanges = 4096;

  struct Range {
    uint64_t start;
    uint64_t end;  // the first id behind it
    Gate gate;
  };

  // Reads a list of FlowSteerRange, in any order. Neighbours with one gate become one range.
  Status read(const Args::List& list, const std::string& where, Gate drop) {
    if (list.empty() || list.size() > kMostRanges) {
      return Status::invalid(where + ": has " + std::to_string(list.size()) +
                             " ranges; must have 1 to " + std::to_string(kMostRanges));
    }
    std::vector<Range> ranges(list.size());
    for (size_t i = 0; i < list.size(); ++i) {
      ranges[i] = {list[i]["start"].as_uint(), list[i]["end"].as_uint(), 0};
      const Range& range = ranges[i];
      const std::string at = where + "[" + std::to_string(i) + "]";
      if (range.start >= range.end || range.end > kEnd) {
        return Status::invalid(at + ": is " + text(range) +
                               "; start must be below end, and end at most 4294967296");
      }
      Status status = read_gate(list[i]["gate"], at + ".gate", drop, ranges[i].gate);
      if (!status.ok()) return status;
    }
    std::vector<size_t> order(list.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(),
              [&](size_t a, size_t b) { return ranges[a].start < ranges[b].start; });
    const auto name = [&](size_t i) {
      return where + "[" + std::to_string(i) + "] " + text(ranges[i]);
    };
    if (ranges[order.front()].start != 0) {
      return Status::invalid("nothing covers [0, " + std::to_string(ranges[order.front()].start) +
                             ") before " + name(order.front()) + "; the first must start at 0");
    }
    for (size_t i = 1; i < order.size(); ++i) {
      const Range& before = ranges[order[i - 1]];
      const Range& after = ranges[order[i]];
      if (before.end == after.start) continue;
      return Status::invalid(name(order[i - 1]) + " and " + name(order[i]) +
                             (before.end > after.start ? " overlap" : " leave a gap between them") +
                             "; each must start where another ends");
    }
    if (ranges[order.back()].end != kEnd) {
      return Status::invalid("nothing covers [" + std::to_string(ranges[order.back()].end) +
                             ", 4294967296) behind " + name(order.back()) +
                             "; the last must end at 4294967296");
    }
    std::vector<Range> sorted;
    for (size_t i : order) append(sorted, ranges[i]);
    set(std::move(sorted));
    return {};
  }

  const Range& at(uint32_t id) const {
    return ranges_[static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), id) -
                                       starts_.begin() - 1)];
  }
  Gate gate(uint32_t id) const { return at(id).gate; }
  const std::vector<Range>& list() const { return ranges_; }

  // The same, but that [cut, end), a part of one range, belongs to `gate`.
  FlowRanges split(uint64_t cut, uint64_t end, Gate gate) const {
    std::vector<Range> ranges;
    for (const Range& range : ranges_) {
      if (cut < range.start || cut >= range.end) {
        append(ranges, range);
        continue;
      }
      if (cut > range.start) append(ranges, {range.start, cut, range.gate});
      append(ranges, {cut, end, gate});
      if (end < range.end) append(ranges, {end, range.end, range.gate});
    }
    FlowRanges result;
    result.set(std::move(ranges));
    return result;
  }

 private:
  static std::string text(const Range& range) {
    return "[" + std::to_string(range.start) + ", " + std::to_string(range.end) + ")";
  }
  static void append(std::vector<Range>& to, const Range& range) {
    if (!to.empty() && to.back().gate == range.gate) {
      to.back().end = range.end;
    } else {
      to.push_back(range);
    }
  }
  void set(std::vector<Range> ranges) {
    ranges_ = std::move(ranges);
    starts_.clear();
    for (const Range& range : ranges_) starts_.push_back(static_cast<uint32_t>(range.start));
  }

  std::vector<Range> ranges_;
  std::vector<uint32_t> starts_;
};

}  // namespace e2
