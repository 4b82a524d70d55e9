// SPDX-License-Identifier: BSD-3-Clause
#include "engine/graph.h"

#include <algorithm>

#include "engine/pool.h"

namespace e2 {
namespace {

// Keeps copies of the packets that arrive: what run_packets() puts behind open gates.
class Collector : public Module {
 public:
  explicit Collector(std::vector<std::string>& into) : into_(into) {}
  void process(Context& ctx, Batch& batch, Gate) override {
    for (Packet* packet : batch) {
      into_.emplace_back(reinterpret_cast<const char*>(packet->data()), packet->len());
    }
    ctx.free(batch);
  }

 private:
  std::vector<std::string>& into_;
};

std::string quoted(const std::string& name) { return "'" + name + "'"; }

}  // namespace

Module* Graph::find(const std::string& name) const {
  const auto it = modules_.find(name);
  return it == modules_.end() ? nullptr : it->second.get();
}

Status Graph::create(const std::string& name, const std::string& class_name, const Args& args,
                     Host& host) {
  const ModuleClass* module_class = find_module_class(class_name);
  if (module_class == nullptr) {
    return Status::error(ENOENT, "No module class " + quoted(class_name) + " found");
  }
  if (find(name) != nullptr) {
    return Status::error(EEXIST, "Module " + quoted(name) + " already exists");
  }
  std::unique_ptr<Module> module = module_class->make();
  module->name_ = name;
  module->class_ = module_class;
  Status status = module->init(host, args);
  if (!status.ok()) return status;
  modules_[name] = std::move(module);
  return {};
}

void Graph::refresh_hooked(InGate& gate) {
  for (OutGate* source : gate.sources) {
    source->hooked = !source->hooks.empty() || !gate.hooks.empty();
  }
}

void Graph::set_out(Module& owner, Gate index, std::unique_ptr<OutGate> gate) {
  owner.out_gates_[index] = std::move(gate);
  owner.first_out_ = owner.out_gates_[0].get();
}

void Graph::unlink(OutGate& gate) {
  Module& owner = *gate.owner;
  InGate& in = *gate.in;
  in.sources.erase(std::remove(in.sources.begin(), in.sources.end(), &gate), in.sources.end());
  if (in.sources.empty()) in.module->in_gates_[in.index].reset();
  set_out(owner, gate.index, nullptr);
}

Status Graph::destroy(const std::string& name, Context& ctx) {
  Module* module = find(name);
  if (module == nullptr) return Status::error(ENOENT, "No module " + quoted(name) + " found");
  for (auto& gate : module->out_gates_) {
    if (gate != nullptr) unlink(*gate);
  }
  for (auto& gate : module->in_gates_) {
    while (gate != nullptr && !gate->sources.empty()) unlink(*gate->sources.back());
  }
  module->release(ctx);
  modules_.erase(name);
  return {};
}

void Graph::clear(Context& ctx) {
  for (auto& entry : modules_) entry.second->release(ctx);
  modules_.clear();
}

Status Graph::connect(const std::string& from, uint64_t out_gate, const std::string& to,
                      uint64_t in_gate, bool count) {
  Module* source = find(from);
  Module* next = find(to);
  if (source == nullptr) return Status::error(ENOENT, "No module " + quoted(from) + " found");
  if (next == nullptr) return Status::error(ENOENT, "No module " + quoted(to) + " found");
  const auto bad_gate = [](const std::string& name, const char* kind, uint64_t gate, Gate max) {
    return Status::invalid("Module " + quoted(name) + " has no " + kind + " gate " +
                           std::to_string(gate) + ": it has " + std::to_string(max));
  };
  if (out_gate >= source->class_->max_out_gates) {
    return bad_gate(from, "output", out_gate, source->class_->max_out_gates);
  }
  if (in_gate >= next->class_->max_in_gates) {
    return bad_gate(to, "input", in_gate, next->class_->max_in_gates);
  }
  if (source->out_gates_.size() <= out_gate) source->out_gates_.resize(out_gate + 1);
  if (source->out_gates_[out_gate] != nullptr) {
    return Status::error(EBUSY, "Gate " + quoted(from + ":" + std::to_string(out_gate)) +
                                    " is already connected; disconnect it first");
  }
  if (next->in_gates_.size() <= in_gate) next->in_gates_.resize(in_gate + 1);
  auto& in = next->in_gates_[in_gate];
  if (in == nullptr) {
    in = std::make_unique<InGate>();
    in->module = next;
    in->index = static_cast<Gate>(in_gate);
  }
  auto gate = std::make_unique<OutGate>();
  gate->owner = source;
  gate->index = static_cast<Gate>(out_gate);
  gate->next = next;
  gate->in = in.get();
  gate->next_in = in_gate;
  gate->count_packets = count;
  in->sources.push_back(gate.get());
  set_out(*source, static_cast<Gate>(out_gate), std::move(gate));
  refresh_hooked(*in);
  return {};
}

Status Graph::disconnect(const std::string& name, uint64_t out_gate) {
  Module* module = find(name);
  if (module == nullptr) return Status::error(ENOENT, "No module " + quoted(name) + " found");
  if (out_gate >= module->class_->max_out_gates) {
    return Status::invalid("Module " + quoted(name) + " has no output gate " +
                           std::to_string(out_gate));
  }
  if (out_gate < module->out_gates_.size() && module->out_gates_[out_gate] != nullptr) {
    unlink(*module->out_gates_[out_gate]);
  }
  return {};
}

void Graph::set_upstream(Module& module, Upstream upstream) {
  module.upstream_ = std::move(upstream);
  if (!module.overloaded()) return;
  for (const auto& task : module.upstream_) ++*task;
}

std::vector<std::unique_ptr<GateHook>>* Graph::hooks_at(Module& module, bool out, uint64_t gate) {
  if (out) {
    const bool wired = gate < module.out_gates_.size() && module.out_gates_[gate] != nullptr;
    return wired ? &module.out_gates_[gate]->hooks : nullptr;
  }
  const bool wired = gate < module.in_gates_.size() && module.in_gates_[gate] != nullptr;
  return wired ? &module.in_gates_[gate]->hooks : nullptr;
}

void Graph::hooks_changed(Module& module, bool out, uint64_t gate) {
  refresh_hooked(out ? *module.out_gates_[gate]->in : *module.in_gates_[gate]);
}

Status Graph::run_packets(const std::string& name, Gate in_gate,
                          const std::vector<std::string>& packets, Context& ctx,
                          std::map<int, std::vector<std::string>>& out) {
  Module* module = find(name);
  if (module == nullptr) return Status::error(ENOENT, "No module " + quoted(name) + " found");
  for (const std::string& bytes : packets) {
    if (bytes.size() > ctx.pool->data_bytes()) {
      return Status::invalid("a packet of " + std::to_string(bytes.size()) +
                             " bytes doesn't fit the pool's buffers");
    }
  }
  Status status = assign_metadata(false);
  if (!status.ok()) return status;

  std::vector<std::unique_ptr<Collector>> collectors;
  std::vector<OutGate*> opened;
  InGate collected;
  const Gate gates = std::min<Gate>(module->class_->max_out_gates, 64);
  if (module->out_gates_.size() < gates) module->out_gates_.resize(gates);
  std::vector<std::vector<std::string>> arrived(gates);
  for (Gate g = 0; g < gates; ++g) {
    if (module->out_gates_[g] != nullptr) continue;
    collectors.push_back(std::make_unique<Collector>(arrived[g]));
    auto gate = std::make_unique<OutGate>();
    gate->owner = module;
    gate->index = g;
    gate->next = collectors.back().get();
    gate->in = &collected;
    opened.push_back(gate.get());
    set_out(*module, g, std::move(gate));
  }
  for (size_t next = 0; next < packets.size() && status.ok();) {
    Batch batch;
    while (next < packets.size() && !batch.full()) {
      const std::string& bytes = packets[next];
      if (ctx.alloc(batch, 1, static_cast<uint32_t>(bytes.size())) == 0) {
        status = Status::error(ENOMEM, "the packet pool is empty");
        break;
      }
      Packet* packet = batch[batch.size - 1];
      std::memcpy(packet->data(), bytes.data(), bytes.size());
      std::memset(packet->metadata(0), 0, kMetadataBytes);
      ++next;
    }
    if (!batch.empty()) module->process(ctx, batch, in_gate);
  }
  for (const OutGate* gate : opened) set_out(*module, gate->index, nullptr);
  for (Gate g = 0; g < gates; ++g) {
    if (!arrived[g].empty()) out[g] = std::move(arrived[g]);
  }
  return status;
}

}  // namespace e2
