# SPDX-License-Identifier: BSD-3-Clause
"""Embark: a gateway that lets a provider run middleboxes on traffic that it can't read."""
