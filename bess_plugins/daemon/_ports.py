# SPDX-License-Identifier: BSD-3-Clause
# ruff: noqa: N802  (methods are named after the calls they serve)
"""Calls about ports and their drivers."""

from __future__ import annotations

import errno
import re
import time
from typing import Any

from bess_plugins.daemon._base import (
    MAX_QUEUE_SIZE,
    MAX_QUEUES,
    RpcError,
    ServiceBase,
    default_name,
    lookup,
    require,
    unpack_arg,
)
from bess_plugins.pb import bess_msg_pb2 as pb

_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_ZERO_MAC = "00:00:00:00:00:00"
_NO_NAME = "Missing port name"


def _fill_stat(target: pb.GetPortStatsResponse.Stat, stat: dict[str, Any]) -> None:
    target.packets = stat["packets"]
    target.dropped = stat["dropped"]
    target.bytes = stat["bytes"]
    for key in ("requested_hist", "actual_hist", "diff_hist"):
        getattr(target, key).extend(stat.get(key) or ())


class PortCalls(ServiceBase):
    """Ports and drivers."""

    def ListDrivers(self, request: pb.EmptyRequest, response: pb.ListDriversResponse) -> None:
        response.driver_names.extend(sorted(self.engine.port_drivers()))

    def GetDriverInfo(
        self, request: pb.GetDriverInfoRequest, response: pb.GetDriverInfoResponse
    ) -> None:
        name = require(request.driver_name, "Missing driver name")
        driver = lookup(self.engine.port_drivers(), name, f"No driver '{name}' found")
        response.name = driver["name"]
        response.help = driver["help"]
        response.commands.extend(driver.get("commands") or ())

    def ResetPorts(self, request: pb.EmptyRequest, response: pb.EmptyResponse) -> None:
        try:
            self.engine.reset_ports()
        finally:
            left = {port["name"] for port in self.engine.ports()}
            self.port_args = {k: v for k, v in self.port_args.items() if k in left}

    def ListPorts(self, request: pb.EmptyRequest, response: pb.ListPortsResponse) -> None:
        for port in self.engine.ports():
            entry = response.ports.add(
                name=port["name"],
                driver=port["driver"],
                mac_addr=port["mac_addr"],
                num_inc_q=port["num_inc_q"],
                num_out_q=port["num_out_q"],
                size_inc_q=port["size_inc_q"],
                size_out_q=port["size_out_q"],
            )
            if port["name"] in self.port_args:
                entry.driver_arg.CopyFrom(self.port_args[port["name"]])

    def CreatePort(self, request: pb.CreatePortRequest, response: pb.CreatePortResponse) -> None:
        driver_name = require(request.driver, "Missing 'driver' field")
        driver = lookup(
            self.engine.port_drivers(), driver_name, f"No port driver '{driver_name}' found"
        )
        num_inc_q, num_out_q = request.num_inc_q or 1, request.num_out_q or 1
        if max(num_inc_q, num_out_q) > MAX_QUEUES:
            raise RpcError(errno.EINVAL, f"A port has at most {MAX_QUEUES} queues each way")
        if max(request.size_inc_q, request.size_out_q) > MAX_QUEUE_SIZE:
            raise RpcError(errno.EINVAL, f"A queue holds at most {MAX_QUEUE_SIZE} packets")
        taken = {port["name"] for port in self.engine.ports()}
        if request.name in taken:
            raise RpcError(errno.EEXIST, f"Port '{request.name}' already exists")
        name = request.name or default_name(driver_name, driver.get("name_template") or "", taken)
        args = unpack_arg(request.arg, driver["arg_type"], driver_name)
        created = self.engine.create_port(
            name, driver_name, num_inc_q, num_out_q, request.size_inc_q, request.size_out_q, args
        )
        self.port_args[name] = request.arg
        response.name = name
        response.mac_addr = created["mac_addr"]

    def DestroyPort(self, request: pb.DestroyPortRequest, response: pb.EmptyResponse) -> None:
        self.engine.destroy_port(require(request.name, _NO_NAME))
        self.port_args.pop(request.name, None)

    def SetPortConf(self, request: pb.SetPortConfRequest, response: pb.CommandResponse) -> None:
        name = require(request.name, _NO_NAME)
        current = self.engine.port_conf(name)
        conf = request.conf
        if not _MAC.fullmatch(conf.mac_addr):
            raise RpcError(errno.EINVAL, "MAC address should be formatted xx:xx:xx:xx:xx:xx")
        self.engine.set_port_conf(
            name,
            {
                "mac_addr": current["mac_addr"] if conf.mac_addr == _ZERO_MAC else conf.mac_addr,
                "mtu": conf.mtu or current["mtu"],
                "admin_up": conf.admin_up,
            },
        )

    def GetPortConf(self, request: pb.GetPortConfRequest, response: pb.GetPortConfResponse) -> None:
        conf = self.engine.port_conf(require(request.name, _NO_NAME))
        response.conf.mac_addr = conf["mac_addr"]
        response.conf.mtu = conf["mtu"]
        response.conf.admin_up = conf["admin_up"]

    def GetPortStats(
        self, request: pb.GetPortStatsRequest, response: pb.GetPortStatsResponse
    ) -> None:
        stats = self.engine.port_stats(require(request.name, _NO_NAME))
        _fill_stat(response.inc, stats["inc"])
        _fill_stat(response.out, stats["out"])
        response.timestamp = time.time()

    def GetLinkStatus(
        self, request: pb.GetLinkStatusRequest, response: pb.GetLinkStatusResponse
    ) -> None:
        link = self.engine.port_link(require(request.name, _NO_NAME))
        response.speed = link["speed"]
        response.full_duplex = link["full_duplex"]
        response.autoneg = link["autoneg"]
        response.link_up = link["link_up"]
