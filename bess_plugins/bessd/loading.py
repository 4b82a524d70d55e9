# SPDX-License-Identifier: BSD-3-Clause
"""Takes a plugin into a running daemon and out again, after looking whether that can go well."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from bess_plugins.bessd.tree import PluginError, Tree, run
from bess_plugins.client import Client

__all__ = ["PROBE", "load", "loaded_path", "missing_symbols", "unload"]

PROBE = "Trial"  # a class that every plugin of ours brings
_NAME = re.compile(r"-(?P<version>[A-Za-z0-9.-]+)-b(?P<batch>\d+)-(?P<abi>[0-9a-f]{8})\.so$")


def _symbols(path: Path, *options: str) -> set[str]:
    """Names, but for those that may stay undefined."""
    text = run(["nm", "-D", "--format=posix", *options, str(path)], f"reading {path}")
    return {
        line.split()[0].partition("@")[0] for line in text.splitlines() if line and " w" not in line
    }


def _libraries(path: Path) -> list[Path]:
    listed = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False).stdout
    return [Path(found) for found in re.findall(r"(/\S+) \(0x", listed)]


def missing_symbols(plugin: Path, daemon: Path) -> set[str]:
    """What the plugin uses and neither the daemon nor a library of either has."""
    needed = _symbols(plugin, "--undefined-only")
    for path in [daemon, *_libraries(daemon), *_libraries(plugin)]:
        if not needed:
            break
        needed -= _symbols(path, "--defined-only")
    return needed


def loaded_path(client: Client) -> str | None:
    """The plugin of ours in that daemon, if it has one."""
    ours = (path for path in client.list_plugins() if Path(path).name.startswith("e2_modules-"))
    return next(ours, None)


def load(client: Client, plugin: Path, tree: Tree | None = None) -> list[str]:
    """Import a plugin; return the classes that it brought. Raises PluginError where it is not one
    for this daemon: bessd itself would say nothing, or crash."""
    plugin = plugin.resolve()
    if not plugin.is_file():
        raise PluginError(f"there is no {plugin}; `build` makes one")
    match = _NAME.search(plugin.name)
    if match is None:
        raise PluginError(f"{plugin.name} is not named like a plugin of `build`")
    version = client.version()
    told = re.sub(r"[^A-Za-z0-9.]+", "-", version)
    if told != match["version"]:
        raise PluginError(
            f"{plugin.name} was built for bessd {match['version']}, and {client.address} runs "
            f"{version}; build one with that daemon's tree as BESS_HOME"
        )
    if tree is not None:
        if f"-{tree.identity}.so" not in plugin.name:
            raise PluginError(
                f"{plugin.name} was not built with {tree.home} as it is now ({tree.identity}); "
                "build it again"
            )
        if tree.daemon.is_file():
            missing = sorted(missing_symbols(plugin, tree.daemon))
            if missing:
                raise PluginError(
                    f"{tree.daemon} lacks what the plugin uses: {', '.join(missing[:5])}; build "
                    "both with the same compiler, protobuf and DPDK"
                )
    before = set(client.list_mclasses())
    if str(plugin) in client.list_plugins():
        raise PluginError(f"{plugin} is loaded already")
    client.import_plugin(str(plugin))
    brought = sorted(set(client.list_mclasses()) - before)
    if not brought:
        client.unload_plugin(str(plugin))
        raise PluginError(
            f"{plugin.name} registered no classes: the daemon is not the one that it was built "
            "for, or has them from elsewhere; its log says more"
        )
    return brought


def unload(client: Client, path: str) -> None:
    """Remove a plugin. Refused while a module of its classes exists: bessd would crash."""
    if path not in client.list_plugins():
        known = ", ".join(client.list_plugins()) or "none"
        raise PluginError(f"{path} is not loaded (loaded: {known})")
    users = []
    for module in client.list_modules():
        commands = client.mclass_info(str(module["mclass"]))["cmds"]
        if "get_drops" in commands:  # every module of ours has it, and none of bessd's
            users.append(str(module["name"]))
    if users:
        raise PluginError(
            f"modules of the plugin exist ({', '.join(users)}): destroy them first, bessd would "
            "crash"
        )
    client.unload_plugin(path)
