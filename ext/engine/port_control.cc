// SPDX-License-Identifier: BSD-3-Clause
// The ports of an Engine: making, describing, configuring and closing them.
#include "engine/counters.h"
#include "engine/engine.h"

namespace e2 {
Status Port::configure(const PortConfig& wanted) {
  if (wanted.mac_addr == config.mac_addr && wanted.mtu_bytes == config.mtu_bytes) return {};
  return Status::error(ENOTSUP, std::string("a port of the driver ") + port_class->name +
                                    " can't change its MAC address or MTU");
}

Port* Engine::find_port(const std::string& name) {
  const auto it = ports_.find(name);
  return it == ports_.end() ? nullptr : it->second.get();
}

Status Engine::create_port(const std::string& name, const std::string& driver,
                           const PortShape& shape, const Args& args, Args& created) {
  std::lock_guard<std::mutex> lock(mutex_);
  const PortClass* port_class = find_port_class(driver);
  if (port_class == nullptr) {
    return Status::error(ENOENT, "No port driver '" + driver + "' found");
  }
  if (find_port(name) != nullptr) {
    return Status::error(EEXIST, "Port '" + name + "' already exists");
  }
  const uint32_t most = port_class->max_queues;
  if (shape.in_queues > most || shape.out_queues > most) {
    return Status::invalid(driver + " has at most " +
                           (most == 1 ? "one queue" : std::to_string(most) + " queues") +
                           " each way, but num_inc_q is " + std::to_string(shape.in_queues) +
                           " and num_out_q is " + std::to_string(shape.out_queues));
  }
  std::unique_ptr<Port> port = port_class->make();
  port->name = name;
  port->port_class = port_class;
  port->shape = shape;
  port->shape.packet_bytes = pool_.data_bytes();
  Status status = port->init(port->shape, args);
  if (!status.ok()) return status;
  created.set("mac_addr", port->config.mac_addr);
  ports_[name] = std::move(port);
  return {};
}

Status Engine::destroy_port(const std::string& name) {
  std::lock_guard<std::mutex> lock(mutex_);
  Port* port = find_port(name);
  if (port == nullptr) return Status::error(ENOENT, "No port '" + name + "' found");
  if (port->users != 0) {
    return Status::error(EBUSY, "Port '" + name + "' is used by " + std::to_string(port->users) +
                                    " modules; destroy them first");
  }
  Status status = port->close();
  ports_.erase(name);
  return status;
}

Args Engine::ports() {
  std::lock_guard<std::mutex> lock(mutex_);
  Args::List list;
  for (const auto& entry : ports_) {
    const Port& port = *entry.second;
    Args args;
    args.set("name", entry.first);
    args.set("driver", port.port_class->name);
    args.set("mac_addr", port.config.mac_addr);
    args.set("num_inc_q", static_cast<uint64_t>(port.shape.in_queues));
    args.set("num_out_q", static_cast<uint64_t>(port.shape.out_queues));
    args.set("size_inc_q", static_cast<uint64_t>(port.shape.in_queue_packets));
    args.set("size_out_q", static_cast<uint64_t>(port.shape.out_queue_packets));
    list.push_back(std::move(args));
  }
  return list;
}

Status Engine::port_stats(const std::string& name, Args& stats) {
  std::lock_guard<std::mutex> lock(mutex_);
  const Port* port = find_port(name);
  if (port == nullptr) return Status::error(ENOENT, "No port '" + name + "' found");
  stats.set("inc", port_counts(port->in));
  stats.set("out", port_counts(port->out));
  return {};
}

Status Engine::port_link(const std::string& name, Args& link) {
  std::lock_guard<std::mutex> lock(mutex_);
  const Port* port = find_port(name);
  if (port == nullptr) return Status::error(ENOENT, "No port '" + name + "' found");
  link.set("speed", uint64_t{0});
  link.set("full_duplex", true);
  link.set("autoneg", true);
  link.set("link_up", port->link_up());
  return {};
}

Status Engine::port_conf(const std::string& name, Args& conf) {
  std::lock_guard<std::mutex> lock(mutex_);
  const Port* port = find_port(name);
  if (port == nullptr) return Status::error(ENOENT, "No port '" + name + "' found");
  conf.set("mac_addr", port->config.mac_addr);
  conf.set("mtu", static_cast<uint64_t>(port->config.mtu_bytes));
  conf.set("admin_up", port->config.admin_up);
  return {};
}

Status Engine::set_port_conf(const std::string& name, const Args& conf) {
  std::lock_guard<std::mutex> lock(mutex_);
  Port* port = find_port(name);
  if (port == nullptr) return Status::error(ENOENT, "No port '" + name + "' found");
  const uint64_t mtu_bytes = conf["mtu"].as_uint(port->config.mtu_bytes);
  if (mtu_bytes != 0 && (mtu_bytes < 68 || mtu_bytes > 65535)) {
    return Status::invalid("MTU " + std::to_string(mtu_bytes) + " is not within 68..65535 bytes");
  }
  PortConfig wanted = port->config;
  if (mtu_bytes != 0) wanted.mtu_bytes = static_cast<uint32_t>(mtu_bytes);
  const std::string& mac_addr = conf["mac_addr"].as_string();
  if (!mac_addr.empty()) wanted.mac_addr = mac_addr;
  wanted.admin_up = conf["admin_up"].as_bool(wanted.admin_up);
  const Paused paused(*this);
  Status status = port->configure(wanted);
  if (status.ok()) port->config = std::move(wanted);
  return status;
}

Status Engine::reset_ports() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& entry : ports_) {
    if (entry.second->users != 0) {
      return Status::error(EBUSY, "Port '" + entry.first + "' is still used by a module");
    }
  }
  Status first;
  for (auto& entry : ports_) {
    Status status = entry.second->close();
    if (first.ok()) first = status;
  }
  ports_.clear();
  return first;
}

}  // namespace e2
