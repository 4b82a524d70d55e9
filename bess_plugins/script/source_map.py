# SPDX-License-Identifier: BSD-3-Clause
"""Translated scripts and the way from them back to their source."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import NamedTuple

__all__ = ["Edit", "Places", "SugarError", "Translation"]


class SugarError(Exception):
    """The source is malformed; line and column count from 1."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


class Edit(NamedTuple):
    """Replacement of a range of one line; columns count from 0."""

    start: int
    end: int
    text: str


@dataclass
class Translation:
    """Plain Python and the way back to its source."""

    source: str
    text: str
    edits: dict[int, list[Edit]] = field(repr=False)
    arrows: list[tuple[int, int]] = field(repr=False)

    def origin(self, line: int, column: int) -> int:
        """Column of the source, from 0, of a column of the translated line."""
        shift = 0
        for edit in self.edits.get(line, ()):
            start = edit.start + shift
            if column < start:
                break
            if column < start + len(edit.text):
                return edit.start
            shift += len(edit.text) - (edit.end - edit.start)
        return column - shift

    def compile(self, filename: str) -> ast.Module:
        """Parse the translation; positions in the tree are those of the source.

        A connection is located at its arrow. Raises ``SugarError``.
        """
        try:
            tree = ast.parse(self.text, filename)
        except SyntaxError as error:
            line, column = error.lineno or 1, max((error.offset or 1) - 1, 0)
            raise SugarError(error.msg, line, self.origin(line, column) + 1) from None
        except ValueError as error:
            raise SugarError(str(error), 1, 1) from None
        locate = _Locator(self)
        for node in ast.walk(tree):
            if isinstance(node, (ast.expr, ast.stmt)):
                locate.connection(node)
        for node in ast.walk(tree):
            locate.move(node)
        return tree


class _Locator:
    """Moves nodes of a translated tree to their place in the source."""

    def __init__(self, translation: Translation) -> None:
        self._translation = translation
        self._source = translation.source.split("\n")
        self._text = translation.text.split("\n")
        self._arrows: dict[int, tuple[int, int]] = {}

    def connection(self, node: ast.AST) -> None:
        """Remember the arrow a sum stands for."""
        if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add)):
            return
        left, right = node.left, node.right
        start = (left.end_lineno or 0, self._column(left.end_lineno, left.end_col_offset))
        end = (right.lineno, self._column(right.lineno, right.col_offset))
        for arrow in self._translation.arrows:
            if start <= arrow < end:
                self._arrows[id(node)] = arrow
                return

    def move(self, node: ast.AST) -> None:
        """Give a node its position in the source."""
        if not hasattr(node, "col_offset"):
            return
        arrow = self._arrows.get(id(node))
        if arrow is not None:
            line, column = arrow
            start = self._offset(line, self._translation.origin(line, column))
            node.lineno = node.end_lineno = line  # type: ignore[attr-defined]
            node.col_offset = start
            node.end_col_offset = start + len("->")  # type: ignore[attr-defined]
            return
        for line_name, column_name in (("lineno", "col_offset"), ("end_lineno", "end_col_offset")):
            line, offset = getattr(node, line_name), getattr(node, column_name)
            if line is None or offset is None:
                continue
            column = self._translation.origin(line, self._column(line, offset))
            setattr(node, column_name, self._offset(line, column))

    def _column(self, line: int | None, offset: int | None) -> int:
        """Characters before a byte offset of the translation."""
        text = self._text[(line or 1) - 1]
        return len(text.encode()[: offset or 0].decode(errors="ignore"))

    def _offset(self, line: int, column: int) -> int:
        return len(self._source[line - 1][:column].encode())


class Places:
    """Where in a script something happens while it runs; line and column count from 1.

    A column of 0 is unknown, and so is a line of 0.
    """

    def __init__(self, name: str, source: str) -> None:
        self._name = name
        self._lines = source.split("\n")
        # By identity, which is cheaper than the hash of a long script's code; kept, so that no
        # other code takes its place.
        self._positions: dict[int, tuple[CodeType, list[tuple[int | None, int | None]]]] = {}

    def failure(self, error: BaseException) -> tuple[int, int]:
        """Innermost place of a traceback inside the script."""
        place, trace = (0, 0), error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == self._name:
                place = self._place(trace.tb_frame.f_code, trace.tb_lasti, trace.tb_lineno)
            trace = trace.tb_next
        return place

    def current(self) -> tuple[int, int]:
        """Innermost place of the script that the caller was called from."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename == self._name:
                return self._place(frame.f_code, frame.f_lasti, frame.f_lineno)
            frame = frame.f_back
        return 0, 0

    def _place(self, code: CodeType, instruction: int, fallback: int) -> tuple[int, int]:
        if id(code) not in self._positions:
            all_positions = [(line, column) for line, _, column, _ in code.co_positions()]
            self._positions[id(code)] = (code, all_positions)
        positions = self._positions[id(code)][1]
        index = instruction // 2
        line, offset = positions[index] if 0 <= index < len(positions) else (None, None)
        line = line or fallback
        if offset is None or not 0 < line <= len(self._lines):
            return line, 0
        prefix = self._lines[line - 1].encode()[:offset]
        return line, len(prefix.decode(errors="ignore")) + 1
