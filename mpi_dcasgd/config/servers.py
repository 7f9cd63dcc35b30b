"""Settings that several servers cannot have."""

from __future__ import annotations

from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.rules.rule import Rule

_NORMS = (1e-30, 1.0, 1e30)


def check_servers(job: Job) -> list[str]:
    """Return what is wrong with the number of servers, a line each beginning with the key."""
    if job.servers == 1 or job.mode != "asynchronous":
        return []
    several = f"got {job.servers}, but"
    problems = []
    if job.faults.respawn:
        problems.append(
            f"servers: {several} new processes in place of lost workers reach a single server only "
            "(faults.respawn); set faults.respawn=false, or servers=1"
        )
    if job.rule.admission.collect(2) > 1 and reads_norm(job.rule):
        problems.append(
            f"servers: {several} this rule needs the norm of the mean of several gradients, of "
            "which no server has the whole; use clipping none, another admission, or servers=1"
        )
    return problems


def reads_norm(rule: Rule) -> bool:
    """Return whether a step depends on the norm of its gradient."""

    def numbers(norm: float) -> list[object]:
        facts = Facts(0.1, 0.1, 1, 1, 0, 2, norm)
        return [rule.step_size.factor(facts), *(part.scalars(facts) for _, part in rule.parts())]

    return any(numbers(norm) != numbers(_NORMS[0]) for norm in _NORMS[1:])
