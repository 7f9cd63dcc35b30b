"""Laws that every update rule has to keep, and a way to hold anybody's rule against them.

    mpi-dcasgd conformance dcasgd-a
    mpi-dcasgd conformance my.module:MyPart
    mpi-dcasgd conformance their.module:TheirServer
    mpi-dcasgd conformance my.module:MyPart --reference my.module:formula

A target is a named algorithm, a part, a rule, or a server that somebody else wrote (see
``servers``). docs/algorithms.md lists the laws, and ``formula`` says
what a reference is.
"""

from __future__ import annotations

from dataclasses import replace

from mpi_dcasgd.rules.part import Part
from mpi_dcasgd.tools.conformance.formula import Formula, OnePush, WholeFormula
from mpi_dcasgd.tools.conformance.law import Law, LawResult, judge
from mpi_dcasgd.tools.conformance.part_laws import PART_LAWS
from mpi_dcasgd.tools.conformance.server_laws import SERVER_LAWS
from mpi_dcasgd.tools.conformance.targets import (
    Target,
    find_formula,
    find_target,
    part_rule,
    rule_target,
    server_target,
)
from mpi_dcasgd.wording import counted

__all__ = [
    "PART_LAWS",
    "SERVER_LAWS",
    "Law",
    "LawResult",
    "OnePush",
    "Target",
    "check",
    "find_target",
    "part_rule",
    "rule_target",
    "run",
    "server_target",
]

_MARKS = {"holds": "holds", "fails": "FAILS", "does not apply": "-"}


def check(target: Target | Part, reference: Formula | None = None) -> list[LawResult]:
    """Hold a target against all laws; a part also as plain ASGD with that part in its place.

    Args:
        target: A part, a rule or a server.
        reference: Formula to compare it with, in place of the one that it has, if any.
    """
    results = []
    if isinstance(target, Part):
        results = [judge(law, target) for law in PART_LAWS]
        formulas: dict[str, Formula] = {target.role: reference} if reference else {}
        target = rule_target(type(target).__name__, part_rule(target), formulas)
    elif reference:
        target = replace(target, formula=lambda: WholeFormula(reference))
    return results + [judge(law, target) for law in SERVER_LAWS]


def run(target: str, reference: str | None = None) -> int:
    """Print which laws hold.

    Args:
        target: A named algorithm or ``package.module:Name``.
        reference: ``package.module:name`` of a formula to compare it with.

    Returns:
        The exit status: 0, or 1 if a law fails.

    Raises:
        ConfigError: There is no such target, or no such formula.
    """
    results = check(find_target(target), find_formula(reference) if reference else None)
    why = {law.name: law.why for law in PART_LAWS}
    why |= {law.name: law.why for law in SERVER_LAWS}
    width = max(len(result.law) for result in results)
    print(f"conformance of {target}")
    for result in results:
        print(f"  {_MARKS[result.status]:5}  {result.law:{width}}  {result.detail}".rstrip())
        if result.status == "fails":
            print(f"         {why[result.law]}")
    failed = sum(result.status == "fails" for result in results)
    print(f"{failed} of {counted(len(results), 'law')} fail" if failed else "no law fails")
    return 1 if failed else 0
