# SPDX-License-Identifier: BSD-3-Clause
"""What lets the next encryption of a site's rules change only what changed.

A file beside the maps, as secret as they are: which prefix stands for which set of sets, by a name
that only the site's key tells.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from bess_plugins.sources import Location
from embark_gw.rules.document import FieldName, check_model
from embark_gw.rules.model import RulesError

__all__ = ["KeptField", "KeptSets", "kept_file", "read_kept"]


class KeptField(BaseModel):
    """A field's prefixes by names of 32 hexadecimal digits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prefix_bits: Annotated[int, Field(ge=1, le=31)]
    prefixes: dict[Annotated[str, Field(pattern="^[0-9a-f]{32}$")], Annotated[int, Field(ge=0)]]

    @classmethod
    def of(cls, prefix_bits: int, numbers: dict[int, int]) -> KeptField:
        """With names as numbers."""
        prefixes = {f"{name:032x}": prefix for name, prefix in numbers.items()}
        return cls(prefix_bits=prefix_bits, prefixes=prefixes)

    def numbers(self) -> dict[int, int]:
        """The names as numbers."""
        return {int(name, 16): prefix for name, prefix in self.prefixes.items()}


class KeptSets(BaseModel):
    """The prefixes of all fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["bess-e2 embark sets"] = "bess-e2 embark sets"
    version: Literal[1] = 1
    fields: dict[FieldName, KeptField]

    def text(self) -> str:
        """As the file has it."""
        return self.model_dump_json() + "\n"


def kept_file(maps: Path) -> Path:
    """The file that belongs to a file of maps."""
    return maps.with_name(maps.name + ".sets")


def read_kept(maps: Path) -> KeptSets:
    """What was kept with these maps; `RulesError` where it can't be used or others can read it."""
    path = kept_file(maps)
    try:
        with path.open(encoding="utf-8") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                message = "may be used by others than its owner; must be private: chmod 600"
                raise RulesError(Location(str(path), 1, 1), message)
            text = file.read()
    except OSError as error:
        raise RulesError(Location(str(path), 1, 1), error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise RulesError(Location(str(path), 1, 1), "not UTF-8 text") from None
    return check_model(KeptSets, text, str(path))
