// SPDX-License-Identifier: BSD-3-Clause
// Timestamp: marks packets with the current time, for Measure to read.
//
// Family: measurement
// Gates: in 1, out 1.
// Arguments: TimestampArg
// Commands: none.
// Metadata: writes `attr_name` (8 bytes), unless `offset` is given.
// Drop reasons:
//   "packet too short"  the packet ends before `offset`
//   "no tailroom"       the packet has to grow and its buffer is full
// Origin: the module of this name in BESS, which lets such packets pass without a stamp; the code
// is new.
#include "modules/timestamp.h"

#include "host/module.h"
#include "modules/field_value.h"

namespace e2 {
namespace {

class Timestamp final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    too_short_ = add_drop_reason("packet too short");
    no_tailroom_ = add_drop_reason("no tailroom");
    const uint64_t offset = args["offset"].as_uint();
    if (offset > kMaxStampOffset) {
      return Status::invalid("'offset' " + std::to_string(offset) + " must be within 1.." +
                             std::to_string(kMaxStampOffset));
    }
    offset_ = static_cast<uint32_t>(offset);
    if (offset_ == 0) {
      const std::string& name = args["attr_name"].as_string();
      attr_ = add_attr(name.empty() ? kStampAttr : name, sizeof(uint64_t), Access::kWrite);
    }
    return {};
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    // Not the start of the task round: packets that are stamped and measured within one round still
    // show how long they took.
    const uint64_t now_ns = clock_ns();
    if (offset_ == 0) {
      const int place = attr_offset(attr_);
      for (uint32_t i = 0; i < batch.size; ++i) {
        write_attr(*batch[i], place, &now_ns, sizeof now_ns);
      }
      emit(ctx, batch);
      return;
    }
    Gate gates[kMaxBatch];
    for (uint32_t i = 0; i < batch.size; ++i) gates[i] = stamp(*batch[i], now_ns);
    emit_by_gate(ctx, batch, gates);
  }

 private:
  Gate stamp(Packet& packet, uint64_t now_ns) const {
    if (packet.len() < offset_) return drop_gate(too_short_);
    const uint32_t end = offset_ + kStampBytes;
    if (packet.len() < end && packet.append(end - packet.len()) == nullptr) {
      return drop_gate(no_tailroom_);
    }
    uint8_t* at = packet.data() + offset_;
    std::memcpy(at, &kStampMarker, sizeof kStampMarker);
    std::memcpy(at + sizeof kStampMarker, &now_ns, sizeof now_ns);
    return 0;
  }

  uint32_t offset_ = 0;
  size_t attr_ = 0;
  uint32_t too_short_ = 0;
  uint32_t no_tailroom_ = 0;
};

const ModuleClass kClass = {"Timestamp",
                            "timestamp",
                            "marks current time to packets (paired with Measure module)",
                            "TimestampArg",
                            1,
                            1,
                            {},
                            make_module<Timestamp>,
                            kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
