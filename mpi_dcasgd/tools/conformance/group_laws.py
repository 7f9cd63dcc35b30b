"""Laws of parameter groups: stretches of the vector with factors of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mpi_dcasgd.rules.chain import Chain
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.rules.stretch import Stretch
from mpi_dcasgd.tools.conformance.driving import LR, random_vectors
from mpi_dcasgd.tools.conformance.law import DoesNotApply, Law, require_all_equal
from mpi_dcasgd.tools.conformance.targets import Target

_SIZE = 40
_WORKERS = (0, 1, 1, 0, 2, 0, 1)
_GROUPS = (Stretch(0, 7, 0.3, 0.0), Stretch(7, 26, 1.0, 2.5), Stretch(26, _SIZE, 4.0, 1.0))


def _groups_are_rules(target: Target) -> None:
    """A group is not updated as it would be alone, with its own learning rate and weight decay.

    What a part knows of the learning rate must come from the facts, and what it knows of the
    gradient's norm is that of the whole vector.
    """
    if target.rule is None:
        raise DoesNotApply("it is not a rule of this package")
    decay = target.rule.weight_decay
    rule = replace(target.rule, weight_decay=replace(decay, rate=decay.rate or 0.1))
    together = _Loose(rule, random_vectors(23, _SIZE), _GROUPS)
    alone = [
        _Loose(
            replace(rule, weight_decay=replace(rule.weight_decay, rate=rate)),
            random_vectors(23, _SIZE)[one.begin : one.end].clone(),
        )
        for one in _GROUPS
        for rate in [rule.weight_decay.rate * one.weight_decay]
    ]
    seen, expected = [together.seen()], [torch.cat([one.seen() for one in alone])]
    for version, worker in enumerate(_WORKERS):
        grad = random_vectors(24 + version, _SIZE)
        rate = LR / (1 + version % 3)
        facts = Facts(rate, LR, min(version, 2), version, worker, 3, float(grad.norm()))
        together.push(grad, facts)
        for one, group in zip(alone, _GROUPS, strict=True):
            its = facts._replace(lr=rate * group.lr, lr_max=LR * group.lr)
            one.push(grad[group.begin : group.end], its)
        seen.append(together.seen())
        expected.append(torch.cat([one.seen() for one in alone]))
    require_all_equal(seen, expected, "three groups in one vector, and each on its own")


class _Loose:
    """A chain with snapshots, outside of a server."""

    def __init__(self, rule: Rule, params: Tensor, stretches: Sequence[Stretch] = ()) -> None:
        self._params = params
        self._chain = Chain(rule, params, 3, "blocks", stretches=stretches)
        self._snapshots = [params.clone() for _ in range(3)]
        self._spare = params.clone()

    def push(self, grad: Tensor, facts: Facts) -> None:
        rate = self._chain.apply(self._params, grad, self._snapshots[facts.worker], facts)
        # As for a worker that had to wait, and for one that pulls before the first update.
        self._chain.send(self._params, self._spare, facts, rate if facts.version % 2 else None)

    def seen(self) -> Tensor:
        """All weights by element, shape (P, 5)."""
        return torch.stack([self._params, *self._snapshots, self._spare], dim=1)


GROUP_LAWS: tuple[Law[Target], ...] = (
    Law("a group is updated as by a rule of its own", _groups_are_rules),
)
"""All laws of groups, in the order of reports."""
