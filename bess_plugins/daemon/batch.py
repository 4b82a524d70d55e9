# SPDX-License-Identifier: BSD-3-Clause
"""The service that carries out many calls in one."""

from __future__ import annotations

from typing import Any

import grpc

from bess_plugins.daemon.service import ControlService
from bess_plugins.pb import e2_batch_pb2 as pb
from bess_plugins.pb import e2_counters_pb2 as counters_pb

__all__ = ["batching_handler"]

_SERVICE = pb.DESCRIPTOR.services_by_name["Batching"]


def batching_handler(service: ControlService) -> Any:
    """Return what a gRPC server needs to serve ``e2.pb.Batching`` beside a control service."""

    def run(request: pb.Batch, context: grpc.ServicerContext) -> pb.BatchDone:
        return _run(service, request)

    handler = grpc.unary_unary_rpc_method_handler(
        run,
        request_deserializer=pb.Batch.FromString,
        response_serializer=pb.BatchDone.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(_SERVICE.full_name, {"Run": handler})


def _run(service: ControlService, batch: pb.Batch) -> pb.BatchDone:
    done = pb.BatchDone()
    with service.lock:
        done.stale = batch.HasField("generation") and batch.generation != service.generation
        for call in () if done.stale else batch.calls:
            response = service.call_packed(call.method, call.request)
            done.responses.append(response.SerializeToString())
            if response.error.code:
                break
        done.generation = service.generation
        if not batch.HasField("generation") or batch.generation != service.generation:
            done.counters.CopyFrom(counters_pb.Counters(**service.engine.counters()))
    return done
