# SPDX-License-Identifier: BSD-3-Clause
"""Which statements of a script only serve Alpine.

A statement that mentions ``alpine``, or a name that holds what Alpine returned, goes. So does what
is left over then: a loop, branch or function without a statement, and a variable, import or
function that nothing else uses. What has an effect of its own, on the pipeline above all, stays.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Collection, Iterator

from alpine.errors import AlpineError
from alpine.graph import Place

__all__ = ["find_removable"]

_PURE_CALLS = frozenset(
    {
        *("abs", "bool", "dict", "enumerate", "filter", "float", "int", "len", "list", "map"),
        *("max", "min", "range", "reversed", "round", "set", "sorted", "str", "sum", "tuple"),
        *("zip", "__bess_env__"),
    }
)
_PURE_METHODS = frozenset(
    {
        *("copy", "count", "format", "get", "index", "items", "join", "keys", "lower", "split"),
        *("upper", "values"),
    }
)
_MUTATORS = frozenset(["add", "append", "extend", "insert", "setdefault", "update"])
_PURE_NODES = (
    *(ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Starred, ast.BinOp),
    *(ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.JoinedStr, ast.FormattedValue),
    *(ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Lambda, ast.ListComp, ast.SetComp),
    *(ast.DictComp, ast.GeneratorExp, ast.comprehension, ast.arguments, ast.arg, ast.keyword),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context),
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SIMPLE_BINDINGS = (ast.Assign, ast.AnnAssign, ast.AugAssign)


def find_removable(
    tree: ast.Module, effects: Collection[tuple[int, int]], path: str
) -> set[ast.stmt]:
    """Statements to take out, outermost ones.

    ``effects`` are lines and columns, from 1 and in bytes, of what the script did to the pipeline.
    Raises ``AlpineError`` where a statement does both.
    """
    return _Removal(tree, effects, path).find()


def bodies(statement: ast.AST) -> Iterator[list[ast.stmt]]:
    """Lists of statements right below one."""
    for name in ("body", "orelse", "finalbody"):
        body = getattr(statement, name, None)
        if isinstance(body, list) and body:
            yield body
    for name in ("handlers", "cases"):
        for part in getattr(statement, name, ()):
            yield part.body


def first_line(statement: ast.stmt) -> int:
    """Where it starts, decorators included."""
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])


def _headers(node: ast.AST) -> Iterator[ast.AST]:
    """Everything of a statement but the statements in it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.stmt):
            yield child
            yield from _headers(child)


def _stored(statement: ast.AST) -> set[str]:
    """Names that its header binds."""
    names = {
        node.id
        for node in _headers(statement)
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
    }
    if isinstance(statement, (*_FUNCTIONS, ast.ClassDef)):
        names.add(statement.name)
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        names |= {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    return names


def _mutated(statement: ast.stmt) -> str:
    """The variable that a statement such as ``x.append(y)`` or ``x[y] = z`` changes."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        function = statement.value.func
        if isinstance(function, ast.Attribute) and function.attr in _MUTATORS:
            return function.value.id if isinstance(function.value, ast.Name) else ""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
        if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
            return target.value.id
    return ""


class _Removal:
    def __init__(self, tree: ast.Module, effects: Collection[tuple[int, int]], path: str) -> None:
        self._tree, self._effects, self._path = tree, effects, path
        self._gone: set[ast.stmt] = set()
        self._alpine = {"alpine"}  # names that hold something of Alpine's
        self._left: list[ast.stmt] = []  # statements that mention such a name and have to stay
        self._parent: dict[ast.stmt, ast.stmt] = {}
        self._binding: dict[str, list[ast.stmt]] = {}
        self._loading: dict[str, list[ast.stmt]] = {}
        for statement in ast.walk(tree):
            if isinstance(statement, ast.stmt):
                self._index(statement)

    def _index(self, statement: ast.stmt) -> None:
        for body in bodies(statement):
            self._parent.update(dict.fromkeys(body, statement))
        changed = _mutated(statement)
        for name in _stored(statement) | ({changed} if changed else set()):
            self._binding.setdefault(name, []).append(statement)
        for node in _headers(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                self._loading.setdefault(node.id, []).append(statement)
            elif isinstance(node, ast.arg):
                self._binding.setdefault(node.arg, []).append(statement)

    def find(self) -> set[ast.stmt]:
        before = -1
        while len(self._gone) != before:
            before = len(self._gone)
            self._left = []
            self._visit(self._tree.body, frozenset())
            self._alpine |= {
                name
                for name, statements in self._binding.items()
                if not hasattr(builtins, name) and all(map(self._is_gone, statements))
            }
            self._remove_unused()
        if self._left:
            raise AlpineError(
                f"{self._place(self._left[0])}: part of the pipeline depends on what alpine "
                "says here; let it say nothing that the pipeline needs"
            )
        outermost = {s for s in self._gone if not self._is_gone(self._parent.get(s))}
        for statement in outermost:
            if self._has_effect(statement):
                raise AlpineError(
                    f"{self._place(statement)}: this builds a part of the pipeline in a statement "
                    "for alpine; make it two statements"
                )
        return outermost

    def _place(self, statement: ast.stmt) -> Place:
        return Place(self._path, statement.lineno, statement.col_offset + 1)

    def _is_gone(self, statement: ast.stmt | None) -> bool:
        while statement is not None:
            if statement in self._gone:
                return True
            statement = self._parent.get(statement)
        return False

    def _mentions(self, nodes: ast.AST, local: frozenset[str]) -> bool:
        return any(
            isinstance(node, ast.Name) and (node.id in local or node.id in self._alpine)
            for node in _headers(nodes)
        )

    def _visit(self, body: list[ast.stmt], local: frozenset[str]) -> None:
        """``local`` are names of Alpine's that may mean something else elsewhere."""
        for statement in body:
            stored = _stored(statement)
            if statement in self._gone:
                local |= stored
            elif any(True for _ in bodies(statement)):
                self._visit_compound(statement, local, stored)
            elif self._mentions(statement, local):
                self._gone.add(statement)
                local |= stored
            else:
                local -= stored

    def _visit_compound(self, statement: ast.stmt, local: frozenset[str], stored: set[str]) -> None:
        mentions = self._mentions(statement, local)
        if isinstance(statement, _FUNCTIONS):
            inner = local - {node.arg for node in _headers(statement) if isinstance(node, ast.arg)}
        else:
            inner = local | stored if mentions else local - stored
        for body in bodies(statement):
            self._visit(body, inner)
        removable = mentions or isinstance(statement, _FUNCTIONS) or self._is_pure(statement)
        if removable and self._is_empty(statement):
            self._gone.add(statement)
        elif mentions:
            self._left.append(statement)

    def _is_empty(self, statement: ast.stmt) -> bool:
        """Whether all that it did went."""
        inside = [inner for body in bodies(statement) for inner in body]
        return any(inner in self._gone for inner in inside) and all(
            inner in self._gone
            or isinstance(inner, ast.Pass)
            or (isinstance(inner, ast.Return) and inner.value is None)
            or (isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant))
            for inner in inside
        )

    def _remove_unused(self) -> None:
        """Take out what is used by statements that went, and by nothing else."""
        unused = {
            name for name, statements in self._binding.items() if self._is_unused(name, statements)
        }
        for name in unused:
            for statement in self._binding[name]:
                if _stored(statement) <= unused:
                    self._gone.add(statement)

    def _is_unused(self, name: str, binding: list[ast.stmt]) -> bool:
        users = [user for user in self._loading.get(name, ()) if user not in binding]
        return (
            any(self._is_gone(statement) for statement in (*users, *binding))
            and all(self._is_gone(user) for user in users)
            and all(self._is_gone(s) or self._is_droppable(s) for s in binding)
        )

    def _is_droppable(self, statement: ast.stmt) -> bool:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            return True
        if self._has_effect(statement):
            return False
        if isinstance(statement, _FUNCTIONS):
            return not statement.decorator_list
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            parts = [*statement.value.args, *statement.value.keywords]
            return bool(_mutated(statement)) and all(_is_pure(part) for part in parts)
        return isinstance(statement, _SIMPLE_BINDINGS) and self._is_pure(statement)

    def _is_pure(self, statement: ast.stmt) -> bool:
        """Whether evaluating its header does nothing."""
        return not self._has_effect(statement, header=True) and all(
            _is_pure(node) for node in ast.iter_child_nodes(statement) if isinstance(node, ast.expr)
        )

    def _has_effect(self, statement: ast.stmt, header: bool = False) -> bool:
        start = (statement.lineno, statement.col_offset + 1)
        end = (statement.end_lineno or 0, (statement.end_col_offset or 0) + 1)
        if header:
            inner = [s for body in bodies(statement) for s in body]
            end = min([end, *((s.lineno, s.col_offset + 1) for s in inner)])
        return any(start <= effect < end for effect in self._effects)


def _is_pure(expression: ast.AST) -> bool:
    for node in ast.walk(expression):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id in _PURE_CALLS:
                continue
            if isinstance(function, ast.Attribute) and function.attr in _PURE_METHODS:
                continue
            return False
        if not isinstance(node, _PURE_NODES):
            return False
    return True
