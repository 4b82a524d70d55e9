# SPDX-License-Identifier: BSD-3-Clause
"""The commands of ``embark-gw``, one module per thing that they are about."""
