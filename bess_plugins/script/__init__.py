# SPDX-License-Identifier: BSD-3-Clause
"""Scripts that build a pipeline: Python with a notation for module graphs."""

from bess_plugins.script.runner import ScriptError, run_script

__all__ = ["ScriptError", "run_script"]
