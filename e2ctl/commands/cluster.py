# SPDX-License-Identifier: BSD-3-Clause
"""What commands about a cluster share: where it is described, and how it is reached."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from e2ctl.controller.agents import AgentError, Agents
from e2ctl.controller.apply import ApplyError
from e2ctl.controller.northbound import ControllerError
from e2ctl.controller.store import Inputs, Store, StoreError
from e2ctl.controller.switches import SimulatedSwitch, SwitchDriver, SwitchError
from e2ctl.hardware import Hardware
from e2ctl.openflow import OpenFlowSwitch
from e2ctl.pki import CONTROLLER, OPERATOR
from e2ctl.placement import PlacementError
from e2ctl.routing import PlanError
from e2ctl.softswitch.driver import SoftwareSwitch
from e2ctl.tls import Identity, IdentityError, load_identity, somebody_listens
from e2ctl.transitions import TransitionError

__all__ = [
    "FAILURES",
    "ClusterHardware",
    "ControllerAddress",
    "LabName",
    "PkiPath",
    "StorePath",
    "agents_of",
    "controller_at",
    "lab_socket",
    "make_switch",
    "operator_identity",
    "places",
    "what_runs",
]

FAILURES = (
    AgentError,
    ApplyError,
    ControllerError,
    IdentityError,
    OSError,
    PlacementError,
    PlanError,
    StoreError,
    SwitchError,
    TransitionError,
)

ClusterHardware = Annotated[
    Path | None,
    typer.Option("--hardware", metavar="HW.yaml", help="Hardware description."),
]
LabName = Annotated[
    str | None, typer.Option("--lab", metavar="NAME", help="The cluster of `e2ctl lab up`.")
]
StorePath = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="WHERE",
        help="What the controller remembers: a file, or etcd://HOST:PORT[,HOST:PORT...]/PREFIX.",
    ),
]
ControllerAddress = Annotated[
    str | None,
    typer.Option(
        "--controller", metavar="ADDRESS", help="Of one that stays; that of a lab is found."
    ),
]
PkiPath = Annotated[
    Path | None, typer.Option("--pki", metavar="DIR", help="Keys and certificates.")
]


def _state_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "e2ctl"


def places(hardware: Path | None, lab: str | None, store: str | None) -> tuple[Path, str]:
    """Where the hardware description and the store are."""
    if (hardware is None) == (lab is None):
        raise typer.BadParameter("give one of them", param_hint="--hardware, --lab")
    if lab is not None:
        from e2ctl.lab import folder_of

        folder = folder_of(lab)
        return folder / "hardware.yaml", store or str(folder / "controller.db")
    assert hardware is not None
    return hardware, store or str(_state_folder() / "controller.db")


def lab_socket(lab: str) -> str:
    """Where a lab's controller listens, if one stays."""
    from e2ctl.lab import folder_of

    return f"unix:{folder_of(lab)}/controller.sock"


def controller_at(hardware: Path | None, lab: str | None, address: str | None) -> str | None:
    """The controller to ask; None: there is none that stays."""
    if address is not None or lab is None:
        return address
    found = lab_socket(lab)
    return found if somebody_listens(found) else None


def operator_identity(pki: Path | None) -> Identity | None:
    """What shows a controller who asks."""
    return None if pki is None else load_identity(pki, OPERATOR)


def make_switch(hardware: Hardware) -> SwitchDriver:
    """The driver that a hardware description asks for."""
    if hardware.switch.driver == "simulated":
        return SimulatedSwitch(hardware.switch.table)
    if hardware.switch.driver == "software":
        return SoftwareSwitch(Path(hardware.switch.rundir))
    return OpenFlowSwitch(Path(hardware.switch.rundir), hardware.switch.bridge)


def agents_of(hardware: Hardware, pki: Path | None) -> Agents:
    return Agents(hardware, None if pki is None else load_identity(pki, CONTROLLER))


def what_runs(held: Store) -> Inputs:
    """What the running plan is made from."""
    current = held.read().current
    if current is None:
        raise ApplyError("nothing runs; apply a policy first")
    return current
