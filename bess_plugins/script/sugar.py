# SPDX-License-Identifier: BSD-3-Clause
"""Translation of pipeline notation to plain Python.

=====================  ==========================================
``$VAR``               ``__bess_env__('VAR')``
``$VAR!default``       ``__bess_env__('VAR', default)``
``a::Sink(x)``         ``__bess_module__('a', 'Sink', x)``
``a, b::Sink()``       ``__bess_module__(('a', 'b', ), 'Sink', )``
``a -> b``             ``a + b``
``a:1 -> 2:b``         ``a*1 + 2*b``
=====================  ==========================================

No line is added or removed, and columns can be traced back to the source.
"""

from __future__ import annotations

import io
import keyword
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

from bess_plugins.script.source_map import Edit, SugarError, Translation

__all__ = ["SugarError", "Translation", "translate"]

_OPEN, _CLOSE = frozenset("([{"), frozenset(")]}")
_COMPOUND = frozenset(
    {
        "if",
        "elif",
        "else",
        "while",
        "for",
        "with",
        "try",
        "except",
        "finally",
        "def",
        "class",
        "async",
        "match",
        "case",
    }
)
_ASSIGN = frozenset(
    {"=", ":=", "+=", "-=", "*=", "/=", "//=", "%=", "@=", "&=", "|=", "^=", ">>=", "<<=", "**="}
)
# Keywords that an operand can neither contain nor follow from within.
_STOP_WORDS = frozenset(
    {"return", "yield", "lambda", "in", "assert", "del", "raise", "import", "from", "as"}
)
_SKIPPED = {tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}


@dataclass(eq=False)
class _Token:
    text: str
    kind: int
    line: int
    start: int
    end: int
    colon: str = ""  # "gate", "other", or "declaration"


def _error(message: str, token: _Token) -> SugarError:
    return SugarError(message, token.line, token.start + 1)


def _statements(source: str) -> Iterator[list[_Token]]:
    """Tokens of each logical line."""
    tokens: list[_Token] = []
    brackets: list[_Token] = []
    try:
        for kind, text, (line, start), (_, end), _ in tokenize.generate_tokens(
            io.StringIO(source).readline
        ):
            if kind in (tokenize.NEWLINE, tokenize.ENDMARKER):
                if tokens:
                    yield tokens
                tokens = []
            elif kind not in _SKIPPED and not text.isspace():
                token = _Token(text, kind, line, start, end)
                tokens.append(token)
                if text in _OPEN:
                    brackets.append(token)
                elif text in _CLOSE:
                    if not brackets:
                        raise _error(f"unmatched '{text}'", token)
                    brackets.pop()
    except tokenize.TokenError as error:
        if brackets:
            raise _error(f"'{brackets[-1].text}' was never closed", brackets[-1]) from None
        reason, (line, column) = error.args
        raise SugarError(str(reason), line, max(column, 1)) from None
    except SyntaxError as error:
        raise SugarError(error.msg, error.lineno or 1, error.offset or 1) from None


def translate(source: str) -> Translation:
    """Translate a script; raises ``SugarError``."""
    source = source.replace("\r\n", "\n").replace("\r", "\n").replace("\f", " ")
    edits: dict[int, list[Edit]] = {}
    arrows: list[_Token] = []
    for tokens in _statements(source):
        statement = _Statement(tokens)
        statement.translate()
        arrows += statement.arrows
        for line, edit in statement.edits:
            edits.setdefault(line, []).append(edit)
    lines = source.split("\n")
    for number, changes in edits.items():
        changes.sort(key=lambda edit: (edit.start, edit.end))
        text, done = lines[number - 1], 0
        parts: list[str] = []
        for edit in changes:
            parts += [text[done : edit.start], edit.text]
            done = edit.end
        lines[number - 1] = "".join(parts) + text[done:]
    positions = []
    for arrow in arrows:
        before = [edit for edit in edits[arrow.line] if edit.start < arrow.start]
        # Text inserted where the arrow starts comes first as well.
        before += [e for e in edits[arrow.line] if e.start == e.end == arrow.start]
        shift = sum(len(edit.text) - (edit.end - edit.start) for edit in before)
        positions.append((arrow.line, arrow.start + shift))
    return Translation(source, "\n".join(lines), edits, positions)


class _Statement:
    """One logical line."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.edits: list[tuple[int, Edit]] = []
        self.arrows: list[_Token] = []
        self._arrow_at: list[int] = []

    def translate(self) -> None:
        """Collect the edits."""
        self._classify()
        for index, token in enumerate(self.tokens):
            if token.text == "$":
                self._variable(index)
            elif token.colon == "declaration" and self.tokens[index + 1].colon == "declaration":
                self._declaration(index)
        self._connections()

    def _replace(self, token: _Token, end: _Token, text: str) -> None:
        self.edits.append((token.line, Edit(token.start, end.end, text)))

    def _insert(self, token: _Token, column: int, text: str) -> None:
        self.edits.append((token.line, Edit(column, column, text)))

    def _text(self, index: int) -> str:
        return self.tokens[index].text if 0 <= index < len(self.tokens) else ""

    def _adjacent(self, index: int) -> bool:
        """Tell whether nothing separates a token from the one before."""
        if not 0 < index < len(self.tokens):
            return False
        before, token = self.tokens[index - 1], self.tokens[index]
        return before.line == token.line and before.end == token.start

    def _is_name(self, index: int) -> bool:
        if not 0 <= index < len(self.tokens):
            return False
        token = self.tokens[index]
        return token.kind == tokenize.NAME and not keyword.iskeyword(token.text)

    # Meaning of colons and arrows.

    def _classify(self) -> None:
        header = self.tokens[0].text in _COMPOUND
        is_def = header and any(token.text == "def" for token in self.tokens[:2])
        if self.tokens[0].text in ("match", "case"):
            header = self.tokens[-1].text == ":"
        # Per bracket: kind, and whether its next colon separates a key.
        nesting, keys, lambdas = [""], [False], [0]
        for index, token in enumerate(self.tokens):
            text = token.text
            if text in _OPEN:
                subscript = text == "[" and (self._is_name(index - 1) or self._closes(index - 1))
                nesting.append("subscript" if subscript else text)
                keys.append(text == "{")
                lambdas.append(0)
            elif text in _CLOSE and len(nesting) > 1:
                nesting.pop()
                keys.pop()
                lambdas.pop()
            elif text == ",":
                keys[-1] = nesting[-1] == "{"
            elif text == "lambda":
                lambdas[-1] += 1
            elif text == "->" and not (is_def and header and len(nesting) == 1):
                self._arrow_at.append(index)
                self.arrows.append(token)
            elif text == ":" and not token.colon:
                if nesting[-1] == "subscript":
                    token.colon = "other"
                elif self._text(index + 1) == ":" and self._adjacent(index + 1):
                    token.colon = self.tokens[index + 1].colon = "declaration"
                elif lambdas[-1]:
                    lambdas[-1] -= 1
                    token.colon = "other"
                elif keys[-1]:
                    keys[-1] = False
                    token.colon = "other"
                elif header and len(nesting) == 1:
                    header = False
                    token.colon = "other"
                else:
                    token.colon = "gate"

    def _closes(self, index: int) -> bool:
        return index >= 0 and self.tokens[index].text in _CLOSE

    # Variables.

    def _variable(self, index: int) -> None:
        dollar = self.tokens[index]
        if not (self._is_name(index + 1) and self._adjacent(index + 1)):
            raise _error("expected a variable name after '$'", dollar)
        name = self.tokens[index + 1]
        call = f"__bess_env__('{name.text}'"
        if not (self._text(index + 2) == "!" and self._adjacent(index + 2)):
            self._replace(dollar, name, f"{call})")
            return
        mark = self.tokens[index + 2]
        if not self._adjacent(index + 3):
            raise _error("expected a default after '!'", mark)
        default = self.tokens[index + 3]
        if default.text == "(":
            self._replace(dollar, default, f"{call}, ")
            return
        if default.kind not in (tokenize.STRING, tokenize.NAME, tokenize.NUMBER):
            raise _error("a default is a literal, a name or in parentheses", default)
        self._replace(dollar, mark, f"{call}, ")
        # A string may end on a later line than it starts.
        last_line = default.line + default.text.count("\n")
        self.edits.append((last_line, Edit(default.end, default.end, ")")))

    # Declarations.

    def _declaration(self, index: int) -> None:
        colon = self.tokens[index]
        if not (self._is_name(index - 1) and self._adjacent(index)):
            raise _error("expected a module name before '::'", colon)
        if not (self._is_name(index + 2) and self._adjacent(index + 2)):
            raise _error("expected a module class after '::'", colon)
        kind = self.tokens[index + 2]
        opening = self.tokens[index + 3] if self._text(index + 3) == "(" else None
        if opening is None or opening.line != kind.line:
            raise _error(f"expected '(' after {kind.text}", kind)
        first = index - 1
        while (
            self._text(first - 1) == ","
            and self._is_name(first - 2)
            and self._text(first - 3) != "."
            and self.tokens[first - 2].line == kind.line
        ):
            first -= 2
        names = [f"'{self.tokens[at].text}'" for at in range(first, index, 2)]
        named = names[0] if len(names) == 1 else f"({', '.join(names)}, )"
        self._replace(self.tokens[first], opening, f"__bess_module__({named}, '{kind.text}', ")

    # Connections.

    def _connections(self) -> None:
        igates: dict[int, int] = {}
        ogates: dict[int, int] = {}
        for at in self._arrow_at:
            left, right = self._operand(at, -1), self._operand(at, 1)
            arrow = self.tokens[at]
            if not left:
                raise _error("expected a module before '->'", arrow)
            if not right:
                raise _error("expected a module after '->'", arrow)
            self._replace(arrow, arrow, "+")
            for colons, gates in ((self._gates(left), ogates), (self._gates(right), igates)):
                if colons:
                    gates[colons[0]] = at
                if len(colons) > 2:
                    raise _error("unexpected ':'", self.tokens[colons[1]])
            self._check_last(right)
        for colon in igates.keys() | ogates.keys():
            token = self.tokens[colon]
            self._replace(token, token, "*")
            before, after = self._side(colon, -1), self._side(colon, 1)
            if not before or not after:
                raise _error("expected a gate or a module beside ':'", token)
            # Between two arrows, a lone colon may belong to either of them.
            both = colon in igates and colon in ogates
            if colon in igates:
                self._parenthesize(before, strict=both)
            if colon in ogates:
                self._parenthesize(after, strict=both)

    def _check_last(self, right: list[int]) -> None:
        """Refuse an output gate that no arrow follows."""
        follows = right[-1] + 1 in self._arrow_at
        colons = self._gates(right)
        if colons and not follows:
            if len(colons) > 1:
                raise _error("output gate without '->'", self.tokens[colons[1]])
            if any(self.tokens[at].colon == "declaration" for at in right if at < colons[0]):
                raise _error("output gate without '->'", self.tokens[colons[0]])

    def _gates(self, operand: list[int]) -> list[int]:
        """Colons of an operand outside of brackets, nearest to the arrow first."""
        depth, found = 0, []
        for at in operand:
            text = self.tokens[at].text
            depth += (text in _OPEN) - (text in _CLOSE)
            if depth == 0 and self.tokens[at].colon == "gate":
                found.append(at)
        return found

    def _operand(self, arrow: int, step: int) -> list[int]:
        """Tokens between an arrow and the next arrow or other boundary."""
        return self._scan(arrow, step, gates=False)

    def _side(self, colon: int, step: int) -> list[int]:
        """Tokens between a gate's colon and the next colon or boundary."""
        return sorted(self._scan(colon, step, gates=True))

    def _scan(self, origin: int, step: int, gates: bool) -> list[int]:
        depth, found = 0, []
        at = origin + step
        opening, closing = (_OPEN, _CLOSE) if step > 0 else (_CLOSE, _OPEN)
        while 0 <= at < len(self.tokens):
            token = self.tokens[at]
            if token.text in opening:
                depth += 1
            elif token.text in closing:
                if depth == 0:
                    break
                depth -= 1
            elif depth == 0 and self._bounds(at, step, gates):
                break
            found.append(at)
            at += step
        return found

    def _bounds(self, at: int, step: int, gates: bool) -> bool:
        token = self.tokens[at]
        if token.text == "," and step < 0:
            # Names of a declaration belong together.
            return not self._is_declared(at)
        return (
            token.text in (",", ";", "->")
            or token.text in _ASSIGN
            or token.text in _STOP_WORDS
            or token.colon == "other"
            or (gates and token.colon == "gate")
        )

    def _is_declared(self, comma: int) -> bool:
        at = comma
        while self._text(at) == "," and self._is_name(at + 1):
            at += 2
        return at < len(self.tokens) and self.tokens[at].colon == "declaration"

    def _parenthesize(self, operand: list[int], strict: bool) -> None:
        depth, needed = 0, False
        for at in operand:
            token = self.tokens[at]
            if token.colon == "declaration":
                continue
            is_word = keyword.iskeyword(token.text) and token.text not in ("None", "True", "False")
            if not strict:
                needed |= token.kind == tokenize.OP or is_word
                continue
            depth -= token.text in _CLOSE
            bracket = token.text in _OPEN | _CLOSE | {"."}
            if depth == 0 and not bracket and (token.kind == tokenize.OP or is_word):
                needed = True
            depth += token.text in _OPEN
        if needed:
            first, last = self.tokens[operand[0]], self.tokens[operand[-1]]
            self._insert(first, first.start, "(")
            self._insert(last, last.end, ")")
