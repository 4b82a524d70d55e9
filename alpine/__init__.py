# SPDX-License-Identifier: BSD-3-Clause
"""Alpine: service level objectives in, a schedule out (dissertation, chapter 5)."""
