"""Laws that every update rule has to keep, and a way to hold anybody's rule against them.

    mpi-dcasgd conformance dcasgd-a
    mpi-dcasgd conformance my.module:MyPart
    mpi-dcasgd conformance their.module:TheirServer

A target is a named algorithm, a part, a rule, or a server that somebody else wrote (see
``servers``). docs/algorithms.md lists the laws.
"""

from __future__ import annotations

from mpi_dcasgd.rules.part import Part
from mpi_dcasgd.tools.conformance.law import Law, LawResult, judge
from mpi_dcasgd.tools.conformance.part_laws import PART_LAWS
from mpi_dcasgd.tools.conformance.server_laws import SERVER_LAWS
from mpi_dcasgd.tools.conformance.targets import (
    Target,
    find_target,
    part_rule,
    rule_target,
    server_target,
)

__all__ = [
    "PART_LAWS",
    "SERVER_LAWS",
    "Law",
    "LawResult",
    "Target",
    "check",
    "find_target",
    "part_rule",
    "rule_target",
    "run",
    "server_target",
]

_MARKS = {"holds": "holds", "fails": "FAILS", "does not apply": "-"}


def check(target: Target | Part) -> list[LawResult]:
    """Hold a target against all laws; a part also as plain ASGD with that part in its place."""
    results = []
    if isinstance(target, Part):
        results = [judge(law, target) for law in PART_LAWS]
        target = rule_target(type(target).__name__, part_rule(target))
    return results + [judge(law, target) for law in SERVER_LAWS]


def run(target: str) -> int:
    """Print which laws hold.

    Args:
        target: A named algorithm or ``package.module:Name``.

    Returns:
        The exit status: 0, or 1 if a law fails.

    Raises:
        ConfigError: There is no such target.
    """
    results = check(find_target(target))
    why = {law.name: law.why for law in PART_LAWS}
    why |= {law.name: law.why for law in SERVER_LAWS}
    width = max(len(result.law) for result in results)
    print(f"conformance of {target}")
    for result in results:
        print(f"  {_MARKS[result.status]:5}  {result.law:{width}}  {result.detail}".rstrip())
        if result.status == "fails":
            print(f"         {why[result.law]}")
    failed = sum(result.status == "fails" for result in results)
    print(f"{failed} of {len(results)} laws fail" if failed else "no law fails")
    return 1 if failed else 0
