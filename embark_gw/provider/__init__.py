# SPDX-License-Identifier: BSD-3-Clause
"""The provider's side: encrypted rules for firewalls that know nothing of encryption."""
