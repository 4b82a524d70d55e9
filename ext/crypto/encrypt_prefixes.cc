// SPDX-License-Identifier: BSD-3-Clause
#include "crypto/encrypt_prefixes.h"

#include <algorithm>
#include <string>
#include <unordered_map>
#include <unordered_set>

namespace e2 {
namespace {

constexpr uint32_t kRoomBits = 2;
constexpr uint32_t kUsualPrefixBits = 16;
constexpr uint32_t kWideDomainBits = 64;
constexpr size_t kMaxRanges = (size_t{1} << 30) - 1;  // intervals are at most twice as many and one

Wide last_of(uint32_t bits) { return bits == kMaxDomainBits ? ~Wide{0} : (Wide{1} << bits) - 1; }

std::string hex(Wide value) {
  std::string digits;
  do {
    digits.insert(digits.begin(), "0123456789abcdef"[static_cast<size_t>(value & 15)]);
    value >>= 4;
  } while (value != 0);
  return "0x" + digits;
}

std::string text(size_t i, const ValueRange& range) {
  return "range " + std::to_string(i) + " (" + hex(range.first) + " to " + hex(range.last) + ")";
}

Status check(const std::vector<ValueRange>& ranges, uint32_t domain_bits, uint32_t prefix_bits) {
  if (domain_bits < 1 || domain_bits > kMaxDomainBits) {
    return Status::invalid("the domain has " + std::to_string(domain_bits) +
                           " bits; must be 1 to " + std::to_string(kMaxDomainBits));
  }
  const uint32_t most = std::min(domain_bits, kMaxPrefixBits);
  if (prefix_bits > most) {
    return Status::invalid("prefixes have " + std::to_string(prefix_bits) +
                           " bits; in a domain of " + std::to_string(domain_bits) +
                           " bits at most " + std::to_string(most));
  }
  if (ranges.size() > kMaxRanges) {
    return Status::error(
        ENOSPC, std::to_string(ranges.size()) + " ranges; at most " + std::to_string(kMaxRanges));
  }
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (ranges[i].first > ranges[i].last) {
      return Status::invalid(text(i, ranges[i]) + " ends before it begins");
    }
    if (ranges[i].last > last_of(domain_bits)) {
      return Status::error(ERANGE, text(i, ranges[i]) + " leaves the domain, which ends at " +
                                       hex(last_of(domain_bits)));
    }
  }
  return {};
}

Status check_twice(const std::vector<ValueRange>& ranges) {
  std::vector<uint32_t> order(ranges.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<uint32_t>(i);
  std::sort(order.begin(), order.end(), [&ranges](uint32_t a, uint32_t b) {
    if (ranges[a].first != ranges[b].first) return ranges[a].first < ranges[b].first;
    if (ranges[a].last != ranges[b].last) return ranges[a].last < ranges[b].last;
    return a < b;
  });
  for (size_t i = 1; i < order.size(); ++i) {
    const ValueRange& before = ranges[order[i - 1]];
    const ValueRange& range = ranges[order[i]];
    if (before.first == range.first && before.last == range.last) {
      return Status::error(EEXIST, text(order[i], range) + " is given twice: it is range " +
                                       std::to_string(order[i - 1]) + " as well");
    }
  }
  return {};
}

// Ranges of one name would cancel each other where they overlap.
Status check_names(const std::vector<ValueRange>& ranges, const std::vector<Wide>& ids) {
  if (ids.size() != ranges.size()) {
    return Status::invalid(std::to_string(ids.size()) + " ids for " +
                           std::to_string(ranges.size()) + " ranges");
  }
  std::vector<uint32_t> order(ranges.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<uint32_t>(i);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return ids[a] != ids[b] ? ids[a] < ids[b] : ranges[a].first < ranges[b].first;
  });
  for (size_t i = 0; i < order.size(); ++i) {
    const uint32_t at = order[i];
    if (ids[at] == 0) return Status::invalid(text(at, ranges[at]) + " has the id 0");
    if (i == 0 || ids[at] != ids[order[i - 1]]) continue;
    if (ranges[at].first <= ranges[order[i - 1]].last) {
      return Status::error(EEXIST, text(at, ranges[at]) + " overlaps range " +
                                       std::to_string(order[i - 1]) + " of the same id");
    }
  }
  return {};
}

using SetPrefixes = std::vector<std::pair<Wide, uint32_t>>;

Status check_kept(const SetPrefixes& kept, uint32_t prefix_bits) {
  if (kept.empty()) return {};
  if (prefix_bits == 0) return Status::invalid("prefixes are kept, but their bits are not given");
  std::unordered_set<uint32_t> seen;
  for (const auto& [id, prefix] : kept) {
    const std::string name = "the prefix " + hex(prefix) + " of set " + hex(id);
    if (prefix >> prefix_bits != 0) {
      return Status::invalid(name + " has more than " + std::to_string(prefix_bits) + " bits");
    }
    if (!seen.insert(prefix).second) return Status::error(EEXIST, name + " is kept twice");
  }
  return {};
}

// The prefixes that may be drawn: those of addresses never begin with 00, fe or ff, where IPv6 has
// loopback, link-local and multicast ones, which no router forwards.
struct Usable {
  uint64_t first;
  uint64_t count;
};

Usable usable(uint32_t domain_bits, uint32_t prefix_bits) {
  if (domain_bits < kMaxDomainBits || prefix_bits < 8) return {0, uint64_t{1} << prefix_bits};
  const uint64_t per_byte = uint64_t{1} << (prefix_bits - 8);
  return {per_byte, 253 * per_byte};
}

uint32_t bits_for(uint32_t sets, uint32_t domain_bits) {
  uint32_t bits = 0;
  while (usable(domain_bits, bits).count < sets) ++bits;
  return bits;
}

// Where a range begins, or where the values behind it do.
struct Edge {
  Wide at;
  uint32_t rule;
};

// Different numbers within `from`, none of them taken (which are within it, ascending), each choice
// as likely as any other: the first `count` of a shuffle of which only what has been moved is kept.
std::vector<uint32_t> draw(uint32_t count, const Usable& from, const std::vector<uint32_t>& taken,
                           SecretRandom& random) {
  std::vector<uint32_t> drawn(count);
  std::unordered_map<uint32_t, uint32_t> moved;
  const uint64_t all = from.count - taken.size();
  const auto number_at = [&moved](uint32_t place) {
    const auto found = moved.find(place);
    return found == moved.end() ? place : found->second;
  };
  for (uint32_t i = 0; i < count; ++i) {
    const auto place = static_cast<uint32_t>(i + random.below(all - i));
    drawn[i] = number_at(place);
    moved[place] = number_at(i);
  }
  for (uint32_t& number : drawn) {
    number += static_cast<uint32_t>(from.first);
    size_t below = 0;  // of those taken, how many are smaller
    for (size_t step = size_t{1} << 31; step > 0; step /= 2) {
      const size_t next = below + step;
      if (next <= taken.size() && taken[next - 1] - (next - 1) <= number) below = next;
    }
    number += static_cast<uint32_t>(below);
  }
  return drawn;
}

struct WideHash {
  size_t operator()(Wide value) const { return static_cast<size_t>(value); }
};

using SetNumbers = std::unordered_map<Wide, uint32_t, WideHash>;

// A prefix for each set, by its number.
std::vector<uint32_t> choose(const SetNumbers& numbers, const SetPrefixes& kept, const Usable& from,
                             SecretRandom& random) {
  std::vector<uint32_t> chosen(numbers.size());
  std::vector<bool> has(numbers.size());
  uint32_t fresh = static_cast<uint32_t>(numbers.size());
  std::vector<uint32_t> taken;
  std::vector<uint32_t> all_kept;
  for (const auto& [id, prefix] : kept) {
    const bool drawable = prefix - from.first < from.count;
    if (drawable) all_kept.push_back(prefix);
    const auto found = numbers.find(id);
    if (found == numbers.end()) continue;
    chosen[found->second] = prefix;
    has[found->second] = true;
    --fresh;
    if (drawable) taken.push_back(prefix);
  }
  if (all_kept.size() + fresh <= from.count) taken = std::move(all_kept);
  std::sort(taken.begin(), taken.end());
  const std::vector<uint32_t> drawn = draw(fresh, from, taken, random);
  size_t next = 0;
  for (size_t i = 0; i < chosen.size(); ++i) {
    if (!has[i]) chosen[i] = drawn[next++];
  }
  return chosen;
}

EncryptedPrefixes encrypt(const std::vector<ValueRange>& ranges, const std::vector<Wide>& ids,
                          const SetPrefixes& kept, uint32_t domain_bits, uint32_t prefix_bits,
                          SecretRandom& random) {
  EncryptedPrefixes made;
  made.domain_bits = domain_bits;

  std::vector<Edge> edges;
  const Wide end = last_of(domain_bits);
  for (size_t i = 0; i < ranges.size(); ++i) {
    const auto rule = static_cast<uint32_t>(i);
    edges.push_back({ranges[i].first, rule});
    if (ranges[i].last != end) edges.push_back({ranges[i].last + 1, rule});
  }
  std::sort(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) { return a.at < b.at; });

  // Prefixes stand for the numbers of sets until they are drawn.
  made.rules.resize(ranges.size());
  SetNumbers numbers;
  Wide set = 0;
  for (size_t i = 0;;) {
    const auto interval = static_cast<uint32_t>(made.intervals.size());
    const Wide first = made.intervals.empty() ? 0 : made.intervals.back().last + 1;
    for (; i < edges.size() && edges[i].at == first; ++i) {
      const uint32_t rule = edges[i].rule;
      set ^= ids[rule];
      if (ranges[rule].first == first) {
        made.rules[rule].first = interval;
      } else {
        made.rules[rule].second = interval - 1;
      }
    }
    const auto number = static_cast<uint32_t>(numbers.size());
    const uint32_t known = numbers.try_emplace(set, number).first->second;
    made.intervals.push_back({i < edges.size() ? edges[i].at - 1 : end, known});
    if (i == edges.size()) break;
  }
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (ranges[i].last == end) {
      made.rules[i].second = static_cast<uint32_t>(made.intervals.size() - 1);
    }
  }

  made.sets = static_cast<uint32_t>(numbers.size());
  const uint32_t needed = bits_for(made.sets, domain_bits);
  made.prefix_bits = prefix_bits;
  if (prefix_bits == 0) {
    const uint32_t usual = domain_bits >= kWideDomainBits ? kUsualPrefixBits : 1;
    made.prefix_bits = std::min({std::max(needed + kRoomBits, usual), domain_bits, kMaxPrefixBits});
  }
  if (needed > made.prefix_bits) {
    made.status = Status::error(ENOSPC, std::to_string(made.sets) +
                                            " different sets of ranges need prefixes of " +
                                            std::to_string(needed) + " bits; " +
                                            (prefix_bits == 0 ? "the domain has " : "these have ") +
                                            std::to_string(made.prefix_bits));
    return made;
  }
  const std::vector<uint32_t> prefixes =
      choose(numbers, kept, usable(domain_bits, made.prefix_bits), random);
  for (EncryptedPrefixes::Interval& interval : made.intervals) {
    interval.prefix = prefixes[interval.prefix];
  }
  for (const auto& [id, number] : numbers) made.set_prefixes.emplace_back(id, prefixes[number]);
  std::sort(made.set_prefixes.begin(), made.set_prefixes.end());
  return made;
}

}  // namespace

std::vector<uint32_t> EncryptedPrefixes::rule(size_t i) const {
  std::vector<uint32_t> prefixes;
  for (size_t at = rules[i].first; at <= rules[i].second; ++at) {
    prefixes.push_back(intervals[at].prefix);
  }
  std::sort(prefixes.begin(), prefixes.end());
  prefixes.erase(std::unique(prefixes.begin(), prefixes.end()), prefixes.end());
  return prefixes;
}

EncryptedPrefixes encrypt_prefixes(const std::vector<ValueRange>& ranges, uint32_t domain_bits,
                                   uint32_t prefix_bits, SecretRandom& random) {
  EncryptedPrefixes refused;
  refused.status = check(ranges, domain_bits, prefix_bits);
  if (refused.status.ok()) refused.status = check_twice(ranges);
  if (!refused.status.ok()) return refused;
  std::vector<Wide> ids;
  for (size_t i = 0; i < ranges.size(); ++i) {
    const Wide high = random.next();
    ids.push_back(high << 64 | random.next());
  }
  return encrypt(ranges, ids, {}, domain_bits, prefix_bits, random);
}

EncryptedPrefixes encrypt_named_prefixes(const std::vector<ValueRange>& ranges,
                                         const RangeNames& names, uint32_t domain_bits,
                                         uint32_t prefix_bits, SecretRandom& random) {
  EncryptedPrefixes refused;
  refused.status = check(ranges, domain_bits, prefix_bits);
  if (refused.status.ok()) refused.status = check_names(ranges, names.ids);
  if (refused.status.ok()) refused.status = check_kept(names.kept, prefix_bits);
  if (!refused.status.ok()) return refused;
  return encrypt(ranges, names.ids, names.kept, domain_bits, prefix_bits, random);
}

}  // namespace e2
