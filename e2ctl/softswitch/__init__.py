# SPDX-License-Identifier: BSD-3-Clause
"""A switch in software, as a process of its own: what joins the hosts of a simulated lab.

| module | what |
|---|---|
| `forward` | what rules do with a packet: the meaning that other drivers are held to as well |
| `frames` | what rules see of a frame, and its tags |
| `process` | the process: Unix sockets of the hosts' ports, and one for whoever changes rules |
| `driver` | the controller's side of it |
"""
