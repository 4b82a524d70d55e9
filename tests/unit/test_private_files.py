# SPDX-License-Identifier: BSD-3-Clause
"""Files of keys."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from bess_plugins.private_files import create_private


def test_it_appears_as_a_whole_and_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "site.key"
    linked: list[tuple[str, int]] = []
    make_link = os.link

    def link(source: str, target: Path) -> None:
        assert not target.exists()
        mode = stat.S_IMODE(Path(source).stat().st_mode)
        linked.append((Path(source).read_text(encoding="ascii"), mode))
        make_link(source, target)

    with monkeypatch.context() as watched:
        watched.setattr(os, "link", link)
        create_private(path, "secret\n")
    assert linked == [("secret\n", 0o600)]
    with pytest.raises(FileExistsError) as told:
        create_private(path, "another\n")
    assert told.value.filename == str(path)
    assert path.read_text(encoding="ascii") == "secret\n" and [*tmp_path.iterdir()] == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
