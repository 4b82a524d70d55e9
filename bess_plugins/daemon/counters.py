# SPDX-License-Identifier: BSD-3-Clause
"""The service that gives all counters at once."""

from __future__ import annotations

from typing import Any

import grpc

from bess_plugins.daemon._base import EngineApi
from bess_plugins.pb import e2_counters_pb2 as pb

__all__ = ["counting_handler"]

_SERVICE = pb.DESCRIPTOR.services_by_name["Counting"]


def counting_handler(engine: EngineApi) -> Any:
    """Return what a gRPC server needs to serve ``e2.pb.Counting`` from an engine."""

    def get_counters(request: pb.CountersRequest, context: grpc.ServicerContext) -> pb.Counters:
        return pb.Counters(**engine.counters())

    handler = grpc.unary_unary_rpc_method_handler(
        get_counters,
        request_deserializer=pb.CountersRequest.FromString,
        response_serializer=pb.Counters.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(_SERVICE.full_name, {"GetCounters": handler})
