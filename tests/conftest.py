# SPDX-License-Identifier: BSD-3-Clause
"""Where CI is set, generated examples are the same in each run. Where BESSD_ADDRESS is set, tests
of modules that our plugin has run twice: in the embedded engine and in that bessd."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

import bessd_support

settings.register_profile(
    "ci",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],  # a machine that others use may well be
)
if os.environ.get("CI"):
    settings.load_profile("ci")
# Jobs that a shell runs in the background ignore Ctrl-C, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def dataplane(request: pytest.FixtureRequest) -> Iterator[str]:
    """What packets run through."""
    host = getattr(request, "param", "embedded")
    if host == "embedded":
        yield host
    else:
        with bessd_support.on_bessd():
            yield host


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if bessd_support.ADDRESS and metafunc.module.__name__ in bessd_support.FILES:
        metafunc.parametrize("dataplane", ["embedded", "bessd"], indirect=True, scope="module")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        call = getattr(item, "callspec", None)
        reason = bessd_support.cannot(getattr(item, "originalname", item.name))
        if reason is not None and call is not None and call.params.get("dataplane") == "bessd":
            item.add_marker(pytest.mark.skip(reason=reason))
