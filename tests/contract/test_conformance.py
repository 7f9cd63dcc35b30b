"""Every part and every named algorithm keeps every law; each known fault breaks the right one."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import pytest
import torch
from contract.faulty import AliasedBackup, CompoundingLambda, SharedBackup, TurnedSign, ZeroBackup
from pydantic.dataclasses import dataclass
from torch import Tensor

from mpi_dcasgd.errors import STRICT, ConfigError
from mpi_dcasgd.rules.adam import Adam
from mpi_dcasgd.rules.admission import Threshold
from mpi_dcasgd.rules.algorithms import ALGORITHMS, PARTS, resolve_rule
from mpi_dcasgd.rules.compensation import AdaptiveCompensation, ConstantCompensation
from mpi_dcasgd.rules.dana import DanaZero
from mpi_dcasgd.rules.gap_aware import GapAware
from mpi_dcasgd.rules.part import Part, Role
from mpi_dcasgd.rules.step_size import StalenessAware
from mpi_dcasgd.tools.conformance import (
    PART_LAWS,
    SERVER_LAWS,
    Law,
    LawResult,
    OnePush,
    Target,
    check,
    find_formula,
    find_target,
    part_rule,
    rule_target,
    run,
    server_target,
)
from mpi_dcasgd.tools.conformance.formula_law import FORMULA_LAWS
from mpi_dcasgd.tools.conformance.formulas import FORMULAS
from mpi_dcasgd.tools.conformance.law import judge

BUILT_IN = {f"{role}/{name}": kind for role in PARTS for name, kind in PARTS[role].items()}
NAMED_RULES = [resolve_rule(algorithm) for algorithm in ALGORITHMS]
IN_NO_ALGORITHM = [n for n, kind in BUILT_IN.items() if part_rule(kind()) not in NAMED_RULES]

VARIANTS = {
    "dc-adaptive per worker": ("dcasgd-a", {"compensation": {"mean_square": "per_worker"}}),
    "dc-adaptive without memory": ("dcasgd-a", {"compensation": {"decay": 0.0}}),
    "weight decay": ("dcasgd-c", {"weight_decay": {"rate": 0.1}}),
    "weight decay inside": ("dcasgd-c", {"weight_decay": {"rate": 0.1, "place": "inside"}}),
    "adamw": ("asgd", {"momentum": "adam", "weight_decay": {"rate": 0.1, "place": "decoupled"}}),
    "clipping": ("dcasgd-c", {"clipping": {"name": "norm", "max_norm": 0.7}}),
    "dc with shifted momentum": ("dcasgd-a", {"momentum": "shifted"}),
    "dc with nesterov": ("dcasgd-c", {"momentum": "nesterov"}),
    "dc gap-aware": ("dcasgd-c", {"momentum": "gap-aware"}),
    "measured stability": ("stable-asgd", {"step_size": {"delay": "measured"}}),
    "asymptotic stability": ("stable-asgd", {"step_size": {"form": "asymptotic"}}),
    "beyond tau_C dropped": ("concurrency-asgd", {"step_size": {"beyond": "drop"}}),
    "sequential ringmaster": ("ringmaster", {"admission": {"threshold": 1}}),
    "bulk-synchronous": ("ssp", {"admission": {"bound": 0}}),
    "ringmaster with dc and momentum": (
        "ringmaster",
        {"compensation": "dc-constant", "momentum": "heavy-ball"},
    ),
}
"""Settings and combinations that the defaults do not reach."""


def failures(results: list[LawResult]) -> list[str]:
    return [f"{result.law}: {result.detail}" for result in results if result.status == "fails"]


def accept(law: Law[Target] | Law[Part], target: Target | Part) -> None:
    result = judge(law, target)  # type: ignore[arg-type]
    assert result.status != "fails", result.detail


@pytest.mark.parametrize("law", PART_LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("part", BUILT_IN)
def test_part(part: str, law: Law[Part]) -> None:
    accept(law, BUILT_IN[part]())


@pytest.mark.parametrize("law", SERVER_LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("part", IN_NO_ALGORITHM)
def test_part_in_its_place(part: str, law: Law[Target]) -> None:
    accept(law, rule_target(part, part_rule(BUILT_IN[part]())))


@pytest.mark.parametrize("law", SERVER_LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_algorithm(algorithm: str, law: Law[Target]) -> None:
    accept(law, rule_target(algorithm, resolve_rule(algorithm)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant(variant: str) -> None:
    assert failures(check(rule_target(variant, resolve_rule(*VARIANTS[variant])))) == []


@pytest.mark.parametrize(
    ("faulty", "law"),
    [
        (SharedBackup, "one backup per worker"),
        (ZeroBackup, "each worker's first update is from w_0"),
        (AliasedBackup, "the backup is a copy"),
        (CompoundingLambda, "lambda does not compound"),
        (TurnedSign, "the correction has the sign of the drift"),
    ],
)
def test_fault_is_named(faulty: type, law: str) -> None:
    # And nothing else: a reader is led to the fault and not to what follows from it.
    found = check(find_target(f"contract.faulty:{faulty.__name__}"))
    assert [result.law for result in found if result.status == "fails"] == [law]


class Right:
    """The same server as the faulty ones, without a fault."""

    def __init__(
        self, weights: Tensor, num_workers: int, lr: float, dc_lambda: float = 0.5
    ) -> None:
        self.weights, self.lr, self.dc_lambda = weights, lr, dc_lambda
        self.backups = [weights.clone() for _ in range(num_workers)]

    def pull(self, worker: int) -> Tensor:
        self.backups[worker] = self.weights.clone()
        return self.weights.clone()

    def push(self, worker: int, grad: Tensor) -> None:
        drift = self.weights - self.backups[worker]
        self.weights -= self.lr * (grad + self.dc_lambda * grad * grad * drift)


def broken(kind: type) -> set[str]:
    found = check(server_target(kind.__name__, kind))
    return {result.law for result in found if result.status == "fails"}


def test_somebody_elses_server_without_a_fault_keeps_all_laws() -> None:
    found = check(server_target("Right", Right))
    assert failures(found) == []
    assert [result.law for result in found if result.status == "does not apply"] == [
        "saved and restored, it goes on the same",
        "the block size does not matter",
        "a group is updated as by a rule of its own",
        "it does what its formula says",
    ]


class WritesGradient(Right):
    def push(self, worker: int, grad: Tensor) -> None:
        super().push(worker, grad.mul_(1.0))
        grad.zero_()


class SendsLiveWeights(Right):
    def pull(self, worker: int) -> Tensor:
        super().pull(worker)
        return self.weights


class Single(Right):
    def pull(self, worker: int) -> Tensor:
        return super().pull(worker).float()


class Global(Right):
    def push(self, worker: int, grad: Tensor) -> None:
        super().push(worker, grad * min(1.0, 1.0 / float(grad[:3].norm())))


class FirstIsSpecial(Right):
    def push(self, worker: int, grad: Tensor) -> None:
        super().push(worker, grad * (1 + (worker == 0)))


class Forgetful(Right):
    """Its saved state lacks the backups."""

    def state_dict(self) -> dict[str, Tensor]:
        return {"weights": self.weights}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.weights = state["weights"].clone()


class PreviousStep(Right):
    """The backup is the weights before the last update, whoever made it."""

    def pull(self, worker: int) -> Tensor:
        return self.weights.clone()

    def push(self, worker: int, grad: Tensor) -> None:
        before = self.weights.clone()
        super().push(worker, grad)
        self.backups = [before] * len(self.backups)


class NanAtZero(Right):
    def push(self, worker: int, grad: Tensor) -> None:
        super().push(worker, grad * grad.abs() / grad.abs())


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (WritesGradient, "gradients and pulled weights are left alone"),
        (SendsLiveWeights, "gradients and pulled weights are left alone"),
        (Single, "type and shape are kept"),
        (Global, "elementwise"),
        (FirstIsSpecial, "workers are alike"),
        (Forgetful, "saved and restored, it goes on the same"),
        (PreviousStep, "staleness 0 is the plain rule"),
        (PreviousStep, "one backup per worker"),
        (NanAtZero, "finite in, finite out"),
        (NanAtZero, "pads stay zero"),
    ],
)
def test_other_faults_of_a_server(kind: type, law: str) -> None:
    assert law in broken(kind)


def test_a_law_that_raises_is_a_failure_with_the_reason() -> None:
    class Raises(Right):
        def push(self, worker: int, grad: Tensor) -> None:
            raise RuntimeError("no such worker\nand more")

    found = check(server_target("Raises", Raises))
    assert found[0].detail == "raised RuntimeError: no such worker"


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("contract.faulty:ZeroBackup") == 1
    printed = capsys.readouterr().out
    assert "FAILS  each worker's first update is from w_0" in printed
    assert "holds  one backup per worker" in printed
    assert "1 of 18 laws fail" in printed
    assert run("dcasgd-a") == 0
    assert "no law fails" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("dcasgd", "no such algorithm; did you mean dcasgd-"),
        ("contract.nowhere:Part", "No module named 'contract.nowhere'"),
        ("contract.faulty:Nothing", "has no attribute 'Nothing'"),
        ("contract.faulty:torch", "is module; allowed: a subclass of"),
        ("mpi_dcasgd.rules.part:Part", "has no role; give the class one of admission"),
        ("contract.test_conformance:NeedsSetting", "give every field a default"),
        ("contract.test_conformance:NeedsField", r"a default \(bound: missing; give a number\)"),
    ],
)
def test_a_target_that_is_none_is_a_config_error(target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_target(target)


class NeedsSetting(CompoundingLambda):
    def __init__(self, strength: float) -> None:
        super().__init__(dc_lambda=strength)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NeedsField(Part):
    role: ClassVar[Role] = "momentum"
    bound: float


class InPlace(Part):
    role = "momentum"

    def update(self, lanes, state, scalars):  # type: ignore[no-untyped-def]
        lanes.direction.mul_(0.5)
        return lanes, state


class Sums(Part):
    role = "momentum"

    def update(self, lanes, state, scalars):  # type: ignore[no-untyped-def]
        return lanes._replace(direction=lanes.direction / lanes.direction.norm()), state


class Remembers(Part):
    role = "momentum"
    calls: list[int] = []  # noqa: RUF012  # that is the fault

    def update(self, lanes, state, scalars):  # type: ignore[no-untyped-def]
        self.calls.append(1)
        return lanes._replace(direction=lanes.direction * len(self.calls)), state


class Doubles(Part):
    role = "momentum"

    def update(self, lanes, state, scalars):  # type: ignore[no-untyped-def]
        return lanes._replace(direction=lanes.direction.to(torch.float64)), state


class Loses(Part):
    role = "momentum"

    def vectors(self):  # type: ignore[no-untyped-def]
        return (*super().vectors(), *CompoundingLambda().vectors())

    def update(self, lanes, state, scalars):  # type: ignore[no-untyped-def]
        return lanes, state[:1]


class Divides(Part):
    role = "momentum"

    def scalars(self, facts):  # type: ignore[no-untyped-def]
        return (1.0 / facts.lr if facts.lr else float("inf"),)


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (InPlace, "a part writes none of its inputs"),
        (Sums, "a part is elementwise"),
        (Remembers, "a part keeps nothing but its state vectors"),
        (Doubles, "a part keeps type and shape"),
        (Loses, "a part returns its state vectors"),
        (Divides, "a part's scalars are finite"),
    ],
)
def test_faults_of_a_part(kind: type[Part], law: str) -> None:
    results = {r.law: r.status for r in (judge(law, kind()) for law in PART_LAWS)}
    assert results[law] == "fails"


def test_a_greedy_admission_part_is_caught() -> None:
    from mpi_dcasgd.rules.admission import Admission

    class NeverFresh(Admission):
        def verdict(self, facts):  # type: ignore[no-untyped-def]
            return "drop" if facts.staleness < 2 else "apply"

    class SlowestWaits(Admission):
        def may_go_on(self, clock, others):  # type: ignore[no-untyped-def]
            return clock >= max(others, default=clock)

    (law,) = (law for law in PART_LAWS if law.name == "admission lets a run end")
    assert "dropped a fresh gradient" in judge(law, NeverFresh()).detail
    assert "must wait" in judge(law, SlowestWaits()).detail


# Formulas.


def of_formula(target: Target) -> LawResult:
    (law,) = FORMULA_LAWS
    return judge(law, target)


def test_every_built_in_part_has_a_formula() -> None:
    assert {role: set(names) for role, names in FORMULAS.items()} == {
        role: set(names) for role, names in PARTS.items()
    }


class NoLambda(ConstantCompensation):
    def scalars(self, facts):  # type: ignore[no-untyped-def]
        return (1.0,)


class WrongSign(ConstantCompensation):
    def update(self, lanes, state, scalars):  # type: ignore[no-untyped-def]
        drift = lanes.snapshot - lanes.params
        correction = lanes.grad * lanes.grad * drift * scalars[0]
        return lanes._replace(direction=lanes.direction + correction), state


class EpsOutside(AdaptiveCompensation):
    def update(self, lanes, state, scalars):  # type: ignore[no-untyped-def]
        dc_lambda, decay, intake, eps = scalars
        square = state[0] * decay + lanes.grad * lanes.grad * intake
        correction = lanes.grad * (lanes.params - lanes.snapshot) * lanes.grad
        correction = correction * dc_lambda / (square.sqrt() + eps)
        return lanes._replace(direction=lanes.direction + correction), (square,)


class WrongEps(AdaptiveCompensation):
    def scalars(self, facts):  # type: ignore[no-untyped-def]
        return (*super().scalars(facts)[:3], 1e-8)


class LateSquare(AdaptiveCompensation):
    def update(self, lanes, state, scalars):  # type: ignore[no-untyped-def]
        _, new = super().update(lanes, state, scalars)
        before = (state[0] - lanes.grad * lanes.grad * scalars[2]) / scalars[1]
        return super().update(lanes, (before,), scalars)[0], new


class BehindInsteadOfAhead(DanaZero):
    def sent(self, params, state, scalars, rate):  # type: ignore[no-untyped-def]
        return params + state[1] * (scalars[0] * rate)


class AdamEps(Adam):
    def scalars(self, facts):  # type: ignore[no-untyped-def]
        return (*super().scalars(facts)[:6], 1e-7)


class RateOfNow(GapAware):
    def scalars(self, facts):  # type: ignore[no-untyped-def]
        return super().scalars(facts._replace(lr_max=facts.lr))


class OneMore(StalenessAware):
    def factor(self, facts):  # type: ignore[no-untyped-def]
        return 1.0 / (facts.staleness + 1)


class OneLater(Threshold):
    def verdict(self, facts):  # type: ignore[no-untyped-def]
        return "apply" if facts.staleness <= (self.threshold or 0) else "drop"


@pytest.mark.parametrize(
    ("part", "role", "name"),
    [
        (NoLambda(), "compensation", "dc-constant"),
        (WrongSign(), "compensation", "dc-constant"),
        (ConstantCompensation(dc_lambda=0.05), "compensation", "dc-constant"),
        (EpsOutside(), "compensation", "dc-adaptive"),
        (WrongEps(), "compensation", "dc-adaptive"),
        (LateSquare(), "compensation", "dc-adaptive"),
        (BehindInsteadOfAhead(), "momentum", "dana"),
        (AdamEps(), "momentum", "adam"),
        (RateOfNow(), "momentum", "gap-aware"),
        (OneMore(), "step_size", "staleness-aware"),
        (OneLater(threshold=2), "admission", "threshold"),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Part) else one,
)
def test_a_part_that_differs_from_its_papers_formula_is_caught(
    part: Part, role: str, name: str
) -> None:
    def formula(p: OnePush) -> Any:
        # With the settings of the paper, but for a threshold, which papers leave open.
        changed = {"threshold": 2} if name == "threshold" else {}
        return FORMULAS[role][name](p, **changed)

    assert (
        of_formula(rule_target(name, part_rule(PARTS[role][name](**changed_of(part))))).status
        == "holds"
    )
    found = of_formula(rule_target(name, part_rule(part), {role: formula}))
    assert found.status == "fails"


def changed_of(part: Part) -> dict[str, Any]:
    return {"threshold": part.threshold} if isinstance(part, Threshold) else {}


def test_a_difference_is_told_with_its_push_its_element_and_the_formulas_value() -> None:
    def turned(p: OnePush) -> Any:
        return p.d - p.settings.dc_lambda * p.g**2 * (p.w - p.w_bak)

    target = rule_target("mine", part_rule(ConstantCompensation()), {"compensation": turned})
    assert re.fullmatch(
        r"push (\d+) \(worker \d, staleness [12]\): element \d+ of what worker \d is sent is \S+, "
        r"the formula says \S+; there g = \S+, w = \S+, w_bak = \S+",
        of_formula(target).detail,
    )


def right(p: OnePush) -> Any:
    return p.w - p.eta * (p.g + 0.5 * p.g**2 * (p.w - p.w_bak))


def plain(p: OnePush) -> Any:
    return p.w - p.eta * p.g


def test_a_server_and_a_rule_are_compared_with_a_formula_of_the_new_weights() -> None:
    target = server_target("Right", Right)
    assert failures(check(target, right)) == []
    (failed,) = failures(check(target, plain))
    assert failed.startswith("it does what its formula says: push ")
    assert failures(check(rule_target("asgd", resolve_rule("asgd")), plain)) == []
    assert failures(check(rule_target("ringmaster", resolve_rule("ringmaster")), plain)) != []


def drops(p: OnePush) -> Any:
    return "drop" if p.tau >= 1 else plain(p)


def looks_ahead(p: OnePush) -> Any:
    velocities = p.state.setdefault("v", [0.0] * p.M)
    velocities[p.m] = 0.9 * velocities[p.m] + p.g
    w = p.w - p.eta * velocities[p.m]
    return w, w - p.eta * 0.9 * sum(velocities)


def test_a_formula_of_a_rule_may_drop_and_look_ahead() -> None:
    sequential = resolve_rule("ringmaster", {"admission": {"threshold": 1}})
    assert failures(check(rule_target("ringmaster", sequential), drops)) == []
    assert failures(check(rule_target("dana", resolve_rule("dana")), looks_ahead)) == []


class WithReference(Part):
    role: ClassVar[Role] = "momentum"
    reference: ClassVar[str] = "contract.test_conformance:doubled"

    def update(self, lanes, state, scalars):  # type: ignore[no-untyped-def]
        return lanes._replace(direction=lanes.direction * 2), state


def doubled(p: OnePush) -> Any:
    return p.d * 2


def halved(p: OnePush) -> Any:
    return p.d / 2


def test_a_part_may_name_its_formula(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("contract.test_conformance:WithReference") == 0
    assert "holds  it does what its formula says" in capsys.readouterr().out
    assert run("contract.test_conformance:WithReference", "contract.test_conformance:halved") == 1
    assert "FAILS  it does what its formula says" in capsys.readouterr().out


def test_a_formula_that_is_none_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="is float; a formula is a function of one push"):
        find_formula("math:pi")
    with pytest.raises(ConfigError, match="has no attribute 'boundet'"):
        find_formula("math:boundet")


def test_a_formula_of_another_shape_or_that_raises_is_told() -> None:
    def raises(p: OnePush) -> Any:
        raise KeyError("velocity")

    target = rule_target("asgd", resolve_rule("asgd"))
    assert failures(check(target, raises)) == [
        "it does what its formula says: raised KeyError: 'velocity'"
    ]
    (failed,) = failures(check(target, lambda p: p.w[:3]))
    assert "shape" in failed
