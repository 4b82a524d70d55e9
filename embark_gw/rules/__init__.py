# SPDX-License-Identifier: BSD-3-Clause
"""Firewall rules: read, encrypted for a provider, and turned into what its firewall takes."""
