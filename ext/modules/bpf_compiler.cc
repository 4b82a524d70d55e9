// SPDX-License-Identifier: BSD-3-Clause
// BpfFilter's compiler: a recursive-descent parser that emits tests as it goes and patches their
// jumps when it learns where they lead.
#include <algorithm>
#include <cctype>
#include <utility>

#include "modules/bpf_filter.h"
#include "modules/bpf_text.h"

namespace e2 {
namespace {

using Kind = BpfFilter::Kind;
using Direction = BpfFilter::Direction;
using Node = BpfFilter::Node;

constexpr uint32_t kMaxDepth = 100;

enum class Type : uint8_t { kNone, kHost, kNet, kPort, kPortRange, kProto };

struct Qualifiers {
  std::string proto;
  Direction direction = Direction::kEither;
  Type type = Type::kNone;
  bool given = false;
};

// A piece of program: its first test, and the jumps out of it (node * 2 + 1 for an on_false).
struct Piece {
  uint32_t entry = 0;
  std::vector<uint32_t> trues;
  std::vector<uint32_t> falses;
};

class Compiler {
 public:
  explicit Compiler(std::vector<Node>& nodes) : nodes_(nodes) {}

  Status run(const std::string& text) {
    Piece piece;
    Token bad;
    if (!split_tokens(text, tokens_, bad)) {
      fail_at(bad, "expected a word, a number or an operator");
    } else {
      const bool good = tokens_.size() == 1 ? emit(Node(), piece) : read_expression(piece);
      if (good && peek().text != kEnd) fail("expected 'and', 'or' or the end");
    }
    patch(piece.trues, BpfFilter::kAccept);
    patch(piece.falses, BpfFilter::kReject);
    return error_.empty() ? Status() : Status::invalid(error_);
  }

 private:
  bool fail_at(const Token& token, const std::string& message) {
    if (error_.empty()) {
      const std::string at = token.text == kEnd ? token.text : "'" + token.text + "'";
      error_ = "column " + std::to_string(token.column) + ", at " + at + ": " + message;
    }
    return false;
  }
  bool fail(const std::string& message) { return fail_at(peek(), message); }

  const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(next_ + ahead, tokens_.size() - 1)];
  }
  bool accept(const char* text) {
    if (peek().text != text) return false;
    ++next_;
    return true;
  }

  void patch(const std::vector<uint32_t>& jumps, uint32_t target) {
    for (uint32_t jump : jumps) {
      Node& node = nodes_[jump / 2];
      (jump % 2 == 0 ? node.on_true : node.on_false) = target;
    }
  }

  bool emit(const Node& node, Piece& piece) {
    if (nodes_.size() >= BpfFilter::kMaxNodes) return fail("too many tests; split the filter");
    piece.entry = static_cast<uint32_t>(nodes_.size());
    piece.trues = {2 * piece.entry};
    piece.falses = {2 * piece.entry + 1};
    nodes_.push_back(node);
    return true;
  }

  bool read_expression(Piece& piece) {
    if (!read_term(piece)) return false;
    for (;;) {
      const bool is_and = accept("and");
      if (!is_and && !accept("or")) return true;
      Piece right;
      if (!read_term(right)) return false;
      std::vector<uint32_t>& joined = is_and ? piece.trues : piece.falses;
      std::vector<uint32_t>& kept = is_and ? piece.falses : piece.trues;
      const std::vector<uint32_t>& more = is_and ? right.falses : right.trues;
      patch(joined, right.entry);
      joined = is_and ? right.trues : right.falses;
      kept.insert(kept.end(), more.begin(), more.end());
    }
  }

  bool read_term(Piece& piece) {
    if (depth_ >= kMaxDepth) return fail("nested too deeply");
    ++depth_;
    bool good;
    if (accept("not")) {
      good = read_term(piece);
      std::swap(piece.trues, piece.falses);
    } else if (peek().text == "(") {
      good = read_group(piece);
    } else {
      good = read_primitive(piece);
    }
    --depth_;
    return good;
  }

  bool read_group(Piece& piece) {
    ++next_;
    if (!read_expression(piece)) return false;
    return accept(")") || fail("expected 'and', 'or' or ')'");
  }

  bool read_primitive(Piece& piece) {
    Node node;
    if (accept("less")) return take_number(0xffffffff, node.high) && emit_length(node, piece);
    if (accept("greater")) {
      node.high = 0xffffffff;
      return take_number(0xffffffff, node.low) && emit_length(node, piece);
    }
    if (accept("len")) return read_length(piece);
    if (accept("vlan")) {
      node.kind = Kind::kVlan;
      node.high = BpfFilter::kMaxVid;
      if (peek().word && std::isdigit(static_cast<unsigned char>(peek().text[0]))) {
        if (!take_number(BpfFilter::kMaxVid, node.low)) return false;
        node.high = node.low;
      }
      last_.given = false;
      return emit(node, piece);
    }
    Qualifiers qualifiers;
    const Token first = peek();
    if (!read_qualifiers(qualifiers)) return false;
    if (accept("broadcast") || accept("multicast")) {
      if ((!qualifiers.proto.empty() && qualifiers.proto != "ether") ||
          qualifiers.type != Type::kNone || qualifiers.direction != Direction::kEither) {
        return fail_at(first, "only 'ether' can stand before broadcast and multicast");
      }
      const bool all = tokens_[next_ - 1].text == "broadcast";
      node.kind = Kind::kMac;
      node.direction = Direction::kDestination;
      std::memset(node.mask, 0xff, 6);
      std::memset(node.address, 0xff, 6);
      if (!all) {
        const uint8_t group[6] = {1};
        std::memcpy(node.mask, group, 6);
        std::memcpy(node.address, group, 6);
      }
      last_.given = false;
      return emit(node, piece);
    }
    if (!qualifiers.given) {
      if (peek().word && last_.given) return read_value(last_, piece);
      return fail("expected a primitive such as 'tcp', 'port 80' or 'host 10.0.0.1'");
    }
    if (qualifiers.type == Type::kNone && !directed_) {
      last_.given = false;
      return emit_protocol(qualifiers.proto, first, piece);
    }
    last_ = qualifiers;
    return peek().text == "(" ? read_group(piece) : read_value(qualifiers, piece);
  }

  bool read_qualifiers(Qualifiers& q) {
    const size_t start = next_;
    uint32_t ignored = 0;
    directed_ = false;
    const std::string& word = peek().text;
    if (word == "ether" || find_name(kEtherNames, word, ignored) ||
        find_name(kProtoNames, word, ignored)) {
      q.proto = word;
      ++next_;
    }
    const auto opposite = [](const std::string& a, const std::string& b) {
      return (a == "src" && b == "dst") || (a == "dst" && b == "src");
    };
    if (peek().text == "src" || peek().text == "dst") {
      const bool joined =
          (peek(1).text == "and" || peek(1).text == "or") && opposite(peek().text, peek(2).text);
      q.direction = peek().text == "src" ? Direction::kSource : Direction::kDestination;
      if (joined) q.direction = peek(1).text == "and" ? Direction::kBoth : Direction::kEither;
      next_ += joined ? 3 : 1;
      directed_ = true;
    }
    static const struct {
      const char* text;
      Type type;
    } kTypes[] = {{"host", Type::kHost},
                  {"net", Type::kNet},
                  {"port", Type::kPort},
                  {"portrange", Type::kPortRange},
                  {"proto", Type::kProto}};
    const Token at = peek();
    for (const auto& known : kTypes) {
      if (q.type == Type::kNone && accept(known.text)) q.type = known.type;
    }
    q.given = next_ > start;
    const bool ports = q.type == Type::kPort || q.type == Type::kPortRange;
    const bool addresses =
        q.type == Type::kHost || q.type == Type::kNet || (q.type == Type::kNone && directed_);
    const bool is_l4 = find_name(kProtoNames, q.proto, ignored);
    if (ports && !q.proto.empty() && q.proto != "tcp" && q.proto != "udp" && q.proto != "sctp") {
      return fail_at(at, "ports take tcp, udp or sctp before them");
    }
    if (addresses && is_l4) return fail_at(at, "addresses take ether, ip, ip6, arp or rarp");
    if (q.type == Type::kNet && q.proto == "ether") return fail_at(at, "ether has no nets");
    if (q.type == Type::kProto && directed_) return fail_at(at, "a protocol has no direction");
    if (q.type == Type::kProto && (is_l4 || q.proto == "arp" || q.proto == "rarp")) {
      return fail_at(at, "proto takes ether, ip or ip6 before it");
    }
    return true;
  }

  bool take_number(uint64_t most, uint32_t& number) {
    if (!peek().word || !read_number(peek().text, most, number)) {
      return fail("expected a number from 0 to " + std::to_string(most));
    }
    ++next_;
    return true;
  }

  bool emit_length(Node& node, Piece& piece) {
    node.kind = Kind::kLength;
    last_.given = false;
    return emit(node, piece);
  }

  bool read_length(Piece& piece) {
    const std::string op = peek().text;
    if (op != "<" && op != "<=" && op != ">" && op != ">=" && op != "=" && op != "==" &&
        op != "!=") {
      return fail("expected a comparison after len");
    }
    ++next_;
    Node node;
    uint32_t number = 0;
    if (!take_number(0xfffffffe, number)) return false;
    // "<" and "!=" are "not >=" and "not =".
    const bool negated = op == "<" || op == "!=";
    node.low = op == "<=" ? 0 : number;
    node.high = op[0] == '>' || op == "<" ? 0xffffffff : number;
    if (op == ">") ++node.low;
    if (!emit_length(node, piece)) return false;
    if (negated) std::swap(piece.trues, piece.falses);
    return true;
  }

  bool emit_protocol(const std::string& name, const Token& at, Piece& piece) {
    Node node;
    if (find_name(kEtherNames, name, node.low)) {
      node.kind = Kind::kEtherType;
    } else if (find_name(kProtoNames, name, node.low)) {
      node.kind = Kind::kIpProto;
    } else {
      return fail_at(at, "expected host, proto, broadcast or multicast after ether");
    }
    node.high = node.low;
    return emit(node, piece);
  }

  bool read_value(const Qualifiers& q, Piece& piece) {
    if (!peek().word) return fail("expected a value");
    switch (q.type) {
      case Type::kPort:
      case Type::kPortRange:
        return read_port(q, piece);
      case Type::kProto:
        return read_proto(q, piece);
      default:
        return q.proto == "ether" ? read_ether(q, piece) : read_address(q, piece);
    }
  }

  bool read_port(const Qualifiers& q, Piece& piece) {
    Node node;
    node.kind = Kind::kPort;
    node.direction = q.direction;
    uint32_t proto = 0;
    find_name(kProtoNames, q.proto, proto);
    node.proto = static_cast<uint8_t>(proto);
    if (q.type == Type::kPort) {
      if (!take_number(0xffff, node.low)) return false;
      node.high = node.low;
      return emit(node, piece);
    }
    const std::string& text = peek().text;
    const size_t dash = text.find('-');
    if (dash == std::string::npos || !read_number(text.substr(0, dash), 0xffff, node.low) ||
        !read_number(text.substr(dash + 1), 0xffff, node.high) || node.low > node.high) {
      return fail("expected a range of ports such as 1000-2000");
    }
    ++next_;
    return emit(node, piece);
  }

  bool read_proto(const Qualifiers& q, Piece& piece) {
    Node node;
    std::string text = peek().text;
    if (text[0] == '\\') text.erase(0, 1);
    const bool ether = q.proto == "ether";
    node.kind = ether ? Kind::kEtherType : Kind::kIpProto;
    if (q.proto == "ip") node.version = 4;
    if (q.proto == "ip6") node.version = 6;
    const bool known =
        ether ? find_name(kEtherNames, text, node.low) : find_name(kProtoNames, text, node.low);
    if (!known && !read_number(text, ether ? 0xffff : 0xff, node.low)) {
      return fail(ether ? "expected ip, ip6, arp, rarp or a number from 0 to 65535"
                        : "expected tcp, udp, sctp, icmp, icmp6 or a number from 0 to 255");
    }
    ++next_;
    node.high = node.low;
    return emit(node, piece);
  }

  bool read_ether(const Qualifiers& q, Piece& piece) {
    Node node;
    node.kind = Kind::kMac;
    node.direction = q.direction;
    std::memset(node.mask, 0xff, 6);
    if (!read_mac(peek().text, node.address)) {
      return fail("expected a MAC address such as 02:00:00:00:00:01");
    }
    ++next_;
    return emit(node, piece);
  }

  bool read_address(const Qualifiers& q, Piece& piece) {
    const Token at = peek();
    ++next_;
    const bool net =
        q.type == Type::kNet || (q.type == Type::kNone && at.text.find('/') != std::string::npos);
    std::string mask;
    if (net && accept("mask")) {
      mask = peek().text;
      ++next_;
    }
    IpRange range;
    const std::string problem = read_ip_range(at.text, mask, net, range);
    if (!problem.empty()) return fail_at(at, problem);
    if (q.proto == "ip6" ? range.version != 6 : (!q.proto.empty() && range.version != 4)) {
      return fail_at(at, "expected an address of " + q.proto);
    }
    Node node;
    node.kind = Kind::kAddress;
    node.direction = q.direction;
    node.version = range.version;
    uint32_t ether_type = 0;
    find_name(kEtherNames, q.proto, ether_type);
    node.ether_type = static_cast<uint16_t>(ether_type);
    std::memcpy(node.address, range.address, 16);
    std::memcpy(node.mask, range.mask, 16);
    return emit(node, piece);
  }

  std::vector<Node>& nodes_;
  std::vector<Token> tokens_;
  size_t next_ = 0;
  uint32_t depth_ = 0;
  bool directed_ = false;  // the qualifiers read last have a direction
  Qualifiers last_;
  std::string error_;
};

}  // namespace

Status BpfFilter::compile(const std::string& text, BpfFilter& filter) {
  BpfFilter fresh;
  Status status = Compiler(fresh.nodes_).run(text);
  if (status.ok()) filter = std::move(fresh);
  return status;
}

}  // namespace e2
