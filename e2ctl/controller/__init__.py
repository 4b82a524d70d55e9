# SPDX-License-Identifier: BSD-3-Clause
"""The controller: one per cluster, between the operator and the agents and the switch."""
