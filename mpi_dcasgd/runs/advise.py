"""Advise on an algorithm and a number of workers for a cluster, by simulating them all."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from mpi_dcasgd.config.load import read_mapping
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.simulated import check_simulated
from mpi_dcasgd.drivers.signals import StopFlag
from mpi_dcasgd.drivers.simulation.cluster import parse_cluster
from mpi_dcasgd.drivers.world import pick_device
from mpi_dcasgd.errors import ConfigError, NonFiniteError
from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.learning.settings import Count, Finite
from mpi_dcasgd.modules import searching
from mpi_dcasgd.reporting.collect import collect
from mpi_dcasgd.runs.arguments import check_arguments, several
from mpi_dcasgd.runs.build import Workshop, start_loaders
from mpi_dcasgd.runs.jobs import JobSource, folders_of, load_job, plain
from mpi_dcasgd.runs.process import process_as_it_was
from mpi_dcasgd.runs.simulate import simulate
from mpi_dcasgd.tools.advice import Course, Ranking, Tried, ranked
from mpi_dcasgd.tools.calibration import measure_steps
from mpi_dcasgd.wording import counted

ALGORITHMS = ("ssgd", "asgd", "dcasgd-a")
"""What is tried unless the user says otherwise."""

_STEPS = 30
_OVERHEAD, _START_S = 1.3, 0.3  # of a simulated gradient over a bare one; of each run
_ONE = "sgd"
_UNEQUAL = ("slow", "pauses", "crashes")  # of single workers: the one that is alone has none


@dataclass(frozen=True)
class Advice:
    """Advice on what to take on a cluster.

    Attributes:
        jobs: Algorithm to its job.
        ranking: The advice and its numbers; None if it was stopped before one seed was done.
        seeds: The seeds that it is from.
        notes: What to know about it, a line each.
        stopped_by: The signal that stopped it, or None.
    """

    jobs: Mapping[str, Job]
    ranking: Ranking | None
    seeds: tuple[int, ...]
    notes: tuple[str, ...]
    stopped_by: int | None = None


def advise(
    job: JobSource,
    *,
    cluster: Path | str | Mapping[str, Any],
    workers: Sequence[Count] = (4, 8, 16, 32),
    algorithms: str | Sequence[str] = ALGORITHMS,
    seeds: Count = 2,
    target: Finite | None = None,
    minutes: float = 10.0,
    out: Path | str | None = None,
    show: TextIO | None = None,
    stop: StopFlag | None = None,
    words: str | Sequence[str] = (),
    **overrides: Any,
) -> Advice:
    """Simulate algorithms with numbers of workers on a cluster, and say which to take.

    All have the job's budget of samples and its learning rate. They are ranked by the time to a
    value of the primary metric, by default what one worker alone has reached on every seed after
    three quarters of the budget.

    Args:
        job: A job's file, its content as a mapping, or a job.
        cluster: A file of ``calibrate``, or its content (docs/simulator.md).
        workers: Numbers of workers that are tried.
        algorithms: Names of asynchronous and synchronous algorithms, or one name.
        seeds: How many, from the job's on; 2 or more.
        target: A value of the primary metric; None for the default.
        minutes: Most real time; what is estimated to take longer is refused, and what then does
            take longer is ended after the seed before.
        out: Keep the run folders here; None to keep none.
        show: Where progress is shown; None for nowhere.
        stop: Ends it when it is set; None for one of its own, which signals set.
        words: Changes of the job, ``key=value``.
        **overrides: Changes of the job by key.

    Raises:
        ConfigError: The job, the cluster or an argument is wrong, or it would take too long.
        DataError: The data are missing or not what the job says.
        RunFolderError: ``out`` holds finished runs, or cannot be used.

    Example:
        What to take on a cluster with a slow worker::

            cluster = {"delays": "gamma", "slow": {0: 4}}
            print(*advise("jobs/digits.yaml", cluster=cluster, workers=[2, 4]).ranking.sentences)
    """
    check_arguments(advise, locals())
    algorithms, words = several(algorithms), several(words)
    settings = _cluster(job, cluster)
    jobs = {
        name: load_job(job, words=words, **{**overrides, "algorithm": name})
        for name in dict.fromkeys((_ONE, *algorithms))
    }
    _check(jobs, settings, workers, algorithms, seeds, minutes)
    if problems := Measures.of(jobs[_ONE].make_task()).beyond(target):
        raise ConfigError("advise", problems)
    plan = [(_ONE, 1), *((name, count) for name in algorithms for count in sorted({*workers}))]
    started, flag = time.monotonic(), StopFlag() if stop is None else stop
    with flag.listening() if stop is None else nullcontext(), _folder(out) as folder:
        expected_s = _expected_s(jobs[_ONE], len(plan) * seeds)
        _show(show, f"{counted(len(plan) * seeds, 'run')}, estimated at {_duration(expected_s)}")
        if expected_s > 60 * minutes:
            raise ConfigError(
                "advise",
                [
                    f"would take about {_duration(expected_s)}, and {minutes:g} min are allowed; "
                    "try fewer epochs, workers, algorithms or seeds, or allow more with --minutes"
                ],
            )
        trials = _Trials(jobs, settings, folder, flag, show, started + 60 * minutes)
        done = trials.run(plan, seeds)
    if not done:
        if flag.signum is None:
            raise ConfigError("advise", [f"no seed was done after {minutes:g} min"])
        return Advice(jobs, None, (), (), flag.signum)
    notes = [f"lr {jobs[_ONE].lr:g} for all algorithms and numbers of workers, tuned for none"]
    if len(done) < seeds:
        notes.append(f"{len(done)} of {counted(seeds, 'seed')} were done; one seed has no spread")
    courses = [
        Tried(name, count, tuple(of[name, count] for of in done.values())) for name, count in plan
    ]
    ranking = ranked(courses[0], courses[1:], trials.measures, target)
    return Advice(jobs, ranking, tuple(done), tuple(notes), flag.signum)


class _Trials:
    """Runs the runs, seed by seed."""

    def __init__(
        self,
        jobs: Mapping[str, Job],
        settings: Mapping[str, Any],
        folder: Path,
        flag: StopFlag,
        show: TextIO | None,
        end_s: float,
    ) -> None:
        self._jobs, self._settings, self._folder = jobs, settings, folder
        self._flag, self._show, self._end_s = flag, show, end_s

    def run(
        self, plan: Sequence[tuple[str, int]], seeds: int
    ) -> dict[int, dict[tuple[str, int], Course]]:
        """By seed, the course of every run; seeds that were not done to the end are left out."""
        done: dict[int, dict[tuple[str, int], Course]] = {}
        number = 0
        first = self._jobs[_ONE].seed
        for seed in range(first, first + seeds):
            courses = {}
            for name, count in plan:
                if self._flag or time.monotonic() > self._end_s:
                    return done
                number += 1
                courses[name, count] = self._course(name, count, seed)
                if self._flag:
                    return done
                at = f"[{number}/{len(plan) * seeds}]"
                which = f"{name}, {counted(count, 'worker')}, seed {seed}"
                _show(self._show, f"{at} {which}: {self._said}")
            done[seed] = courses
        return done

    def _course(self, name: str, count: int, seed: int) -> Course:
        alone = name == _ONE
        settings = {k: v for k, v in self._settings.items() if not (alone and k in _UNEQUAL)}
        path = self._folder / f"{name}-w{count}-s{seed}"
        try:
            simulate(
                self._jobs[name],
                workers=count,
                cluster=settings,
                run_dir=path,
                stop=self._flag,
                seed=seed,
            )
        except NonFiniteError:
            self._said = "diverged"
            return Course(seed, ())
        if self._flag:
            return Course(seed, ())
        (found,) = collect([path]).runs
        self.measures = found.measures
        values = tuple((float(p.samples), p.time_s, p.choosing) for p in found.points)
        last = self.measures.shown(self.measures.primary, values[-1][2])
        self._said = f"{self.measures.primary} {last} after {values[-1][1]:.4g} s"
        return Course(seed, values, found.number("staleness_mean"))


def _cluster(job: JobSource, cluster: Path | str | Mapping[str, Any]) -> dict[str, Any]:
    """The cluster's settings, without the number of workers that one was measured with."""
    settings = (
        dict(plain(cluster))
        if isinstance(cluster, Mapping)
        else read_mapping(Path(cluster), "cluster")
    )
    settings.pop("workers", None)
    with searching(*folders_of(job), fresh=True):
        parse_cluster("cluster" if isinstance(cluster, Mapping) else str(cluster), settings)
    return settings


def _check(
    jobs: Mapping[str, Job],
    settings: Mapping[str, Any],
    workers: Sequence[int],
    algorithms: Sequence[str],
    seeds: int,
    minutes: float,
) -> None:
    problems = []
    if not algorithms or not workers:
        problems.append("name one algorithm and one number of workers, or more")
    for name in algorithms:
        if jobs[name].mode == "sequential":
            problems.append(f"algorithms: {name} is one process, which is tried in any case")
            continue
        for count in workers:
            problems += [
                f"{counted(count, 'worker')}: {p}"
                for p in check_simulated(settings, jobs[name], count)
            ]
    if seeds < 2:
        problems.append(f"seeds: got {seeds}; allowed: 2 or more, for one has no spread")
    if not minutes > 0:
        problems.append(f"minutes: got {minutes:g}; allowed: a number > 0")
    if problems:
        raise ConfigError("advise", list(dict.fromkeys(problems)))


@contextmanager
def _folder(out: Path | str | None) -> Iterator[Path]:
    if out is not None:
        yield Path(out)
        return
    with tempfile.TemporaryDirectory(prefix="mpi-dcasgd-advice-") as made:
        yield Path(made)


def _expected_s(job: Job, runs: int) -> float:
    """About how many real seconds so many runs take, from a few gradients on this machine."""
    with process_as_it_was(), job.importing(), start_loaders(job) as loaders:
        workshop = Workshop.open(job, pick_device(job.device, 0), loaders=loaders)
        learner = workshop.learner(workshop.flat_model(workshop.device))
        steps_s = measure_steps(learner, _STEPS)
        step_s = sum(steps_s) / len(steps_s)
        return runs * (_START_S + _OVERHEAD * step_s * workshop.plan.num_tickets)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _show(stream: TextIO | None, line: str) -> None:
    if stream is not None:
        print(line, file=stream, flush=True)
