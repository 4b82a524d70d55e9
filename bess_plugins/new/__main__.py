# SPDX-License-Identifier: BSD-3-Clause
"""Entry point of ``python -m bess_plugins.new``."""

from bess_plugins.new.cli import main

main()
