# SPDX-License-Identifier: BSD-3-Clause
"""A simulation of a cluster under E2's own scaling and placement, in virtual time.

Nothing here is measured: flows, servers, NF instances, NICs and the switch are models, and all that
comes out of a run is marked as simulated. What decides is no model: `e2ctl.scaling`,
`e2ctl.replicas`, `e2ctl.placement` and the spans of `e2ctl.igraph` are those that a controller has.

The model is of flows rather than packets. A flow begins, sends at one rate, and ends. What
instance it goes to is settled when it begins, by tables of 4,096 buckets of ids, as a FlowSteer
does; that only changes at events, so that all flows between two of them are looked up at once and
nothing is lost over one by one. An instance that gets more than it can carry drops the rest. The
same seed gives the same run; only ``controller_s``, the processor time of decisions, differs.

=============  ===================================================================================
`flows`        arrivals, durations and rates
`steering`     tables of ids, exceptions, and which instance has which flow
`switch`       a table of 2,048 entries, 1 to 8 ms for each update, one at a time
`cluster`      servers, observations, decisions and their effects, by events
`scenarios`    figures 3.9 to 3.11 of the dissertation, and ten racks with failures
=============  ===================================================================================
"""

from e2ctl.simulator.cluster import Cluster
from e2ctl.simulator.flows import Flows, Workload, generate
from e2ctl.simulator.model import Model, Nf, Pipeline
from e2ctl.simulator.scenarios import dynamic_load, racks, split_once
from e2ctl.simulator.steering import Steering
from e2ctl.simulator.switch import VirtualSwitch

__all__ = [
    "Cluster",
    "Flows",
    "Model",
    "Nf",
    "Pipeline",
    "Steering",
    "VirtualSwitch",
    "Workload",
    "dynamic_load",
    "generate",
    "racks",
    "split_once",
]
