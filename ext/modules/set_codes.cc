// SPDX-License-Identifier: BSD-3-Clause
#include "modules/set_codes.h"

#include <algorithm>
#include <numeric>

namespace e2 {
namespace {

constexpr uint32_t kNone = UINT32_MAX;
constexpr uint32_t kMaxDepth = 32;  // so that 64 bits do for 2^31 classes

using Numbers = std::vector<uint32_t>;

uint32_t bits_for(uint64_t count) {
  return count <= 1 ? 0 : 64 - static_cast<uint32_t>(__builtin_clzll(count - 1));
}

// The intervals between the ends of all ranges, sorted into classes.
class Classes {
 public:
  Classes(const std::vector<std::vector<ValueRange>>& sets, Wide domain_last);

  // False where the sets have too many intervals.
  bool split(const std::vector<std::vector<ValueRange>>& sets);
  // The classes in a set, ascending.
  Numbers members(const std::vector<ValueRange>& set);
  std::vector<EncryptedPrefixes::Interval> intervals() const;
  uint32_t count() const { return static_cast<uint32_t>(sizes_.size()); }

 private:
  uint32_t interval_of(Wide value) const {
    return static_cast<uint32_t>(std::lower_bound(ends_.begin(), ends_.end(), value) -
                                 ends_.begin());
  }
  // Fills held_.
  void hold(const std::vector<ValueRange>& set);

  std::vector<Wide> ends_;
  Numbers class_of_;  // each interval
  Numbers sizes_;     // of each class
  Numbers held_;      // the intervals of a set, each once
  Numbers seen_;      // which set was the last to hold each interval
  uint32_t serial_ = 0;
};

Classes::Classes(const std::vector<std::vector<ValueRange>>& sets, Wide domain_last) {
  for (const std::vector<ValueRange>& set : sets) {
    for (const ValueRange& range : set) {
      if (range.first > 0) ends_.push_back(range.first - 1);
      ends_.push_back(range.last);
    }
  }
  ends_.push_back(domain_last);
  std::sort(ends_.begin(), ends_.end());
  ends_.erase(std::unique(ends_.begin(), ends_.end()), ends_.end());
  class_of_.assign(ends_.size(), 0);
  seen_.assign(ends_.size(), 0);
  sizes_.push_back(static_cast<uint32_t>(ends_.size()));
}

void Classes::hold(const std::vector<ValueRange>& set) {
  held_.clear();
  ++serial_;
  for (const ValueRange& range : set) {
    const uint32_t last = interval_of(range.last);
    for (uint32_t i = interval_of(range.first); i <= last; ++i) {
      if (seen_[i] != serial_) held_.push_back(i);
      seen_[i] = serial_;
    }
  }
}

bool Classes::split(const std::vector<std::vector<ValueRange>>& sets) {
  size_t members = 0;
  Numbers counts;
  Numbers becomes;
  Numbers touched;
  for (const std::vector<ValueRange>& set : sets) {
    hold(set);
    members += held_.size();
    if (members > kMaxSetMembers) return false;
    counts.resize(sizes_.size(), 0);
    becomes.resize(sizes_.size(), kNone);
    for (const uint32_t i : held_) ++counts[class_of_[i]];
    for (const uint32_t i : held_) {
      const uint32_t before = class_of_[i];
      if (becomes[before] == kNone) {
        touched.push_back(before);
        const bool whole = counts[before] == sizes_[before];
        becomes[before] = whole ? before : count();
        if (!whole) {
          sizes_[before] -= counts[before];
          sizes_.push_back(counts[before]);
        }
      }
      class_of_[i] = becomes[before];
    }
    for (const uint32_t one : touched) {
      counts[one] = 0;
      becomes[one] = kNone;
    }
    touched.clear();
  }
  return true;
}

Numbers Classes::members(const std::vector<ValueRange>& set) {
  hold(set);
  Numbers found;
  found.reserve(held_.size());
  for (const uint32_t i : held_) found.push_back(class_of_[i]);
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

std::vector<EncryptedPrefixes::Interval> Classes::intervals() const {
  std::vector<EncryptedPrefixes::Interval> found;
  for (size_t i = 0; i < ends_.size(); ++i) {
    if (!found.empty() && found.back().prefix == class_of_[i]) {
      found.back().last = ends_[i];
    } else {
      found.push_back({ends_[i], class_of_[i]});
    }
  }
  return found;
}

// Sets of which any two are disjoint or one holds the other. Node 0 holds all.
class Layer {
 public:
  explicit Layer(uint32_t classes) : around_(classes, 0), nodes_(1) {}

  // The node of a set that is not larger than those before; kNone where it crosses one of them.
  uint32_t insert(const Numbers& members);
  // Gives all nodes their codes; how many bits these have.
  uint32_t number();

  SetTest test(uint32_t node) const;
  // What a class has that is in no smaller node than its own.
  uint64_t code(uint32_t number) const { return nodes_[around_[number]].rest; }

 private:
  struct Node {
    Numbers inside;
    uint32_t size = 0;  // classes
    uint32_t depth = 0;
    uint32_t bits = 0;   // that its parts are told apart by
    uint64_t first = 0;  // code
    uint64_t rest = 0;   // the code of what is in no node inside
  };

  Numbers around_;  // the smallest node around each class
  std::vector<Node> nodes_;
  uint32_t bits_ = 0;
};

uint32_t Layer::insert(const Numbers& members) {
  const uint32_t outer = around_[members.front()];
  for (const uint32_t one : members) {
    if (around_[one] != outer) return kNone;
  }
  const auto size = static_cast<uint32_t>(members.size());
  if (outer != 0 && nodes_[outer].size == size) return outer;  // the same set once more
  if (nodes_[outer].depth == kMaxDepth) return kNone;
  const auto node = static_cast<uint32_t>(nodes_.size());
  nodes_.emplace_back();
  nodes_[node].size = size;
  nodes_[node].depth = nodes_[outer].depth + 1;
  nodes_[outer].inside.push_back(node);
  for (const uint32_t one : members) around_[one] = node;
  return node;
}

uint32_t Layer::number() {
  // Nodes stand behind those that hold them.
  for (size_t n = nodes_.size(); n-- > 0;) {
    Node& node = nodes_[n];
    uint64_t codes = 0;
    uint32_t inside = 0;
    for (const uint32_t part : node.inside) {
      codes += uint64_t{1} << nodes_[part].bits;
      inside += nodes_[part].size;
    }
    const bool rest = n == 0 || inside < node.size;
    node.bits = bits_for(codes + (rest ? 1 : 0));
    std::stable_sort(node.inside.begin(), node.inside.end(),
                     [this](uint32_t a, uint32_t b) { return nodes_[a].bits > nodes_[b].bits; });
  }
  for (Node& node : nodes_) {
    uint64_t next = node.first;
    for (const uint32_t part : node.inside) {
      nodes_[part].first = next;
      next += uint64_t{1} << nodes_[part].bits;
    }
    node.rest = next;
  }
  bits_ = nodes_[0].bits;
  return bits_;
}

SetTest Layer::test(uint32_t node) const {
  SetTest test;
  const uint64_t all = bits_ == 64 ? ~uint64_t{0} : (uint64_t{1} << bits_) - 1;
  test.value = nodes_[node].first;
  test.mask = all & ~((uint64_t{1} << nodes_[node].bits) - 1);
  return test;
}

}  // namespace

SetCodes make_set_codes(const std::vector<std::vector<ValueRange>>& sets, uint32_t domain_bits) {
  SetCodes made;
  const Wide all = domain_bits == kMaxDomainBits ? ~Wide{0} : (Wide{1} << domain_bits) - 1;
  Classes classes(sets, all);
  if (!classes.split(sets)) {
    made.status =
        Status::error(E2BIG, "their ranges overlap too often: all sets together may hold " +
                                 std::to_string(kMaxSetMembers) + " intervals");
    return made;
  }
  std::vector<Numbers> members;
  members.reserve(sets.size());
  for (const std::vector<ValueRange>& set : sets) members.push_back(classes.members(set));
  Numbers order(sets.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return members[a].size() != members[b].size() ? members[a].size() > members[b].size() : a < b;
  });
  std::vector<Layer> layers;
  Numbers nodes(sets.size());
  made.tests.resize(sets.size());
  for (const uint32_t set : order) {
    uint32_t layer = 0;
    nodes[set] = kNone;
    for (; layer < layers.size(); ++layer) {
      nodes[set] = layers[layer].insert(members[set]);
      if (nodes[set] != kNone) break;
    }
    if (nodes[set] == kNone) {
      if (layer == kMaxSetLayers || (layer + size_t{1}) * classes.count() > kMaxSetMembers) {
        made.status = Status::error(
            ENOSPC, "too many cross each other, so that neither holds the other; at most " +
                        std::to_string(kMaxSetLayers) + " may");
        return made;
      }
      layers.emplace_back(classes.count());
      nodes[set] = layers[layer].insert(members[set]);
    }
    made.tests[set].layer = layer;
  }
  for (Layer& layer : layers) made.layers.push_back(layer.number());
  for (SetTest& test : made.tests) {
    const uint32_t layer = test.layer;
    test = layers[layer].test(nodes[static_cast<size_t>(&test - made.tests.data())]);
    test.layer = layer;
  }
  for (uint32_t number = 0; number < classes.count(); ++number) {
    for (const Layer& layer : layers) made.codes.push_back(layer.code(number));
  }
  made.intervals = classes.intervals();
  return made;
}

}  // namespace e2
