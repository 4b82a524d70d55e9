// SPDX-License-Identifier: BSD-3-Clause
// BPF: sends each packet to the gate of the first filter that matches it.
//
// Filters are expressions of pcap-filter(7), of which bpf_filter.h lists what is understood. The
// highest priority is tried first, and the filter added first among equals. Packets that no filter
// matches go to gate 0. Malformed and short packets match what their complete headers allow.
//
// Family: matching
// Gates: in 1, out 8192.
// Arguments: BPFArg
// Commands:
//   add              adds filters, all or none
//   delete           removes, for each, one filter that is equal in all three fields, and passes
//                    over those that are not there
//   clear            removes all filters
//   get_initial_arg  the filters as they are now, in the order in which they are tried
// Metadata: none.
// Drop reasons: none.
// Origin: the module of this name in BESS, which compiles with libpcap; the code is new.
#include <algorithm>

#include "host/live_table.h"
#include "modules/bpf_filter.h"
#include "modules/gate_args.h"

namespace e2 {
namespace {

class BPF final : public Module {
 public:
  Status init(Host&, const Args& args) override { return add_filters(args, "BPF."); }

  void process(Context& ctx, Batch& batch, Gate) override {
    auto filters = filters_.read(ctx);
    if (filters->empty()) {
      filters.release();
      emit(ctx, batch);
      return;
    }
    const Frames frames(batch);
    Gate gates[kMaxBatch] = {};
    PacketMask left = mask_of(batch.size);
    for (const Filter& filter : *filters) {
      PacketMask hits = filter.program.match(frames, left);
      left &= ~hits;
      for (; hits != 0; hits &= hits - 1) gates[__builtin_ctz(hits)] = filter.gate;
      if (left == 0) break;
    }
    filters.release();
    emit_by_gate(ctx, batch, gates);
  }

  std::string description() const override {
    return std::to_string(filters_.look()->size()) + " filters";
  }

  Status add(const Args& args, Args&) { return add_filters(args, "add: "); }

  Status remove(const Args& args, Args&) {
    const Args::List& list = args["filters"].as_list();
    filters_.change([&list](std::vector<Filter>& filters) {
      for (const Args& arg : list) {
        const auto it = std::find_if(filters.begin(), filters.end(), [&arg](const Filter& filter) {
          return filter.priority == arg["priority"].as_int() &&
                 filter.text == arg["filter"].as_string() && filter.gate == arg["gate"].as_uint();
        });
        if (it != filters.end()) filters.erase(it);
      }
    });
    return {};
  }

  Status clear(const Args&, Args&) {
    filters_.change([](std::vector<Filter>& filters) { filters.clear(); });
    return {};
  }

  Status get_initial_arg(const Args&, Args& response) {
    Args::List list;
    const auto filters = filters_.look();
    for (const Filter& filter : *filters) {
      Args arg;
      arg.set("priority", filter.priority);
      arg.set("filter", filter.text);
      arg.set("gate", static_cast<uint64_t>(filter.gate));
      list.push_back(std::move(arg));
    }
    response.set("filters", std::move(list));
    return {};
  }

 private:
  struct Filter {
    int64_t priority = 0;
    std::string text;
    Gate gate = 0;
    BpfFilter program;
  };

  Status add_filters(const Args& args, const std::string& where) {
    std::vector<Filter> added;
    const Args::List& list = args["filters"].as_list();
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string place = where + "filters[" + std::to_string(i) + "].";
      Filter filter;
      filter.priority = list[i]["priority"].as_int();
      filter.text = list[i]["filter"].as_string();
      Status status = read_gate(list[i]["gate"], place + "gate", kMaxGates, filter.gate);
      if (!status.ok()) return status;
      if (filter.gate >= kMaxGates) {
        return Status::invalid(place + "gate: must be 0 to " + std::to_string(kMaxGates - 1));
      }
      status = BpfFilter::compile(filter.text, filter.program);
      if (!status.ok()) {
        return Status::invalid(place + "filter '" + filter.text + "': " + status.message);
      }
      added.push_back(std::move(filter));
    }
    filters_.change([&added](std::vector<Filter>& filters) {
      filters.insert(filters.end(), added.begin(), added.end());
      std::stable_sort(filters.begin(), filters.end(),
                       [](const Filter& a, const Filter& b) { return a.priority > b.priority; });
    });
    return {};
  }

  Live<std::vector<Filter>> filters_;  // in the order in which they are tried
};

const ModuleClass kClass = {
    "BPF",
    "bpf",
    "classifies packets with pcap-filter(7) syntax",
    "BPFArg",
    1,
    kMaxGates,
    {{"add", "BPFArg", "EmptyArg", true, command(&BPF::add)},
     {"delete", "BPFArg", "EmptyArg", true, command(&BPF::remove)},
     {"clear", "EmptyArg", "EmptyArg", true, command(&BPF::clear)},
     {"get_initial_arg", "EmptyArg", "BPFArg", true, command(&BPF::get_initial_arg)}},
    make_module<BPF>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
