"""The package against references.py, over random worlds, pushes and pulls, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from contract import references as ref
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_dcasgd.rules.algorithms import ALGORITHMS, resolve_rule
from mpi_dcasgd.rules.stretch import Stretch
from mpi_dcasgd.tools.conformance.servers import RuleServer, may_push

SIZE = 4


class Case(NamedTuple):
    """A rule as a job names it, and its reference.

    Attributes:
        reference: Takes w_0, num_workers and lr.
        algorithm, changes: As in a job file.
        steady: The paper's form is the package's only while the learning rate is constant.
        alone: Only ever one worker.
    """

    reference: Callable[..., ref.Asgd]
    algorithm: str
    changes: dict[str, Any] = {}  # noqa: RUF012  # never changed
    steady: bool = False
    alone: bool = False


DC_A = {"lam": 0.7, "decay": 0.95, "eps": 1e-7}
OWN_DC_A = {"dc_lambda": 0.7}

CASES = {
    "sgd": Case(ref.Asgd, "sgd", alone=True),
    "ssgd": Case(ref.Asgd, "ssgd", alone=True),
    "asgd": Case(ref.Asgd, "asgd"),
    "dcasgd-c": Case(partial(ref.DcConstant, lam=0.04), "dcasgd-c"),
    "dcasgd-c, strong": Case(
        partial(ref.DcConstant, lam=1.5), "dcasgd-c", {"compensation": {"dc_lambda": 1.5}}
    ),
    "dcasgd-a": Case(
        partial(ref.DcAdaptive, lam=2.0, decay=0.95, eps=1e-7, per_worker=False), "dcasgd-a"
    ),
    "dcasgd-a, per worker": Case(
        partial(ref.DcAdaptive, **DC_A, per_worker=True),
        "dcasgd-a",
        {"compensation": {"dc_lambda": 0.7, "mean_square": "per_worker"}},
    ),
    "dcasgd-a, ImageNet": Case(
        partial(ref.DcAdaptive, lam=0.7, decay=0.0, eps=1e-3, per_worker=False),
        "dcasgd-a",
        {"compensation": {"dc_lambda": 0.7, "decay": 0.0, "eps": 1e-3}},
    ),
    "sa-asgd": Case(ref.StalenessAware, "sa-asgd"),
    "stable-asgd": Case(partial(ref.Stable, measured=False, asymptotic=False), "stable-asgd"),
    "stable-asgd, measured": Case(
        partial(ref.Stable, measured=True, asymptotic=False),
        "stable-asgd",
        {"step_size": {"delay": "measured"}},
    ),
    "stable-asgd, asymptotic": Case(
        partial(ref.Stable, measured=True, asymptotic=True),
        "stable-asgd",
        {"step_size": {"delay": "measured", "form": "asymptotic"}},
    ),
    "adaptive-asgd": Case(ref.Mishchenko, "adaptive-asgd"),
    "concurrency-asgd": Case(partial(ref.Koloskova, tau_c=None, drop=False), "concurrency-asgd"),
    "concurrency-asgd, tau_C = 2, drop": Case(
        partial(ref.Koloskova, tau_c=2, drop=True),
        "concurrency-asgd",
        {"step_size": {"concurrency": 2, "beyond": "drop"}},
    ),
    "gap-aware": Case(partial(ref.GapAware, gamma=0.9, memory=0.999, eps=1e-8), "gap-aware"),
    "gap-aware, no momentum": Case(
        partial(ref.GapAware, gamma=0.0, memory=0.9, eps=1e-3),
        "gap-aware",
        {"momentum": {"momentum": 0.0, "decay": 0.9, "eps": 1e-3}},
    ),
    "dana": Case(partial(ref.DanaZero, gamma=0.9), "dana"),
    "dana-slim": Case(partial(ref.DanaSlim, gamma=0.9), "dana-slim"),
    "dana-slim, from Zero": Case(
        partial(ref.DanaZero, gamma=0.6), "dana-slim", {"momentum": {"momentum": 0.6}}, steady=True
    ),
    "dana-dc": Case(
        partial(ref.DanaDc, gamma=0.9, lam=0.3), "dana-dc", {"compensation": {"dc_lambda": 0.3}}
    ),
    "ringmaster": Case(partial(ref.Ringmaster, limit=None), "ringmaster"),
    "ringmaster, R = 2": Case(
        partial(ref.Ringmaster, limit=2), "ringmaster", {"admission": {"threshold": 2}}
    ),
    "rennala": Case(partial(ref.Rennala, wanted=None), "rennala"),
    "rennala, S = 3": Case(
        partial(ref.Rennala, wanted=3), "rennala", {"admission": {"gradients": 3}}
    ),
    "ssp": Case(partial(ref.Ssp, s=3), "ssp"),
    "ssp, s = 0": Case(partial(ref.Ssp, s=0), "ssp", {"admission": {"bound": 0}}),
    "heavy-ball": Case(
        partial(ref.HeavyBall, mu=0.8, dampening=0.3),
        "asgd",
        {"momentum": {"name": "heavy-ball", "momentum": 0.8, "dampening": 0.3}},
    ),
    "nesterov": Case(
        partial(ref.NagAsgd, mu=0.8),
        "asgd",
        {"momentum": {"name": "nesterov", "momentum": 0.8}},
        steady=True,
    ),
    "shifted": Case(
        partial(ref.Shifted, mu=0.7), "asgd", {"momentum": {"name": "shifted", "momentum": 0.7}}
    ),
    "per-worker": Case(
        partial(ref.WorkersStep, mu=0.7, dampening=0.2),
        "asgd",
        {"momentum": {"name": "per-worker", "momentum": 0.7, "dampening": 0.2}},
        steady=True,
    ),
    "adam": Case(partial(ref.AdamW, betas=(0.9, 0.999), eps=1e-8), "asgd", {"momentum": "adam"}),
    "adamw": Case(
        partial(ref.AdamW, betas=(0.8, 0.99), eps=1e-4, decay=0.1),
        "asgd",
        {
            "momentum": {"name": "adam", "beta1": 0.8, "beta2": 0.99, "eps": 1e-4},
            "weight_decay": {"rate": 0.1, "place": "decoupled"},
        },
    ),
    "decay outside": Case(
        partial(ref.Decayed, lam=0.5, rate=0.1, inside=False),
        "dcasgd-c",
        {"compensation": {"dc_lambda": 0.5}, "weight_decay": {"rate": 0.1}},
    ),
    "decay inside": Case(
        partial(ref.Decayed, lam=0.5, rate=0.1, inside=True),
        "dcasgd-c",
        {"compensation": {"dc_lambda": 0.5}, "weight_decay": {"rate": 0.1, "place": "inside"}},
    ),
    "clipping": Case(
        partial(ref.Clipped, lam=0.5, max_norm=1.2),
        "dcasgd-c",
        {"compensation": {"dc_lambda": 0.5}, "clipping": {"name": "norm", "max_norm": 1.2}},
    ),
}


DECAY_RATE = {ref.Decayed: "rate", ref.AdamW: "decay"}
"""References that decay, and how they call the rate."""


def in_a_group(case: Case, decay: float) -> Callable[..., ref.Asgd]:
    """The reference of one group, with a factor of weight decay and no clipping of its own."""
    if not isinstance(case.reference, partial):
        return case.reference
    kind, given = case.reference.func, dict(case.reference.keywords)
    if kind is ref.Clipped:
        del given["max_norm"]
        return partial(ref.DcConstant, **given)
    if kind in DECAY_RATE and DECAY_RATE[kind] in given:
        given[DECAY_RATE[kind]] *= decay
    return partial(kind, **given)


def test_every_named_algorithm_has_a_reference() -> None:
    assert {case.algorithm for case in CASES.values()} == set(ALGORITHMS)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_workers=st.integers(1, 6),
    picks=st.lists(st.integers(0, 59), min_size=1, max_size=30),
    lr=st.floats(0.001, 0.1),
)
def test_reference(name: str, seed: int, num_workers: int, picks: list[int], lr: float) -> None:
    case = CASES[name]
    num_workers = 1 if case.alone else num_workers
    rng = np.random.default_rng(seed)
    start, curvature = rng.normal(size=SIZE), rng.uniform(0.2, 2.0, SIZE)

    def rate(taken: int) -> float:
        # Up and down again, so that the largest rate so far is not the present one.
        return lr if case.steady else lr * (0.3 + (taken % 7) / 7)

    theirs = case.reference(start, num_workers, rate)
    rule = resolve_rule(case.algorithm, case.changes)
    ours = RuleServer(rule, torch.from_numpy(start.copy()), num_workers, rate)
    for worker in range(num_workers):
        ours.pull(worker)
    for pick in picks:
        able = [worker for worker in range(num_workers) if may_push(ours, worker)]
        assert able == theirs.able()
        worker = able[pick % len(able)]
        grad = curvature * theirs.pull(worker) + 0.5 * rng.normal(size=SIZE)
        theirs.push(worker, grad)
        ours.push(worker, torch.from_numpy(grad))
        for other in theirs.able():
            np.testing.assert_allclose(
                ours.pull(other).numpy(), theirs.pull(other), rtol=1e-9, atol=1e-10
            )
    assert ours.server.version == theirs.t


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_workers=st.integers(1, 4),
    picks=st.lists(st.integers(0, 59), min_size=1, max_size=25),
    lr=st.floats(0.001, 0.05),
    lrs=st.tuples(*2 * [st.sampled_from([0.25, 1.0, 2.0])]),
    decays=st.tuples(*2 * [st.sampled_from([0.0, 1.0, 3.0])]),
)
def test_each_group_is_trained_as_the_reference_alone(
    name: str,
    seed: int,
    num_workers: int,
    picks: list[int],
    lr: float,
    lrs: tuple[float, float],
    decays: tuple[float, float],
) -> None:
    case = CASES[name]
    num_workers = 1 if case.alone else num_workers
    rng = np.random.default_rng(seed)
    start, curvature = rng.normal(size=SIZE), rng.uniform(0.2, 2.0, SIZE)
    groups = (Stretch(0, 1, lrs[0], decays[0]), Stretch(1, SIZE, lrs[1], decays[1]))

    def rate(taken: int) -> float:
        return lr if case.steady else lr * (0.3 + (taken % 7) / 7)

    def scaled(factor: float) -> ref.Rate:
        return lambda taken: rate(taken) * factor

    theirs = [
        in_a_group(case, one.weight_decay)(start[one.begin : one.end], num_workers, scaled(one.lr))
        for one in groups
    ]
    rule = resolve_rule(case.algorithm, case.changes)
    ours = RuleServer(rule, torch.from_numpy(start.copy()), num_workers, rate, groups)
    for worker in range(num_workers):
        ours.pull(worker)
    for pick in picks:
        able = theirs[0].able()
        worker = able[pick % len(able)]
        at = np.concatenate([one.pull(worker) for one in theirs])
        grad = curvature * at + 0.5 * rng.normal(size=SIZE)
        ours.push(worker, torch.from_numpy(grad.copy()))
        # The norm that is clipped is that of the whole gradient.
        longest = case.changes.get("clipping", {}).get("max_norm", math.inf)
        grad = grad * min(1.0, longest / float(np.linalg.norm(grad)))
        for one, reference in zip(groups, theirs, strict=True):
            reference.push(worker, grad[one.begin : one.end])
        for other in theirs[0].able():
            at = np.concatenate([one.pull(other) for one in theirs])
            np.testing.assert_allclose(ours.pull(other).numpy(), at, rtol=1e-9, atol=1e-10)
