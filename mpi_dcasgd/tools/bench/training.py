"""Benchmark of whole runs: asynchronous training against what its workers could do alone.

Six kinds of runs, one after the other in every round: one worker by itself, as fast as the others
and slowed; all workers, asynchronous and synchronous, all equal and with one of them slowed. The
ideal of an asynchronous run is the sum of its workers' rates by themselves.

The job that comes with this makes small gradients that take a stated time (``inject.delays``), so
that the ranks do not compete for the processors of one machine; any other job can be given.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.tools.bench.spread import Spread, rate, ratios, table
from mpi_dcasgd.tools.bench.worlds import Starter, finish
from mpi_dcasgd.tools.launch.world import rank_program

Backend = Literal["horovod", "ddp"]
Finish = Callable[[int, Sequence[str]], None]
"""Runs a program on so many ranks, or in one process for 0, to its end."""

_BATCH = 32
_JOB = f"""\
name: bench
epochs: 1
batch_size: {_BATCH}
lr: 0.01
fuse: blocks
model: {{name: mlp, hidden: [64]}}
data: {{name: synthetic, num_test: 32}}
"""


@dataclass(frozen=True)
class Course:
    """Course of the measurement: the job, and its workers.

    Attributes:
        workers: Number of workers.
        slow: How many times as long the last worker's steps take in the runs with a slow one.
        algorithm: The asynchronous one.
        backend: Of the synchronous runs.
        step_s: Seconds that a step takes at least; 0 for as long as its computation takes.
        steps: Steps of each worker in a run, of the job that comes with this.
        job: Another job, whose epochs count.
        words: Changes of the job.
    """

    workers: int
    slow: float
    algorithm: str
    backend: Backend
    step_s: float
    steps: int
    job: Path | None = None
    words: tuple[str, ...] = ()

    @property
    def last(self) -> int:
        """The worker that is slowed; as many others are not."""
        return max(range(self.workers))

    def kinds(self) -> dict[str, tuple[int, tuple[str, ...]]]:
        """The runs by name: ranks, or 0 for one process without a launcher, and changes."""
        asynchronous = Topology("asynchronous", self.workers).world_size
        synchronous = ("algorithm=ssgd", f"sync.backend={self.backend}")
        # A synchronous step takes as long as the slowest's: fewer of them last as long.
        few = max(1, round(self.steps / self.slow))
        own = (f"algorithm={self.algorithm}",)
        return {
            "solo": (0, self._run(("algorithm=sgd",), self.steps)),
            "solo_slow": (0, self._run(("algorithm=sgd",), few, slow=0)),
            "async": (asynchronous, self._run(own, self.steps * self.workers)),
            "sync": (self.workers, self._run(synchronous, self.steps * self.workers)),
            "async_straggler": (
                asynchronous,
                self._run(own, self.steps * self.workers, slow=self.last),
            ),
            "sync_straggler": (
                self.workers,
                self._run(synchronous, few * self.workers, slow=self.last),
            ),
        }

    def _run(self, words: tuple[str, ...], steps: int, slow: int | None = None) -> tuple[str, ...]:
        inject: dict[str, Any] = {}
        if self.step_s:
            inject["delays"] = {"model": "constant", "mean_s": self.step_s}
        if slow is not None:
            inject["slow"] = {str(slow): self.slow}
        size = () if self.job else (f"data.num_train={_BATCH * steps}",)
        # JSON is YAML, but the workers that slowness is told of are numbers there.
        told = json.dumps(inject).replace(f'"{slow}":', f"{slow}:")
        return (*size, *self.words, *words, *((f"inject={told}",) if inject else ()))


@dataclass(frozen=True)
class Rates:
    """Samples a second of each kind of run, one a round.

    Attributes:
        course: What was trained.
        per_s: By the names of ``Course.kinds``.
    """

    course: Course
    per_s: Mapping[str, Sequence[float]]

    @property
    def ratios(self) -> dict[str, Spread]:
        """Return asynchronous training's rate over the ideal, and over synchronous training."""
        got = self.per_s
        workers, others = self.course.workers, self.course.last
        alone = zip(got["solo"], got["solo_slow"], strict=True)
        pairs = [(fast * workers, fast * others + slow) for fast, slow in alone]
        equal, unequal = zip(*pairs, strict=True)
        return {
            "async_over_ideal": ratios(got["async"], equal),
            "async_over_ideal_straggler": ratios(got["async_straggler"], unequal),
            "async_over_sync": ratios(got["async"], got["sync"]),
            "async_over_sync_straggler": ratios(got["async_straggler"], got["sync_straggler"]),
        }

    def entry(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        course = {**vars(self.course), "job": str(self.course.job) if self.course.job else None}
        found = {**course, "samples_per_s": dict(self.per_s)}
        for name, spread in self.ratios.items():
            found |= spread.entry(name)
        return found


def installed_backend() -> Backend:
    """Return Horovod where it is installed, else torch.distributed."""
    return "ddp" if importlib.util.find_spec("horovod") is None else "horovod"


def measure(
    course: Course, rounds: int, starter: Starter, tell: Callable[[str], None] = lambda line: None
) -> Rates:
    """Run everything once a round, in turns.

    Args:
        course: What is trained.
        rounds: Runs of each kind.
        starter: Starts the worlds.
        tell: Is given a line about what is being run.

    Raises:
        LaunchError: There is no launcher, or a run failed.
    """

    def run(ranks: int, program: Sequence[str]) -> None:
        if ranks:
            starter.finish(ranks, program)
        else:
            finish(program)

    found: dict[str, list[float]] = {name: [] for name in course.kinds()}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for number in range(rounds):
            for name, rates in found.items():
                tell(f"round {number + 1} of {rounds}: {name}")
                rates.append(samples_per_s(course, name, Path(folder) / f"{number}-{name}", run))
    return Rates(course, found)


def samples_per_s(course: Course, name: str, path: Path, run: Finish) -> float:
    """Run one kind, and return the samples a second that its summary tells.

    Args:
        course: What is trained.
        name: Of the kind.
        path: The run folder; the job is written beside it.
        run: Runs a program to its end.

    Raises:
        LaunchError: It failed, or did not complete.
    """
    job = course.job or path.with_name("made-up.yaml")
    if course.job is None:
        job.write_text(_JOB, encoding="utf-8")
    ranks, words = course.kinds()[name]
    run(ranks, rank_program(str(job), [*words, "--run-dir", str(path)]))
    summary = RunFolder(path).summary()
    if summary.get("status") != "completed":
        raise LaunchError(f"the run {name} of the benchmark ended without a result in {path}")
    return float(summary["samples_per_s"])


def as_table(found: Rates) -> str:
    """Return rates and ratios as two Markdown tables."""
    course = found.course
    step = f"{1e3 * course.step_s:g} ms a step" if course.step_s else "steps as long as they take"
    slowed = f"worker {course.last} {course.slow:g} times as slow"
    words = {
        "solo": "one worker by itself",
        "solo_slow": f"one worker by itself, {course.slow:g} times as slow",
        "async": course.algorithm,
        "sync": f"ssgd ({course.backend})",
        "async_straggler": f"{course.algorithm}, {slowed}",
        "sync_straggler": f"ssgd ({course.backend}), {slowed}",
    }
    rates = [[words[name], rate(samples)] for name, samples in found.per_s.items()]
    shares = [[f"`{name}`", str(spread)] for name, spread in found.ratios.items()]
    return "\n\n".join(
        (
            f"{course.workers} workers, {step}",
            table(["run", "samples/s"], rates, words=1),
            table(["ratio", "median (min to max)"], shares, words=1),
        )
    )
