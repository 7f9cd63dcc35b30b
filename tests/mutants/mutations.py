"""Small faults to put into a module, each one edit of its text.

Left as they are: docstrings, annotations (the ranges of settings are compared with the docs), the
text of messages, and what only types are checked with.
"""

from __future__ import annotations

import ast
import difflib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_FLIPS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "add_": "sub_", "sub_": "add_"}
_COPIES = ("clone", "copy")
"""Methods that a fault leaves out, so that two names stand for one thing."""
_WRAPPERS = ("abs", "saved", "list", "tuple", "dict", "sorted", "max", "min")
"""Functions that a fault leaves out, where they have one argument."""
_UNSAID = ("NamedTuple", "TypeVar", "getLogger", "import_module")
"""Calls whose arguments are names or messages."""


@dataclass(frozen=True)
class Mutation:
    """One fault.

    Attributes:
        line: Where it begins, from 1.
        text: That line, without the fault.
        old, new: What stands there, and what does instead.
        source: The whole module with the fault.
        nth: From 1; larger for a fault that is said in the same words as one before it in its line.
    """

    line: int
    text: str
    old: str
    new: str
    source: str
    nth: int = 1

    @property
    def name(self) -> str:
        """The fault in one line."""
        told = f"{' '.join(self.old.split())}  ->  {' '.join(self.new.split()) or '(nothing)'}"
        return told if self.nth == 1 else f"{told}  ({self.nth})"

    def diff(self, before: str) -> str:
        """Lines that the fault changes."""
        lines = difflib.unified_diff(
            before.splitlines(), self.source.splitlines(), n=0, lineterm=""
        )
        return "\n".join(
            line for line in lines if line[:3] not in ("---", "+++") and line[:2] != "@@"
        )


def mutations_of(source: str) -> list[Mutation]:
    """Find every fault that can be put into a module, in the order of its lines.

    >>> [m.name for m in mutations_of("def half(x):\\n    return x / 2\\n")]
    ['x / 2  ->  x * 2', 'x / 2  ->  x', '2  ->  3']
    """
    tree = ast.parse(source)
    text, lines = _Text(source), source.splitlines()
    found = []
    told = Counter[tuple[int, str, str]]()
    for node in _walk(tree):
        old = text.of(node)
        for new in dict.fromkeys(_changes(node)):
            if new != old:
                words = node.lineno, old, new
                told[words] += 1
                found.append(
                    Mutation(
                        node.lineno,
                        lines[node.lineno - 1].strip(),
                        old,
                        new,
                        text.replaced(node, new),
                        told[words],
                    )
                )
    return found


class _Text:
    """A module's text, cut where nodes begin and end."""

    def __init__(self, source: str) -> None:
        self._bytes = source.encode()
        self._starts = [0]
        for line in self._bytes.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def _ends(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        begin = self._starts[node.lineno - 1] + node.col_offset
        return begin, self._starts[node.end_lineno - 1] + node.end_col_offset

    def of(self, node: ast.expr | ast.stmt) -> str:
        begin, end = self._ends(node)
        return self._bytes[begin:end].decode()

    def replaced(self, node: ast.expr | ast.stmt, new: str) -> str:
        begin, end = self._ends(node)
        if isinstance(node, ast.stmt):
            new = new or "pass"
        elif not isinstance(ast.parse(new, mode="eval").body, ast.Name | ast.Constant | ast.Call):
            new = f"({new})"
        return (self._bytes[:begin] + new.encode() + self._bytes[end:]).decode()


def _walk(node: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """All nodes that may be changed, in the order of the text."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_params", "bases", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _is_left_alone(child):
                continue
            if isinstance(child, ast.If | ast.While | ast.IfExp):
                child.test.decides = True  # type: ignore[attr-defined]
            if isinstance(child, ast.expr | ast.stmt):
                yield child
            yield from _walk(child)


def _is_left_alone(node: ast.AST) -> bool:
    if isinstance(node, ast.JoinedStr | ast.Raise | ast.Import | ast.ImportFrom | ast.Assert):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name):
        return node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.Call) and _called(node) in _UNSAID


def _called(node: ast.Call) -> str:
    kind = node.func
    return kind.id if isinstance(kind, ast.Name) else getattr(kind, "attr", "")


def _changes(node: ast.expr | ast.stmt) -> Iterator[str]:
    """What could stand in the place of a node."""
    match node:
        case ast.Compare(left, [operator], [right]):
            for other in _FLIPS[type(operator)]:
                yield ast.unparse(ast.Compare(left, [other()], [right]))
        case ast.BinOp(left, operator, right) if type(operator) in _OPERATORS:
            if not isinstance(left, ast.Constant | ast.JoinedStr) or not isinstance(
                left.value, str
            ):
                yield ast.unparse(ast.BinOp(left, _OPERATORS[type(operator)](), right))
                yield ast.unparse(left)
        case ast.BoolOp(operator, values):
            other = ast.Or() if isinstance(operator, ast.And) else ast.And()
            yield ast.unparse(ast.BoolOp(other, values))
        case ast.UnaryOp(ast.USub() | ast.Not(), operand):
            yield ast.unparse(operand)
        case ast.Constant(value):
            yield from _other_constants(value)
        case ast.IfExp(test, body, orelse) if not isinstance(test, ast.Compare):
            yield ast.unparse(ast.IfExp(test, orelse, body))
        case ast.Call(func, arguments, keywords):
            yield from _other_calls(node, func, arguments, keywords)
        case ast.Expr(ast.Call() | ast.Yield()) | ast.AugAssign() | ast.Delete():
            yield ""
        case ast.Assign([ast.Attribute() | ast.Subscript()], _):
            yield ""
        case ast.Continue():
            yield "break"
        case ast.Break():
            yield "continue"
        case ast.Return(ast.Constant(bool() as value)):
            yield f"return {not value}"
    if getattr(node, "decides", False) and isinstance(node, ast.Name | ast.Attribute | ast.Call):
        yield f"not {ast.unparse(node)}"


def _other_constants(value: object) -> Iterator[str]:
    if isinstance(value, bool):
        yield repr(not value)
    elif isinstance(value, int | float):
        yield repr(value / 2 if 0 < value < 1 else value + 1)


def _other_calls(
    node: ast.Call, func: ast.expr, arguments: list[ast.expr], keywords: list[ast.keyword]
) -> Iterator[str]:
    name = _called(node)
    if name in _NAMES:
        other: ast.expr
        if isinstance(func, ast.Name):
            other = ast.Name(_NAMES[name])
        else:
            assert isinstance(func, ast.Attribute)
            other = ast.Attribute(func.value, _NAMES[name])
        yield ast.unparse(ast.Call(other, arguments, keywords))
    if name in _COPIES and isinstance(func, ast.Attribute) and not arguments:
        yield ast.unparse(func.value)
    if name in _WRAPPERS and isinstance(func, ast.Name) and len(arguments) == 1 and not keywords:
        yield ast.unparse(arguments[0])
    for place in range(len(arguments) - 1 if name not in ("min", "max") else 0):
        if not any(isinstance(one, ast.Starred) for one in arguments[place : place + 2]):
            swapped = [*arguments]
            swapped[place], swapped[place + 1] = swapped[place + 1], swapped[place]
            yield ast.unparse(ast.Call(func, swapped, keywords))
