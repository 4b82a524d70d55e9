# SPDX-License-Identifier: BSD-3-Clause
"""What bessd reaches on these lines: the figure to compare with.

Measured once on a two-core virtual machine (2.6 GHz TSC): one worker, in memory, 60-byte packets,
without hugepages. Of NetSys's bessd and omec-project's the faster one counts; control calls are
those of omec-project's, from Python over gRPC on loopback. Absolute figures drift from machine to
machine; a ratio says something only where both ran on the same one, as with BESSD_ADDRESS.

PREFIX_MATCH and TABLE_42 are the dissertation's table 4.2 and section 4.5: by number of rules, what
it took to encrypt a value, and what the interval map took in memory, on its authors' machines; and
what decryption took, whatever the number. CRYPTO_LIMIT_NS is what prototypes of single steps, with
nothing around them, reached with AVX-512 and VAES on another two-core machine (4.1 GHz).
"""

from __future__ import annotations

BESSD_MPPS: dict[str, float] = {
    "Source->Sink": 548.4,
    "Bypass x1": 454.1,
    "Bypass x4": 321.7,
    "Bypass x8": 254.2,
    "Merge x1": 491.7,
    "Merge x4": 414.8,
    "Merge x8": 330.8,
    "Rewrite(1)": 263.1,
    "Rewrite(32)": 267.7,
    "Rewrite(1)->HashLB(l4,4)": 126.1,
    "Rewrite(32)->HashLB(l4,4)": 105.5,
    "Rewrite(1)->HashLB(5 fields,4)": 105.7,
    "Rewrite(32)->HashLB(5 fields,4)": 88.4,
    "Rewrite(1)->ExactMatch(dport,4)": 125.4,
    "Rewrite(32)->ExactMatch(dport,4)": 103.9,
    "Rewrite(1)->WildcardMatch(1 mask)": 97.2,
    "Rewrite(32)->WildcardMatch(1 mask)": 83.6,
    "Rewrite(1)->WildcardMatch(4 masks)": 50.8,
    "Rewrite(32)->WildcardMatch(4 masks)": 48.5,
    "Rewrite(1)->SetMetadata->ExactMatch(attr)": 111.1,
    "Rewrite(32)->SetMetadata->ExactMatch(attr)": 92.8,
    "Rewrite(1)->SetMetadata->WildcardMatch(attr)": 88.3,
    "Rewrite(32)->SetMetadata->WildcardMatch(attr)": 73.9,
    "Rewrite(1)->SetMetadata(const)->ExactMatch(attr)": 113.6,
    "Rewrite(1)->NAT": 87.4,
    "Rewrite(32)->NAT": 84.8,
    "Rewrite(1)->VXLAN encap": 35.6,
    "Rewrite(1)->VXLAN encap->decap": 33.5,
    "Rewrite(1)->GenericEncap(const)->Decap": 133.9,
    "Rewrite(1)->GenericEncap(attr)->Decap": 107.2,
    "Queue": 325.0,
    "8 queues, weighted_fair equal": 232.3,
    "8 queues, weighted_fair 1..8": 83.5,
    "Rewrite(1)->IPLookup(1000)": 157.6,
    "Rewrite(32)->IPLookup(1000)": 125.3,
    "Rewrite(1)->Update": 219.8,
    "Rewrite(1)->RandomUpdate": 193.7,
    "Rewrite(1)->MACSwap": 182.5,
    "Rewrite(1)->IPSwap": 173.0,
    "Rewrite(1)->UpdateTTL": 153.4,
    "Rewrite(1)->IPChecksum": 139.0,
    "Rewrite(1)->L4Checksum": 99.8,
    "Rewrite(1)->VLANPush->VLANPop": 133.4,
    "Rewrite(1)->Timestamp": 230.1,
    "Rewrite(1)->Timestamp->Measure": 117.1,
    "Rewrite(1)->RoundRobin(packet)": 147.3,
    "Rewrite(1)->RoundRobin(batch)": 255.7,
    "Rewrite(1)->Replicate(2)": 73.8,
    "Rewrite(32)->Split(dport)": 112.6,
    "Rewrite(32)->BPF": 112.6,
    "Rewrite(1)->ACL(10)": 97.4,
    "Rewrite(1)->ACL(100)": 23.4,
    "Rewrite(32)->L2Forward(17)": 119.3,
}

# Median nanoseconds from Timestamp to Measure.
BESSD_NS: dict[str, float] = {
    "Timestamp->Measure": 20,
    "Timestamp->Bypass x8->Measure": 140,
    "Timestamp->Queue->Measure": 80,
}

# Median microseconds of a call without and with a worker that runs.
BESSD_US: dict[str, tuple[float | None, float]] = {
    "GetVersion": (133, 151),
    "CreateModule (Bypass)": (167, 190),
    "ConnectModules": (151, 348),
    "DisconnectModules": (143, 1212),
    "DestroyModule": (152, 895),
    "ModuleCommand add to ExactMatch": (154, 193),
    "ModuleCommand add to WildcardMatch": (161, 198),
    "PauseAll + ResumeAll": (None, 7990),
}

PREFIX_MATCH_NS: dict[int, float] = {10_000: 530, 100_000: 770}
PREFIX_MATCH_KB: dict[int, float] = {10_000: 1_600, 100_000: 28_500}

# Section 4.5, figure 4.7: a whole gateway, which also had a NIC to serve.
GATEWAY_MPPS: dict[str, float] = {
    "encrypt, IPv4, 0 rules": 3.0,
    "encrypt, IPv4, 10000 rules": 1.5,
    "encrypt, IPv4, 100000 rules": 1.1,
}

# Table 4.3: throughput with encrypted packets by that in clear.
TABLE_43_RATIO: dict[str, float] = {
    "IP firewall": 1.0,
    "L4 load balancer": 1.0,
    "NAT": 0.973,
}

TABLE_42_US: dict[str, dict[int, float]] = {
    "BCLO": {10_000: 9333, 100_000: 9333},
    "mOPE": {10_000: 6640, 100_000: 8300},
    "PrefixMatch": {rules: ns / 1e3 for rules, ns in PREFIX_MATCH_NS.items()},
}
TABLE_42_DECRYPT_US: dict[str, float] = {"BCLO": 169, "mOPE": 0.128, "PrefixMatch": 0.128}

CRYPTO_LIMIT_NS: dict[str, float] = {
    "IPv4, 0 rules": 2.5,
    "IPv4, 100 rules": 2.4,
    "IPv4, 1000 rules": 2.4,
    "IPv4, 10000 rules": 2.6,
    "IPv4, 100000 rules": 3.3,
    "IPv6, 0 rules": 2.4,
    "IPv6, 100 rules": 4.5,
    "IPv6, 1000 rules": 5.7,
    "IPv6, 10000 rules": 6.1,
    "IPv6, 100000 rules": 9.0,
    "CTR, 64 bytes": 3.8,
    "CTR, 512 bytes": 19.6,
    "CTR, 1500 bytes": 58.8,
    "GCM, 64 bytes": 10.6,
    "GCM, 512 bytes": 37.5,
    "GCM, 1500 bytes": 86.5,
}
