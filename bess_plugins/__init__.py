# SPDX-License-Identifier: BSD-3-Clause
"""A BESS-compatible dataplane: compiled engine, daemon, and the client that controllers use."""
