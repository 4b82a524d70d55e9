// SPDX-License-Identifier: BSD-3-Clause
// NAT's state: what its packets (nat.cc) and its commands (nat_commands.cc) share.
#pragma once

#include <string>

#include "host/module.h"
#include "modules/nat_side.h"

namespace e2 {

class NAT final : public Module {
 public:
  Status init(Host&, const Args& args) override;
  void process(Context& ctx, Batch& batch, Gate in_gate) override;
  std::string description() const override;

  Status get_initial_arg(const Args& args, Args& response);
  Status runtime_config(const Args& args, Args& response);
  Status get_mappings(const Args& args, Args& response);
  Status set_mappings(const Args& args, Args& response);
  Status replace_mappings(const Args& args, Args& response);

 private:
  // The time of the latest packet, or that of the clock where it is later.
  uint64_t now_ns() const { return std::max(now_ns_, clock_ns()); }

  NatSide<Ipv4Family> ipv4_;
  NatSide<Ipv6Family> ipv6_;
  NatDrops drops_;
  Args initial_arg_;
  uint64_t now_ns_ = 0;
};

}  // namespace e2
