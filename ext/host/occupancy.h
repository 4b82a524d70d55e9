// SPDX-License-Identifier: BSD-3-Clause
// Occupancy: how full something is that keeps packets, for modules that watch it.
#pragma once

#include <cstdint>
#include <memory>

#pragma GCC visibility push(default)  // for plugins
namespace e2 {

class Occupancy {
 public:
  // What a watcher keeps: null once the watched module is gone. Modules come and go while no worker
  // runs.
  using Handle = std::shared_ptr<const Occupancy* const>;

  Occupancy() : self_(std::make_shared<const Occupancy*>(this)) {}
  virtual ~Occupancy() { *self_ = nullptr; }
  Occupancy(const Occupancy&) = delete;
  Occupancy& operator=(const Occupancy&) = delete;

  // From any thread: packets that wait, and how many may.
  virtual uint64_t waiting() const = 0;
  virtual uint64_t most_waiting() const = 0;

  Handle handle() const { return self_; }

 private:
  std::shared_ptr<const Occupancy*> self_;
};

}  // namespace e2
#pragma GCC visibility pop
