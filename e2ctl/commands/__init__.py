# SPDX-License-Identifier: BSD-3-Clause
"""The commands of ``e2ctl``, one module per thing that they are about."""
