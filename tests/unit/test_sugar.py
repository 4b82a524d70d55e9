# SPDX-License-Identifier: BSD-3-Clause
"""The notation of scripts and its translation."""

from __future__ import annotations

import ast

import pytest

from bess_plugins.script.sugar import SugarError, translate

PAIRS = [
    ("size = $SIZE", "size = __bess_env__('SIZE')"),
    ("f($A, $B!b)", "f(__bess_env__('A'), __bess_env__('B', b))"),
    ("n = $N!64 + 1", "n = __bess_env__('N', 64) + 1"),
    ('$DIR!"/tmp" + x', "__bess_env__('DIR', \"/tmp\") + x"),
    ("$N!(1 + 2) * 3", "__bess_env__('N', 1 + 2) * 3"),
    ("$N != 3", "__bess_env__('N') != 3"),
    ("'$N' # $N -> x::y", "'$N' # $N -> x::y"),
    ("src::Source()", "__bess_module__('src', 'Source', )"),
    ("q::Queue (size=$N)", "__bess_module__('q', 'Queue', size=__bess_env__('N'))"),
    ("p, q::Queue(1)", "__bess_module__(('p', 'q', ), 'Queue', 1)"),
    ("all = [p::A(), q::B()]", "all = [__bess_module__('p', 'A', ), __bess_module__('q', 'B', )]"),
    ("items[first::step()]", "items[first::step()]"),
    ("items[::2]", "items[::2]"),
    ("src -> sink", "src + sink"),
    ("src->sink", "src+sink"),
    ("a -> b -> c -> d", "a + b + c + d"),
    ("split:1 -> sink", "split*1 + sink"),
    ("src -> 7:merge", "src + 7*merge"),
    ("src:1 -> 2:mid:3 -> 4:end", "src*1 + 2*mid*3 + 4*end"),
    ("a:GATE -> b", "a*GATE + b"),
    ("a:i+1 -> 2*j:b", "a*(i+1) + (2*j)*b"),
    ("a -> b:i+1 -> c", "a + b*(i+1) + c"),
    ("a -> i+1:b -> c", "a + (i+1)*b + c"),
    ("a:gates['x'] -> b", "a*(gates['x']) + b"),
    ("a:x or y -> b", "a*(x or y) + b"),
    ("mods[i]:1 -> mods[i + 1]", "mods[i]*1 + mods[i + 1]"),
    ("A() -> B()", "A() + B()"),
    (
        "a::A(k={1: 2}):3->4:b::B()",
        "__bess_module__('a', 'A', k={1: 2})*3+4*__bess_module__('b', 'B', )",
    ),
    ("x -> b::B():1 -> c", "x + __bess_module__('b', 'B', )*1 + c"),
    ("if ready: a:1 -> b", "if ready: a*1 + b"),
    ("for m in ms: m -> 1:b; c -> d", "for m in ms: m + 1*b; c + d"),
    ("join = lambda m: m:1 -> b", "join = lambda m: m*1 + b"),
    ("d = {'k': a:1 -> b, 'l': c -> d}", "d = {'k': a*1 + b, 'l': c + d}"),
    ("end = a:1 -> b", "end = a*1 + b"),
    ("def f(a: int) -> None: a -> b", "def f(a: int) -> None: a + b"),
    ("(a\n  -> b\n  -> 1:c)", "(a\n  + b\n  + 1*c)"),
    ("a:2 \\\n -> b", "a*2 \\\n + b"),
    ('"""\na -> b\n"""', '"""\na -> b\n"""'),
    ("x: int = 3", "x: int = 3"),
    ("y = s[1:2]", "y = s[1:2]"),
]


@pytest.mark.parametrize(("source", "expected"), PAIRS)
def test_translation(source: str, expected: str) -> None:
    translation = translate(source)
    assert translation.text == expected
    translation.compile("test.bess")


@pytest.mark.parametrize(
    ("source", "line", "column", "part"),
    [
        ("a -> b\n$1", 2, 1, "variable name"),
        ("x = $A!+", 1, 8, "default"),
        ("x = $A!", 1, 7, "default"),
        ("x\n  \ny = a::Sink", 3, 8, "expected '('"),
        ("a::3()", 1, 2, "module class"),
        ("4::B()", 1, 2, "module name"),
        ("-> b", 1, 1, "before '->'"),
        ("a ->", 1, 3, "after '->'"),
        ("a -> -> b", 1, 3, "after '->'"),
        ("f(a -> )", 1, 5, "after '->'"),
        ("a: -> b", 1, 2, "beside ':'"),
        ("a -> b::B():1", 1, 12, "without '->'"),
        ("a -> 1:b:2", 1, 9, "without '->'"),
        ("a:1 -> 1:b:2:3 -> c", 1, 11, "unexpected ':'"),
        ("x = (1,\n", 1, 5, "never closed"),
    ],
)
def test_malformed_notation(source: str, line: int, column: int, part: str) -> None:
    with pytest.raises(SugarError) as caught:
        translate(source).compile("test.bess")
    assert (caught.value.line, caught.value.column) == (line, column)
    assert part in caught.value.message


@pytest.mark.parametrize(
    ("source", "line", "column"),
    [
        ("a::Sink(x) y", 1, 12),
        ("z = 1\n$VARIABLE!'d' = )", 2, 17),
        ("aé::Source() -> b:1 -> c; 4 = d", 1, 27),
    ],
)
def test_python_errors_are_located_in_the_source(source: str, line: int, column: int) -> None:
    with pytest.raises(SugarError) as caught:
        translate(source).compile("test.bess")
    assert (caught.value.line, caught.value.column) == (line, column)


def test_positions_of_the_tree() -> None:
    source = "é::Source() -> 2:b::Sink(n=$N!1) -> last"
    tree = translate(source).compile("test.bess")
    encoded = source.encode()
    sums = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp)]
    arrows = sorted(node.col_offset for node in sums if isinstance(node.op, ast.Add))
    assert [encoded[at : at + 2] for at in arrows] == [b"->", b"->"]
    last = next(n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == "last")
    assert encoded[last.col_offset :] == b"last"
    assert translate(source).text.count("\n") == source.count("\n")
