# SPDX-License-Identifier: BSD-3-Clause
"""Calls about ports and their drivers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bess_plugins import _proto
from bess_plugins.client._base import Connection, without_error
from bess_plugins.pb import bess_msg_pb2 as pb


@dataclass(frozen=True)
class CreatedPort:
    """Final name and hardware address of a new port."""

    name: str
    mac_addr: str


@dataclass(frozen=True)
class PortCounters:
    """Totals of one direction."""

    packets: int
    dropped: int
    bytes: int


@dataclass(frozen=True)
class PortStats:
    """Totals of a port; ``inc`` enters the dataplane and ``out`` leaves it."""

    inc: PortCounters
    out: PortCounters
    timestamp: float


class PortCalls(Connection):
    """Ports and drivers."""

    def list_drivers(self) -> list[str]:
        """Names of the port drivers."""
        return list(self.call("ListDrivers").driver_names)

    def driver_info(self, name: str) -> dict[str, Any]:
        """Description of a port driver."""
        request = pb.GetDriverInfoRequest(driver_name=name)
        return without_error(self.call("GetDriverInfo", request))

    def create_port(
        self,
        driver: str,
        name: str = "",
        *,
        num_inc_q: int = 1,
        num_out_q: int = 1,
        size_inc_q: int = 0,
        size_out_q: int = 0,
        **arg: Any,
    ) -> CreatedPort:
        """Create a port; remaining keywords go to its driver."""
        request = pb.CreatePortRequest(
            name=name,
            driver=driver,
            num_inc_q=num_inc_q,
            num_out_q=num_out_q,
            size_inc_q=size_inc_q,
            size_out_q=size_out_q,
            arg=self._class_arg("CreatePort", driver, arg),
        )
        response = self.call("CreatePort", request)
        return CreatedPort(response.name, response.mac_addr)

    def destroy_port(self, name: str) -> None:
        """Remove a port."""
        self.call("DestroyPort", pb.DestroyPortRequest(name=name))

    def reset_ports(self) -> None:
        """Remove all ports."""
        self.call("ResetPorts")

    def list_ports(self) -> list[dict[str, Any]]:
        """All ports; ``driver_arg`` holds the plain values."""
        return [
            {**_proto.to_dict(port), "driver_arg": self._values(port.driver_arg)}
            for port in self.call("ListPorts").ports
        ]

    def port_stats(self, name: str) -> PortStats:
        """Totals of a port."""
        stats = self.call("GetPortStats", pb.GetPortStatsRequest(name=name))
        inc, out = (
            PortCounters(side.packets, side.dropped, side.bytes) for side in (stats.inc, stats.out)
        )
        return PortStats(inc, out, stats.timestamp)

    def port_conf(self, name: str) -> dict[str, Any]:
        """Settings of a port."""
        return _proto.to_dict(self.call("GetPortConf", pb.GetPortConfRequest(name=name)).conf)

    def set_port_conf(
        self, name: str, *, mac_addr: str = "", mtu: int = 0, admin_up: bool = True
    ) -> None:
        """Change settings of a port; an empty address or MTU keeps the present one."""
        conf = pb.PortConf(mac_addr=mac_addr or "00:00:00:00:00:00", mtu=mtu, admin_up=admin_up)
        self.call("SetPortConf", pb.SetPortConfRequest(name=name, conf=conf))

    def link_status(self, name: str) -> dict[str, Any]:
        """Link state of a port."""
        return without_error(self.call("GetLinkStatus", pb.GetLinkStatusRequest(name=name)))
