"""Named algorithms as chains: what they resolve to, how they are refused, that they end a run."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from toy import LR, World

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.tickets import TicketPlan
from mpi_dcasgd.rules.algorithms import ALGORITHMS, PARTS, describe_rule, resolve_rule
from mpi_dcasgd.rules.compatibility import remarks
from mpi_dcasgd.rules.part import Facts
from mpi_dcasgd.rules.rule import Rule
from mpi_dcasgd.rules.step_size import ConstantStep
from mpi_dcasgd.server.records import Action
from mpi_dcasgd.tools.stable_rates import stable_rates

FOUR_WORKERS = Facts(0.1, 0.1, 3, 9, 0, 4, 1.0)

ASYNCHRONOUS = [a.name for a in ALGORITHMS.values() if a.mode == "asynchronous"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_rule_written_out_is_the_same_rule(algorithm: str) -> None:
    rule = resolve_rule(algorithm)
    assert resolve_rule(algorithm, describe_rule(rule)) == rule
    assert resolve_rule("asgd" if algorithm in ASYNCHRONOUS else "sgd", describe_rule(rule)) == rule


@pytest.mark.parametrize("algorithm", ASYNCHRONOUS)
def test_a_run_with_unequal_workers_applies_every_ticket_once(algorithm: str) -> None:
    world = World(4, algorithm, plan=TicketPlan(50, 4, 3, 4))
    slow = random.Random(7)
    weights = world.run(lambda working: slow.choices(working, [1 + 6 * w for w in working])[0])
    taken = Counter(
        answer.record.ticket
        for answer in world.answers
        if answer.record.action in (Action.APPLIED, Action.HELD)
    )
    assert taken == Counter(range(world.plan.num_tickets))
    assert world.server.samples == 200
    assert torch.isfinite(weights).all()
    assert not torch.equal(weights, world.initial)


@pytest.mark.parametrize("algorithm", ASYNCHRONOUS)
def test_a_run_lowers_the_loss(algorithm: str) -> None:
    # As in any job, momentum wants a smaller rate; the toy's is fixed, so it is turned down here.
    rule = {"momentum": {"momentum": 0.5}} if "momentum" in ALGORITHMS[algorithm].parts else None
    world = World(4, algorithm, rule, plan=TicketPlan(50, 4, 3, 20))
    world.run()
    losses = [answer.record.loss for answer in world.answers]
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])


def test_ringmaster_really_drops_and_rennala_really_holds() -> None:
    ringmaster = World(4, "ringmaster", {"admission": {"threshold": 2}})
    rennala = World(4, "rennala", {"admission": {"gradients": 3}})
    for world in (ringmaster, rennala):
        world.run()
    assert ringmaster.server.tally.dropped > 0
    assert max(ringmaster.server.tally.staleness) == 1
    assert set(rennala.server.tally.staleness) == {0}
    # 21 tickets in threes.
    assert rennala.server.version == 7


def test_the_rest_of_a_run_makes_a_smaller_last_step() -> None:
    world = World(1, "rennala", {"admission": {"gradients": 4}}, plan=TicketPlan(50, 8, 3, 1))
    world.run()
    assert world.server.version == 2
    assert world.server.samples == 50


@pytest.mark.parametrize("max_norm", [0.01, 1e6])
def test_what_is_collected_is_weighted_by_samples_and_clipped_as_a_mean(max_norm: float) -> None:
    # Tickets of 8 and 2 samples: the step is along the mean over the ten, at most max_norm long.
    plan = TicketPlan(10, 8, 3, 1)
    rule = {"admission": {"gradients": 2}, "clipping": {"name": "norm", "max_norm": max_norm}}
    world = World(1, "rennala", rule, plan=plan)
    learner = world.learners[0]
    world.join()
    mean = torch.zeros_like(world.initial)
    for ticket in (0, 1):
        found = learner.gradient(learner.load(ticket))
        mean += learner.flat.grad * found.samples / 10
        world.step(0)
    moved = (world.initial - world.server.weights) / LR
    expected = mean * min(1.0, max_norm / float(mean.norm()))
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-6)


def test_decay_acts_before_compensation_or_after_momentum() -> None:
    def order(place: str) -> list[str]:
        changes = {"weight_decay": {"rate": 0.1, "place": place}}
        return [role for role, _ in resolve_rule("asgd", changes).parts()]

    early = ["admission", "clipping", "weight_decay", "compensation", "momentum", "step_size"]
    late = ["admission", "clipping", "compensation", "momentum", "weight_decay", "step_size"]
    assert order("outside") == order("inside") == early
    assert order("decoupled") == late


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_state_vectors_are_what_the_docs_say(algorithm: str) -> None:
    expected = {
        "dcasgd-a": 1,
        "gap-aware": 2,
        "dana": 9,
        "dana-slim": 8,
        "dana-dc": 8,
    }
    assert resolve_rule(algorithm).state_vectors(8) == expected.get(algorithm, 0)


REFUSED: list[tuple[str, dict[str, Any], list[str]]] = [
    (
        "asgd",
        {"compensation": {"dc_lambda": 1.0}},
        [
            "compensation.dc_lambda: unknown setting of none (it has no settings; asgd has "
            "compensation none; name one of dc-constant, dc-adaptive for it)"
        ],
    ),
    (
        "dcasgd-a",
        {"compensation": {"decai": 0.5, "eps": 0.0, "mean_square": "local"}},
        [
            "compensation.decai: unknown setting of dc-adaptive; did you mean decay?",
            "compensation.eps: got 0.0 (a number); allowed: a number > 0",
            "compensation.mean_square: got 'local' (text); allowed: one of global, per_worker",
        ],
    ),
    (
        "dcasgd-c",
        {"compensation": {"dc_lambda": -0.1}},
        ["dc_lambda: got -0.1 (a number); allowed: a number >= 0"],
    ),
    ("dcasgd-c", {"compensation": {"dc_lambda": float("inf")}}, ["got inf (not a finite number)"]),
    ("dcasgd-a", {"compensation": {"decay": 1.0}}, ["decay: got 1.0 (a number); allowed: a num"]),
    ("asgd", {"momentum": {"name": "heavy-ball", "momentum": 1.0}}, ["number >= 0 and < 1"]),
    ("asgd", {"momentum": {"name": "heavy-ball", "dampening": 1.0}}, ["number >= 0 and < 1"]),
    (
        "asgd",
        {"momentum": {"name": "shifted", "dampening": 0.9}},
        ["momentum.dampening: unknown setting of shifted (allowed: momentum;"],
    ),
    ("asgd", {"momentum": {"name": "adam", "eps": 0}}, ["momentum.eps: got 0 (a whole num"]),
    ("asgd", {"clipping": {"name": "norm", "max_norm": 0}}, ["allowed: a number > 0"]),
    ("asgd", {"weight_decay": {"rate": True}}, ["rate: got true; allowed: a number >= 0"]),
    ("asgd", {"weight_decay": {"place": "before"}}, ["one of outside, inside, decoupled"]),
    ("ringmaster", {"admission": {"threshold": 0}}, ["got 0 (a whole number); allowed: a whol"]),
    (
        "rennala",
        {"admission": {"gradients": 2.5}},
        ["admission.gradients: got 2.5 (a number); allowed: a whole number >= 1"],
    ),
    ("ssp", {"admission": {"bound": -1}}, ["allowed: a whole number >= 0"]),
    ("concurrency-asgd", {"step_size": {"concurrency": 0}}, ["a whole number >= 1"]),
    ("stable-asgd", {"step_size": {"delay": 7}}, ["delay: got 7 (a whole number); allowed: one"]),
    ("asgd", {"momentun": "adam"}, ["momentun: unknown; did you mean momentum?"]),
    ("asgd", {"momentum": "adamm"}, ["unknown 'adamm'; did you mean adam? (allowed: none, heavy"]),
    ("asgd", {"momentum": ["adam", "dana"]}, ["got ['adam', 'dana'] (a list); allowed: a"]),
    (
        "asgd",
        {"momentum": "mpi_dcasgd.rules.compensation:ConstantCompensation"},
        ["is a part for compensation, not for momentum"],
    ),
    ("asgd", {"momentum": "no.such:Part"}, ["cannot import no.such:Part: No module named 'no'"]),
    (
        "dana",
        {"compensation": "dc-constant"},
        ["compensation: dc-constant measures how far the weights moved from what a worker was"],
    ),
    (
        "rennala",
        {
            "momentum": "shifted",
            "compensation": "dc-adaptive",
            "step_size": "stability-preserving",
        },
        [
            "momentum: shifted keeps a vector for each worker, but with admission collect",
            "compensation: dc-adaptive would never act",
            "step_size: stability-preserving is meant for stale gradients",
        ],
    ),
    (
        "ssgd",
        {"compensation": "dc-constant", "step_size": "delay-adaptive", "admission": "ssp"},
        [
            "compensation: dc-constant would never act, since ssgd has no staleness",
            "step_size: delay-adaptive is meant for stale gradients, but ssgd has none",
            "admission: ssp needs a server with several workers, but ssgd has none",
        ],
    ),
    ("sgd", {"compensation": "dc-adaptive"}, ["would never act, since sgd has no staleness"]),
    (
        "gap-aware",
        {"step_size": "stability-preserving"},
        ["momentum: gap-aware measures gaps in steps of the whole learning rate"],
    ),
]


@pytest.mark.parametrize(("algorithm", "changes", "messages"), REFUSED)
def test_refused_with_all_problems(
    algorithm: str, changes: dict[str, Any], messages: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve_rule(algorithm, changes)
    assert len(refused.value.problems) == len(messages)
    for message in messages:
        assert message in str(refused.value)


def test_collecting_single_gradients_leaves_nothing_to_refuse() -> None:
    rule = resolve_rule("rennala", {"admission": {"gradients": 1}, "momentum": "shifted"})
    assert rule.admission.collect(8) == 1


@pytest.mark.parametrize(
    ("name", "setting"),
    [("heavy-ball", "momentum"), ("heavy-ball", "dampening"), ("dana", "momentum")],
)
def test_a_buffer_keeps_a_share_of_itself_and_not_all(name: str, setting: str) -> None:
    for value in (1.0, -0.1):
        told = rf"momentum\.{setting}: got {value} \(a number\); allowed: a number >= 0 and < 1$"
        with pytest.raises(ConfigError, match=told):
            resolve_rule("asgd", {"momentum": {"name": name, setting: value}})
    assert resolve_rule("asgd", {"momentum": {"name": name, setting: 0.0}})


def test_admissions_that_hold_nothing_collect_single_gradients() -> None:
    for name in ("asgd", "ringmaster", "ssp"):
        assert resolve_rule(name).admission.collect(8) == 1


def test_settings_of_a_part_that_was_replaced_do_not_linger() -> None:
    rule = resolve_rule("dana", {"momentum": "heavy-ball"})
    assert rule == resolve_rule("asgd", {"momentum": "heavy-ball"})


def test_the_default_of_every_role_does_nothing() -> None:
    changes = {role: next(iter(names)) for role, names in PARTS.items()}
    assert resolve_rule("asgd", changes) == Rule()


def test_a_momentum_that_spends_the_margin_of_stability_is_warned_of() -> None:
    for name in ("heavy-ball", "nesterov", "per-worker", "shifted"):
        (line,) = remarks(resolve_rule("stable-asgd", {"momentum": {"name": name}}))
        assert "far less of it is left" in line
        assert remarks(resolve_rule("asgd", {"momentum": {"name": name}})) == []
        assert (
            remarks(resolve_rule("stable-asgd", {"momentum": {"name": name, "momentum": 0.0}}))
            == []
        )
    for name in ("none", "dana-slim", "adam"):
        assert remarks(resolve_rule("stable-asgd", {"momentum": name})) == []


def test_the_margin_that_is_left_is_as_the_warning_says() -> None:
    rule = resolve_rule("stable-asgd", {"momentum": {"name": "heavy-ball", "momentum": 0.9}})
    of_momentum = stable_rates(replace(rule, step_size=ConstantStep()), [4])[0].factor
    assert 0.04 < of_momentum / rule.step_size.factor(FOUR_WORKERS) < 0.05
