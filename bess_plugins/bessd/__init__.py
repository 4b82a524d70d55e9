# SPDX-License-Identifier: BSD-3-Clause
"""The modules of ours that BESS lacks, as a plugin of a real ``bessd``."""
