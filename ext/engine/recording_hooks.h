// SPDX-License-Identifier: BSD-3-Clause
// Hooks that record what crosses a gate of a running pipeline.
//
// | class   | writes             | to                                                           |
// |---------|--------------------|--------------------------------------------------------------|
// | Capture | pcap               | a regular file, made anew: `path`; or a named pipe that      |
// |         |                    | somebody reads: `fifo` (CaptureArg)                          |
// | TcpDump | pcap               | a named pipe that somebody reads: `fifo` (TcpdumpArg)        |
// | PcapNg  | pcapng; a packet's | the same (PcapngArg)                                         |
// |         | metadata is its    |                                                              |
// |         | comment, in hex    |                                                              |
//
// Arguments: Capture: filter, in pcap-filter's words, all packets when empty. The others: defer,
//   install the hook even though nobody reads the pipe yet; reconnect, wait for the next reader
//   after one has left, instead of recording no more.
// Command: get_stats {} -> GateHookStats: packets recorded, and lost_packets that were not (another
//   worker was recording, nobody reads the pipe, or who does is too slow).
// No worker ever waits: neither for another one nor for a reader. A file is written on the worker,
// in large pieces: a tool for finding faults, not a recorder for line rate. It is whole once the
// hook is removed.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "host/module.h"
#include "modules/bpf_filter.h"
#include "ports/fifo_writer.h"
#include "ports/pcap_file.h"

namespace e2 {

constexpr const char* kGetStats = "get_stats";

class RecordingHook : public GateHook {
 public:
  RecordingHook();
  void process(Context& ctx, const Batch& batch) final;
  Status command(const std::string& command, const Args& args, Args& response) final;

 protected:
  // Bit i: whether packet i is to be recorded.
  virtual PacketMask choose(const Batch& batch);
  // False where the packet is lost.
  virtual bool record(uint64_t time_ns, const Packet& packet) = 0;
  virtual void finish_batch() {}

 private:
  uint64_t epoch_ns_;  // of the monotonic clock's zero
  std::atomic_flag writing_ = ATOMIC_FLAG_INIT;
  std::atomic<uint64_t> packets_{0};
  std::atomic<uint64_t> lost_packets_{0};
};

class CaptureHook final : public RecordingHook {
 public:
  Status init(const Module& module, const Args& args) override;
  Status close() override;
  Args describe() const override;

 protected:
  PacketMask choose(const Batch& batch) override;
  bool record(uint64_t time_ns, const Packet& packet) override;
  void finish_batch() override;

 private:
  std::string path_;
  std::string fifo_path_;  // empty: to a file
  std::string filter_text_;
  BpfFilter filter_;
  CaptureWriter writer_;
  FifoWriter fifo_;
};

class FifoHook : public RecordingHook {
 public:
  Status init(const Module& module, const Args& args) override;
  Status close() override;
  Args describe() const override { return args_; }

 protected:
  // What a reader gets first.
  virtual std::vector<uint8_t> file_header(const Module& module) = 0;
  void finish_batch() final { fifo_.flush(); }
  FifoWriter fifo_;

 private:
  Args args_;
};

class TcpdumpHook final : public FifoHook {
 protected:
  std::vector<uint8_t> file_header(const Module& module) override;
  bool record(uint64_t time_ns, const Packet& packet) override;
};

class PcapngHook final : public FifoHook {
 protected:
  std::vector<uint8_t> file_header(const Module& module) override;
  bool record(uint64_t time_ns, const Packet& packet) override;

 private:
  struct Field {
    size_t attr;
    uint32_t size_bytes;
    size_t text_at;  // of its hex digits in the comment
  };
  const Module* module_ = nullptr;
  std::vector<Field> fields_;
  std::string comment_;
};

}  // namespace e2
