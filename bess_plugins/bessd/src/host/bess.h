// SPDX-License-Identifier: BSD-3-Clause
// The daemon's own headers. What they define is the daemon's, so it keeps its visibility.
#pragma once

#pragma GCC visibility push(default)
#include <event.h>
#include <message.h>
#include <metadata.h>
#include <module.h>
#include <module_graph.h>
#include <packet.h>
#include <packet_pool.h>
#include <pktbatch.h>
#include <resume_hook.h>
#include <task.h>
#include <utils/time.h>
#include <worker.h>
#pragma GCC visibility pop
