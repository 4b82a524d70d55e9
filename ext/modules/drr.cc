// SPDX-License-Identifier: BSD-3-Clause
// DRR: queues packets by flow and serves flows in deficit round robin, an equal share of bytes.
//
// Flows with packets wait in a ring. A flow whose turn comes gets `quantum` bytes of credit and
// sends packets as long as its credit covers the next one; what is left stays for its next turn,
// and is lost when its queue is empty. A run of the task fills one batch and goes on from there the
// next time; after a turn of every flow in which nothing could be sent it ends without one.
//
// A flow is addresses, protocol and ports (TCP, UDP, SCTP) of an IPv4 or IPv6 packet, behind VLAN
// tags or not. All packets that are not IP are one flow, and a fragment other than the first, which
// has no ports, belongs to the flow of its addresses and protocol.
//
// Family: distribution
// Gates: in 1, out 1. One task.
// Arguments: DRRArg
// Commands:
//   set_quantum_size         changes the bytes per turn
//   set_max_flow_queue_size  changes how many packets may wait per flow
// Metadata: none.
// Drop reasons:
//   "flow queue full"  as many packets of the flow wait as may
//   "too many flows"   the packet is the first of a flow, and num_flows have packets waiting
//   "no room"          262144 packets wait in all
// Limits: the tasks that lead here and its own must run on one worker; put a Queue before it to
// bring packets from others.
// Method: one hash table of flows (key_table.h), in which a new flow takes the place of the one
// that had no packets for longest; linked lists in storage that is allocated once.
// Origin: the module of this name in BESS, which keeps the place of a flow for 300 s after its last
// packet; the code is new.
#include <algorithm>

#include "host/flow_hash.h"
#include "modules/key_table.h"
#include "modules/store.h"

namespace e2 {
namespace {

constexpr uint64_t kDefaultFlows = 4096;
constexpr uint64_t kMaxFlows = 1 << 20;
constexpr uint64_t kDefaultQuantum = 1500;
constexpr uint64_t kMaxQuantum = 1 << 30;
constexpr uint64_t kDefaultQueue = 8192;
constexpr uint32_t kMaxWaiting = 1 << 18;
constexpr uint32_t kOverheadBytes = 24;  // of a packet on the wire
constexpr uint32_t kNone = Store<int>::kNone;

struct Waiting {
  Packet* packet;
  uint32_t next;
  uint32_t len;
};

struct Flow {
  uint64_t key[kFlowWords];
  uint64_t deficit;
  uint32_t first;
  uint32_t last;
  uint32_t count;
  uint32_t next;   // in the ring, or for the store
  uint32_t older;  // among those without packets
  uint32_t newer;
};

class Drr final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    queue_full_ = add_drop_reason("flow queue full");
    too_many_ = add_drop_reason("too many flows");
    no_room_ = add_drop_reason("no room");
    add_task(0);
    const uint64_t flows =
        args["num_flows"].as_uint() == 0 ? kDefaultFlows : args["num_flows"].as_uint();
    if (flows > kMaxFlows) {
      return Status::invalid("DRR.num_flows is " + std::to_string(flows) + "; must be at most " +
                             std::to_string(kMaxFlows));
    }
    Status status;
    if (args["quantum"].as_uint() != 0) status = read_quantum(args["quantum"], "DRR.quantum");
    if (!status.ok()) return status;
    if (args["max_flow_queue_size"].as_uint() != 0) {
      status = read_queue_size(args["max_flow_queue_size"], "DRR.max_flow_queue_size");
      if (!status.ok()) return status;
    }
    table_.reserve(flows);
    flows_.init(static_cast<uint32_t>(flows));
    waiting_.init(kMaxWaiting);
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    KeyBatch keys;
    const uint64_t* known[kMaxBatch];
    for (uint32_t i = 0; i < batch.size; ++i) {
      const uint8_t* data = batch[i]->data();
      Headers h = parse_headers(data, batch[i]->len());
      uint64_t words[kFlowWords];
      flow_words(data, h, words);
      for (uint32_t w = 0; w < kFlowWords; ++w) keys.words[w][i] = words[w];
    }
    for (uint32_t w = 0; w < kFlowWords; ++w) keys.pad(batch.size, w);
    table_.find_batch(keys, batch.size, known);
    bool moved = false;  // the rows, as a flow gave up its place
    for (uint32_t i = 0; i < batch.size; ++i) {
      const uint32_t flow = moved || known[i] == nullptr ? open_flow(keys, i, moved)
                                                         : static_cast<uint32_t>(known[i][0]);
      if (flow == kNone) {
        drop(ctx, batch[i], too_many_);
      } else if (flows_[flow].count >= max_queue_) {
        drop(ctx, batch[i], queue_full_);
      } else if (waiting_.full()) {
        drop(ctx, batch[i], no_room_);
      } else {
        enqueue(flow, batch[i]);
      }
    }
    batch.clear();
  }

  TaskResult run_task(Context& ctx, uint64_t) override {
    Batch batch;
    uint64_t bytes = 0;
    uint32_t idle_turns = 0;  // in a row
    while (!batch.full() && ring_first_ != kNone && idle_turns < ring_size_) {
      const uint32_t index = ring_first_;
      Flow& flow = flows_[index];
      if (!resumes_) flow.deficit += quantum_;
      resumes_ = false;
      const uint32_t before = batch.size;
      while (flow.first != kNone && !batch.full() && waiting_[flow.first].len <= flow.deficit) {
        const Waiting& at = waiting_[flow.first];
        if (at.next != kNone) __builtin_prefetch(waiting_[at.next].packet);
        flow.deficit -= at.len;
        bytes += at.len;
        batch.add(at.packet);
        const uint32_t next = at.next;
        waiting_.give_back(flow.first);
        flow.first = next;
        --flow.count;
      }
      idle_turns = batch.size == before ? idle_turns + 1 : 0;
      if (flow.first == kNone) {
        take_from_ring();
        flow.deficit = 0;
        idle_.append(flows_, index);
      } else if (batch.full() && waiting_[flow.first].len <= flow.deficit) {
        resumes_ = true;
      } else {
        take_from_ring();
        append_to_ring(index);
      }
    }
    const uint32_t count = batch.size;
    if (count == 0) return {true, 0, 0};
    emit(ctx, batch);
    return {false, count, (bytes + uint64_t{count} * kOverheadBytes) * 8};
  }

  void release(Context& ctx) override {
    for (; ring_first_ != kNone; ring_first_ = flows_[ring_first_].next) {
      for (uint32_t i = flows_[ring_first_].first; i != kNone; i = waiting_[i].next) {
        ctx.free(&waiting_[i].packet, 1);
      }
    }
  }

  std::string description() const override { return std::to_string(quantum_) + " bytes per turn"; }

  Status set_quantum_size(const Args& args, Args&) {
    return read_quantum(args["quantum"], "set_quantum_size: quantum");
  }

  Status set_max_flow_queue_size(const Args& args, Args&) {
    return read_queue_size(args["max_queue_size"], "set_max_flow_queue_size: max_queue_size");
  }

 private:
  Status read_quantum(const Args& arg, const std::string& where) {
    const uint64_t quantum = arg.as_uint();
    if (quantum == 0 || quantum > kMaxQuantum) {
      return Status::invalid(where + " is " + std::to_string(quantum) + "; must be 1 to " +
                             std::to_string(kMaxQuantum));
    }
    quantum_ = quantum;
    return {};
  }

  Status read_queue_size(const Args& arg, const std::string& where) {
    const uint64_t size = arg.as_uint();
    if (size == 0) return Status::invalid(where + " is 0; must be at least 1");
    max_queue_ = static_cast<uint32_t>(std::min<uint64_t>(size, kMaxWaiting));
    return {};
  }

  // The flow of key i, a new one where there is none; kNone where all flows have packets.
  uint32_t open_flow(const KeyBatch& keys, uint32_t i, bool& moved) {
    uint64_t key[kFlowWords];
    for (uint32_t w = 0; w < kFlowWords; ++w) key[w] = keys.words[w][i];
    const uint64_t* found = table_.find(key);
    if (found != nullptr) return static_cast<uint32_t>(found[0]);
    if (flows_.full()) {
      const uint32_t gone = idle_.oldest();
      if (gone == kNone) return kNone;
      idle_.unlink(flows_, gone);
      table_.erase(flows_[gone].key);
      flows_.give_back(gone);
      moved = true;
    }
    const uint32_t index = flows_.take();
    Flow& flow = flows_[index];
    std::copy_n(key, kFlowWords, flow.key);
    flow.deficit = 0;
    flow.first = flow.last = kNone;
    flow.count = 0;
    idle_.append(flows_, index);
    bool created = false;
    *table_.insert(key, created) = index;
    return index;
  }

  void append_to_ring(uint32_t index) {
    flows_[index].next = kNone;
    (ring_last_ == kNone ? ring_first_ : flows_[ring_last_].next) = index;
    ring_last_ = index;
    ++ring_size_;
  }

  void take_from_ring() {
    ring_first_ = flows_[ring_first_].next;
    if (ring_first_ == kNone) ring_last_ = kNone;
    --ring_size_;
  }

  void enqueue(uint32_t index, Packet* packet) {
    Flow& flow = flows_[index];
    const uint32_t i = waiting_.take();
    waiting_[i] = {packet, kNone, packet->len()};
    if (flow.first == kNone) {
      flow.first = i;
      idle_.unlink(flows_, index);
      append_to_ring(index);
    } else {
      waiting_[flow.last].next = i;
    }
    flow.last = i;
    ++flow.count;
  }

  KeyTable table_{kFlowWords, 1};  // where flows are
  Store<Flow> flows_;
  Store<Waiting> waiting_;
  uint32_t ring_first_ = kNone;  // whose turn it is
  uint32_t ring_last_ = kNone;
  uint32_t ring_size_ = 0;
  AgeList idle_;          // flows without packets
  bool resumes_ = false;  // the first one's turn was cut short by a full batch
  uint64_t quantum_ = kDefaultQuantum;
  uint32_t max_queue_ = kDefaultQueue;
  uint32_t queue_full_ = 0;
  uint32_t too_many_ = 0;
  uint32_t no_room_ = 0;
};

const ModuleClass kClass = {
    "DRR",
    "DRR",
    "queues packets by flow and serves flows in deficit round robin",
    "DRRArg",
    1,
    1,
    {{"set_quantum_size", "DRRQuantumArg", "EmptyArg", false, command(&Drr::set_quantum_size)},
     {"set_max_flow_queue_size", "DRRMaxFlowQueueSizeArg", "EmptyArg", false,
      command(&Drr::set_max_flow_queue_size)}},
    make_module<Drr>,
    1,
    true};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
