# SPDX-License-Identifier: BSD-3-Clause
"""Execution of scripts against a daemon."""

from __future__ import annotations

import builtins
import contextlib
import os
import sys
import tokenize
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

from bess_plugins.client import BessError, Client, DaemonUnavailableError
from bess_plugins.script.api import Bess, ConfError, ConnectError, Module, Port
from bess_plugins.script.source_map import Places, SugarError
from bess_plugins.script.sugar import translate

__all__ = ["ScriptError", "execute", "read_source", "run_script"]


class ScriptError(Exception):
    """A script failed. Line and column count from 1; 0 means unknown."""

    def __init__(self, path: str, line: int, column: int, message: str) -> None:
        super().__init__(path, line, column, message)
        self.path = path
        self.line = line
        self.column = column
        self.message = message

    def __str__(self) -> str:
        place = "".join(f":{number}" for number in (self.line, self.column) if number)
        return f"{self.path}{place}: {self.message}"


def run_script(
    path: Path | str, client: Client, variables: Mapping[str, str] | None = None
) -> None:
    """Replace whatever the daemon runs with the pipeline of a script.

    The script is checked before the daemon is touched. Workers are paused
    while it executes and resumed in any case. ``variables`` take precedence
    over the environment for ``$NAME``. Raises ``ScriptError``, or
    ``DaemonUnavailableError``.
    """
    name = os.fspath(path)
    execute(name, read_source(name), Bess(client), variables or {}, {})


def execute(
    name: str,
    source: str,
    bess: Bess,
    variables: Mapping[str, str],
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """Run a script's text on a daemon that is emptied first; return the names that it leaves.

    ``extra`` are names that the script finds. Raises like ``run_script``.
    """
    code = _compile(name, source)
    client = bess.client
    space: dict[str, Any] = {**bess.creators(), **_names(name, bess, variables), **extra}
    space["__bess_module__"] = _declare(space)
    bess.names = space
    try:
        client.reset_all()
        client.pause()
        try:
            _execute(name, source, code, space)
        except BaseException:
            # The reason of the failure matters more than a failure to resume.
            with contextlib.suppress(BessError):
                client.resume()
            raise
        client.resume()
    except DaemonUnavailableError:
        raise
    except BessError as error:
        raise ScriptError(name, 0, 0, str(error)) from None
    return space


def read_source(name: str) -> str:
    """The text of a script; raises ``ScriptError``."""
    try:
        with tokenize.open(name) as file:
            return file.read()
    except OSError as error:
        raise ScriptError(name, 0, 0, error.strerror or str(error)) from None
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ScriptError(name, 0, 0, f"not a script: {error}") from None


def _compile(name: str, source: str) -> CodeType:
    try:
        tree = translate(source).compile(name)
        return compile(tree, name, "exec", dont_inherit=True)
    except SugarError as error:
        raise ScriptError(name, error.line, error.column, error.message) from None
    except SyntaxError as error:
        raise ScriptError(name, error.lineno or 0, error.offset or 0, error.msg) from None


def _names(name: str, bess: Bess, variables: Mapping[str, str]) -> dict[str, Any]:
    def variable(key: str, default: Any = None) -> Any:
        if key in variables:
            return variables[key]
        if key in os.environ:
            return os.environ[key]
        if default is None:
            raise ConfError(f"variable {key} is not set; give {key}=VALUE")
        return default

    return {
        "__builtins__": builtins,
        "__file__": name,
        "__name__": "__bess__",
        "__bess_env__": variable,
        "bess": bess,
        "BessError": BessError,
        "ConfError": ConfError,
        "ConnectError": ConnectError,
    }


_Declared = Module | Port


def _declare(space: dict[str, Any]) -> Callable[..., _Declared | list[_Declared]]:
    def declare(
        names: str | tuple[str, ...], mclass: str, *args: Any, **kwargs: Any
    ) -> _Declared | list[_Declared]:
        kind = space.get(mclass)
        if not (isinstance(kind, type) and issubclass(kind, Module | Port)):
            raise ConfError(f"no module class or port driver named {mclass}")
        wanted = (names,) if isinstance(names, str) else names
        for index, name in enumerate(wanted):
            if name in space or name in wanted[:index]:
                raise ConfError(f"the name {name} is taken")
        made: list[_Declared] = []
        for name in wanted:
            space[name] = kind(*args, name=name, **kwargs)
            made.append(space[name])
        return made[0] if isinstance(names, str) else made

    return declare


def _execute(name: str, source: str, code: CodeType, space: dict[str, Any]) -> None:
    # Modules beside the script can be imported.
    folder = str(Path(name).resolve().parent)
    sys.path.insert(0, folder)
    places = Places(name, source)
    try:
        exec(code, space)
    except DaemonUnavailableError:
        raise
    except SystemExit as error:
        if error.code not in (None, 0):
            line, column = places.failure(error)
            raise ScriptError(name, line, column, f"exit: {error.code}") from None
    except Exception as error:
        line, column = places.failure(error)
        raise ScriptError(name, line, column, _describe(error)) from error
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _describe(error: Exception) -> str:
    if isinstance(error, (BessError, ConfError)):
        return str(error)
    kind = type(error).__name__
    return f"{kind}: {error}" if str(error) else kind
