// SPDX-License-Identifier: BSD-3-Clause
// MetadataMatch: sends each packet to the gate of the best rule over named fields and metadata.
//
// All terms of a rule must hold; the highest priority wins, and the rule added first among equals.
// A term holds where the packet has the field, and field & mask == value, or min <= field <= max.
// Numbers stand for bytes in network order, in metadata too. Gate 8192 in a rule or as the default
// drops.
//
// | field                       | bits        | the packet has it when                            |
// |-----------------------------|-------------|---------------------------------------------------|
// | eth.src eth.dst             | 48          | its Ethernet header is complete                   |
// | eth.type                    | 16          | the same; the type after all VLAN tags            |
// | vlan.id vlan.pcp            | 12, 3       | it has a VLAN tag; of the outermost               |
// | mpls.label mpls.tc mpls.ttl | 20, 3, 8    | it has an MPLS label; of the outermost            |
// | ip.version ip.dscp ip.ttl   | 4, 6, 8     | it is IPv4 or IPv6; the hop limit                 |
// | ip.fragment                 | 1           | the same; 1 in every fragment of a datagram       |
// | ip.proto                    | 8           | the same, and its extension headers are complete  |
// | ip.src ip.dst ip.tos        | 32, 32, 8   | it is IPv4                                        |
// | ip6.src ip6.dst ip6.tclass  | 128, 128, 8 | it is IPv6                                        |
// | l4.sport l4.dport           | 16          | it has a TCP, UDP or SCTP header                  |
// | tcp.sport tcp.dport         | 16          | it has a TCP header                               |
// | tcp.flags                   | 8           | the same                                          |
// | udp.sport udp.dport         | 16          | it has a UDP header                               |
// | sctp.sport sctp.dport       | 16          | it has an SCTP header                             |
// | icmp.type icmp.code         | 8           | it has an ICMP or ICMPv6 header                   |
// | packet.len                  | 16          | always                                            |
// | raw.OFFSET.SIZE             | 8 to 128    | it has all SIZE (1-16) bytes from OFFSET (0-1024) |
// | meta.NAME                   | 8 to 128    | always; 0 where no module before it writes it     |
//
// Ports and packet.len may have ranges. Any field may be in a set: many ranges of the field's
// values under a name. A rule costs the same whatever sets it names: sets are never multiplied.
//
// Refused, all rules of the command with it: a rule that there is already, whatever its priority
// and gate; two of one priority that differ only in ranges that overlap; a field that is not known,
// or an attribute that the module wasn't made with; a value, mask or range beyond its field; value
// bits outside of the mask; a range of min above max; terms that contradict each other; a set that
// is not known or of another field, that has no ranges, or the name of another one.
//
// Family: matching
// Gates: in 1, out 8192.
// Arguments: MetadataMatchArg
// Commands:
//   add                 adds rules, all or none
//   delete              removes the rules with these terms, all or none; ENOENT where one isn't
//                       there
//   clear               removes all rules; sets stay
//   set_default_gate    where packets go that match no rule
//   get_initial_arg     the sizes of attributes, and the default gate at the start
//   get_runtime_config  the default gate, sets, and the rules in the order in which they were added
//   set_runtime_config  replaces the default gate, all sets and all rules, or nothing
// Metadata: reads each NAME that rules mention or `meta` lists, together 96 bytes at most.
// Drop reasons:
//   "rule"      gate 8192 in a rule
//   "no match"  gate 8192 as the default
// Limits: 1,048,576 rules; what they test fits 16 words of 8 bytes: one each for IPv4 addresses,
// either MAC address, MPLS, 8 bytes of metadata and of the packet, two for the other fields, and
// four for IPv6 addresses. Sets take one for some 64 bits of codes (set_codes.h), besides those of
// their fields: of 10,000 rules' sets one. Up to 512 sets of a field may cross each other, so that
// neither holds the other; all codes together take 14 words at most.
// Method: keys of just the words that rules test; up to 16 rules are all compared, more are looked
// up in a RuleIndex (rule_index.h). That costs a packet O(tables + rules that agree in all bits of
// a table's mask, 8 at most when the index is built): ClassBench's sets of 10,000 rules take 8 to
// 14 tables where tuple space search would take 500 to 1,000. In the worst case, rules that only
// ranges tell apart, all of them are compared. Sets are bits of a code that each value of a field
// has, which takes a lookup for each field that has sets (match_sets.h). A rule added or removed
// costs O(tables), and O(rules * tables * fields) now and then, when the index is built anew.
// Commands change rules while packets flow (live_table.h): a batch meets one whole set of them.
// Origin: original to this project, in the manner of WildcardMatch.
#include "host/live_table.h"
#include "modules/gate_args.h"
#include "modules/match_table.h"

namespace e2 {
namespace {

class MetadataMatch final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    rule_drop_ = drop_gate(add_drop_reason("rule"));
    default_drop_ = drop_gate(add_drop_reason("no match"));
    for (const auto& entry : args["meta"].as_map()) {
      Status status = declare(entry.first, entry.second.as_uint(1));
      if (!status.ok()) return status;
    }
    // Attributes that only rules name have one byte.
    const Args::List& list = args["rules"].as_list();
    for (const Args& rule : list) {
      for (const Args& term : rule["terms"].as_list()) {
        const std::string attr = MatchFields::attr_of(term["field"].as_string());
        if (attr.empty() || fields_.has_attr(attr)) continue;
        Status status = declare(attr, 1);
        if (!status.ok()) return status;
      }
    }
    initial_gate_ = args["default_gate"].as_uint();
    return replace(args, "MetadataMatch.");
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    Gate gates[kMaxBatch];
    auto rules = rules_.read(ctx);
    rules->table.find_batch(*this, batch, rules->fallback, gates);
    rules.release();
    emit_by_gate(ctx, batch, gates);
  }

  std::string description() const override {
    const auto rules = rules_.look();
    const std::string count = std::to_string(rules->table.size()) + " rules";
    const size_t tables = rules->table.tables();
    return tables == 0 ? count : count + " in " + std::to_string(tables) + " tables";
  }

  Status add(const Args& args, Args&) {
    if (args["rules"].as_list().empty()) {
      return Status::invalid("add: rules is empty; give at least one rule");
    }
    std::vector<NamedRule> added;
    const auto sets = rules_.look()->table.sets();
    Status status = read_rules(args["rules"].as_list(), sets.get(), "add: ", added);
    if (!status.ok()) return status;
    return rules_.try_change(
        [&](Rules& rules) { return rules.table.add(added, fields_, place_in("add: ")); });
  }

  Status remove(const Args& args, Args&) {
    const Args::List& list = args["rules"].as_list();
    if (list.empty()) return Status::invalid("delete: rules is empty; give at least one rule");
    std::vector<MatchTests> removed(list.size());
    const auto sets = rules_.look()->table.sets();
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string where = place_in("delete: ")(i);
      Status status = fields_.read(list[i]["terms"].as_list(), sets.get(), where, removed[i]);
      if (!status.ok()) return status;
    }
    return rules_.try_change(
        [&](Rules& rules) { return rules.table.erase(removed, fields_, place_in("delete: ")); });
  }

  Status clear(const Args&, Args&) {
    rules_.change([](Rules& rules) { rules.table.clear(); });
    return {};
  }

  Status set_default_gate(const Args& args, Args&) {
    Gate gate = 0;
    Status status = read_gate(args["gate"], "set_default_gate: gate", default_drop_, gate);
    if (status.ok()) rules_.change([gate](Rules& rules) { rules.fallback = gate; });
    return status;
  }

  Status get_initial_arg(const Args&, Args& response) {
    Args meta{Args::Map{}};
    for (const MatchFields::Attr& attr : fields_.attrs()) {
      meta.set(attr.name, static_cast<uint64_t>(attr.size));
    }
    response.set("default_gate", initial_gate_);
    response.set("meta", std::move(meta));
    return {};
  }

  Status get_runtime_config(const Args&, Args& response) {
    const auto rules = rules_.look();
    Args::List list;
    for (const NamedRule* rule : rules->table.rules()) list.push_back(*rule->text);
    response.set("default_gate", gate_number(rules->fallback));
    response.set("rules", std::move(list));
    const auto& sets = rules->table.sets();
    if (sets != nullptr) response.set("sets", sets->text());
    return {};
  }

  Status set_runtime_config(const Args& args, Args&) {
    return replace(args, "set_runtime_config: ");
  }

 private:
  struct Rules {
    MatchTable table;
    Gate fallback = 0;
  };

  static MatchTable::Where place_in(const std::string& command) {
    return [command](size_t i) { return command + "rules[" + std::to_string(i) + "]"; };
  }

  Status declare(const std::string& name, uint64_t size) {
    return fields_.add_attr(name, size, "MetadataMatch.meta",
                            [&](uint32_t bytes) { return add_attr(name, bytes, Access::kRead); });
  }

  Status read_rules(const Args::List& list, const MatchSets* sets, const std::string& where,
                    std::vector<NamedRule>& rules) const {
    rules.resize(list.size());
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string place = place_in(where)(i);
      NamedRule& rule = rules[i];
      Status status = read_gate(list[i]["gate"], place + ".gate", rule_drop_, rule.gate);
      if (status.ok()) status = fields_.read(list[i]["terms"].as_list(), sets, place, rule.tests);
      if (!status.ok()) return status;
      rule.priority = list[i]["priority"].as_int();
      rule.text = std::make_shared<const Args>(list[i]);
    }
    return {};
  }

  // Makes the new table aside: a batch meets the old one or the new one.
  Status replace(const Args& args, const std::string& where) {
    Rules made;
    Status status =
        read_gate(args["default_gate"], where + "default_gate", default_drop_, made.fallback);
    std::shared_ptr<const MatchSets> sets;
    if (status.ok()) status = MatchSets::read(args["sets"].as_list(), fields_, where, sets);
    std::vector<NamedRule> added;
    if (status.ok()) status = read_rules(args["rules"].as_list(), sets.get(), where, added);
    made.table = MatchTable(std::move(sets));
    if (status.ok()) status = made.table.add(added, fields_, place_in(where));
    if (status.ok()) rules_.change([&made](Rules& rules) { rules = made; });
    return status;
  }

  MatchFields fields_;
  Live<Rules> rules_;
  uint64_t initial_gate_ = 0;
  Gate rule_drop_ = 0;
  Gate default_drop_ = 0;
};

const ModuleClass kClass = {
    "MetadataMatch",
    "metadata_match",
    "sends packets to the gate of the best rule over named fields and metadata",
    "MetadataMatchArg",
    1,
    kMaxGates,
    {{"get_initial_arg", "EmptyArg", "MetadataMatchArg", true,
      command(&MetadataMatch::get_initial_arg)},
     {"get_runtime_config", "EmptyArg", "MetadataMatchConfig", true,
      command(&MetadataMatch::get_runtime_config)},
     {"set_runtime_config", "MetadataMatchConfig", "EmptyArg", true,
      command(&MetadataMatch::set_runtime_config)},
     {"add", "MetadataMatchCommandAddArg", "EmptyArg", true, command(&MetadataMatch::add)},
     {"delete", "MetadataMatchCommandDeleteArg", "EmptyArg", true, command(&MetadataMatch::remove)},
     {"clear", "EmptyArg", "EmptyArg", true, command(&MetadataMatch::clear)},
     {"set_default_gate", "MetadataMatchCommandSetDefaultGateArg", "EmptyArg", true,
      command(&MetadataMatch::set_default_gate)}},
    make_module<MetadataMatch>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
