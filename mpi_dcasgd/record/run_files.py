"""Names of a run's files, and whether they are there; no other module knows the names."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

RUNS = Path("runs")
"""Where run folders go unless the user says otherwise, relative to where the job was started."""

JOB_YAML = "job.yaml"
CLUSTER_YAML = "cluster.yaml"


class RunFiles:
    """The places of one run's files. Making the object touches nothing.

    Args:
        path: The folder.

    Attributes:
        job_yaml: The resolved job; a folder that has it is a run's.
        data_json: The sizes, classes and fingerprints of the data that the run began with.
        environment_json: The software and hardware of the last start.
        metrics_jsonl: Events, one a line.
        metrics_csv: Numbers of the events, where the job asks for them.
        tensorboard: A folder: events for TensorBoard, where the job asks for them.
        trace_bin: Every push; runs without a server have none.
        steps_bin: Where the time of each push went, where that is known.
        sharpness_json: The largest curvature, where somebody has measured it.
        closeup_jsonl: Norms and distances of pushes, where somebody has looked closer.
        restarts_jsonl: Restarts by the launcher, one a line, if there were any.
        summary_json: The outcome, from the end of the run on.
        weights_pt: The final weights.
        best_pt: The weights of the best evaluation so far.
        cluster_yaml: The cluster of a simulated run; no real run has it.
        output_log: Whatever ranks and launcher printed, where a comparison started them.
        checkpoints: A folder.
        logs: A folder, one file for each rank.
        code: A folder: copies of the user's own modules that the last start imported.

    Example:
        >>> RunFiles("runs/digits").log(2).as_posix()
        'runs/digits/logs/rank-2.log'
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.job_yaml = self.path / JOB_YAML
        self.data_json = self.path / "data.json"
        self.environment_json = self.path / "environment.json"
        self.metrics_jsonl = self.path / "metrics.jsonl"
        self.metrics_csv = self.path / "metrics.csv"
        self.tensorboard = self.path / "tensorboard"
        self.trace_bin = self.path / "trace.bin"
        self.steps_bin = self.path / "steps.bin"
        self.sharpness_json = self.path / "sharpness.json"
        self.closeup_jsonl = self.path / "closeup.jsonl"
        self.summary_json = self.path / "summary.json"
        self.restarts_jsonl = self.path / "restarts.jsonl"
        self.weights_pt = self.path / "weights.pt"
        self.best_pt = self.path / "best.pt"
        self.cluster_yaml = self.path / CLUSTER_YAML
        self.output_log = self.path / "output.log"
        self.checkpoints = self.path / "checkpoints"
        self.logs = self.path / "logs"
        self.code = self.path / "code"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def log(self, rank: int, replacement: int = 0) -> Path:
        """The log of one rank, or of the n-th process that was started in its place."""
        which = f"-{replacement}" if replacement else ""
        return self.logs / f"rank-{rank}{which}.log"

    def is_run(self) -> bool:
        """Return whether the folder holds a run, finished or not."""
        return self.job_yaml.is_file()

    def has_checkpoint(self, version: int | None = None) -> bool:
        """Return whether there is a checkpoint to resume from, or the one of a version."""
        if version is not None:
            return self.checkpoint(version).is_file()
        return any(self.checkpoints.glob("*.pt"))

    def checkpoint_stamps(self) -> dict[int, int]:
        """Return when the checkpoint of each version was written, in nanoseconds."""
        found = {}
        for path in self.checkpoints.glob("update-*.pt"):
            with suppress(OSError, ValueError):  # the next one's thread has removed it
                found[int(path.stem.rpartition("-")[2])] = path.stat().st_mtime_ns
        return found

    def checkpoint(self, version: int) -> Path:
        """The checkpoint of a version."""
        return self.checkpoints / f"update-{version:09d}.pt"
