"""What can be changed in a source text to see whether a test notices: its mutants.

A mutant never moves a line, so that what is said of a line stays true of it.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

ARITHMETIC = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"),
              ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "*"), ast.Pow: ("**", "*"),
              ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&")}  # fmt: skip
BOUNDARY = {ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">")}
NEGATED = {ast.Lt: ("<", ">="), ast.LtE: ("<=", ">"), ast.Gt: (">", "<="), ast.GtE: (">=", "<"),
           ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.In: ("in", "not in"),
           ast.IsNot: ("is not", "is"), ast.NotIn: ("not in", "in")}  # fmt: skip
LOGIC = {ast.And: ("and", "or"), ast.Or: ("or", "and")}
NAMES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "any": "all", "all": "any",
         "argmin": "argmax", "argmax": "argmin", "sin": "cos", "cos": "sin", "abs": "", "fabs": "",
         "floor": "ceil", "ceil": "floor", "smallest": "largest", "largest": "smallest"}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """One change of a source text: the bytes from ``start`` to ``end`` become ``new``."""

    start: int
    end: int
    new: bytes
    kind: str
    line: int
    """Line of the change, from 1."""
    name: str
    """Function, class or module-level name it is in."""
    block: str
    """What the place is known by while that function, class or value stays as it is: its hash, and where in it."""

    def apply(self, source: bytes) -> bytes:
        """The mutant."""
        return source[: self.start] + self.new + source[self.end :]


class _Places:
    """Walks a tree and keeps what may change; docstrings, annotations, decorators and messages may not."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.offsets = [0]
        for line in source.split(b"\n"):
            self.offsets.append(self.offsets[-1] + len(line) + 1)
        self.name, self.block, self.begin = "", "", 0
        self.found: list[Place] = []

    def span(self, node: ast.AST) -> tuple[int, int]:
        start = self.offsets[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        return start, self.offsets[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def add(self, kind: str, start: int, end: int, new: str) -> None:
        gone = self.source[start:end]
        padding = b"\n" * (gone.count(b"\n") - new.count("\n"))
        if padding and not _parses(self.source[:start] + new.encode() + padding + self.source[end:]):
            return  # a break of lines where there may be none
        line = 1 + self.source.count(b"\n", 0, start)
        block = f"{self.name} {self.block} {start - self.begin}-{end - self.begin} {new}"
        self.found.append(Place(start, end, new.encode() + padding, kind, line, self.name, block))

    def between(self, kind: str, left: ast.AST, right: ast.AST, change: tuple[str, str]) -> None:
        start, end = self.span(left)[1], self.span(right)[0]
        gap = self.source[start:end]
        if b"#" not in gap and (at := gap.find(change[0].encode())) >= 0:
            self.add(kind, start + at, start + at + len(change[0]), change[1])

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):
            return
        getattr(self, "visit_" + type(node).__name__, lambda node: None)(node)
        for child in _changeable(node):
            self.visit(child)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if change := ARITHMETIC.get(type(node.op)):
            self.between("arithmetic", node.left, node.right, change)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if change := ARITHMETIC.get(type(node.op)):
            self.between("arithmetic", node.target, node.value, change)
        self.add("statement", *self.span(node), "pass")

    def visit_Compare(self, node: ast.Compare) -> None:
        left = node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            for kind, table in (("boundary", BOUNDARY), ("comparison", NEGATED)):
                if change := table.get(type(op)):
                    self.between(kind, left, right, change)
            left = right

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.between("logic", left, right, LOGIC[type(node.op)])

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        start, _ = self.span(node)
        if isinstance(node.op, ast.Not):
            self.add("negation", start, start + 3, "")
        elif isinstance(node.op, ast.USub | ast.Invert):
            self.add("negation", start, start + 1, "+" if isinstance(node.op, ast.USub) else "")

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.add("constant", *self.span(node), str(not node.value))
        elif isinstance(node.value, int | float):
            other = node.value + 1 if isinstance(node.value, int) or node.value == 0 else node.value * 2
            self.add("constant", *self.span(node), repr(other))

    def visit_If(self, node: ast.If | ast.IfExp) -> None:
        self.add("condition", *self.span(node.test), "True")
        self.add("condition", *self.span(node.test), "False")

    visit_IfExp = visit_If

    def visit_Expr(self, node: ast.Expr) -> None:
        self.add("statement", *self.span(node), "pass")

    def visit_Assign(self, node: ast.Assign) -> None:
        if all(isinstance(target, ast.Subscript | ast.Attribute) for target in node.targets):
            self.add("statement", *self.span(node), "pass")

    def visit_Raise(self, node: ast.Raise) -> None:
        self.add("statement", *self.span(node), "pass")

    visit_Continue = visit_Break = visit_Raise

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func
        word = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if word in NAMES:
            start, end = self.span(called)
            new = NAMES[word]
            self.add("name", start if new == "" else end - len(word), end, new)


def _changeable(node: ast.AST) -> Iterator[ast.AST]:
    """Children without annotations, decorators, docstrings and what is said in errors."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list") or isinstance(node, ast.Raise):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_text(child):
                yield child


def _parses(source: bytes) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def places(source: bytes) -> list[Place]:
    """Every change of ``source``, in its order."""
    walk = _Places(source)
    for node in ast.parse(source).body:
        targets = getattr(node, "targets", None) or [getattr(node, "target", node)]
        walk.name = getattr(node, "name", getattr(targets[0], "id", ""))
        walk.begin, end = walk.span(node)
        walk.block = hashlib.sha256(source[walk.begin : end]).hexdigest()[:8]
        if not _is_text(node):
            walk.visit(node)
    return sorted(walk.found, key=lambda p: (p.start, p.kind, p.new))
