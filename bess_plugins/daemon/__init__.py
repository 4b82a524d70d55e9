# SPDX-License-Identifier: BSD-3-Clause
"""The control daemon: a gRPC service over one engine."""
