// SPDX-License-Identifier: BSD-3-Clause
// Rewrite: replaces whole packets with templates, in turn.
//
// Packets become copies of the templates in round robin, one rotation per worker, and keep their
// arrival time and metadata; the length on the wire is forgotten. Without a template packets pass
// unchanged.
//
// Family: headers
// Gates: in 1, out 1.
// Arguments: RewriteArg
// Commands:
//   add    appends templates, all or none
//   clear  removes all templates
// Metadata: none.
// Drop reasons:
//   "template too long"  the packet's buffer cannot hold the template
// Limits: at most 32 templates until `clear`.
// Method: templates lie zero-padded in 64-byte blocks, so that copying is a loop of four fixed
// 16-byte moves; the bytes beyond the packet's end are tailroom.
// Origin: the module of this name in BESS; the code is new.
#include <algorithm>
#include <vector>

#include "host/module.h"

namespace e2 {
namespace {

constexpr uint32_t kMaxTemplateBytes = 1536;
constexpr uint32_t kBlock = 64;

struct alignas(kCacheLineBytes) Template {
  uint8_t bytes[kMaxTemplateBytes] = {};
  uint32_t len = 0;
};

inline void copy_blocks(uint8_t* to, const uint8_t* from, uint32_t bytes) {
  for (uint32_t done = 0; done < bytes; done += kBlock) std::memcpy(to + done, from + done, kBlock);
}

class Rewrite final : public Module {
 public:
  Status init(Host&, const Args& args) override {
    too_long_ = add_drop_reason("template too long");
    Args none;
    return add(args, none);
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    if (templates_.empty()) {
      emit(ctx, batch);
      return;
    }
    const auto count = static_cast<uint32_t>(templates_.size());
    uint32_t turn = turns_[ctx.wid].next;
    Gate gates[kMaxBatch];
    for (uint32_t i = 0; i < batch.size; ++i) {
      gates[i] = rewrite(*batch[i], templates_[turn]) ? 0 : drop_gate(too_long_);
      turn = turn + 1 == count ? 0 : turn + 1;
    }
    turns_[ctx.wid].next = turn;
    emit_by_gate(ctx, batch, gates);
  }

  Status add(const Args& args, Args&) {
    const Args::List& list = args["templates"].as_list();
    if (list.size() > kMaxBatch - templates_.size()) {
      return Status::invalid("'templates': at most " + std::to_string(kMaxBatch) +
                             " templates in all; there are " + std::to_string(templates_.size()) +
                             " already");
    }
    for (size_t i = 0; i < list.size(); ++i) {
      if (list[i].as_string().size() > kMaxTemplateBytes) {
        return Status::invalid("'templates' item " + std::to_string(i) + " has " +
                               std::to_string(list[i].as_string().size()) + " bytes; at most " +
                               std::to_string(kMaxTemplateBytes) + " are possible");
      }
    }
    for (const Args& item : list) {
      const std::string& bytes = item.as_string();
      templates_.emplace_back();
      std::memcpy(templates_.back().bytes, bytes.data(), bytes.size());
      templates_.back().len = static_cast<uint32_t>(bytes.size());
    }
    return {};
  }

  Status clear(const Args&, Args&) {
    templates_.clear();
    for (Turn& turn : turns_) turn.next = 0;
    return {};
  }

 private:
  struct alignas(kCacheLineBytes) Turn {
    uint32_t next = 0;
  };

  static bool rewrite(Packet& packet, const Template& from) {
    const uint32_t room = packet.capacity() - kHeadroomBytes;
    if (from.len > room) return false;
    packet.reset(from.len);
    packet.set_wire_len(0);
    if ((from.len + kBlock - 1) / kBlock * kBlock <= room) {
      copy_blocks(packet.data(), from.bytes, from.len);
    } else {
      std::memcpy(packet.data(), from.bytes, from.len);
    }
    return true;
  }

  std::vector<Template> templates_;
  Turn turns_[kMaxWorkers];
  uint32_t too_long_ = 0;
};

const ModuleClass kClass = {"Rewrite",
                            "rewrite",
                            "replaces entire packet data",
                            "RewriteArg",
                            1,
                            1,
                            {{"add", "RewriteArg", "EmptyArg", false, command(&Rewrite::add)},
                             {"clear", "EmptyArg", "EmptyArg", false, command(&Rewrite::clear)}},
                            make_module<Rewrite>};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
