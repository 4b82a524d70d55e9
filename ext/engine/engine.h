// SPDX-License-Identifier: BSD-3-Clause
// Engine: one embedded dataplane - pool, ports, module graph, traffic classes, workers.
//
// Every public method may be called from any thread; a mutex lets one at a time in. Calls that
// change what workers see pause the running ones and resume them afterwards, so a packet meets
// either the old or the new graph. Errors are Status values with BESS's errno codes; a refused call
// changes nothing.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "engine/event_log.h"
#include "engine/gate_hooks.h"
#include "engine/graph.h"
#include "engine/pool.h"
#include "engine/traffic_class.h"
#include "engine/worker.h"
#include "host/port.h"

namespace e2 {

// The resume hooks: what runs before workers resume. Both are installed from the start.
constexpr const char* kSetupMetadata = "setup_metadata";    // gives attributes their offsets
constexpr const char* kSetupTaskGraph = "setup_taskgraph";  // links queues to the tasks they stop

class Engine : public Host {
 public:
  Engine(uint32_t pool_packets, uint32_t buffer_bytes);
  ~Engine() override;

  Status create_module(const std::string& name, const std::string& class_name, const Args& args);
  Status destroy_module(const std::string& name);
  Status connect(const std::string& from, uint64_t out_gate, const std::string& to,
                 uint64_t in_gate, bool count);
  Status disconnect(const std::string& name, uint64_t out_gate);
  Status module_command(const std::string& name, const std::string& command, const Args& args,
                        Args& response);
  // What every module answers besides its own commands; run by the engine itself.
  static std::vector<Command> common_commands();
  Args modules();
  Status class_of(const std::string& name, std::string& mclass);
  Status module_info(const std::string& name, Args& info);
  // `now_ns` is the time that the module sees; 0: that of the clock.
  Status run_packets(const std::string& name, Gate in_gate, const std::vector<std::string>& packets,
                     std::map<int, std::vector<std::string>>& out, uint64_t now_ns = 0);

  // What modules, their tasks, workers and ports have counted, read at one moment while they run
  // on; the fields are those of e2.pb.Counters.
  Args counters();

  // What modules told since the event of that number, among the last EventLog::kMostEvents.
  Args events(uint64_t after);

  Status create_port(const std::string& name, const std::string& driver, const PortShape& shape,
                     const Args& args, Args& created);
  Status destroy_port(const std::string& name);
  Args ports();
  Status port_stats(const std::string& name, Args& stats);
  Status port_link(const std::string& name, Args& link);
  Status port_conf(const std::string& name, Args& conf);
  Status set_port_conf(const std::string& name, const Args& conf);

  // `scheduler`: empty (or "experimental", bessd's word for one that lets idle tasks rest), or
  // "polling".
  Status add_worker(uint64_t wid, int64_t core, const std::string& scheduler = "");
  Status destroy_worker(uint64_t wid);
  Args workers();
  Status pause(int64_t wid);  // -1: all
  // -1: all. Refused where a module would run on more workers than it can, or reads metadata that
  // nobody writes.
  Status resume(int64_t wid);
  // {name, fatal, message} of each module that is not where it may be; `resume` refuses fatal ones.
  Args scheduling_violations();

  Status add_tc(const Args& args);
  Status update_tc_params(const Args& args);
  Status update_tc_parent(const Args& args);
  Args tcs();
  Status tc_stats(const std::string& name, Args& stats);

  Status configure_hook(const Args& hook, bool enable, std::string& name);
  Args hooks();
  Status hook_command(const Args& hook, const std::string& command, const Args& args,
                      Args& response);
  Status configure_resume_hook(const std::string& name, bool enable);

  // Loads a shared object whose modules and ports register themselves as it is opened.
  Status import_plugin(const std::string& path);
  // Refuses while a module or port of the plugin exists.
  Status unload_plugin(const std::string& path);
  Args plugins();

  Status reset_modules();
  Status reset_ports();
  Status reset_workers();
  Status reset_tcs();
  Args mempool();

  Port* find_port(const std::string& name) override;
  Module* find_module(const std::string& name) override { return graph_.find(name); }

 private:
  // Pauses the running workers for its lifetime.
  class Paused {
   public:
    explicit Paused(Engine& engine);
    ~Paused();
    bool any() const { return !paused_.empty(); }
    void stay_paused() { paused_.clear(); }
    Paused(const Paused&) = delete;
    Paused& operator=(const Paused&) = delete;

   private:
    Engine& engine_;
    std::vector<Worker*> paused_;
  };

  struct Reach {
    // Workers that run the module, with the arguments of its own tasks there.
    std::map<uint32_t, std::vector<uint64_t>> tasks;
    std::vector<TrafficClass*> upstream;  // the tasks of others that lead here
  };
  using Placement = std::map<Module*, Reach>;
  struct Violation {
    std::string module;
    bool fatal;
    std::string message;
  };
  struct Plugin {
    void* handle = nullptr;
    std::vector<std::string> classes;  // of modules and ports
  };
  using TcPtr = std::unique_ptr<TrafficClass>;

  TrafficClass* find_tc(const std::string& name);
  TrafficClass* leaf_of(const std::string& module, uint64_t task);
  Status place_tc(TrafficClass* tc, const Args& where);
  Status attach_to_worker(TrafficClass* tc, int64_t wid);
  void detach(TrafficClass* tc);
  void remove_leaves(const Module* module);
  Status attach_orphans();
  Status set_tc_rates(TrafficClass* tc, const Args& args, bool creating);
  Args describe_tc(const TrafficClass& tc) const;
  bool any_running() const;
  Status start_worker(uint64_t wid, int64_t core, bool polling = false);
  Placement placement() const;
  std::vector<Violation> violations() const;
  size_t fatal_violations();
  Status check_placement();
  void tell_placement();
  void link_tasks();
  void link_bells();
  void fetch_events();
  Status run_resume_hooks();
  Status track_gates(const Args& hook, bool enable);
  Status hook_gate(const GateHookClass& hook_class, const Args& hook, bool enable,
                   std::string& name);

  std::mutex mutex_;
  PacketPool pool_;
  std::unique_ptr<PoolCache> control_cache_;
  Context control_;
  Graph graph_;
  EventLog events_;
  std::map<std::string, std::unique_ptr<Port>> ports_;
  std::map<std::string, TcPtr> tcs_;  // user's and leaves
  std::map<uint64_t, std::unique_ptr<Worker>> workers_;
  uint64_t next_orphan_worker_ = 0;
  bool profile_ = false;
  ProfileCost profile_cost_;
  std::set<std::string> resume_hooks_{kSetupMetadata, kSetupTaskGraph};
  std::map<std::string, Plugin> plugins_;
};

}  // namespace e2
