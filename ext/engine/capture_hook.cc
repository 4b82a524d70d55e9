// SPDX-License-Identifier: BSD-3-Clause
#include "engine/capture_hook.h"

#include <sys/stat.h>

#include <ctime>

#include "engine/clock.h"

namespace e2 {

Status CaptureHook::init(const Args& args) {
  path_ = args["path"].as_string();
  filter_text_ = args["filter"].as_string();
  if (path_.empty()) return Status::invalid("'path' must name the file to write");
  struct stat at;
  if (::stat(path_.c_str(), &at) == 0 && !S_ISREG(at.st_mode)) {
    return Status::invalid("'" + path_ + "' is not a regular file");
  }
  if (!filter_text_.empty()) {
    Status status = BpfFilter::compile(filter_text_, filter_);
    if (!status.ok()) return status;
  }
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  epoch_ns_ = static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u +
              static_cast<uint64_t>(now.tv_nsec) - monotonic_ns();
  return writer_.open(path_);
}

void CaptureHook::process(Context& ctx, const Batch& batch) {
  if (writing_.test_and_set(std::memory_order_acquire)) {
    missed_packets_.fetch_add(batch.size, std::memory_order_relaxed);
    return;
  }
  const uint64_t now_ns = epoch_ns_ + ctx.now_ns;
  PacketMask left = mask_of(batch.size);
  if (!filter_text_.empty()) left = filter_.match(Frames(batch), left);
  for (; left != 0; left &= left - 1) {
    const Packet& packet = *batch[__builtin_ctz(left)];
    const uint64_t time_ns = packet.time_ns() != 0 ? packet.time_ns() : now_ns;
    writer_.write(time_ns, packet.data(), packet.len(), packet.len());
  }
  writing_.clear(std::memory_order_release);
}

Status CaptureHook::close() { return writer_.close(); }

Args CaptureHook::describe() const {
  Args args;
  args.set("path", path_);
  args.set("filter", filter_text_);
  args.set("missed_packets", missed_packets_.load(std::memory_order_relaxed));
  return args;
}

}  // namespace e2
