# SPDX-License-Identifier: BSD-3-Clause
"""The policy half of the framework: from pipelines as written to a dataplane that runs."""
