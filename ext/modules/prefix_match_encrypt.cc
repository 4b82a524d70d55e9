// SPDX-License-Identifier: BSD-3-Clause
// PrefixMatchEncrypt: encrypts headers so that a provider can match them against encrypted rules.
//
// Each IPv4 or IPv6 packet becomes an IPv6 packet with encrypted addresses and ports, valid
// checksums, and an option with the original fields for PrefixMatchDecrypt (embark_wire.h). The
// protocol number stays, and so do lengths, traffic class and hop limit, TCP's flags, numbers and
// options, ICMP's type and code, and which piece of a datagram a fragment is. VLAN tags, IPv4
// options, IPv6 extension headers and flow labels move into the option; MAC addresses and bytes
// behind the IP packet do not survive.
//
// Nothing else leaves in clear: what isn't whole TCP, UDP or ICMP query (other protocols, ICMP
// errors with packets in them, malformed headers) keeps its place but is sealed. The payload of
// TCP, UDP and ICMP queries stays as it is; put a PayloadSeal before this module to seal it too.
// All fragments of a datagram are encrypted as one flow without ports.
//
// With `bound_seals` a seal opens behind its own header only. Without, whoever is on the way may
// put a sealed payload behind another header, as a cache has to.
//
// Packets from and to `pool`, addresses that the provider may write, get encryptions that are the
// same in all flows; with `nat` the port on their side stays as it is.
//
// With `returns`, sources of flows that a NAT may translate (TCP, UDP and ICMP queries, whole and
// neither from nor to the pool) are written into a table, for a PrefixMatchDecrypt that gets what
// the NAT sends back. `update` leaves the table as it is: flows of earlier keys still return. With
// `clients`, so are sources of TCP and UDP to the pool, which `reencrypt` knows then: those that a
// load balancer keeps with a server.
//
// Family: embark
// Gates: in 1, out 1.
// Arguments: PrefixMatchEncryptArg
// Commands:
//   update       replaces keys, maps and pool as one, while packets flow; or nothing, on an error
//   get_pool     the pool with its encryptions, which the provider's NAT and load balancer write;
//                those under other keys and maps, if they are given
//   get_returns  how full the table of `returns` is; 0 of 0 without one
//   reencrypt    encrypted sources of flows, as a NAT or L4LB tells them, by other keys and maps.
//                The answer is for NAT's replace_mappings and L4LB's replace_connections; both
//                encryptions lead back from then on. Without sources it says whether keys and maps
//                are good
// Metadata: reads "embark_seal" (32 bytes) of PayloadSeal, with `sealed_payload`.
// Drop reasons:
//   "not IP"            ARP and the like, which no encryption exists for
//   "malformed"         an IP header that is cut or contradicts the frame's length
//   "of the link"       neighbour discovery and multicast listener reports
//   "over MTU"          the encrypted packet would be longer than `mtu`
//   "too many headers"  extension headers, tags and options have no room in the option, or the
//                       packet has no headroom left
// Limits: what the provider learns is in docs/embark.md. A NAT's translation of ICMP errors needs
// the packet in them and finds it sealed.
// Method: 32 packets go through the ciphers and the interval maps side by side.
// Origin: original to this project, after C. Lan's dissertation, section 4.3.1.
#include "crypto/prefix_file.h"
#include "host/live_table.h"
#include "host/module.h"
#include "modules/embark_args.h"
#include "modules/header_encryptor.h"
#include "modules/return_args.h"

namespace e2 {
namespace {

constexpr uint64_t kMinMtu = 1280;  // of IPv6
constexpr uint64_t kMaxMtu = 65535;

using SharedPlan = std::shared_ptr<const EncryptPlan>;

Status read_plan(const Args& args, const std::string& where, SharedPlan& result) {
  auto plan = std::make_shared<EncryptPlan>();
  Status status = read_site_key(args["key"], where + ".key", plan->keys, plan->epoch);
  if (!status.ok()) return status;
  const std::string& file = args["maps_file"].as_string();
  if (file.empty()) return Status::invalid(where + ".maps_file is missing");
  FileMaps maps;
  status = read_prefix_maps(file, maps);
  if (!status.ok()) {
    status.message = where + ".maps_file: " + status.message;
    return status;
  }
  for (size_t field = 0; field < kPrefixFields; ++field) {
    plan->maps[field] = std::make_unique<const PrefixMap>(maps[field], plan->keys->field[field]);
  }
  plan->pool = AddressPool(plan->keys->pool);
  status = read_pool(args["pool"], where + ".pool", plan->pool);
  if (!status.ok()) return status;
  plan->pool.set_prefixes(*plan->maps[kSrcAddress], *plan->maps[kDstAddress]);
  result = std::move(plan);
  return {};
}

class PrefixMatchEncrypt final : public Module {
 public:
  Status init(Host& host, const Args& args) override {
    // In the order of Refusal.
    first_refusal_ = drop_gate(add_drop_reason("not IP"));
    add_drop_reason("malformed");
    add_drop_reason("of the link");
    add_drop_reason("over MTU");
    add_drop_reason("too many headers");
    sealed_ = args["sealed_payload"].as_bool();
    if (sealed_) seal_ = add_attr(kSealAttribute, kSealBytes, Access::kRead);
    nonces_ = std::make_unique<Nonces[]>(kMaxWorkers);
    Status status = read_frame(args);
    if (status.ok()) status = change_plan(args);
    if (status.ok() && args.has("returns")) status = read_returns(host, args["returns"]);
    return status;
  }

  void process(Context& ctx, Batch& batch, Gate) override {
    Gate gates[kMaxBatch];
    encrypt(ctx, batch, gates);
    emit_by_gate(ctx, batch, gates);
  }

  Status update(const Args& args, Args&) { return change_plan(args); }

  Status reencrypt(const Args& args, Args& response) {
    SharedPlan plan;
    Status status = plan_of(args, "reencrypt", plan);
    if (!status.ok()) return status;
    if (returns_.table != nullptr) {
      return reencrypt_sources(*plan, *returns_.table, clock_ns(), args, response);
    }
    if (args["sources"].as_list().empty()) return {};
    return Status::error(ENOENT, "reencrypt: nothing is known of flows; needs `returns`");
  }

  Status get_returns(const Args&, Args& response) {
    if (returns_.table == nullptr) return {};
    response.set("flows", returns_.table->flows(ReturnTable::time_of(clock_ns())));
    response.set("max_flows", returns_.table->capacity());
    response.set("displaced", returns_.table->displaced());
    return {};
  }

  Status get_pool(const Args& args, Args& response) {
    SharedPlan plan;
    Status status = plan_of(args, "get_pool", plan);
    if (!status.ok()) return status;
    Args::List list;
    for (const AddressPool::Entry& entry : plan->pool.entries()) {
      Args one;
      one.set("address", address_text(entry.clear));
      one.set("encrypted", address_text(entry.encrypted));
      one.set("nat", entry.nat);
      list.push_back(std::move(one));
    }
    response.set("addresses", std::move(list));
    return {};
  }

 private:
  // Not inline: the groups needn't be on the stack while others have the
  // packets.
  [[gnu::noinline]] void encrypt(Context& ctx, Batch& batch, Gate* gates) {
    const auto plan = live_.read(ctx);
    HeaderEncryptor encryptor(**plan, frame_, returns_, ctx.now_ns, nonces_[ctx.wid]);
    const int seal = sealed_ ? attr_offset(seal_) : kNoOffset;
    Refusal refusals[kMaxBatch];
    encryptor.encrypt(batch, seal, refusals);
    gates_of_results(refusals, batch.size, first_refusal_, gates);
  }

  // A command's plan; what packets are encrypted by now where it has none.
  Status plan_of(const Args& args, const std::string& where, SharedPlan& plan) {
    if (args.has("plan")) return read_plan(args["plan"], where + ": plan", plan);
    plan = *live_.look();
    return {};
  }

  Status read_frame(const Args& args) {
    frame_.bound = args["bound_seals"].as_bool() ? kFlagBound : 0;
    const uint64_t mtu = args["mtu"].as_uint();
    if (mtu != 0 && (mtu < kMinMtu || mtu > kMaxMtu)) {
      return Status::invalid("PrefixMatchEncrypt.mtu is " + std::to_string(mtu) +
                             "; must be within " + std::to_string(kMinMtu) + ".." +
                             std::to_string(kMaxMtu));
    }
    frame_.mtu = static_cast<uint32_t>(mtu == 0 ? kMaxMtu : mtu);
    return read_macs(args, "PrefixMatchEncrypt", frame_.macs);
  }

  Status read_returns(Host& host, const Args& args) {
    const std::string where = "PrefixMatchEncrypt.returns";
    const std::string& name = args["name"].as_string();
    if (name.empty()) return Status::invalid(where + ".name is missing; must name a table");
    Status status = read_sources(args["sources"].as_list(), where + ".sources", returns_.sources);
    if (!status.ok()) return status;
    returns_.clients = args["clients"].as_bool();
    shared_returns_ = SharedReturns::of(host, name);
    status =
        shared_returns_->make(args["max_flows"].as_uint(), args["timeout_ms"].as_uint(), where);
    if (status.ok()) returns_.table = shared_returns_->get();
    return status;
  }

  Status change_plan(const Args& args) {
    SharedPlan plan;
    Status status = read_plan(args, "PrefixMatchEncrypt", plan);
    if (status.ok()) live_.change([&](SharedPlan& current) { current = plan; });
    return status;
  }

  Live<SharedPlan> live_;
  EncryptFrame frame_;
  EncryptReturns returns_;
  std::shared_ptr<SharedReturns> shared_returns_;
  std::unique_ptr<Nonces[]> nonces_;  // by worker
  bool sealed_ = false;
  size_t seal_ = 0;
  Gate first_refusal_ = 0;
};

const ModuleClass kClass = {
    "PrefixMatchEncrypt",
    "prefix_match_encrypt",
    "encrypts headers so that they match encrypted rules",
    "PrefixMatchEncryptArg",
    1,
    1,
    {{"update", "PrefixMatchEncryptCommandUpdateArg", "EmptyArg", true,
      command(&PrefixMatchEncrypt::update)},
     {"get_pool", "PrefixMatchEncryptCommandGetPoolArg", "PrefixMatchEncryptCommandGetPoolResponse",
      true, command(&PrefixMatchEncrypt::get_pool)},
     {"get_returns", "PrefixMatchEncryptCommandGetReturnsArg",
      "PrefixMatchEncryptCommandGetReturnsResponse", true,
      command(&PrefixMatchEncrypt::get_returns)},
     {"reencrypt", "PrefixMatchEncryptCommandReencryptArg",
      "PrefixMatchEncryptCommandReencryptResponse", true, command(&PrefixMatchEncrypt::reencrypt)}},
    make_module<PrefixMatchEncrypt>,
    kAnyWorkers};
const ModuleRegistration kRegistered{kClass};

}  // namespace
}  // namespace e2
