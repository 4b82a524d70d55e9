# SPDX-License-Identifier: BSD-3-Clause
"""Changes to a text that leave the rest of it as it is."""

from __future__ import annotations

import ast

from alpine.removal import bodies, first_line

__all__ = ["Text"]


class Text:
    """A script and changes to it. Lines count from 1, columns from 0 in bytes, as in ``ast``."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._lines = source.split("\n")
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 1)
        self._deleted: set[int] = set()
        self._edits: list[tuple[int, int, str]] = []

    def offset(self, line: int, column: int) -> int:
        """Characters before a place."""
        prefix = self._lines[line - 1].encode()[:column]
        return self._starts[line - 1] + len(prefix.decode(errors="ignore"))

    def line(self, number: int) -> str:
        """A line."""
        return self._lines[number - 1]

    def before(self, line: int, column: int) -> str:
        """A line up to a column."""
        return self._source[self._starts[line - 1] : self.offset(line, column)]

    def after(self, line: int, column: int) -> str:
        """A line from a column on."""
        return self._source[self.offset(line, column) : self._starts[line] - 1]

    def insert(self, offset: int, text: str) -> None:
        """Put something in."""
        self._edits.append((offset, offset, text))

    def insert_line(self, before: int, text: str) -> None:
        """Put in a line."""
        self.insert(self._starts[before - 1], text + "\n")

    def remove(self, tree: ast.Module, statements: set[ast.stmt]) -> None:
        """Take out statements, and comments that are only about them."""
        for node in ast.walk(tree):
            for body in bodies(node):
                self._remove_from(body, statements, keep_one=node is not tree)

    def _remove_from(self, body: list[ast.stmt], gone: set[ast.stmt], keep_one: bool) -> None:
        if keep_one and all(statement in gone for statement in body):
            start, end = body[0], body[-1]
            column = start.col_offset
            first = self.offset(first_line(start), column)
            last = self.offset(end.end_lineno or 0, end.end_col_offset or 0)
            self._edits.append((first, last, "pass"))
            return
        at = 0
        while at < len(body):
            if body[at] not in gone:
                at += 1
                continue
            last = at
            while last + 1 < len(body) and body[last + 1] in gone and _joined(body, last):
                last += 1
            self._remove_run(body, at, last)
            at = last + 1

    def _remove_run(self, body: list[ast.stmt], first: int, last: int) -> None:
        """Take out neighbours, each of which starts on the line where the one before ends."""
        start, end = body[first], body[last]
        end_line, end_column = end.end_lineno or 0, end.end_col_offset or 0
        if first and _joined(body, first - 1):
            before = body[first - 1]
            begin = self.offset(before.end_lineno or 0, before.end_col_offset or 0)
            self._edits.append((begin, self.offset(end_line, end_column), ""))
        elif last + 1 < len(body) and _joined(body, last):
            until = self.offset(body[last + 1].lineno, body[last + 1].col_offset)
            self._edits.append((self.offset(start.lineno, start.col_offset), until, ""))
        else:
            self._delete_lines(first_line(start), end_line, start.col_offset)

    def _delete_lines(self, first: int, last: int, column: int) -> None:
        while last < len(self._lines) and self._is_comment(last + 1, column + 1):
            last += 1  # at the end of a block
        self._deleted |= set(range(first, last + 1))

    def _is_comment(self, number: int, least: int = 0, most: int = 1 << 30) -> bool:
        line = self._lines[number - 1]
        indent = len(line) - len(line.lstrip())
        return line.lstrip().startswith("#") and least <= indent <= most

    def _delete_comments(self) -> None:
        """Comments right above what went, unless they stand above something that stays as well."""
        for number in sorted(self._deleted):
            indent = len(self.line(number)) - len(self.line(number).lstrip())
            top = number
            while top > 1 and self._is_comment(top - 1, indent, indent):
                top -= 1
            if top == number or top == 1 or number - 1 in self._deleted:
                continue
            below = number
            while below in self._deleted:
                below += 1
            follows = self._lines[below - 1] if below <= len(self._lines) else ""
            same_block = len(follows) - len(follows.lstrip()) >= indent and follows.strip()
            if not same_block or self._is_comment(below):
                self._deleted |= set(range(top, number))

    def _delete_blanks(self) -> None:
        """Leave as many blank lines as there were at one place, and none beside an end."""
        number, count = 1, len(self._lines)
        while number <= count:
            segment: list[int] = []
            while number <= count and (number in self._deleted or not self.line(number).strip()):
                segment.append(number)
                number += 1
            number += not segment
            if not any(line in self._deleted for line in segment):
                continue
            runs: list[list[int]] = [[]]
            for line in segment:
                if line in self._deleted:
                    runs.append([])
                else:
                    runs[-1].append(line)
            kept = max(runs, key=len)
            opens_block = segment[0] > 1 and self.line(segment[0] - 1).rstrip().endswith(":")
            if segment[0] == 1 or segment[-1] == count or opens_block:
                kept = []
            self._deleted |= set(segment) - set(kept)

    def render(self) -> str:
        """The text as changed."""
        self._delete_comments()
        self._delete_blanks()
        edits = list(self._edits)
        for number in self._deleted:
            edits.append((self._starts[number - 1], self._starts[number], ""))
        parts: list[str] = []
        done = 0
        for start, end, text in sorted(edits, key=lambda edit: edit[:2]):
            parts += [self._source[done:start], text]
            done = max(done, end)
        return "".join(parts) + self._source[done:]


def _joined(body: list[ast.stmt], index: int) -> bool:
    """Whether the statement after this one starts on its last line."""
    return body[index].end_lineno == body[index + 1].lineno
