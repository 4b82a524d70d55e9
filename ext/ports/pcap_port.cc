// SPDX-License-Identifier: BSD-3-Clause
// PCAPPort: replays a capture file, and records packets into another.
//
// Reads pcap and pcapng in all their variants, also compressed with gzip (see pcap_file.h); writes
// pcap with nanoseconds. Packets are delivered with their capture time and, where the capture cut
// them short, their length on the wire; link-layer headers are delivered as they are, whatever
// their type. A packet is written with its own time, or with the time of day where it has none.
//
// When the capture is exhausted the port receives nothing more. A damaged or truncated capture ends
// at the damage; the packet lost there counts as dropped, and closing the port reports the byte
// offset. A write failure (a full disk) refuses all later packets, and closing reports it.
//
// Queues: one each way.
// Needs: at least one of the two paths, which must be different files.
// Arguments: PCAPFilePortArg
// Threads: one worker may receive while another sends. Files are read and written in chunks on the
// worker, so a slow disk slows the worker down.
// Losses: packets longer than a packet buffer count as dropped.
// Origin: original to this project; BESS's driver of this name opens interfaces through libpcap.

#include <sys/stat.h>

#include <algorithm>
#include <ctime>
#include <memory>

#include "host/port.h"
#include "ports/pcap_file.h"

namespace e2 {
namespace {

constexpr uint64_t kNsPerSecond = 1000000000;

uint64_t time_of_day_ns() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<uint64_t>(now.tv_nsec);
}

class PCAPPort final : public Port {
 public:
  Status init(const PortShape& shape, const Args& args) override;
  void receive(Context& ctx, uint32_t queue, Batch& batch, uint32_t max) override;
  uint32_t send(Context& ctx, uint32_t queue, Packet* const* packets, uint32_t count) override;
  Status close() override;

 private:
  bool advance();
  bool due(uint64_t now_ns);

  CaptureReader reader_;
  CaptureWriter writer_;
  bool loop_ = false;
  bool original_timing_ = false;

  bool exhausted_ = true;
  bool has_record_ = false;  // record_ is next to be delivered
  CaptureRecord record_;
  uint64_t pass_records_ = 0;  // of the current run through the file
  bool clock_started_ = false;
  uint64_t first_time_ns_ = 0;
  uint64_t start_ns_ = 0;
};

Status PCAPPort::init(const PortShape&, const Args& args) {
  const std::string& read_path = args["dev"].as_string();
  const std::string& write_path = args["write_path"].as_string();
  loop_ = args["loop"].as_bool();
  original_timing_ = args["original_timing"].as_bool();
  if (read_path.empty() && write_path.empty()) {
    return Status::invalid(
        "PCAPPort needs 'dev' (a capture to read), 'write_path' (a capture to "
        "write), or both");
  }
  if (!read_path.empty()) {
    Status status = reader_.open(read_path);
    if (!status.ok()) return status;
    exhausted_ = false;
  }
  if (!write_path.empty()) {
    struct stat from{}, to{};
    Status status;
    if (!read_path.empty() && stat(read_path.c_str(), &from) == 0 &&
        stat(write_path.c_str(), &to) == 0 && from.st_dev == to.st_dev &&
        from.st_ino == to.st_ino) {
      status = Status::invalid("'dev' and 'write_path' are the same file, '" + write_path +
                               "': writing would destroy what is to be read");
    } else {
      status = writer_.open(write_path);
    }
    if (!status.ok()) {
      reader_.close();
      return status;
    }
  }
  return {};
}

// Makes record_ the next packet to deliver; false when there is none.
bool PCAPPort::advance() {
  if (has_record_) return true;
  while (!exhausted_) {
    const ReadResult result = reader_.next(record_);
    if (result == ReadResult::kPacket) {
      has_record_ = true;
      ++pass_records_;
      return true;
    }
    if (result == ReadResult::kError) in[0].add_dropped(1);
    const bool again = result == ReadResult::kEnd && loop_ && pass_records_ > 0;
    exhausted_ = !again || !reader_.rewind();
    pass_records_ = 0;
    clock_started_ = false;
  }
  return false;
}

bool PCAPPort::due(uint64_t now_ns) {
  if (!clock_started_) {
    clock_started_ = true;
    first_time_ns_ = record_.time_ns;
    start_ns_ = now_ns;
  }
  const uint64_t elapsed_ns = now_ns > start_ns_ ? now_ns - start_ns_ : 0;
  return record_.time_ns <= first_time_ns_ + elapsed_ns;
}

void PCAPPort::receive(Context& ctx, uint32_t, Batch& batch, uint32_t max) {
  const uint32_t wanted = std::min(max, kMaxBatch - batch.size);
  Batch fresh;
  uint32_t used = 0;
  for (uint32_t taken = 0; taken < wanted && advance();) {
    if (original_timing_ && !due(ctx.now_ns)) break;
    if (used == fresh.size) {
      fresh.clear();
      used = 0;
      if (ctx.alloc(fresh, original_timing_ ? 1 : wanted - taken, 0) == 0) break;
    }
    Packet* packet = fresh[used];
    has_record_ = false;
    const bool fits = record_.captured_len <= packet->tailroom();
    const ReadResult result = fits ? reader_.read_data(packet->data(), record_.captured_len)
                                   : reader_.read_data(nullptr, 0);
    if (result != ReadResult::kPacket) {
      in[0].add_dropped(1);
      exhausted_ = true;
      break;
    }
    if (!fits) {
      in[0].add_dropped(1);
      ++taken;  // bounds the time spent here
      continue;
    }
    packet->append(record_.captured_len);
    packet->set_time_ns(record_.time_ns);
    packet->set_wire_len(record_.wire_len > record_.captured_len ? record_.wire_len : 0);
    batch.add(packet);
    ++used;
    ++taken;
  }
  if (used < fresh.size) ctx.free(fresh.packets + used, fresh.size - used);
}

uint32_t PCAPPort::send(Context& ctx, uint32_t, Packet* const* packets, uint32_t count) {
  if (!writer_.is_open()) return 0;
  uint64_t now_ns = 0;
  uint32_t sent = 0;
  for (; sent < count; ++sent) {
    const Packet& packet = *packets[sent];
    uint64_t time_ns = packet.time_ns();
    if (time_ns == 0) time_ns = now_ns != 0 ? now_ns : now_ns = time_of_day_ns();
    if (!writer_.write(time_ns, packet.data(), packet.len(), packet.wire_len())) break;
  }
  if (sent > 0) ctx.free(packets, sent);
  return sent;
}

Status PCAPPort::close() {
  Status read_status = reader_.status();
  reader_.close();
  exhausted_ = true;
  Status write_status = writer_.close();
  if (read_status.ok()) return write_status;
  if (!write_status.ok()) read_status.message += "; and " + write_status.message;
  return read_status;
}

const PortRegistration kRegistered{
    {"PCAPPort", "pcap_port", "replays a capture file and records packets into another",
     "PCAPFilePortArg", [] { return std::make_unique<PCAPPort>(); }}};

}  // namespace
}  // namespace e2
