// SPDX-License-Identifier: BSD-3-Clause
#include "crypto/encrypt_prefixes.h"

#include <algorithm>
#include <string>
#include <unordered_map>

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

uint32_t bits_for(uint32_t sets) {
  uint32_t bits = 0;
  while ((uint64_t{1} << bits) < sets) ++bits;
  return bits;
}

// Where a range begins, or where the values behind it do.
struct Edge {
  Wide at;
  uint32_t rule;
};

// Different numbers of `bits` bits, each choice as likely as any other: the first `count` of a
// shuffle of which only what has been moved is kept.
std::vector<uint32_t> draw(uint32_t count, uint32_t bits, SecretRandom& random) {
  std::vector<uint32_t> drawn(count);
  std::unordered_map<uint32_t, uint32_t> moved;
  const uint64_t all = uint64_t{1} << bits;
  const auto number_at = [&moved](uint32_t place) {
    const auto found = moved.find(place);
    return found == moved.end() ? place : found->second;
  };
  for (uint32_t i = 0; i < count; ++i) {
    const auto place = static_cast<uint32_t>(i + random.below(all - i));
    drawn[i] = number_at(place);
    moved[place] = number_at(i);
  }
  return drawn;
}

struct WideHash {
  size_t operator()(Wide value) const { return static_cast<size_t>(value); }
};

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
  EncryptedPrefixes made;
  made.status = check(ranges, domain_bits, prefix_bits);
  if (made.status.ok()) made.status = check_twice(ranges);
  if (!made.status.ok()) return made;
  made.domain_bits = domain_bits;

  std::vector<Edge> edges;
  std::vector<Wide> ids;
  const Wide end = last_of(domain_bits);
  for (size_t i = 0; i < ranges.size(); ++i) {
    const auto rule = static_cast<uint32_t>(i);
    edges.push_back({ranges[i].first, rule});
    if (ranges[i].last != end) edges.push_back({ranges[i].last + 1, rule});
    const Wide high = random.next();
    ids.push_back(high << 64 | random.next());
  }
  std::sort(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) { return a.at < b.at; });

  // Prefixes stand for the numbers of sets until they are drawn.
  made.rules.resize(ranges.size());
  std::unordered_map<Wide, uint32_t, WideHash> numbers;
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
  const uint32_t needed = bits_for(made.sets);
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
  const std::vector<uint32_t> prefixes = draw(made.sets, made.prefix_bits, random);
  for (EncryptedPrefixes::Interval& interval : made.intervals) {
    interval.prefix = prefixes[interval.prefix];
  }
  return made;
}

}  // namespace e2
