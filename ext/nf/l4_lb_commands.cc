// SPDX-License-Identifier: BSD-3-Clause
// L4LB's commands. All run while no worker does.
#include <cerrno>

#include "modules/addresses.h"
#include "nf/l4_lb.h"

namespace e2 {
uint64_t L4LB::end_expired() {
  const uint64_t now = aging_.now_ns();
  for (uint32_t at = 0; at < table_.end(); ++at) {
    if (table_[at].state != 0 && !aging_.alive(table_[at], now)) end_flow(at);
  }
  return now;
}

Status L4LB::update(const Args& args, Args&) {
  end_expired();
  return services_.read(args["services"].as_list(), "update: services");
}

Status L4LB::find_backend(const Args& args, const std::string& where, LbBackend*& backend) const {
  const std::string& text = args["address"].as_string();
  const std::string bytes = read_address(text);
  if (bytes.empty()) {
    return Status::invalid(where + "address is \"" + text + "\"; must be that of a backend");
  }
  const uint64_t port = args["port"].as_uint();
  const uint64_t proto = args["protocol"].as_uint(kProtoTcp);
  const LbEndpoint wanted =
      LbEndpoint::from(bytes, static_cast<uint16_t>(port), static_cast<uint8_t>(proto));
  for (uint32_t i = 0; i < LbServices::kMostBackends && port <= UINT16_MAX; ++i) {
    backend = &services_.backend(i);
    if (backend->used && backend->endpoint == wanted) return {};
  }
  return Status::error(ENOENT, where + "no backend has address " + text + ", port " +
                                   std::to_string(port) + " and protocol " + std::to_string(proto));
}

Status L4LB::set_health(const Args& args, Args&) {
  LbBackend* backend = nullptr;
  Status status = find_backend(args, "set_health: ", backend);
  if (!status.ok()) return status;
  backend->down = !args["up"].as_bool();
  if (!backend->down) {
    backend->failing = false;
    backend->unanswered_syns = 0;
  }
  return {};
}

Status L4LB::set_draining(const Args& args, Args&) {
  LbBackend* backend = nullptr;
  Status status = find_backend(args, "set_draining: ", backend);
  if (!status.ok()) return status;
  backend->draining = args["draining"].as_bool();
  services_.make_tables();
  return {};
}

Status L4LB::get_status(const Args&, Args& response) {
  end_expired();
  Args::List list;
  for (uint32_t i = 0; i < LbServices::kMostBackends; ++i) {
    const LbBackend& backend = services_.backend(i);
    if (!backend.used) continue;
    Args one;
    one.set("number", static_cast<uint64_t>(i));
    one.set("address", backend.endpoint.address_text());
    one.set("port", static_cast<uint64_t>(backend.endpoint.port()));
    one.set("protocol", static_cast<uint64_t>(backend.endpoint.proto()));
    one.set("virtual_address", backend.virtual_end.address_text());
    one.set("virtual_port", static_cast<uint64_t>(backend.virtual_end.port()));
    one.set("up", !backend.down);
    one.set("failing", static_cast<bool>(backend.failing));
    one.set("draining", backend.draining);
    one.set("removed", backend.removed);
    one.set("flows", static_cast<uint64_t>(backend.flows));
    one.set("connections", static_cast<uint64_t>(backend.connections));
    one.set("unanswered_syns", static_cast<uint64_t>(backend.unanswered_syns));
    list.push_back(std::move(one));
  }
  response.set("backends", std::move(list));
  response.set("flows", static_cast<uint64_t>(table_.size()));
  response.set("max_flows", static_cast<uint64_t>(table_.capacity()));
  response.set("untracked_packets", static_cast<uint64_t>(untracked_));
  return {};
}

}  // namespace e2
