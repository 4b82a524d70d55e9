// SPDX-License-Identifier: BSD-3-Clause
// CaptureHook: copies what crosses a gate of a running pipeline into a pcap file.
//
// Arguments (CaptureArg): path, a regular file, made anew; filter, in pcap-filter's words, all
// packets when empty. One worker writes at a time and none waits: a batch that meets another
// worker's is counted as missed. Writes are buffered, and happen on the worker: a tool for finding
// faults, not a recorder for line rate. The file is whole once the hook is removed.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "host/args.h"
#include "host/module.h"
#include "modules/bpf_filter.h"
#include "ports/pcap_file.h"

namespace e2 {

class CaptureHook final : public GateHook {
 public:
  // Opens the file and compiles the filter.
  Status init(const Args& args);
  void process(Context& ctx, const Batch& batch) override;
  Status close() override;
  Args describe() const override;

 private:
  std::string path_;
  std::string filter_text_;
  BpfFilter filter_;
  CaptureWriter writer_;
  uint64_t epoch_ns_ = 0;  // of the monotonic clock's zero
  std::atomic_flag writing_ = ATOMIC_FLAG_INIT;
  std::atomic<uint64_t> missed_packets_{0};
};

}  // namespace e2
