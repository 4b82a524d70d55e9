// SPDX-License-Identifier: BSD-3-Clause
// ACL: passes or drops packets by a list of rules over addresses and ports.
//
// The first rule that holds decides; a packet without a rule is dropped. A prefix tests IPv4 or
// IPv6, whichever it is written in, so a rule with one holds for no packet of the other version; an
// empty prefix holds for any packet, and a rule that tests nothing also for those that are not IP.
// Ports are those of TCP, UDP and SCTP: packets without ports, such as ICMP and fragments other
// than the first, are held by no rule that names one. `established` holds for TCP segments with ACK
// or RST, whatever connection they say to belong to. VLAN tags and IPv6 extension headers are
// looked through.
//
// Family: matching
// Gates: in 1, out 1.
// Arguments: ACLArg
// Commands:
//   add    appends rules, all or none
//   clear  removes all rules: every packet is dropped
// Metadata: none.
// Drop reasons:
//   "rule"     a rule with `drop`
//   "no rule"  no rule holds
// Method: rules of either IP version as columns of words, a batch against one rule at a time with
// vector compares (acl_rules.h), until all packets are decided. Commands change them while packets
// flow (live_table.h).
// Origin: the module of this name in BESS, which knows IPv4 without VLAN tags, ignores
// `established`, and takes what it can't read for 0; the code is new.
#include "host/headers.h"
#include "host/live_table.h"
#include "modules/acl_rules.h"
#include "modules/addresses.h"

namespace e2 {
namespace {

constexpr uint32_t kSourceColumn = 0;       // up to 4 words
constexpr uint32_t kDestinationColumn = 4;  // the same
constexpr uint32_t kPortColumn = 8;         // source port, destination port << 16
constexpr uint32_t kStateColumn = 9;        // 1: ACK or RST
constexpr uint8_t kRstOrAck = 0x14;
constexpr size_t kMaxRules = 1 << 20;

struct Rule {
  AclRule words;
  uint8_t version = 0;  // of its prefixes; 0 without one
  bool tests = false;   // anything at all
};

// ADDRESS/LENGTH into the words from `column` on; `version` is that of the rule so far.
Status read_prefix(const std::string& text, const std::string& where, uint32_t column, Rule& rule) {
  if (text.empty()) return {};
  std::string bytes;
  uint32_t length = 0;
  if (!parse_prefix(text, bytes, length) || text.find('/') == std::string::npos) {
    return Status::invalid(where + " is \"" + text +
                           "\"; must be a prefix such as 192.0.2.0/24 or 2001:db8::/32, or empty");
  }
  const uint8_t version = bytes.size() == 4 ? 4 : 6;
  if (rule.version != 0 && rule.version != version) {
    return Status::invalid(where + " is \"" + text + "\", but src_ip is of the other IP version");
  }
  rule.version = version;
  for (uint32_t w = 0; w < bytes.size() / 4; ++w) {
    const uint32_t bits = length > 32 * w ? length - 32 * w : 0;
    const uint32_t mask = bits == 0 ? 0 : bits >= 32 ? ~0U : ~0U << (32 - bits);
    rule.words.mask[column + w] = __builtin_bswap32(mask);
    uint32_t word;
    std::memcpy(&word, &bytes[size_t{4} * w], sizeof word);
    rule.words.value[column + w] = word & rule.words.mask[column + w];
  }
  return {};
}

Status read_port(const Args& arg, const std::string& where, uint32_t shift, Rule& rule) {
  const uint64_t port = arg.as_uint();
  if (port > 0xffff) {
    return Status::invalid(where + " is " + std::to_string(port) + "; must be 0 to 65535");
  }
  if (port == 0) return {};
  rule.words.value[kPortColumn] |= static_cast<uint32_t>(port) << shift;
  rule.words.mask[kPortColumn] |= 0xffffU << shift;
  rule.tests = true;
  return {};
}

Status read_rule(const Args& args, const std::string& where, Rule& rule) {
  Status status = read_prefix(args["src_ip"].as_string(), where + ".src_ip", kSourceColumn, rule);
  if (status.ok()) {
    status = read_prefix(args["dst_ip"].as_string(), where + ".dst_ip", kDestinationColumn, rule);
  }
  if (status.ok()) status = read_port(args["src_port"], where + ".src_port", 0, rule);
  if (status.ok()) status = read_port(args["dst_port"], where + ".dst_port", 16, rule);
  if (!status.ok()) return status;
  if (args["established"].as_bool()) {
    rule.words.value[kStateColumn] = rule.words.mask[kStateColumn] = 1;
    rule.tests = true;
  }
  rule.tests |= rule.version != 0;
  rule.words.drop = args["drop"].as_bool();
  return {};
}

class Acl final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    rule_drop_ = drop_gate(add_drop_reason("rule"));
    no_rule_ = drop_gate(add_drop_reason("no rule"));
    return append(args, "ACL.rules");
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    AclKeys keys;
    PacketMask v4 = 0;
    PacketMask v6 = 0;
    auto compiled = compiled_.read(ctx);
    if (compiled->reads_l4) {
      read_keys<true>(batch, keys, v4, v6);
    } else {
      read_keys<false>(batch, keys, v4, v6);
    }
    const PacketMask all = mask_of(batch.size);
    const PacketMask other = all & ~(v4 | v6);
    AclVerdict verdict;
    if (v4 != 0) verdict = compiled->v4.scan(keys, v4);
    if (v6 != 0) {
      const AclVerdict more = compiled->v6.scan(keys, v6);
      verdict.passed |= more.passed;
      verdict.dropped |= more.dropped;
    }
    if (other != 0) {
      const AclVerdict more = compiled->other.scan(keys, other);
      verdict.passed |= more.passed;
      verdict.dropped |= more.dropped;
    }
    compiled.release();
    if (verdict.passed == all) {
      emit(ctx, batch);
      return;
    }
    Gate gates[kMaxBatch];
    for (uint32_t i = 0; i < batch.size; ++i) {
      const PacketMask bit = PacketMask{1} << i;
      const Gate dropped = (verdict.dropped & bit) != 0 ? rule_drop_ : no_rule_;
      gates[i] = (verdict.passed & bit) != 0 ? Gate{0} : dropped;
    }
    emit_by_gate(ctx, batch, gates);
  }

  std::string description() const override { return std::to_string(rules_.size()) + " rules"; }

  Status add(const Args& args, Args&) { return append(args, "add: rules"); }

  Status clear(const Args&, Args&) {
    rules_.clear();
    compile();
    return {};
  }

 private:
  // The rules as packets meet them.
  struct Compiled {
    AclRules v4;
    AclRules v6;
    AclRules other;  // for packets that are not IP
    bool reads_l4 = false;
  };

  // Without kL4, where no rule tests more than addresses, packets are parsed as far as IP.
  template <bool kL4>
  static void read_keys(const Batch& batch, AclKeys& keys, PacketMask& v4, PacketMask& v6) {
    for (uint32_t i = 0; i < batch.size; ++i) {
      const uint8_t* data = batch[i]->data();
      const uint32_t len = batch[i]->len();
      Headers h = kL4 ? parse_headers(data, len) : parse_ip_headers(data, len);
      if (kL4) {
        keys.words[kPortColumn][i] = h.sport | static_cast<uint32_t>(h.dport) << 16;
        // tcp_flags are 0 for all but TCP.
        keys.words[kStateColumn][i] = (h.tcp_flags & kRstOrAck) != 0;
      }
      const uint8_t* ip = data + h.l3_off;
      if (h.ip_version == 4) {
        std::memcpy(&keys.words[kSourceColumn][i], ip + 12, 4);
        std::memcpy(&keys.words[kDestinationColumn][i], ip + 16, 4);
        v4 |= PacketMask{1} << i;
      } else if (h.ip_version == 6) {
        for (uint32_t w = 0; w < 4; ++w) {
          std::memcpy(&keys.words[kSourceColumn + w][i], ip + 8 + size_t{4} * w, 4);
          std::memcpy(&keys.words[kDestinationColumn + w][i], ip + 24 + size_t{4} * w, 4);
        }
        v6 |= PacketMask{1} << i;
      }
    }
  }

  Status append(const Args& args, const std::string& where) {
    const Args::List& list = args["rules"].as_list();
    if (rules_.size() + list.size() > kMaxRules) {
      return Status::invalid(where + ": " + std::to_string(rules_.size() + list.size()) +
                             " rules in all; must be at most " + std::to_string(kMaxRules));
    }
    std::vector<Rule> added(list.size());
    for (size_t i = 0; i < list.size(); ++i) {
      Status status = read_rule(list[i], where + "[" + std::to_string(i) + "]", added[i]);
      if (!status.ok()) return status;
    }
    rules_.insert(rules_.end(), added.begin(), added.end());
    compile();
    return {};
  }

  void compile() {
    std::vector<AclRule> v4;
    std::vector<AclRule> v6;
    std::vector<AclRule> other;
    Compiled made;
    for (const Rule& rule : rules_) {
      made.reads_l4 |= (rule.words.mask[kPortColumn] | rule.words.mask[kStateColumn]) != 0;
      if (rule.version != 6) v4.push_back(rule.words);
      if (rule.version != 4) v6.push_back(rule.words);
      if (!rule.tests) other.push_back(rule.words);
    }
    made.v4.assign(v4);
    made.v6.assign(v6);
    made.other.assign(other);
    compiled_.change([&made](Compiled& compiled) { compiled = made; });
  }

  std::vector<Rule> rules_;  // as commands gave them
  Live<Compiled> compiled_;
  Gate rule_drop_ = 0;
  Gate no_rule_ = 0;
};

const ModuleClass kClass = {"ACL",
                            "acl",
                            "passes or drops packets by rules over addresses and ports",
                            "ACLArg",
                            1,
                            1,
                            {{"add", "ACLArg", "EmptyArg", true, command(&Acl::add)},
                             {"clear", "EmptyArg", "EmptyArg", true, command(&Acl::clear)}},
                            make_module<Acl>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
