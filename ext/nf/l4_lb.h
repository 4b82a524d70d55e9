// SPDX-License-Identifier: BSD-3-Clause
// L4LB's state: what its packets (l4_lb.cc) and its commands (l4_lb_commands.cc) share.
#pragma once

#include <string>

#include "host/module.h"
#include "modules/flow_aging.h"
#include "nf/l4_lb_services.h"

namespace e2 {

class L4LB final : public Module {
 public:
  Status init(Host&, const Args& args) override;
  void process(Context& ctx, Batch& batch, Gate in_gate) override;
  std::string description() const override;

  Status update(const Args& args, Args& response);
  Status set_health(const Args& args, Args& response);
  Status set_draining(const Args& args, Args& response);
  Status get_status(const Args& args, Args& response);
  Status get_connections(const Args& args, Args& response);
  Status replace_connections(const Args& args, Args& response);

 private:
  struct Clients;

  void to_backends(Batch& batch, uint64_t now, Gate* gates);
  void to_clients(Batch& batch, Gate* gates);
  uint32_t choose(const FlowKey& key, uint64_t place, const LbService& service, uint8_t tcp_flags,
                  uint64_t now);
  void follow(FlowEntry& entry, uint8_t tcp_flags, uint64_t now);
  void note_syn(uint32_t number, uint64_t now);
  void end_flow(uint32_t at) {
    LbBackend& backend = services_.backend(table_[at].gate);
    backend.flows = backend.flows - 1;
    table_.remove(at);
  }
  // For commands; the time that it went by.
  uint64_t end_expired();
  Status read_clients(const Args::List& list, const LbMoves& moves, Clients& clients) const;
  Status find_backend(const Args& args, const std::string& where, LbBackend*& backend) const;

  LbServices services_;
  FlowAging aging_;
  FlowTable table_;
  Field<uint64_t> untracked_{};
  uint64_t syn_failures_ = 0;  // 0: nobody counts
  uint64_t answer_ns_ = 0;
  uint64_t retry_ns_ = 0;
  uint32_t no_backend_ = 0;
  uint32_t fragment_ = 0;
  uint32_t failing_ = 0;  // the event
};

}  // namespace e2
