// SPDX-License-Identifier: BSD-3-Clause
// Python's view of the Engine: conversions only. Every call lets go of the interpreter lock.
#include "engine/engine.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "host/isa.h"

namespace py = pybind11;

namespace {

using e2::Args;
using e2::Engine;
using e2::Status;

PyObject* engine_error = nullptr;

Args to_args(py::handle value) {
  if (value.is_none()) return {};
  if (py::isinstance<py::bool_>(value)) return Args(value.cast<bool>());
  if (py::isinstance<py::int_>(value)) {
    if (value < py::int_(0)) return Args(value.cast<int64_t>());
    return Args(value.cast<uint64_t>());
  }
  if (py::isinstance<py::float_>(value)) return Args(value.cast<double>());
  if (py::isinstance<py::bytes>(value) || py::isinstance<py::str>(value)) {
    return Args(value.cast<std::string>());
  }
  if (py::isinstance<py::dict>(value)) {
    Args::Map map;
    for (const auto& item : py::reinterpret_borrow<py::dict>(value)) {
      map[py::str(item.first).cast<std::string>()] = to_args(item.second);
    }
    return Args(std::move(map));
  }
  if (py::isinstance<py::sequence>(value)) {
    Args::List list;
    for (const auto& item : py::reinterpret_borrow<py::sequence>(value)) {
      list.push_back(to_args(item));
    }
    return Args(std::move(list));
  }
  throw py::type_error("arguments are dicts, lists, numbers, strings and bytes");
}

py::object from_args(const Args& args) {
  struct Convert {
    py::object operator()(std::monostate) const { return py::dict(); }
    py::object operator()(bool v) const { return py::bool_(v); }
    py::object operator()(int64_t v) const { return py::int_(v); }
    py::object operator()(uint64_t v) const { return py::int_(v); }
    py::object operator()(double v) const { return py::float_(v); }
    // Text where it is text; bytes where it can't be.
    py::object operator()(const std::string& v) const {
      PyObject* text = PyUnicode_DecodeUTF8(v.data(), static_cast<Py_ssize_t>(v.size()), "strict");
      if (text != nullptr) return py::reinterpret_steal<py::object>(text);
      PyErr_Clear();
      return py::bytes(v);
    }
    py::object operator()(const Args::List& v) const {
      py::list list;
      for (const Args& item : v) list.append(from_args(item));
      return std::move(list);
    }
    py::object operator()(const Args::Map& v) const {
      py::dict dict;
      for (const auto& item : v) dict[py::str(item.first)] = from_args(item.second);
      return std::move(dict);
    }
  };
  return std::visit(Convert{}, args.value());
}

void check(const Status& status) {
  if (status.ok()) return;
  py::object error = py::reinterpret_borrow<py::object>(engine_error)(status.message);
  error.attr("code") = status.code;
  error.attr("message") = status.message;
  PyErr_SetObject(engine_error, error.ptr());
  throw py::error_already_set();
}

// Runs `call` without the interpreter lock, then raises what it returned.
template <typename Call>
void run(Call call) {
  Status status;
  {
    const py::gil_scoped_release release;
    status = call();
  }
  check(status);
}

// The same for calls that fill in a result.
template <typename Call>
py::object query(Call call) {
  Args result;
  run([&] { return call(result); });
  return from_args(result);
}

template <typename Call>
py::object read(Call call) {
  Args result;
  {
    const py::gil_scoped_release release;
    result = call();
  }
  return from_args(result);
}

template <typename Command>
py::dict describe_command(const Command& command) {
  py::dict entry;
  entry["name"] = command.name;
  entry["arg_type"] = command.arg_type;
  entry["response_type"] = command.response_type;
  return entry;
}

py::dict describe_modules() {
  py::dict all;
  for (const e2::ModuleClass* c : e2::module_classes()) {
    py::list commands;
    const auto describe = [&commands](const e2::Command& command) {
      py::dict entry = describe_command(command);
      entry["thread_safe"] = command.thread_safe;
      commands.append(entry);
    };
    for (const auto& command : c->commands) describe(command);
    for (const auto& command : Engine::common_commands()) describe(command);
    py::dict entry;
    entry["name"] = c->name;
    entry["help"] = c->help;
    entry["name_template"] = c->name_template;
    entry["arg_type"] = c->arg_type;
    entry["igates"] = c->max_in_gates;
    entry["ogates"] = c->max_out_gates;
    entry["max_workers"] = c->max_workers;
    entry["commands"] = commands;
    all[c->name] = entry;
  }
  return all;
}

py::dict describe_ports() {
  py::dict all;
  for (const e2::PortClass* c : e2::port_classes()) {
    py::dict entry;
    entry["name"] = c->name;
    entry["help"] = c->help;
    entry["arg_type"] = c->arg_type;
    entry["name_template"] = c->name_template;
    entry["commands"] = py::list();
    all[c->name] = entry;
  }
  return all;
}

py::dict describe_hooks() {
  py::dict all;
  for (const e2::GateHookClass& c : e2::gate_hook_classes()) {
    py::list commands;
    for (const auto& command : c.commands) commands.append(describe_command(command));
    py::dict entry;
    entry["name"] = c.name;
    entry["help"] = c.help;
    entry["arg_type"] = c.arg_type;
    entry["commands"] = commands;
    all[c.name] = entry;
  }
  return all;
}

py::dict run_packets(Engine& engine, const std::string& name,
                     const std::vector<std::string>& packets, uint16_t in_gate, uint64_t now_ns) {
  std::map<int, std::vector<std::string>> out;
  run([&] { return engine.run_packets(name, in_gate, packets, out, now_ns); });
  py::dict result;
  for (const auto& gate : out) {
    py::list list;
    for (const std::string& bytes : gate.second) list.append(py::bytes(bytes));
    result[py::int_(gate.first)] = list;
  }
  return result;
}

}  // namespace

PYBIND11_MODULE(_engine, m) {
  m.doc() = "The embedded dataplane: module graph, ports, traffic classes, workers.";
  engine_error =
      PyErr_NewException("bess_plugins._engine.EngineError", PyExc_RuntimeError, nullptr);
  m.attr("EngineError") = py::handle(engine_error);
  m.attr("MAX_WORKERS") = e2::kMaxWorkers;
  m.attr("METADATA_BYTES") = e2::kMetadataBytes;
  m.attr("ISA") = e2::isa_name(e2::isa());

  using namespace py::literals;
  py::class_<Engine>(m, "Engine")
      .def(py::init([](uint32_t pool_packets, uint32_t buffer_bytes) {
             check(e2::check_isa());
             return std::make_unique<Engine>(pool_packets, buffer_bytes);
           }),
           "pool_packets"_a = 16384, "buffer_bytes"_a = 2048)
      .def("module_classes", [](Engine&) { return describe_modules(); })
      .def("port_drivers", [](Engine&) { return describe_ports(); })
      .def(
          "create_module",
          [](Engine& e, const std::string& name, const std::string& mclass, const py::dict& args) {
            const Args converted = to_args(args);
            run([&] { return e.create_module(name, mclass, converted); });
          },
          "name"_a, "mclass"_a, "args"_a)
      .def("destroy_module",
           [](Engine& e, const std::string& name) { run([&] { return e.destroy_module(name); }); })
      .def("modules", [](Engine& e) { return read([&] { return e.modules(); }); })
      .def("class_of",
           [](Engine& e, const std::string& name) {
             std::string mclass;
             run([&] { return e.class_of(name, mclass); });
             return mclass;
           })
      .def("module_info",
           [](Engine& e, const std::string& name) {
             return query([&](Args& out) { return e.module_info(name, out); });
           })
      .def(
          "module_command",
          [](Engine& e, const std::string& name, const std::string& cmd, const py::dict& args) {
            const Args converted = to_args(args);
            return query([&](Args& out) { return e.module_command(name, cmd, converted, out); });
          },
          "name"_a, "cmd"_a, "args"_a)
      .def(
          "connect",
          [](Engine& e, const std::string& m1, uint64_t ogate, const std::string& m2,
             uint64_t igate,
             bool skip) { run([&] { return e.connect(m1, ogate, m2, igate, !skip); }); },
          "m1"_a, "ogate"_a, "m2"_a, "igate"_a, "skip_default_hooks"_a = false)
      .def("disconnect", [](Engine& e, const std::string& name,
                            uint64_t ogate) { run([&] { return e.disconnect(name, ogate); }); })
      .def("counters", [](Engine& e) { return read([&] { return e.counters(); }); })
      .def(
          "events", [](Engine& e, uint64_t after) { return read([&] { return e.events(after); }); },
          "after"_a = 0)
      .def("run_packets", &run_packets, "name"_a, "packets"_a, "in_gate"_a = 0, "now_ns"_a = 0)
      .def(
          "create_port",
          [](Engine& e, const std::string& name, const std::string& driver, uint32_t in_queues,
             uint32_t out_queues, uint32_t in_size, uint32_t out_size, const py::dict& args) {
            const Args converted = to_args(args);
            const e2::PortShape shape{in_queues, out_queues, in_size, out_size};
            return query(
                [&](Args& out) { return e.create_port(name, driver, shape, converted, out); });
          },
          "name"_a, "driver"_a, "num_inc_q"_a = 1, "num_out_q"_a = 1, "size_inc_q"_a = 1024,
          "size_out_q"_a = 1024, "args"_a = py::dict())
      .def("destroy_port",
           [](Engine& e, const std::string& name) { run([&] { return e.destroy_port(name); }); })
      .def("ports", [](Engine& e) { return read([&] { return e.ports(); }); })
      .def("port_stats",
           [](Engine& e, const std::string& name) {
             return query([&](Args& out) { return e.port_stats(name, out); });
           })
      .def("port_link",
           [](Engine& e, const std::string& name) {
             return query([&](Args& out) { return e.port_link(name, out); });
           })
      .def("port_conf",
           [](Engine& e, const std::string& name) {
             return query([&](Args& out) { return e.port_conf(name, out); });
           })
      .def("set_port_conf",
           [](Engine& e, const std::string& name, const py::dict& conf) {
             const Args converted = to_args(conf);
             run([&] { return e.set_port_conf(name, converted); });
           })
      .def(
          "add_worker",
          [](Engine& e, uint64_t wid, int64_t core, const std::string& scheduler) {
            run([&] { return e.add_worker(wid, core, scheduler); });
          },
          "wid"_a, "core"_a, "scheduler"_a = "")
      .def("destroy_worker",
           [](Engine& e, uint64_t wid) { run([&] { return e.destroy_worker(wid); }); })
      .def("workers", [](Engine& e) { return read([&] { return e.workers(); }); })
      .def("pause_all", [](Engine& e) { run([&] { return e.pause(-1); }); })
      .def("pause_worker", [](Engine& e, int64_t wid) { run([&] { return e.pause(wid); }); })
      .def("resume_all", [](Engine& e) { run([&] { return e.resume(-1); }); })
      .def("resume_worker", [](Engine& e, int64_t wid) { run([&] { return e.resume(wid); }); })
      .def("scheduling_violations",
           [](Engine& e) { return read([&] { return e.scheduling_violations(); }); })
      .def("add_tc",
           [](Engine& e, const py::dict& tc) {
             const Args converted = to_args(tc);
             run([&] { return e.add_tc(converted); });
           })
      .def("update_tc_params",
           [](Engine& e, const py::dict& tc) {
             const Args converted = to_args(tc);
             run([&] { return e.update_tc_params(converted); });
           })
      .def("update_tc_parent",
           [](Engine& e, const py::dict& tc) {
             const Args converted = to_args(tc);
             run([&] { return e.update_tc_parent(converted); });
           })
      .def("tcs", [](Engine& e) { return read([&] { return e.tcs(); }); })
      .def("tc_stats",
           [](Engine& e, const std::string& name) {
             return query([&](Args& out) { return e.tc_stats(name, out); });
           })
      .def(
          "configure_hook",
          [](Engine& e, const py::dict& hook, bool enable) {
            const Args converted = to_args(hook);
            std::string name;
            run([&] { return e.configure_hook(converted, enable, name); });
            return name;
          },
          "hook"_a, "enable"_a)
      .def("hooks", [](Engine& e) { return read([&] { return e.hooks(); }); })
      .def("hook_classes", [](Engine&) { return describe_hooks(); })
      .def("hook_command",
           [](Engine& e, const py::dict& hook, const std::string& cmd, const py::dict& args) {
             const Args where = to_args(hook);
             const Args converted = to_args(args);
             return query([&](Args& out) { return e.hook_command(where, cmd, converted, out); });
           })
      .def("configure_resume_hook",
           [](Engine& e, const std::string& name, bool enable) {
             run([&] { return e.configure_resume_hook(name, enable); });
           })
      .def("import_plugin",
           [](Engine& e, const std::string& path) { run([&] { return e.import_plugin(path); }); })
      .def("unload_plugin",
           [](Engine& e, const std::string& path) { run([&] { return e.unload_plugin(path); }); })
      .def("plugins", [](Engine& e) { return read([&] { return e.plugins(); }); })
      .def("reset_modules", [](Engine& e) { run([&] { return e.reset_modules(); }); })
      .def("reset_ports", [](Engine& e) { run([&] { return e.reset_ports(); }); })
      .def("reset_workers", [](Engine& e) { run([&] { return e.reset_workers(); }); })
      .def("reset_tcs", [](Engine& e) { run([&] { return e.reset_tcs(); }); })
      .def("mempool", [](Engine& e) { return read([&] { return e.mempool(); }); });
}
