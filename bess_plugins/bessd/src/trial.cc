// SPDX-License-Identifier: BSD-3-Clause
#include "trial.h"

#include <algorithm>

namespace e2 {

Trial* Trial::running_ = nullptr;

Status Trial::init(Host&, const Args&) {
  add_task(0);
  return {};
}

void Trial::process(Context& ctx, Batch& batch, Gate in_gate) {
  if (running_ == this) keep("", in_gate, batch);
  ctx.free(batch);
}

void Trial::keep(const std::string& module, Gate gate, const Batch& batch) {
  for (uint32_t i = 0; i < batch.size; ++i) {
    const auto* const data = reinterpret_cast<const char*>(batch[i]->data());
    Args packet;
    packet.set("module", module);
    packet.set("gate", static_cast<int>(gate));
    packet.set("data", std::string(data, batch[i]->len()));
    kept_.push_back(std::move(packet));
  }
}

// One batch of bessd's size, which needs several of ours.
TaskResult Trial::run_task(Context& ctx, uint64_t) {
  if (packets_ == nullptr) return {true, 0, 0};
  const size_t end = std::min(packets_->size(), next_ + bess::PacketBatch::kMaxBurst);
  while (next_ < end) {
    Batch batch;
    while (next_ < end && !batch.full()) {
      const std::string& bytes = (*packets_)[next_].as_string();
      if (ctx.alloc(batch, 1, static_cast<uint32_t>(bytes.size())) == 0) break;
      Packet& packet = *batch[batch.size - 1];
      std::memcpy(packet.data(), bytes.data(), bytes.size());
      std::memset(packet.metadata(0), 0, kMetadataBytes);
      ++next_;
    }
    if (batch.empty()) break;
    emit(ctx, batch);
  }
  return {};
}

Status Trial::run(const Args& args, Args& response) {
  if (is_any_worker_running()) return Status::error(EBUSY, "pause all workers first");
  if (ogates().empty() || ogates()[0] == nullptr) {
    return Status::invalid("connect gate 0 to the module to try");
  }
  const Args::List& packets = args["packets"].as_list();
  for (const Args& packet : packets) {
    if (packet.as_string().size() > SNBUF_DATA) {
      return Status::invalid("a packet of " + std::to_string(packet.as_string().size()) +
                             " bytes doesn't fit bessd's buffers");
    }
  }
  const Task* const task = tasks()[0];
  bess::run_global_resume_hooks();  // places of attributes, numbers of gates
  uint32_t gates = 0;
  bool hooked = false;
  const auto look = [&](const bess::Gate* gate) {
    if (gate == nullptr) return;
    gates = std::max(gates, gate->global_gate_index() + 1);
    hooked = hooked || !gate->hooks().empty();
  };
  for (const auto& [name, module] : ModuleGraph::GetAllModules()) {
    for (const bess::IGate* gate : module->igates()) look(gate);
    for (const bess::OGate* gate : module->ogates()) look(gate);
  }
  if (hooked) {
    return Status::invalid(
        "a gate has a hook, which needs a worker: connect without default hooks");
  }
  task->UpdatePerGateBatch(gates);

  ::Context ctx = {};
  ctx.task = const_cast<Task*>(task);
  ctx.current_tsc = rdtsc();
  const uint64_t now_ns = args["now_ns"].as_uint();
  ctx.current_ns = now_ns != 0 ? now_ns : tsc_to_ns(ctx.current_tsc);
  packets_ = &packets;
  next_ = 0;
  running_ = this;
  size_t before = 0;
  do {
    before = next_;
    (*task)(&ctx);
  } while (next_ < packets.size() && next_ > before);
  running_ = nullptr;
  packets_ = nullptr;
  response.set("packets", std::move(kept_));
  kept_.clear();
  if (next_ < packets.size()) return Status::error(ENOMEM, "the packet pool is empty");
  return {};
}

namespace {

const ModuleClass kClass = {
    "Trial",
    "trial",
    "hands packets to a module and tells what became of them (for tests)",
    "EmptyArg",
    kMaxGates,
    1,
    {{"run", "TrialCommandRunArg", "TrialCommandRunResponse", false, command(&Trial::run)}},
    make_module<Trial>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
