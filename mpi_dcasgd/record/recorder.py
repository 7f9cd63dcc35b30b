"""The observer that writes a run folder and shows the progress."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from logging import Logger
from types import MappingProxyType
from typing import Any, TextIO

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.drivers.observer import Evaluation, Status
from mpi_dcasgd.learning.measures import Measures
from mpi_dcasgd.record.description import RunDescription
from mpi_dcasgd.record.display import Display, spread
from mpi_dcasgd.record.energy import EnergyMeter
from mpi_dcasgd.record.metrics import finite
from mpi_dcasgd.record.progress import make_progress
from mpi_dcasgd.record.rate_limit import RateLimit
from mpi_dcasgd.record.restarts import Restart
from mpi_dcasgd.record.results import Results, event_of
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.settings import RecordSettings
from mpi_dcasgd.record.sinks import JSONL, Sinks
from mpi_dcasgd.record.steps import StepWriter
from mpi_dcasgd.record.summary import summary_of
from mpi_dcasgd.record.tally import Tally
from mpi_dcasgd.record.trace_writer import open_trace
from mpi_dcasgd.record.warnings import Warned, Warnings
from mpi_dcasgd.server.records import Action, UpdateRecord, fingerprint
from mpi_dcasgd.wording import counted

_SPARSER = 400
"""Progress events of a virtual run after which they become half as frequent (``spread``)."""
_TOLD_WORKERS = 64
"""Workers up to which each has its numbers in progress events."""


class Recorder:
    """Writes metrics.jsonl, trace.bin and summary.json of one run, as an ``Observer``.

    Args:
        folder: The run's folder, created.
        run: What is known of the run.
        settings: The job's ``record:`` section.
        stream: Where progress and messages are shown; nowhere if None.
        logger: Where messages go besides.
        environ: The environment, for progress.
        saved: What ``state_dict`` returned, where the run resumes from a checkpoint; the files
            are cut back to where they were then.
        energy: Count this host's joules, each under its key of the summary.

    Attributes:
        limit: What the learning rate is held against; None where no curvature is known.

    Raises:
        RunFolderError: A file cannot be written, or is not the one that ``saved`` belongs to.
    """

    def __init__(
        self,
        folder: RunFolder,
        run: RunDescription,
        settings: RecordSettings,
        *,
        stream: TextIO | None = None,
        logger: Logger | None = None,
        environ: Mapping[str, str] = os.environ,
        saved: Mapping[str, Any] | None = None,
        energy: Mapping[str, EnergyMeter] = MappingProxyType({}),
    ) -> None:
        self._folder = folder
        self._run = run
        self._results = Results(run.measures)
        self._logger = logger
        self._energy = energy
        self._joules_before = {key: saved.get(key) if saved else 0.0 for key in energy}
        self._metrics = Sinks(folder, settings.all_sinks, _offsets(saved))
        self._trace = open_trace(folder, run, settings, saved)
        self._steps: StepWriter | None = None
        self._saved_steps = saved.get("steps") if saved else None
        self._warnings = Warnings(saved.get("warned") if saved else None)
        self.limit: RateLimit | None = None
        progress = make_progress(
            settings.progress,
            stream,
            line_every_s=settings.line_every_s,
            environ=environ,
            on_failure=logger.warning if logger is not None else lambda text: None,
        )
        self._tally = Tally()
        self._display = Display(run, progress, self._tally, self._results)
        self._log_every_s = settings.log_every_s
        self._logged = 0
        self._startup_s = 0.0
        self._time_s = 0.0
        self._next_log_s = settings.log_every_s
        self._next_s = min(self._next_log_s, self._display.next_s)
        self._restarts, self._resumes = 0, saved is not None
        if saved is not None:
            self._load(saved)

    def follow(self, accounts: Sequence[Account], busy_s: Callable[[], float]) -> None:
        """Record from now on where the time of each push went.

        Args:
            accounts: Of the workers; the driver adds to them before it reports a push.
            busy_s: Seconds so far in which the server was applying pushes.

        Raises:
            RunFolderError: The file cannot be written.
        """
        path = self._folder.steps_bin if self._trace is not None else None
        self._steps = StepWriter(
            path, accounts, busy_s, self._saved_steps, seamless=self._run.virtual
        )

    def started(self, startup_s: float) -> None:
        self._startup_s += startup_s
        for key, meter in self._energy.items():
            meter.start(self._joules_before[key])
        event = "resume" if self._resumes else "start"
        self._metrics.write(event, self._time_s, startup_s=startup_s, **asdict(self._run))

    def update(self, record: UpdateRecord, time_s: float) -> None:
        # Called for every push: few calls on purpose (docs/run-folder.md has the cost).
        worker, ticket, _, staleness, action, _, loss, norm, _, _, _ = record
        self._time_s = time_s
        self._tally.add(record)
        if self._trace is not None:
            self._trace.add(worker, ticket, staleness, action, time_s, fingerprint(loss, norm))
        if self._steps is not None:
            self._steps.add(worker)
        if time_s >= self._next_s:
            self._tick(time_s)

    def evaluation(self, evaluation: Evaluation) -> None:
        self._results.add(evaluation)
        self._metrics.write("evaluation", evaluation.time_s, **event_of(evaluation))
        self._say(
            f"after {evaluation.samples / self._run.num_samples:.4g} of "
            f"{counted(self._run.epochs, 'epoch')} and {evaluation.time_s:.1f} s:"
            f" {self._results.text(evaluation)}, train loss {evaluation.train_loss:.4g}"
        )
        self._warn(self._warnings.of_losses(self._results.train_losses()))

    def worker(self, account: Account) -> None:
        self._metrics.write("worker", self._time_s, **asdict(account))

    def message(self, text: str) -> None:
        self._say(text)  # first: the disk may be what it is about
        self._metrics.write("message", self._time_s, text=text)

    def warning(self, kind: str, text: str) -> None:
        """Warn of something that was found before training, unless it has been told before."""
        self._warn(self._warnings.once(Warned(kind, text)))

    def fault(self, text: str, missing: Sequence[str]) -> None:
        self._say(text)
        self._metrics.write("fault", self._time_s, text=text, missing=list(missing))

    def restarted(self, restart: Restart) -> None:
        """Write down that the launcher has started the run again, which it has told itself."""
        self._metrics.write("restart", self._time_s, **asdict(restart))
        if self._logger is not None:
            self._logger.info("restart %d: %s", restart.restart, restart.cause)

    def ended(
        self,
        status: Status,
        time_s: float,
        *,
        weights_sha256: str = "",
        finite_weights: bool | None = None,
        reason: str = "",
    ) -> None:
        # The summary is written even if nothing else can be: it is small, and tells the rest.
        whole = False
        try:
            if self._tally.window.count:
                self._log(time_s)
            if self._tally.samples:
                self._display.show(time_s)
            if missing := self._results.why_none(finite_weights=finite_weights):
                self.message(missing)
            self._metrics.write("end", time_s, status=status, reason=reason)
            if self._trace is not None:
                self._trace.end(status)
            self.close()
            whole = True
        finally:
            if whole or status != "completed":
                joules = self._joules()
                summary = {
                    "status": status,
                    "reason": reason,
                    **asdict(self._run),
                    **summary_of(self._tally, self._results, self._startup_s, time_s),
                    "restarts": max(self._restarts, len(self._folder.restarts())),
                    "weights_sha256": weights_sha256,
                    **{key: value for key, value in joules.items() if value is not None},
                }
                self._folder.write_summary(finite(summary))

    def state_dict(self) -> dict[str, Any]:
        """Return the offsets of the files and the numbers of the summary, in plain values."""
        offsets = self._metrics.offsets()
        return {
            "metrics": offsets.pop(JSONL),
            "sinks": offsets,
            "trace": self._trace.place(flush=not self._run.virtual) if self._trace else None,
            "steps": self._steps.state_dict() if self._steps else None,
            "warned": self._warnings.state_dict(),
            "plain": {
                "startup_s": self._startup_s,
                "time_s": self._time_s,
                "rate": self._display.rate,
                **self._tally.plain(),
            },
            **self._tally.sums(),
            "evaluations": self._results.state(),
            "restarts": self._restarts,
            **self._joules(),
            "next_log_s": self._next_log_s,
            "logged": self._logged,
        }

    def _load(self, saved: Mapping[str, Any]) -> None:
        plain = saved["plain"]
        self._startup_s, self._time_s = plain["startup_s"], plain["time_s"]
        self._tally.load(plain, saved)
        self._results.load(saved["evaluations"])
        # Virtual workers do not start again: they are left, and resume, in the middle of a step.
        self._restarts = saved["restarts"] + (not self._run.virtual)
        # Not in the checkpoints of an earlier version; and the settings may be others now.
        self._logged = saved.get("logged", 0)
        next_log_s = self._time_s + self._until_next_log()
        self._next_log_s = min(saved.get("next_log_s", math.inf), next_log_s)
        self._display.resume(self._time_s, plain["rate"])
        self._next_s = min(self._next_log_s, self._display.next_s)

    def close(self) -> None:
        """Close the files without an end, as a killed run leaves them."""
        self._display.close()
        self._metrics.close()
        if self._trace is not None:
            self._trace.close()
        if self._steps is not None:
            self._steps.close()

    def _tick(self, time_s: float) -> None:
        if time_s >= self._next_log_s:
            self._log(time_s)
            self._logged += 1
            self._next_log_s = time_s + self._until_next_log()
        if time_s >= self._display.next_s:
            self._display.due(time_s)
        self._next_s = min(self._next_log_s, self._display.next_s)

    def _until_next_log(self) -> float:
        return spread(self._log_every_s, self._logged, _SPARSER, self._run)

    def _joules(self) -> dict[str, float | None]:
        """Joules of this host until now; None if they are not known."""
        for meter in self._energy.values():
            meter.sample()
        return {key: meter.joules for key, meter in self._energy.items()}

    def _log(self, time_s: float) -> None:
        self._joules()  # often enough for counters that begin again
        tally = self._tally
        passed = time_s - tally.window.time
        load, warned = self._load_of(passed)
        self._metrics.write(
            "progress",
            time_s,
            version=tally.updates,
            samples=tally.samples,
            epoch=self._epoch,
            **tally.progress(passed),
            **load,
        )
        tally.begin_window(time_s)
        self._warn(warned)
        if self.limit is not None:
            now = tally.samples, tally.histogram, self._run.num_workers
            self._warn(self._warnings.of_rate(self.limit, *now))

    def _load_of(self, passed_s: float) -> tuple[dict[str, Any], list[Warned]]:
        """The work of server and workers since the last progress event, and warnings about it."""
        if self._steps is None or passed_s <= 0:
            return {}, []
        load = self._steps.load()
        told: dict[str, Any] = {"server_load": min(1.0, load.server / passed_s)}
        if len(load.pushes) <= _TOLD_WORKERS:
            told["worker_pushes"] = list(load.pushes)
            told["worker_step_s"] = [
                step_s / count if count else None
                for count, step_s in zip(load.pushes, load.steps_s, strict=True)
            ]
        return told, self._warnings.of_load(load, passed_s)

    def _warn(self, warnings: Sequence[Warned]) -> None:
        for warned in warnings:
            self._metrics.write("warning", self._time_s, kind=warned.kind, text=warned.text)
            self._say(f"warning: {warned.text}")

    @property
    def nonfinite(self) -> int:
        """Gradients that were refused for not being finite."""
        return self._tally.refused[Action.NONFINITE]

    @property
    def measures(self) -> Measures:
        """The run's primary metric, its direction and its units."""
        return self._results.measures

    @property
    def best_value(self) -> float:
        """The value of the best evaluation so far; not a number before there is one."""
        best = self._results.best
        value = self._results.choosing(best) if best else None
        return math.nan if value is None else value

    @property
    def _epoch(self) -> float:
        return self._tally.samples / self._run.num_samples

    def _say(self, text: str) -> None:
        self._display.say(text)
        if self._logger is not None:
            self._logger.info(text)


def _offsets(saved: Mapping[str, Any] | None) -> dict[str, Any]:
    """Offsets of the sinks at a checkpoint, which may be of a version that had only one."""
    return {} if saved is None else {JSONL: saved["metrics"], **saved.get("sinks", {})}
