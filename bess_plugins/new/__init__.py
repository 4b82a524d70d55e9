# SPDX-License-Identifier: BSD-3-Clause
"""``python -m bess_plugins.new``: a module of one's own, out of this tree."""
