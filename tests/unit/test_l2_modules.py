# SPDX-License-Identifier: BSD-3-Clause
"""L2Forward, ArpResponder and MPLSPop against twins in plain Python over scapy's packets."""

from __future__ import annotations

import errno
import random
from typing import Any

import pytest
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from harness import EngineError, new_engine, run

MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
TOO_SHORT = "packet too short"


def prefixes(packet: bytes) -> list[bytes]:
    return [packet[:n] for n in range(1, len(packet) + 1)]


def mac(number: int) -> str:
    return ":".join(f"{byte:02x}" for byte in number.to_bytes(6, "big"))


def frame(number: int, size: int = 60) -> bytes:
    return number.to_bytes(6, "big") + bytes.fromhex("020000000001 9000") + bytes(size - 14)


def failure(engine: Any, command: str, args: dict[str, Any]) -> int:
    with pytest.raises(EngineError) as error:
        engine.module_command("m", command, args)
    assert str(error.value).startswith(command)
    return int(error.value.code)


class TestL2Forward:
    @pytest.mark.parametrize("seed", range(6))
    def test_twin_of_a_dict(self, seed: int) -> None:
        """Random additions and removals, with addresses that are close to each other and few."""
        rng = random.Random(seed)
        bits = rng.choice([4, 8, 48])
        engine = new_engine()
        engine.create_module("m", "L2Forward", {"size": 64, "bucket": 4})
        table: dict[int, int] = {}
        for _ in range(60):
            known = list(table)
            number = rng.randrange(1 << bits) << rng.choice([0, 48 - bits])
            if known and rng.random() < 0.3:
                gone = rng.sample(known, rng.randrange(1, len(known) + 1))[:5]
                engine.module_command("m", "delete", {"addrs": [mac(n) for n in gone]})
                for n in gone:
                    del table[n]
            elif number in table:
                args = {"entries": [{"addr": mac(number), "gate": 1}]}
                assert failure(engine, "add", args) == errno.EEXIST
            else:
                table[number] = rng.randrange(64)
                entry = {"addr": mac(number), "gate": table[number]}
                engine.module_command("m", "add", {"entries": [entry]})
            ask = {"addrs": [mac(n) for n in table]}
            assert engine.module_command("m", "lookup", ask) == {"gates": list(table.values())}
            numbers = [*table, number, rng.randrange(1 << 48)]
            expected: dict[int, list[bytes]] = {}
            for n in numbers:
                if n in table:
                    expected.setdefault(table[n], []).append(frame(n))
            assert engine.run_packets("m", [frame(n) for n in numbers]) == expected

    def test_default_gate_and_gate_8192(self) -> None:
        entries = [{"addr": mac(0), "gate": 1}, {"addr": mac(7), "gate": 8192}]
        commands = [("add", {"entries": entries}), ("set_default_gate", {"gate": 3})]
        result = run("L2Forward", {}, [frame(7), frame(0), frame(8)], commands)
        assert (result.out, result.drops) == ({1: [frame(0)], 3: [frame(8)]}, {"entry": 1})
        result = run("L2Forward", {}, [frame(7)] * 2, [("set_default_gate", {"gate": 8192})])
        assert result.drops == {"unknown address": 2}

    def test_every_length(self) -> None:
        packets = prefixes(frame(5))
        add = ("add", {"entries": [{"addr": mac(5), "gate": 2}]})
        result = run("L2Forward", {}, packets, [add])
        assert (result.out, result.drops) == ({2: packets[13:]}, {TOO_SHORT: 13})

    @pytest.mark.parametrize(("size", "bucket"), [(1, 1), (4, 2), (16, 4)])
    def test_takes_as_many_as_it_has_room_for(self, size: int, bucket: int) -> None:
        engine = new_engine()
        engine.create_module("m", "L2Forward", {"size": size, "bucket": bucket})
        room = size * bucket
        entries = [{"addr": mac(n << 20), "gate": n} for n in range(room + 1)]
        assert failure(engine, "add", {"entries": entries}) == errno.ENOMEM
        assert engine.module_info("m")["desc"] == "0 addresses"
        engine.module_command("m", "add", {"entries": entries[:-1]})
        out = engine.run_packets("m", [frame(n << 20) for n in range(room + 1)])
        assert out == {n: [frame(n << 20)] for n in range(room)}

    def test_populate(self) -> None:
        engine = new_engine()
        engine.create_module("m", "L2Forward", {})
        engine.module_command("m", "add", {"entries": [{"addr": mac(0x1234FF), "gate": 9}]})
        args = {"base": mac(0x1234FE), "count": 4, "gate_count": 3}
        engine.module_command("m", "populate", args)
        gates = {0x1234FE: 0, 0x1234FF: 9, 0x123500: 2, 0x123501: 0}
        ask = {"addrs": [mac(n) for n in gates]}
        assert engine.module_command("m", "lookup", ask)["gates"] == list(gates.values())

    @pytest.mark.parametrize(
        ("command", "args", "code"),
        [
            ("add", {"entries": [{"addr": mac(1)}, {"addr": mac(1)}]}, errno.EEXIST),
            ("add", {"entries": [{"addr": "1:2:3:4:5"}]}, errno.EINVAL),
            ("add", {"entries": [{"addr": "1:2:3:4:5:6:7"}]}, errno.EINVAL),
            ("add", {"entries": [{"addr": "01:02:03:04:05:0g"}]}, errno.EINVAL),
            ("add", {"entries": [{"addr": "001:02:03:04:05:06"}]}, errno.EINVAL),
            ("add", {"entries": [{"addr": ""}]}, errno.EINVAL),
            ("add", {"entries": [{"addr": mac(1), "gate": 8193}]}, errno.EINVAL),
            ("add", {"entries": [{"addr": mac(1), "gate": -1}]}, errno.EINVAL),
            ("delete", {"addrs": [mac(9)]}, errno.ENOENT),
            ("lookup", {"addrs": [mac(9)]}, errno.ENOENT),
            ("lookup", {"addrs": ["x"]}, errno.EINVAL),
            ("set_default_gate", {"gate": 8193}, errno.EINVAL),
            ("populate", {"base": "x", "count": 1, "gate_count": 1}, errno.EINVAL),
            ("populate", {"base": mac(1), "count": -1, "gate_count": 1}, errno.EINVAL),
            ("populate", {"base": mac(1), "count": 1 << 40, "gate_count": 1}, errno.EINVAL),
            ("populate", {"base": mac(1), "count": 1, "gate_count": 0}, errno.EINVAL),
        ],
    )
    def test_bad_commands(self, command: str, args: dict[str, Any], code: int) -> None:
        engine = new_engine()
        engine.create_module("m", "L2Forward", {})
        assert failure(engine, command, args) == code
        assert engine.module_info("m")["desc"] == "0 addresses"

    def test_short_forms_of_addresses(self) -> None:
        engine = new_engine()
        engine.create_module("m", "L2Forward", {})
        engine.module_command("m", "add", {"entries": [{"addr": "A:b:0:1:02:Ff", "gate": 4}]})
        ask = {"addrs": ["0a:0B:00:01:2:ff"]}
        assert engine.module_command("m", "lookup", ask)["gates"] == [4]

    @pytest.mark.parametrize("args", [{"size": 3}, {"size": 1 << 27}, {"bucket": 8}, {"size": -1}])
    def test_bad_arguments(self, args: dict[str, Any]) -> None:
        with pytest.raises(EngineError, match=r"L2Forward\.(size|bucket)"):
            run("L2Forward", args, [])


ADDRESSES = {"1.2.3.4": "a0:22:33:44:55:66", "10.0.0.1": "02:aa:bb:cc:dd:ee"}


def arp_request(target: str, tags: int = 0, **fields: Any) -> Packet:
    layer: Packet = Ether(src="02:1e:67:9f:4d:ae", dst="ff:ff:ff:ff:ff:ff")
    for n in range(tags):
        layer /= Dot1Q(vlan=n + 1)
    sender = {"hwsrc": "02:1e:67:9f:4d:ae", "psrc": "10.0.0.9"}
    return layer / ARP(**{"op": 1, "pdst": target, **sender, **fields})


def arp_reply(request: Packet) -> bytes:
    reply = request.copy()
    own = ADDRESSES[request[ARP].pdst]
    reply[Ether].dst, reply[Ether].src = request[Ether].src, own
    arp = reply[ARP]
    arp.op = 2
    arp.hwdst, arp.pdst = request[ARP].hwsrc, request[ARP].psrc
    arp.hwsrc, arp.psrc = own, request[ARP].pdst
    return bytes(reply)


class TestArpResponder:
    adds = [("add", {"ip": ip, "mac_addr": address}) for ip, address in ADDRESSES.items()]

    @pytest.mark.parametrize("tags", [0, 1, 2])
    def test_answers(self, tags: int) -> None:
        requests = [arp_request(ip, tags) for ip in ADDRESSES]
        result = run("ArpResponder", {}, [bytes(packet) for packet in requests], self.adds)
        assert result.out == {0: [arp_reply(packet) for packet in requests]}

    def test_an_address_may_be_an_argument_and_may_change(self) -> None:
        request = arp_request("1.2.3.4")
        args = {"ip": "1.2.3.4", "mac_addr": "02:00:00:00:00:99"}
        (out,) = run("ArpResponder", args, [bytes(request)]).out[0]
        assert Ether(out)[ARP].hwsrc == "02:00:00:00:00:99"
        result = run("ArpResponder", args, [bytes(request)], self.adds)
        assert result.out == {0: [arp_reply(request)]}

    def test_what_it_drops(self) -> None:
        packets = [
            arp_request("10.0.0.2"),
            arp_request("10.0.0.1", op=2),
            arp_request("10.0.0.1", op=3),
            arp_request("10.0.0.1", hwtype=6),
            Ether(**MACS) / IP() / UDP(),
        ]
        result = run("ArpResponder", {}, [bytes(packet) for packet in packets], self.adds)
        assert (result.out, result.drops) == (
            {},
            {"unknown address": 1, "not a request": 2, "not ARP": 2},
        )

    @pytest.mark.parametrize("tags", [0, 1])
    def test_every_length(self, tags: int) -> None:
        packet = bytes(arp_request("10.0.0.1", tags) / Raw(bytes(18)))
        need = 14 + 4 * tags + 28
        result = run("ArpResponder", {}, prefixes(packet), self.adds)
        assert len(result.out[0]) == len(packet) - need + 1
        assert result.drops == {TOO_SHORT: need - 1}

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ({"ip": "1.2.3", "mac_addr": "02:00:00:00:00:01"}, "ip is"),
            ({"ip": "1.2.3.4", "mac_addr": "02:00"}, "mac_addr is"),
            ({"ip": "1.2.3.4"}, "mac_addr is"),
        ],
    )
    def test_bad_addresses(self, args: dict[str, Any], message: str) -> None:
        with pytest.raises(EngineError, match=f"ArpResponder.{message}"):
            run("ArpResponder", args, [])
        with pytest.raises(EngineError, match=f"add: {message}"):
            run("ArpResponder", {}, [], [("add", args)])


def labelled(inner: Packet, labels: int = 1, tags: int = 0) -> bytes:
    layer: Packet = Ether(**MACS)
    for n in range(tags):
        layer /= Dot1Q(vlan=n + 1)
    for n in range(labels):
        layer /= MPLS(label=n + 16, s=n == labels - 1, ttl=9)
    return bytes(layer / inner)


def popped(packet: bytes, tags: int, ether_type: int) -> bytes:
    l2 = 14 + 4 * tags
    return packet[: l2 - 2] + ether_type.to_bytes(2, "big") + packet[l2 + 4 :]


class TestMPLSPop:
    v4 = IP(src="10.0.0.1", dst="10.0.0.2") / UDP() / Raw(b"x")
    v6 = IPv6() / UDP() / Raw(b"x")

    @pytest.mark.parametrize("tags", [0, 1, 2])
    @pytest.mark.parametrize("inner", [v4, v6])
    def test_ether_type_fits(self, inner: Packet, tags: int) -> None:
        packet = labelled(inner, tags=tags)
        expected = popped(packet, tags, 0x0800 if IP in inner else 0x86DD)
        assert run("MPLSPop", {}, [packet]).out == {0: [expected]}
        assert bytes(Ether(expected)[IP if IP in inner else IPv6]) == bytes(inner)

    def test_of_several_labels_one_goes(self) -> None:
        two = labelled(self.v4, labels=2)
        one = popped(two, 0, 0x8847)
        assert run("MPLSPop", {}, [two]).out == {0: [one]}
        assert run("MPLSPop", {}, [one]).out == {0: [popped(one, 0, 0x0800)]}

    def test_set(self) -> None:
        packet = labelled(self.v4, tags=1)
        change = ("set", {"next_eth_type": 0x9000})
        assert run("MPLSPop", {}, [packet], [change]).out == {0: [popped(packet, 1, 0x9000)]}
        change = ("set", {"remove_eth_header": True})
        assert run("MPLSPop", {}, [packet], [change]).out == {0: [bytes(self.v4)]}
        with pytest.raises(EngineError, match="next_eth_type is 65536"):
            run("MPLSPop", {}, [], [("set", {"next_eth_type": 65536})])

    def test_others_leave_by_gate_1(self) -> None:
        packets = [bytes(Ether(**MACS) / layer) for layer in (self.v4, self.v6, ARP())]
        assert run("MPLSPop", {}, packets).out == {1: packets}

    @pytest.mark.parametrize("remove", [False, True])
    def test_every_length(self, remove: bool) -> None:
        packets = prefixes(labelled(self.v4))
        result = run("MPLSPop", {}, packets, [("set", {"remove_eth_header": remove})])
        assert [len(out) for out in result.out[0]] == [
            len(packet) - (18 if remove else 4) for packet in packets[17:]
        ]
        assert result.drops == {TOO_SHORT: 17}
