// SPDX-License-Identifier: BSD-3-Clause
#include "engine/recording_hooks.h"

#include <sys/stat.h>

#include <ctime>

#include "engine/clock.h"
#include "ports/pcap_format.h"

namespace e2 {
namespace {

void write_hex(char* to, const uint8_t* bytes, uint32_t count) {
  static const char kDigits[] = "0123456789ABCDEF";
  for (uint32_t i = 0; i < count; ++i) {
    *to++ = kDigits[bytes[i] >> 4];
    *to++ = kDigits[bytes[i] & 15];
  }
}

std::vector<uint8_t> pcap_header() {
  std::vector<uint8_t> bytes(sizeof(PcapFileHeader));
  write_pcap_header(bytes.data());
  return bytes;
}

// False where the pipe has no room for the packet.
bool write_to(FifoWriter& fifo, uint64_t time_ns, const Packet& packet) {
  uint8_t* to = fifo.reserve(pcap_record_bytes(packet.len()));
  if (to == nullptr) return false;
  write_pcap_record(to, time_ns, packet.data(), packet.len(), packet.wire_len());
  return true;
}

}  // namespace

RecordingHook::RecordingHook() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  epoch_ns_ = static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u +
              static_cast<uint64_t>(now.tv_nsec) - monotonic_ns();
}

void RecordingHook::process(Context& ctx, const Batch& batch) {
  if (writing_.test_and_set(std::memory_order_acquire)) {
    lost_packets_.fetch_add(batch.size, std::memory_order_relaxed);
    return;
  }
  const uint64_t now_ns = epoch_ns_ + ctx.now_ns;
  uint64_t done = 0;
  uint64_t lost = 0;
  for (PacketMask left = choose(batch); left != 0; left &= left - 1) {
    const Packet& packet = *batch[static_cast<uint32_t>(__builtin_ctz(left))];
    const bool recorded = record(packet.time_ns() != 0 ? packet.time_ns() : now_ns, packet);
    done += recorded;
    lost += !recorded;
  }
  finish_batch();
  writing_.clear(std::memory_order_release);
  packets_.fetch_add(done, std::memory_order_relaxed);
  lost_packets_.fetch_add(lost, std::memory_order_relaxed);
}

PacketMask RecordingHook::choose(const Batch& batch) { return mask_of(batch.size); }

Status RecordingHook::command(const std::string& command, const Args& args, Args& response) {
  if (command != kGetStats) return GateHook::command(command, args, response);
  response.set("packets", packets_.load(std::memory_order_relaxed));
  response.set("lost_packets", lost_packets_.load(std::memory_order_relaxed));
  return {};
}

Status CaptureHook::init(const Module&, const Args& args) {
  path_ = args["path"].as_string();
  filter_text_ = args["filter"].as_string();
  fifo_path_ = args["fifo"].as_string();
  if (path_.empty() == fifo_path_.empty()) {
    return Status::invalid("'path' must name the file to write, or 'fifo' a pipe; one of them");
  }
  if (!filter_text_.empty()) {
    Status status = BpfFilter::compile(filter_text_, filter_);
    if (!status.ok()) return status;
  }
  if (!fifo_path_.empty()) return fifo_.open(fifo_path_, pcap_header(), false, false);
  struct stat at;
  if (::stat(path_.c_str(), &at) == 0 && !S_ISREG(at.st_mode)) {
    return Status::invalid("'" + path_ + "' is not a regular file");
  }
  return writer_.open(path_);
}

Status CaptureHook::close() {
  fifo_.close();
  return fifo_path_.empty() ? writer_.close() : Status();
}

PacketMask CaptureHook::choose(const Batch& batch) {
  const PacketMask all = RecordingHook::choose(batch);
  return filter_text_.empty() ? all : filter_.match(Frames(batch), all);
}

bool CaptureHook::record(uint64_t time_ns, const Packet& packet) {
  if (!fifo_path_.empty()) return write_to(fifo_, time_ns, packet);
  return writer_.write(time_ns, packet.data(), packet.len(), packet.wire_len());
}

void CaptureHook::finish_batch() {
  if (!fifo_path_.empty()) fifo_.flush();
}

Args CaptureHook::describe() const {
  Args args;
  args.set("path", path_);
  args.set("fifo", fifo_path_);
  args.set("filter", filter_text_);
  return args;
}

Status FifoHook::init(const Module& module, const Args& args) {
  args_ = args;
  return fifo_.open(args["fifo"].as_string(), file_header(module), args["defer"].as_bool(),
                    args["reconnect"].as_bool());
}

Status FifoHook::close() {
  fifo_.close();
  return {};
}

std::vector<uint8_t> TcpdumpHook::file_header(const Module&) { return pcap_header(); }

bool TcpdumpHook::record(uint64_t time_ns, const Packet& packet) {
  return write_to(fifo_, time_ns, packet);
}

std::vector<uint8_t> PcapngHook::file_header(const Module& module) {
  module_ = &module;
  for (size_t i = 0; i < module.attributes().size(); ++i) {
    const Attribute& attr = module.attributes()[i];
    if (!comment_.empty()) comment_ += ' ';
    comment_ += attr.name + " = ";
    const size_t digits = 2 * size_t{attr.size_bytes};
    if (comment_.size() + digits > kMostPcapngComment) break;
    fields_.push_back({i, attr.size_bytes, comment_.size()});
    comment_.append(digits, 'X');
  }
  if (comment_.size() > kMostPcapngComment) comment_.resize(kMostPcapngComment);
  std::vector<uint8_t> bytes(kPcapngHeaderBytes);
  write_pcapng_header(bytes.data());
  return bytes;
}

bool PcapngHook::record(uint64_t time_ns, const Packet& packet) {
  const auto comment_len = static_cast<uint32_t>(comment_.size());
  uint8_t* to = fifo_.reserve(pcapng_packet_bytes(packet.len(), comment_len));
  if (to == nullptr) return false;
  for (const Field& field : fields_) {
    const int offset = module_->attr_offset(field.attr);
    if (offset < 0) continue;  // stays XX: nobody has given the attribute a place
    write_hex(&comment_[field.text_at], packet.metadata(offset), field.size_bytes);
  }
  write_pcapng_packet(to, time_ns, packet.data(), packet.len(), packet.wire_len(), comment_.data(),
                      comment_len);
  return true;
}

}  // namespace e2
