// SPDX-License-Identifier: BSD-3-Clause
// Messages as Args and back, by reflection over descriptors that the plugin carries itself: none of
// its types enter the daemon's registry, where they would stay when the plugin is unloaded.
#pragma once

#include <string>

#include "host/args.h"
#include "host/bess.h"
#include "host/status.h"

namespace e2 {

// Both take a type's flat name in package bess.pb; "EmptyArg" has no fields.
Status read_message(const google::protobuf::Any& from, const std::string& type, Args& args);
Status write_message(const Args& args, const std::string& type, google::protobuf::Any& to);

}  // namespace e2
