// SPDX-License-Identifier: BSD-3-Clause
#include "modules/flow_aging.h"

#include <cerrno>
#include <random>

namespace e2 {
namespace {

constexpr uint64_t kDefaultFlows = 65536;
constexpr uint64_t kDefaultLingerMs = 1'000;
constexpr uint64_t kMostTimeoutMs = 1'000ULL * 60 * 60 * 24 * 365;
constexpr uint64_t kNsPerMs = 1'000'000;

Status read_number(const Args& args, const std::string& module_class, const std::string& name,
                   uint64_t absent, uint64_t most, uint64_t& to) {
  to = args[name].as_uint();
  if (to == 0) to = absent;
  if (to <= most) return {};
  return Status::invalid(module_class + "." + name + " is " + std::to_string(to) +
                         "; must be between 1 and " + std::to_string(most));
}

}  // namespace

Status FlowAging::init(const Args& args, const std::string& module_class,
                       uint64_t default_timeout_ms) {
  Status status = read_number(args, module_class, "timeout_ms", default_timeout_ms, kMostTimeoutMs,
                              timeout_ns_[0]);
  if (status.ok()) {
    status = read_number(args, module_class, "linger_ms", kDefaultLingerMs, kMostTimeoutMs,
                         timeout_ns_[1]);
  }
  for (uint64_t& timeout : timeout_ns_) timeout *= kNsPerMs;
  return status;
}

Status FlowAging::make_table(const Args& args, const std::string& module_class,
                             const std::string& name, FlowTable& table) {
  uint64_t flows = 0;
  Status status =
      read_number(args, module_class, name, kDefaultFlows, FlowTable::kMostFlows, flows);
  if (!status.ok()) return status;
  std::random_device random;
  const uint64_t seed = static_cast<uint64_t>(random()) << 32 | random();
  if (table.init(static_cast<uint32_t>(flows), seed)) return {};
  return Status::error(ENOMEM, module_class + "." + name + " is " + std::to_string(flows) +
                                   ", for which there is no memory; about 74 bytes each");
}

}  // namespace e2
