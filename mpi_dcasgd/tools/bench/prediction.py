"""Benchmark of the simulator: updates a second of real runs, and what it predicts from one of them.

A job is run for real in several ways, one after the other in every round: by one worker, and by all
of them with vectors in one piece, in chunks, in 16 bits, and to two servers. The round's cluster is
calibrated from the first two: step times and links from the one worker, and how equally messages
share a link from all in one piece. All of them are simulated on it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from mpi_dcasgd.drivers.simulation.cluster import parse_cluster
from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.tools.bench.spread import Spread, rate, ratios, table
from mpi_dcasgd.tools.bench.worlds import Starter
from mpi_dcasgd.tools.launch.world import rank_program
from mpi_dcasgd.tools.link_calibration import predicted_per_s, pushes_per_s

Finish = Callable[[int, Sequence[str]], object]
"""Runs a program on so many ranks to its end."""

Calibrate = Callable[[RunFolder, RunFolder], tuple[dict[str, Any], int]]
"""Describes the cluster of a run by one worker and one by all; returns the bytes of a push, too."""

WAYS = ("alone", "messages", "chunks", "bf16", "servers")
SERVERS = 2
SEEDS = 10
"""Simulated runs of each, whose mean is the prediction: single ones differ as real ones do."""

_CALIBRATED_FROM = ("alone", "messages")
_BATCH = 4
_JOB = f"""\
name: prediction
algorithm: asgd
epochs: 1
batch_size: {_BATCH}
lr: 0.0001
fuse: blocks
transport: messages
chunk_mb: 0
checkpoint: {{every: null}}
data: {{name: synthetic, num_test: 4}}
"""


@dataclass(frozen=True)
class Trial:
    """The runs.

    Attributes:
        workers: Number of workers.
        params: Parameters of the model, about.
        step_s: Mean seconds of a step.
        steps: Steps of each worker in a run.
        chunk_mb: Megabytes of a chunk, where vectors come in chunks.
        ways: Names of ``WAYS``.
    """

    workers: int
    params: int
    step_s: float
    steps: int
    chunk_mb: float
    ways: tuple[str, ...] = WAYS

    def ranks(self, way: str) -> int:
        """Return the number of ranks of a run."""
        return Topology("asynchronous", self.workers_of(way), self._servers(way)).world_size

    def workers_of(self, way: str) -> int:
        """Return the number of workers of a run."""
        return 1 if way == "alone" else self.workers

    def words(self, way: str) -> list[str]:
        """Return the changes of the job for a run."""
        width = round(math.sqrt(self.params))
        its = {
            "chunks": [f"chunk_mb={self.chunk_mb}"],
            "bf16": ["wire=bf16"],
            "servers": [f"servers={SERVERS}"],
        }
        delays = f"{{model: gamma, mean_s: {self.step_s}, machine_cv: 0}}"
        return [
            f"model={{name: mlp, hidden: [{width}, {width}]}}",
            f"data.num_train={_BATCH * self.workers_of(way) * self.steps}",
            f"inject.delays={delays}",
            *its.get(way, []),
        ]

    def exchange(self, way: str) -> dict[str, Any]:
        """Return the keys of a cluster's ``exchange`` for a run."""
        found = {
            "chunks": {"chunk_bytes": int(self.chunk_mb * 1e6)},
            "bf16": {"element_bytes": 2},
            "servers": {"servers": SERVERS},
        }
        return dict(found.get(way, {}))

    def _servers(self, way: str) -> int:
        return SERVERS if way == "servers" else 1


@dataclass(frozen=True)
class Predictions:
    """Updates a second of each way, one a round.

    Attributes:
        trial: What was run.
        measured: Of the real runs.
        predicted: Of the simulated ones.
        network: Calibrated in each round.
    """

    trial: Trial
    measured: Mapping[str, Sequence[float]]
    predicted: Mapping[str, Sequence[float]]
    network: Sequence[Mapping[str, float]]

    def over(self, way: str) -> Spread:
        """Return predicted over measured, within a round."""
        return ratios(self.predicted[way], self.measured[way])

    def entries(self) -> list[dict[str, Any]]:
        """Return it as JSON has it, an entry for each way."""
        return [
            {
                **vars(self.trial),
                "way": way,
                "measured_per_s": list(self.measured[way]),
                "predicted_per_s": list(self.predicted[way]),
                "network": [dict(one) for one in self.network],
                **self.over(way).entry("over_measured"),
            }
            for way in self.trial.ways
        ]


def measure(
    trial: Trial,
    rounds: int,
    starter: Starter,
    calibrate: Calibrate,
    tell: Callable[[str], None] = lambda line: None,
) -> Predictions:
    """Run everything once a round, in turns, and simulate it.

    Args:
        trial: What is run.
        rounds: Runs of each way.
        starter: Starts the worlds.
        calibrate: Describes the cluster of a run.
        tell: Is given a line about what is being run.

    Raises:
        LaunchError: There is no launcher, or a run failed.
        RunFolderError: Nothing can be told of a link.
    """
    measured: dict[str, list[float]] = {way: [] for way in trial.ways}
    predicted: dict[str, list[float]] = {way: [] for way in trial.ways}
    networks = []
    with tempfile.TemporaryDirectory(prefix="bench-") as path:
        for number in range(rounds):
            folders: dict[str, RunFolder] = {}
            for way in trial.ways:
                tell(f"round {number + 1} of {rounds}: {way}")
                folders[way] = run(trial, way, Path(path) / f"{number}-{way}", starter.finish)
                measured[way].append(pushes_per_s(folders[way].trace().time_us / 1e6))
            tell(f"round {number + 1} of {rounds}: calibrating and simulating")
            cluster, size = calibrate(*(folders[way] for way in _CALIBRATED_FROM))
            networks.append(cluster["network"])
            for way in trial.ways:
                predicted[way].append(predict(trial, way, cluster, size))
    return Predictions(trial, measured, predicted, networks)


def run(trial: Trial, way: str, path: Path, finish: Finish) -> RunFolder:
    """Run the job in one way, and return its folder.

    Args:
        trial: What is run.
        way: How vectors travel.
        path: The run folder; the job is written beside it.
        finish: Runs a program on so many ranks to its end.

    Raises:
        LaunchError: It failed, or did not complete.
    """
    job = path.with_name("made-up.yaml")
    job.write_text(_JOB, encoding="utf-8")
    words = [*trial.words(way), "--run-dir", str(path)]
    finish(trial.ranks(way), rank_program(str(job), words))
    folder = RunFolder(path)
    if folder.summary().get("status") != "completed":
        raise LaunchError(f"the run {way} of the benchmark ended without a result in {path}")
    return folder


def predict(trial: Trial, way: str, cluster: Mapping[str, Any], size: int) -> float:
    """Return the updates a second of a run, simulated on a cluster.

    Args:
        trial: What was run.
        way: How vectors travelled.
        cluster: The keys of its description.
        size: Bytes of a push.
    """
    settings = {key: value for key, value in cluster.items() if key != "workers"}
    simulated = parse_cluster("calibrated", {**settings, "exchange": trial.exchange(way)})
    workers = trial.workers_of(way)
    pushes = workers * trial.steps
    return fmean(predicted_per_s(simulated, workers, pushes, size, seed) for seed in range(SEEDS))


def as_table(found: Predictions) -> str:
    """Return rates and ratios as a Markdown table."""
    trial = found.trial
    words = {
        "alone": "in one piece, one worker",
        "messages": "in one piece",
        "chunks": f"in chunks of {trial.chunk_mb:g} MB",
        "bf16": "in 16 bits (bf16)",
        "servers": f"{SERVERS} servers",
    }
    rows = [
        [
            words[way],
            rate(found.measured[way]),
            rate(found.predicted[way]),
            str(found.over(way)) + (" fitted" if way in _CALIBRATED_FROM else ""),
        ]
        for way in trial.ways
    ]
    shares = Spread.of([one["late_share"] for one in found.network])
    links = Spread.of([8e-6 * one["bytes_per_s"] for one in found.network])
    return "\n\n".join(
        (
            f"{trial.workers} workers, {trial.params:,} parameters, steps of "
            f"{1e3 * trial.step_s:g} ms; links of {links.median:.0f} Mbit/s "
            f"({links.least:.0f} to {links.most:.0f}), late_share {shares.median:g} "
            f"({shares.least:g} to {shares.most:g})",
            table(
                ["vectors", "measured /s", "predicted /s", "predicted over measured"], rows, words=1
            ),
        )
    )
