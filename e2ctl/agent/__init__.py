# SPDX-License-Identifier: BSD-3-Clause
"""The agent: one on each server, between the controller and the server's dataplane daemon."""
