// SPDX-License-Identifier: BSD-3-Clause
// Sums over workers and queues of what gates, modules and ports count.
#pragma once

#include "engine/graph.h"
#include "host/args.h"
#include "host/port.h"

namespace e2 {

GateCount total(const OutGate& gate);
// Packets dropped by reason; `all` keeps the reasons that dropped none.
Args drop_counts(const Module& module, bool all);
// Of one direction of a port.
Args port_counts(const PortCount (&counts)[kMaxQueues]);

}  // namespace e2
