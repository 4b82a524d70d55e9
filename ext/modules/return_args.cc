// SPDX-License-Identifier: BSD-3-Clause
#include "modules/return_args.h"

#include "modules/addresses.h"
#include "modules/embark_args.h"

namespace e2 {
namespace {

constexpr size_t kMostSources = 64;

Args describe(const Address& address, uint64_t port) {
  Args args;
  args.set("address", address_text(address));
  args.set("port", port);
  return args;
}

}  // namespace

Status read_sources(const Args::List& list, const std::string& where,
                    std::vector<EncryptReturns::Prefix>& sources) {
  if (list.size() > kMostSources) {
    return Status::invalid(where + " has " + std::to_string(list.size()) +
                           " prefixes; must have at most " + std::to_string(kMostSources));
  }
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string& text = list[i].as_string();
    std::string bytes;
    uint32_t bits = 0;
    if (!parse_prefix(text, bytes, bits)) {
      return Status::invalid(where + "[" + std::to_string(i) + "] is \"" + text +
                             "\"; must be an address or a prefix such as 10.0.0.0/8");
    }
    EncryptReturns::Prefix prefix = {};
    prefix.ipv6 = bytes.size() == sizeof prefix.bytes;
    std::memcpy(prefix.bytes, bytes.data(), bytes.size());
    for (uint32_t bit = 0; bit < bits; ++bit) {
      prefix.mask[bit / 8] = static_cast<uint8_t>(prefix.mask[bit / 8] | 0x80U >> bit % 8);
    }
    sources.push_back(prefix);
  }
  return {};
}

Status reencrypt_sources(const EncryptPlan& plan, ReturnTable& table, uint64_t now_ns,
                         const Args& args, Args& response) {
  const uint16_t now = ReturnTable::time_of(now_ns);
  const Args::List& list = args["sources"].as_list();
  Args::List mappings;
  uint64_t unknown = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = "reencrypt: sources[" + std::to_string(i) + "]";
    const uint64_t protocol = list[i]["protocol"].as_uint();
    const std::string& text = list[i]["source"]["address"].as_string();
    const uint64_t port = list[i]["source"]["port"].as_uint();
    const std::string bytes = read_address(text);
    if (bytes.size() != sizeof(Address)) {
      return Status::invalid(where + ".source.address is \"" + text +
                             "\"; must be an IPv6 address, as encrypted ones are");
    }
    if (port > UINT16_MAX || protocol > UINT8_MAX) {
      return Status::invalid(where + ": has port " + std::to_string(port) + " and protocol " +
                             std::to_string(protocol) + "; must be at most 65535 and 255");
    }
    Address before;
    std::memcpy(before.data(), bytes.data(), sizeof before);
    ReturnTable::Flow flow;
    if (!table.find(before.data(), static_cast<uint8_t>(protocol), now, flow)) {
      ++unknown;
      continue;
    }
    Address after;
    const uint16_t new_port = encrypt_source(plan, flow, after.data());
    table.note(after.data(), flow, now);
    Args one;
    one.set("protocol", protocol);
    one.set("old", describe(before, port));
    one.set("new", describe(after, new_port));
    mappings.push_back(std::move(one));
  }
  response.set("mappings", std::move(mappings));
  response.set("unknown", unknown);
  return {};
}

}  // namespace e2
