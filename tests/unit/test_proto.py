# SPDX-License-Identifier: BSD-3-Clause
"""Protocol messages: names, conversion and wrapped arguments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from bess_plugins import _build_proto, _proto
from bess_plugins.client import BessError, Client, DaemonUnavailableError
from bess_plugins.daemon._base import default_name
from bess_plugins.daemon.service import ControlService


def test_names_have_one_message_each() -> None:
    assert {"Error", "FieldData", "CreateModuleRequest", "ExactMatchArg"} <= _proto.MESSAGE_NAMES
    assert {"IDSArg", "PCAPPortArg", "MetadataMatchTerm"} <= _proto.MESSAGE_NAMES
    for name in _proto.MESSAGE_NAMES:
        assert _proto.message_type(name).DESCRIPTOR.full_name == f"bess.pb.{name}"


def test_names_may_be_qualified_or_nested() -> None:
    assert _proto.message_type("bess.pb.ACLArg") is _proto.message_type("ACLArg")
    assert _proto.message_type("ACLArg.Rule").DESCRIPTOR.full_name == "bess.pb.ACLArg.Rule"


@pytest.mark.parametrize("name", ["Nothing", "ACLArg.Nothing", ""])
def test_unknown_names(name: str) -> None:
    with pytest.raises(KeyError, match="no message"):
        _proto.message_type(name)


def test_service_is_whole() -> None:
    methods = set(_proto.SERVICE.methods_by_name)
    assert len(methods) == 48
    assert all(callable(getattr(ControlService, method)) for method in methods)
    for method in _proto.SERVICE.methods:
        fields = method.output_type.fields_by_name
        assert fields["error"].message_type.full_name == "bess.pb.Error"


def test_to_dict_gives_defaults_but_not_unset_members() -> None:
    assert _proto.to_dict(_proto.from_dict("Field", {})) == {"num_bytes": 0}
    assert _proto.to_dict(_proto.from_dict("Field", {"offset": 0})) == {
        "offset": 0,
        "num_bytes": 0,
    }
    assert _proto.to_dict(_proto.from_dict("SetPortConfRequest", {})) == {"name": ""}
    assert _proto.to_dict(_proto.from_dict("SetPortConfRequest", {"conf": {}})) == {
        "name": "",
        "conf": {"mac_addr": "", "mtu": 0, "admin_up": False},
    }


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "ExactMatchCommandAddArg",
            {"gate": 3, "fields": [{"value_bin": b"\x00\xff"}, {"value_int": 7}], "values": []},
        ),
        ("RewriteArg", {"templates": [b"", b"\x80"]}),
        ("WorkerSplitArg", {"worker_gates": {0: 1, 5: 2}}),
        ("MetadataTestArg", {"read": {"a": -1}, "write": {}, "update": {}}),
        (
            "MetadataMatchArg",
            {
                "rules": [
                    {
                        "gate": 1,
                        "priority": -2,
                        "terms": [
                            {
                                "field": "ip.src",
                                "value": 2**64 - 1,
                                "mask": 0,
                                "value_bin": b"",
                                "mask_bin": b"",
                                "set": "",
                            }
                        ],
                    }
                ],
                "default_gate": 0,
                "meta": {"class": 4},
                "sets": [
                    {
                        "name": "one",
                        "field": "ip6.src",
                        "ranges": [
                            {"min": 0, "max": 0, "min_bin": bytes(16), "max_bin": b"a" * 16}
                        ],
                    }
                ],
            },
        ),
    ],
)
def test_round_trip(name: str, values: dict[str, Any]) -> None:
    assert _proto.to_dict(_proto.from_dict(name, values)) == values


def test_none_is_left_out() -> None:
    assert _proto.from_dict("Field", {"offset": None}) == _proto.from_dict("Field", {})


@pytest.mark.parametrize(
    ("name", "values", "where"),
    [
        ("SourceArg", {"size": 1}, r"SourceArg\.size: no such field"),
        ("SourceArg", {"pkt_size": -1}, r"SourceArg\.pkt_size"),
        ("SourceArg", {"pkt_size": "60"}, r"SourceArg\.pkt_size"),
        ("ACLArg", {"rules": {"drop": True}}, r"ACLArg\.rules: expected a list"),
        ("ACLArg", {"rules": [{"drop": 1, "x": 2}]}, r"ACLArg\.rules\[0\]\.x: no such"),
        ("ACLArg", {"rules": [{"src_ip": b"1"}]}, r"ACLArg\.rules\[0\]\.src_ip: expected str"),
        ("RewriteArg", {"templates": [1]}, r"RewriteArg\.templates\[0\]: expected bytes"),
        ("WorkerSplitArg", {"worker_gates": [1]}, r"WorkerSplitArg\.worker_gates: expected a map"),
    ],
)
def test_bad_values_name_their_field(name: str, values: dict[str, Any], where: str) -> None:
    with pytest.raises((TypeError, ValueError), match=where):
        _proto.from_dict(name, values)


def test_unpack_checks_the_type() -> None:
    packed = _proto.pack(_proto.from_dict("SourceArg", {"pkt_size": 60}))
    assert _proto.unpack(packed, "SourceArg") == {"pkt_size": 60}
    assert _proto.unpack_any(packed) == {"pkt_size": 60}
    with pytest.raises(TypeError, match="argument is SourceArg, expected ACLArg"):
        _proto.unpack(packed, "ACLArg")
    with pytest.raises(TypeError):
        _proto.unpack(packed, "")


def test_unpack_accepts_nothing_for_the_default() -> None:
    assert _proto.unpack(AnyMessage(), "SourceArg") == {"pkt_size": 0}
    empty = _proto.pack(_proto.from_dict("EmptyArg", {}))
    assert _proto.unpack(empty, "SourceArg") == {"pkt_size": 0}
    assert _proto.unpack(_proto.pack(_proto.from_dict("SinkArg", {})), "") == {}
    assert _proto.unpack_any(AnyMessage()) == {}


def test_unpack_accepts_a_smaller_message_by_its_alias() -> None:
    old = _proto.pack(_proto.from_dict("PCAPPortArg", {"dev": "in.pcap"}))
    assert _proto.unpack(old, "PCAPFilePortArg", "PCAPPortArg")["dev"] == "in.pcap"
    with pytest.raises(TypeError):
        _proto.unpack(old, "PCAPFilePortArg")
    with pytest.raises(TypeError):
        _proto.unpack(old, "SourceArg", "PCAPPortArg")


def test_unpack_rejects_broken_contents() -> None:
    broken = AnyMessage(type_url="type.googleapis.com/bess.pb.SourceArg", value=b"\x08")
    with pytest.raises(ValueError, match="malformed SourceArg"):
        _proto.unpack(broken, "SourceArg")
    with pytest.raises(TypeError, match="no type"):
        _proto.unpack(AnyMessage(value=b"\x08\x01"), "SourceArg")
    with pytest.raises(TypeError, match=r"other\.Thing"):
        _proto.unpack(AnyMessage(type_url="x/other.Thing"), "SourceArg")


@pytest.mark.parametrize(
    ("class_name", "template", "taken", "name"),
    [
        ("Bypass", "", set(), "bypass0"),
        ("PortInc", "", {"port_inc0"}, "port_inc1"),
        ("PMDPort", "", set(), "pmdport0"),
        ("IPLookup", "ip_lookup", set(), "ip_lookup0"),
    ],
)
def test_default_names(class_name: str, template: str, taken: set[str], name: str) -> None:
    assert default_name(class_name, template, taken) == name


def test_generated_package_is_importable_elsewhere(tmp_path: Path) -> None:
    written = _build_proto.generate(tmp_path)
    assert tmp_path / "bess_plugins" / "pb" / "ports" / "port_msg_pb2.py" in written
    (tmp_path / "bess_plugins" / "__init__.py").touch()
    code = (
        "from bess_plugins.pb import service_pb2_grpc, e2_msg_pb2\n"
        "from bess_plugins.pb.ports import port_msg_pb2\n"
        "print(service_pb2_grpc.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(tmp_path))


def test_client_says_how_to_start_a_daemon() -> None:
    with Client("127.0.0.1:1", timeout=5.0) as client:
        with pytest.raises(DaemonUnavailableError, match=r"no daemon at 127\.0\.0\.1:1; start"):
            client.version()
        with pytest.raises(BessError, match=r"SourceArg\.bad: no such field \(EINVAL\)"):
            client.create_module("Source", bad=1)
        with pytest.raises(BessError, match="no message named 'NoArg'"):
            client.run_module_command("m", "c", "NoArg", {})
