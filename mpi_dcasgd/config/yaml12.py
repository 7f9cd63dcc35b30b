"""YAML as its version 1.2 reads scalars, with duplicate keys refused.

PyYAML follows version 1.1, in which ``1e-7`` is text, ``no`` is false, ``1:30`` is ninety and
``0777`` is octal. Each of these has trained a wrong model somewhere. Here the core schema of
version 1.2 holds: numbers are what looks like numbers, ``on``, ``off``, ``yes`` and ``no`` are
text. Merge keys (``<<``) and dates, which 1.2 dropped, are text too.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode
from yaml.reader import ReaderError

_LIMIT = 1 << 64
_MOST_DIGITS = 64  # of 2^64 in base 2
_FIRST = list("-+.0123456789")


class YamlError(Exception):
    """Text that is not YAML, or that says something twice.

    Attributes:
        problems: One line each; the place within the text, where there is one, comes first.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def load_yaml(text: str) -> Any:
    """The value of a YAML document; None for an empty one.

    Raises:
        YamlError: With line, column and the offending line.
    """
    try:
        loader = _Loader(text)
        value = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        raise YamlError([_explain(error, text)]) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = f"character #x{error.character:04x}"
        raise YamlError([f"line {line}: {character} may not stand in YAML"]) from error
    except RecursionError as error:
        raise YamlError(["nested too deeply"]) from error
    if loader.problems:
        raise YamlError(loader.problems)
    return value


def dump_yaml(value: Any) -> str:
    """YAML that ``load_yaml`` reads back as an equal value, in the order of its keys."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    # PyYAML writes these as they are, and takes them for the ends of lines when it reads them.
    if any(end in text for end in "\x85\u2028\u2029"):
        return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=False)
    return text


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 # as PyYAML has it

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.problems: list[str] = []
        self.deep_construct = True  # so that PyYAML refuses a value that contains itself

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """The value of a node; one that does not fit its tag is reported with its place."""
        try:
            return super().construct_object(node, deep=deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # PyYAML's own tags fail in any way, as in "!!timestamp x"
            tag = f"!!{node.tag.rpartition(':')[2]}"
            what = f"{node.value!s:.60} is no value of {tag}"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from error

    def construct_mapping(self, node: Node, deep: bool = False) -> dict[Any, Any]:
        """Keys are the text that stands there; what is wrong with them is remembered."""
        assert isinstance(node, MappingNode)
        found: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key that is not plain text", key.start_mark
                )
            line = key.start_mark.line + 1
            if key.value in found:
                self.problems.append(
                    f"line {line}: key {key.value} stands here again; "
                    f"it was set on line {lines[key.value]} already"
                )
            if node.flow_style and _is_pair(key, value):
                self.problems.append(
                    f"line {line}: {key.value} is one word; write a blank after the colon: "
                    f"{{{key.value.replace(':', ': ', 1)}}}"
                )
            found[key.value] = self.construct_object(value, deep=deep)
            lines.setdefault(key.value, line)
        return found


def _is_pair(key: ScalarNode, value: Node) -> bool:
    """Return whether a key without a value was meant to be both, as in ``{7:4}``."""
    empty = isinstance(value, ScalarNode) and value.style is None and not value.value
    return key.style is None and ":" in key.value and empty


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what version 1.2 would not read as text."""

    yaml_implicit_resolvers: dict[str, Any] = {  # noqa: RUF012 # as PyYAML has it
        first: list(resolvers)
        for first, resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _integer(loader: _Loader, node: ScalarNode) -> int:
    text = loader.construct_scalar(node).lower()
    sign, digits = (-1, text[1:]) if text[0] == "-" else (1, text.lstrip("+"))
    base = {"0o": 8, "0x": 16}.get(digits[:2], 10)
    digits = digits[2:] if base != 10 else digits
    # Python refuses to read thousands of digits, or to show them in a message.
    value = int(digits, base) if len(digits.lstrip("0")) <= _MOST_DIGITS else _LIMIT
    if value >= _LIMIT:
        shown = digits if len(digits) < 30 else f"{digits[:20]}... ({len(digits)} digits)"
        what = f"a whole number that is too large, {shown}; allowed: below 2^64"
        raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)
    return sign * value


def _number(loader: _Loader, node: ScalarNode) -> float:
    text = loader.construct_scalar(node).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _boolean(loader: _Loader, node: ScalarNode) -> bool:
    return {"true": True, "false": False}[loader.construct_scalar(node).lower()]


_CORE: list[tuple[str, str, list[str]]] = [
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", _FIRST),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.nan|\.NaN|\.NAN",
        _FIRST,
    ),
]
for _tag, _pattern, _first in _CORE:
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first
        )
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)
_Loader.add_constructor("tag:yaml.org,2002:bool", _boolean)


def _explain(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark or error.context_mark
    what = error.problem or error.context or "not YAML"
    if "'\\t'" in what:
        what = "a tab; indent with spaces"
    elif "mapping values are not allowed" in what:
        what += " (text with a colon and a blank in it needs quotes)"
    if mark is None:
        return what
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    shown = line.expandtabs(1)[:200]
    caret = " " * min(mark.column, len(shown)) + "^"
    return f"line {mark.line + 1}, column {mark.column + 1}: {what}\n      {shown}\n      {caret}"
