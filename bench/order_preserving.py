# SPDX-License-Identifier: BSD-3-Clause
"""Two order-preserving schemes that PrefixMatch is compared with; baselines, not for use.

Bclo is the scheme of Boldyreva, Chenette, Lee and O'Neill (2009). A random order-preserving
function from the domain into a range eight times as large is sampled only where it is needed: halve
the range, draw how many values of the domain go to its lower half, and go on in the half that holds
the value. Coins are AES of the path taken so far (EMAC: one block per step under one key, the last
one again under another), which costs one block a step where the paper's tape takes several.

How many values go to the lower half is hypergeometric. Exact sampling is out of reach in
populations of 2^131, so there are two ways. Up to a variance of 1024 all probabilities within 12
standard deviations are added up, in floating point. Above, it is a rounded normal variate of the
same mean and variance, 128 bits long. Half of the range makes the distribution symmetric but for
rounding, so the two are close; yet the function is not exactly as random as the paper's proof asks
for. Order, determinism and decryption don't depend on that: whatever is drawn is kept to what is
possible, and drawn again alike.

Mope is the mutable encoding of Popa, Li and Zeldovich (2013). A server keeps values under
deterministic encryption (one block of AES) in a search tree that it can't compare itself: for each
node on the way it asks the client, who decrypts it and says left or right. The code of a value is
its path, so that codes change where the tree is rebalanced. Both run in one process here: a round
trip costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from Crypto.Cipher import AES
from Crypto.Cipher._mode_ecb import EcbMode

BLOCK = 16
EXPANSION_BITS = 3  # the range of BCLO is that many bits longer than its domain
SMALL_VARIANCE = 1024
DEVIATIONS = 12
CODE_BITS = 64  # of mOPE: paths are shorter
BALANCE = 0.7  # of a tree, that one side may have


def block_cipher(key: bytes, label: int) -> EcbMode:
    """AES under a key derived from `key`, another for each label."""
    derived = AES.new(key, AES.MODE_ECB).encrypt(label.to_bytes(BLOCK, "big"))
    return AES.new(derived, AES.MODE_ECB)


class Coins:
    """A stream of random bits that a seed decides."""

    def __init__(self, cipher: EcbMode, seed: bytes) -> None:
        self._cipher = cipher
        self._first = int.from_bytes(cipher.encrypt(seed), "big")
        self._taken = 0

    def bits(self, count: int) -> int:
        blocks = -(-count // (8 * BLOCK))
        counters = b"".join(
            (self._first ^ (self._taken + i)).to_bytes(BLOCK, "big") for i in range(blocks)
        )
        self._taken += blocks
        return int.from_bytes(self._cipher.encrypt(counters), "big") >> 8 * BLOCK * blocks - count

    def below(self, bound: int) -> int:
        """Uniform but for 2^-64."""
        size = bound.bit_length() + 64
        return self.bits(size) * bound >> size


def hypergeometric(marked: int, population: int, drawn: int, coins: Coins) -> int:
    """How many of the marked ones are among those drawn; see above for how exact it is."""
    least, most = max(0, drawn + marked - population), min(marked, drawn)
    if least == most:
        return least
    rest = (population - marked) * (population - drawn)
    # In 64ths, so that small variances don't round to nothing.
    variance_64 = 64 * marked * drawn * rest // (population**2 * (population - 1))
    if variance_64 < 64 * SMALL_VARIANCE:
        return small_hypergeometric(marked, population, drawn, coins, variance_64 / 64)
    return min(
        max(large_hypergeometric(marked, population, drawn, coins, variance_64), least), most
    )


def small_hypergeometric(
    marked: int, population: int, drawn: int, coins: Coins, variance: float
) -> int:
    """By inversion: the sum of weights, relative to the mode's, up to a random share of all."""
    least, most = max(0, drawn + marked - population), min(marked, drawn)
    mode = min(max((drawn + 1) * (marked + 1) // (population + 2), least), most)
    spread = int(DEVIATIONS * math.sqrt(variance)) + DEVIATIONS
    others = population - marked - drawn
    above, below = [1.0], [1.0]
    for x in range(mode, min(mode + spread, most)):
        odds = (marked - x) * (drawn - x) / ((x + 1) * (others + x + 1))
        above.append(above[-1] * odds)
    for x in range(mode, max(mode - spread, least), -1):
        odds = x * (others + x) / ((marked - x + 1) * (drawn - x + 1))
        below.append(below[-1] * odds)
    weights = below[:0:-1] + above
    left = coins.bits(53) / 2**53 * sum(weights)
    first = mode - len(below) + 1
    for i, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return first + i
    return first + len(weights) - 1


def large_hypergeometric(
    marked: int, population: int, drawn: int, coins: Coins, variance_64: int
) -> int:
    """A normal variate (Box and Muller's), whose bits past a float's are random as well."""
    radius = math.sqrt(-2 * math.log((coins.bits(53) + 1) / 2**53))
    normal = radius * math.cos(2 * math.pi * (coins.bits(53) / 2**53))
    fixed = (int(normal * 2**48) << 80) + coins.bits(80)  # 128 bits behind the point
    deviation_8 = math.isqrt(variance_64)
    mean = (2 * marked * drawn + population) // (2 * population)
    return mean + ((deviation_8 * fixed + (1 << 130)) >> 131)


class Bclo:
    """An order-preserving function of numbers below 2^domain_bits."""

    def __init__(self, key: bytes, domain_bits: int) -> None:
        self.domain = 1 << domain_bits
        self.range = self.domain << EXPANSION_BITS
        self._path = block_cipher(key, 0)
        self._coins = block_cipher(key, 1)

    def encrypt(self, value: int) -> int:
        if not 0 <= value < self.domain:
            raise ValueError(f"{value} must be within 0..{self.domain - 1}")
        return self._search(lambda upper_value, _: value < upper_value)[1]

    def decrypt(self, code: int) -> int:
        if not 0 <= code < self.range:
            raise ValueError(f"{code} must be within 0..{self.range - 1}")
        value, only = self._search(lambda _, upper_code: code < upper_code)
        if only != code:
            raise ValueError(f"{code} is the code of no value")
        return value

    def _search(self, is_lower: Callable[[int, int], bool]) -> tuple[int, int]:
        """Halves the range until a part holds one value, and returns it with its code.

        `is_lower` is told the first value and the first code of the upper half, and says whether to
        go on in the lower one. A part without values has the code -1.
        """
        seed = bytes(BLOCK)
        value, values = 0, self.domain
        code, codes = 0, self.range
        while values > 1:
            drawn = (codes + 1) // 2
            split = hypergeometric(values, codes, drawn, Coins(self._coins, seed))
            lower = is_lower(value + split, code + drawn)
            seed = self._path.encrypt((int.from_bytes(seed, "big") ^ lower).to_bytes(BLOCK, "big"))
            if lower:
                values, codes = split, drawn
            else:
                value, values = value + split, values - split
                code, codes = code + drawn, codes - drawn
        return value, code + Coins(self._coins, seed).below(codes) if values == 1 else -1


class Node:
    """Of the server's tree."""

    __slots__ = ("cipher", "left", "right", "size")

    def __init__(self, cipher: bytes, left: Node | None, right: Node | None) -> None:
        self.cipher = cipher
        self.left = left
        self.right = right
        self.size = 1 + size_of(left) + size_of(right)


# The nodes from the root on, each with whether the next one is its left.
Path = list[tuple[Node, bool]]


def path_code(path: Path) -> int:
    return sum((not left) << CODE_BITS - 1 - depth for depth, (_, left) in enumerate(path))


def size_of(node: Node | None) -> int:
    return 0 if node is None else node.size


def in_order(node: Node | None) -> Iterator[bytes]:
    pending: list[Node] = []
    while node is not None or pending:
        while node is not None:
            pending.append(node)
            node = node.left
        last = pending.pop()
        yield last.cipher
        node = last.right


def balanced(ciphers: list[bytes], first: int, end: int) -> Node | None:
    if first == end:
        return None
    middle = (first + end) // 2
    return Node(
        ciphers[middle], balanced(ciphers, first, middle), balanced(ciphers, middle + 1, end)
    )


class MopeServer:
    """Knows ciphertexts, their order and their codes, and no value."""

    def __init__(self, sorted_ciphers: list[bytes]) -> None:
        self.root = balanced(sorted_ciphers, 0, len(sorted_ciphers))
        self.codes: dict[bytes, int] = {}
        self.rebalanced = 0
        self._number(self.root, 0, 0)

    def insert(self, cipher: bytes, path: Path) -> None:
        """Below the last node of the path."""
        node = Node(cipher, None, None)
        self._hang(path, node)
        for above, _ in path:
            above.size += 1
        for depth, (above, _) in enumerate(path):
            if max(size_of(above.left), size_of(above.right)) > BALANCE * above.size + 1:
                self._rebalance(path[:depth], above)
                return
        self._number(node, path_code(path), len(path))

    def _rebalance(self, path: Path, node: Node) -> None:
        self.rebalanced += 1
        ciphers = list(in_order(node))
        made = balanced(ciphers, 0, len(ciphers))
        self._hang(path, made)
        self._number(made, path_code(path), len(path))

    def _hang(self, path: Path, node: Node | None) -> None:
        if not path:
            self.root = node
        elif path[-1][1]:
            path[-1][0].left = node
        else:
            path[-1][0].right = node

    def _number(self, node: Node | None, code: int, depth: int) -> None:
        """Codes are paths, a 1 for right, then a 1 and zeros."""
        if node is None:
            return
        bit = 1 << CODE_BITS - 1 - depth
        self.codes[node.cipher] = code | bit
        self._number(node.left, code, depth + 1)
        self._number(node.right, code | bit, depth + 1)


class Mope:
    """The client: the only one who has the key."""

    def __init__(self, key: bytes, values: Iterable[int] = ()) -> None:
        self._cipher = block_cipher(key, 2)
        self.server = MopeServer([self.encrypt(value) for value in sorted(set(values))])
        self.rounds = 0  # that the server asked

    def encrypt(self, value: int) -> bytes:
        return self._cipher.encrypt(value.to_bytes(BLOCK, "big"))

    def decrypt(self, cipher: bytes) -> int:
        return int.from_bytes(self._cipher.decrypt(cipher), "big")

    def encode(self, value: int) -> int:
        """The code of a value, which the server takes up if it doesn't have it."""
        cipher = self.encrypt(value)
        if cipher not in self.server.codes:
            path: Path = []
            node = self.server.root
            while node is not None:
                self.rounds += 1
                left = value < self.decrypt(node.cipher)
                path.append((node, left))
                node = node.left if left else node.right
            self.server.insert(cipher, path)
        return self.server.codes[cipher]
