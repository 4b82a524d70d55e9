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
#include <string>
#include <vector>

#include "engine/graph.h"
#include "engine/pool.h"
#include "engine/traffic_class.h"
#include "engine/worker.h"
#include "host/port.h"

namespace e2 {

struct GateHookClass {
  const char* name;
  const char* help;
  const char* arg_type;
};

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
  Status module_info(const std::string& name, Args& info);
  Status run_packets(const std::string& name, Gate in_gate, const std::vector<std::string>& packets,
                     std::map<int, std::vector<std::string>>& out);

  Status create_port(const std::string& name, const std::string& driver, const PortShape& shape,
                     const Args& args, Args& created);
  Status destroy_port(const std::string& name);
  Args ports();
  Status port_stats(const std::string& name, Args& stats);
  Status port_link(const std::string& name, Args& link);
  Status port_conf(const std::string& name, Args& conf);
  Status set_port_conf(const std::string& name, const Args& conf);

  Status add_worker(uint64_t wid, int64_t core);
  Status destroy_worker(uint64_t wid);
  Args workers();
  Status pause(int64_t wid);   // -1: all
  Status resume(int64_t wid);  // -1: all; checks and assigns metadata first

  Status add_tc(const Args& args);
  Status update_tc_params(const Args& args);
  Status update_tc_parent(const Args& args);
  Args tcs();
  Status tc_stats(const std::string& name, Args& stats);

  Status configure_hook(const Args& hook, bool enable, std::string& name);
  Args hooks();
  static std::vector<GateHookClass> hook_classes();

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

 private:
  // Pauses the running workers for its lifetime.
  class Paused {
   public:
    explicit Paused(Engine& engine);
    ~Paused();
    Paused(const Paused&) = delete;
    Paused& operator=(const Paused&) = delete;

   private:
    std::vector<Worker*> paused_;
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
  Status start_worker(uint64_t wid, int64_t core);
  Status track_gate(const Args& hook, Module& module, bool out, uint64_t gate, bool enable);
  Status capture_gate(const Args& hook, bool enable, std::string& name);

  std::mutex mutex_;
  PacketPool pool_;
  std::unique_ptr<PoolCache> control_cache_;
  Context control_;
  Graph graph_;
  std::map<std::string, std::unique_ptr<Port>> ports_;
  std::map<std::string, TcPtr> tcs_;  // user's and leaves
  std::map<uint64_t, std::unique_ptr<Worker>> workers_;
  uint64_t next_orphan_worker_ = 0;
  std::map<std::string, Plugin> plugins_;
};

}  // namespace e2
