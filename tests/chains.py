"""The built-in rules, each arithmetic once."""

from __future__ import annotations

from typing import Any

from mpi_dcasgd.rules.chain import Rule, acting_parts
from mpi_dcasgd.tools.bench.update import built_in_rules


def distinct_chains() -> dict[str, Rule]:
    """The built-in rules without those that come to the same arithmetic."""
    found: dict[Any, str] = {}
    rules = built_in_rules()
    for name, rule in rules.items():
        found.setdefault(acting_parts(rule), name)
    return {name: rules[name] for name in found.values()}


CHAINS = distinct_chains()
