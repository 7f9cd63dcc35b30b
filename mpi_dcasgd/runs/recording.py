"""Rank 0's side of the records: the run folder from before training until after it.

Sequential, MPI, synchronous, simulated and replayed runs all begin, checkpoint, resume, fail and
end here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from logging import Logger
from pathlib import Path
from typing import Any, TextIO

from mpi_dcasgd.config.load import job_as_text, job_as_yaml
from mpi_dcasgd.config.own_code import OwnCode, warnings
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.drivers.conductor import Conductor
from mpi_dcasgd.drivers.observer import Status
from mpi_dcasgd.drivers.simulation.virtual_run import VirtualRun
from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.atomic import write_atomic
from mpi_dcasgd.record.energy import host_energy
from mpi_dcasgd.record.environment import RankPlace, describe_environment
from mpi_dcasgd.record.logs import close_logger, rank_logger
from mpi_dcasgd.record.own_files import is_ours, remove_logs
from mpi_dcasgd.record.recorder import Recorder
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.run_lock import HeldFolder
from mpi_dcasgd.record.settings import RecordSettings
from mpi_dcasgd.record.shown import ShownStream
from mpi_dcasgd.runs.build import Workshop
from mpi_dcasgd.runs.data_check import check_resumed, write_down
from mpi_dcasgd.runs.hung_files import watch_files
from mpi_dcasgd.runs.idle_workers import IDLE_WORKERS, idle_at_start
from mpi_dcasgd.runs.old_simulation import remove_old_checkpoint
from mpi_dcasgd.runs.rate_limit import rate_limit
from mpi_dcasgd.runs.resume import AUTO, NEVER, find_checkpoint, make_checkpointer, with_kernel
from mpi_dcasgd.runs.run_end import (
    how_to_resume,
    record_end,
    record_failure,
    refuse_nothing_learnt,
    write_result,
)
from mpi_dcasgd.runs.run_start import describe_run, make_folder, remarks_on, who_trains
from mpi_dcasgd.runs.run_state import RunState
from mpi_dcasgd.server.server import ParameterServer


class Recording:
    """One run's folder and what is written into it by the rank that records.

    Args:
        job: What is run.
        run_dir: The folder that the user asked for, or None to name one after the run.
        argv: The command line, for the record; None for this process's own.
        git: What ``git_state`` found before MPI was started.
        overwrite: Replace a finished run in ``run_dir``; starts afresh unless ``resume`` names a
            checkpoint.
        resume: What to go on from (``resume.find_checkpoint``).
        virtual: For a virtual run, what decides its order and times, in plain values: a checkpoint
            of another is refused.
        show: Where progress is shown; None for nowhere.
        end_world: Ends all ranks where a file of the run hangs; None for a run of one process.

    Attributes:
        checkpoint: What the run goes on from, or None at its beginning.
        logger: Writes rank 0's log.
    """

    def __init__(
        self,
        job: Job,
        run_dir: Path | None,
        argv: Sequence[str] | None,
        git: dict[str, Any] | None,
        *,
        overwrite: bool = False,
        resume: str = NEVER,
        virtual: Mapping[str, Any] | None = None,
        show: TextIO | None = None,
        end_world: Callable[[], None] | None = None,
    ) -> None:
        self.started = datetime.now(UTC)
        resume = NEVER if overwrite and resume == AUTO else resume
        self._virtual = virtual
        self._show = show
        self._recorder: Recorder | None = None
        self._conductor: Conductor | None = None
        self._state: RunState | None = None
        self._begun = False
        # As the user has it: a study must know its runs again, however often they were resumed.
        self._asked = job_as_yaml(job)
        self.argv = argv
        self.git = git
        self._hangs = watch_files(
            job.checkpoint.patience_s, lambda: getattr(self, "folder", None), end_world
        )
        with HeldFolder(run_dir, self._say) as held:
            self.checkpoint = find_checkpoint(job, run_dir, resume, virtual)
            self._restarts_before = RunFolder(run_dir).restarts_told() if run_dir else 0
            self._code_before = self.checkpoint.folder.own_code() if self.checkpoint else []
            self.job = with_kernel(job, self.checkpoint)
            self.folder = make_folder(
                self.job,
                run_dir,
                self.checkpoint,
                now=self.started,
                overwrite=overwrite,
                ours=held.ours,
            )
            self._held = held.keep(self.folder.path)
            if self.checkpoint is None:
                remove_old_checkpoint(self.folder)
            write_atomic(self.folder.job_yaml, job_as_text(job).encode())
            self.logger: Logger = rank_logger(self.folder, 0)

    def _say(self, told: str) -> None:
        """Tell the log and the terminal, whatever has become of the records; on any thread."""
        with suppress(AttributeError):  # not there yet
            self.logger.error(told)
        if self._show is not None:
            print(told, file=ShownStream(self._show), flush=True)

    def take_back(self, error: BaseException) -> None:
        """Remove the folder of a run that could not begin: it would look like a killed one's.

        Args:
            error: Why it could not; the summary of a run that was to be resumed tells it.
        """
        if self.checkpoint or self.folder.metrics_jsonl.exists():
            if self._begun:
                self.failed(error)  # unless `at_work` has told more of it
            else:
                what = "could not be resumed: " if self.checkpoint else ""
                reason = f"{what}{type(error).__name__}: {error}"
                with suppress(RunFolderError):
                    self.folder.write_summary({"status": "failed", "reason": reason})
            self.close()
            return
        self.folder.job_yaml.unlink(missing_ok=True)
        self.folder.cluster_yaml.unlink(missing_ok=True)
        remove_logs(self.folder)
        self.close()
        with suppress(OSError):  # there is something else in it
            self.folder.path.rmdir()

    def failed(self, error: BaseException) -> None:
        """Leave the reason of a failure where no part of the run has recorded it.

        Args:
            error: What ended the run, before or after training.
        """
        if self._recorder is None or self._conductor is None:
            record_failure(self.folder, error)
        elif not self.folder.summary_json.exists():
            with suppress(OSError, RunFolderError):
                reason = f"{type(error).__name__}: {error}"
                self._recorder.ended("failed", self._conductor.time_s, reason=reason)

    def check_data(self, workshop: Workshop) -> None:
        """Refuse to go on with other data than the run had.

        Raises:
            DataError: The data have changed; with all that differs.
        """
        check_resumed(self.checkpoint, self.job, workshop)

    def recorder(
        self,
        driver: str,
        num_workers: int,
        places: Sequence[RankPlace],
        server: ParameterServer,
        mpi_library: str = "",
        *,
        workshop: Workshop,
        settings: RecordSettings | None = None,
        world_size: int | None = None,
    ) -> Recorder:
        """Write down where the run takes place and begin its record.

        Args:
            driver: Who moves the server.
            num_workers: Without the server.
            places: Where each process runs.
            server: At the start of the run.
            mpi_library: Its version, if there is one.
            workshop: Has the task and its data.
            settings: Instead of the job's, where time is not the terminal's.
            world_size: Where it is not the number of processes.
        """
        job = self.job
        code = OwnCode.of(job, self._virtual)
        self.folder.write_code(code.copies())
        restarts = self.folder.restarts()
        self.folder.write_environment(
            describe_environment(
                started=self.started,
                git=self.git,
                ranks=places,
                mpi_library=mpi_library,
                argv=self.argv,
                code=code.sources,
                restarts=len(restarts),
            )
        )
        world_size = len(places) if world_size is None else world_size
        run = describe_run(job, driver, num_workers, world_size, server, workshop)
        saved = self.checkpoint.content.get("recorder") if self.checkpoint else None
        settings = settings or job.record
        recorder = self._recorder = Recorder(
            self.folder,
            run,
            settings,
            stream=self._show,
            logger=self.logger,
            saved=saved,
            energy={} if run.virtual else host_energy(),
        )
        recorder.limit = rate_limit(self.folder, workshop, server)
        devices = ", ".join(f"{p.role} {p.rank}: {p.host} {p.device}" for p in places)
        self.logger.info(devices)
        recorder.message(f"{job.name}: {who_trains(job, driver, num_workers)}")
        recorder.message(f"run folder: {self.folder.path}")
        for restart in restarts[self._restarts_before :]:
            recorder.restarted(restart)
        for line in write_down(self.folder, self.checkpoint, workshop):
            recorder.message(line)
        passed_over = self.checkpoint.passed_over if self.checkpoint else ()
        changes = code.changes(self._code_before)
        for line in (*passed_over, *warnings(job), *changes, *remarks_on(job, workshop)):
            recorder.message(line)
        # Virtual workers resume with the minibatches that they hold.
        told = driver == "replay" or (self._virtual and saved)
        if not told and (idle := idle_at_start(job, server, num_workers)):
            recorder.warning(IDLE_WORKERS, idle)
        return recorder

    def conductor(
        self,
        workshop: Workshop,
        server: ParameterServer,
        recorder: Recorder,
        virtual: VirtualRun | None = None,
    ) -> Conductor:
        """Return the conductor of a run that is recorded here, with checkpoints.

        Args:
            workshop: Makes what is evaluated.
            server: Of the run.
            recorder: Of the run.
            virtual: The run, if it is virtual: its clock, and its state beside the server's.
        """
        job = self.job
        evaluator = workshop.evaluator(background=virtual is None)
        conductor = self._conductor = Conductor(
            server,
            recorder,
            evaluator,
            job.evaluate_every,
            (lambda: virtual.time_s) if virtual else time.monotonic,
        )
        state = self._state = RunState(
            self.folder, server, recorder, conductor, virtual, keep_best=job.checkpoint.best
        )
        evaluator.best = state.best
        conductor.checkpointer = make_checkpointer(
            job, self.folder, server, workshop, state.parts(), self._asked, self._virtual
        )
        return conductor

    def begin(self, conductor: Conductor, startup_s: float) -> None:
        """Training begins, or goes on from the checkpoint, now."""
        self._begun = True
        conductor.begin(startup_s)
        if self.checkpoint is not None and self._state is not None:
            self._state.resume(self.checkpoint)

    @contextmanager
    def at_work(self, conductor: Conductor) -> Iterator[None]:
        """Write down that a run failed, and why, if the block is left with an exception."""
        try:
            yield
        except BaseException as error:
            self.logger.error("training failed", exc_info=True)
            if self._recorder is not None:
                reason = f"{type(error).__name__}: {error}"
                record_end(self._recorder, "failed", conductor.time_s, reason, self.logger)
            raise

    def break_off(
        self, conductor: Conductor, text: str, missing: Sequence[str], reason: str
    ) -> None:
        """Save the state and end the record of a run that cannot go on.

        Args:
            conductor: Of the run; its server is between two pushes.
            text: A line for people.
            missing: Who is gone, a few words each.
            reason: Reason for the summary.
        """
        conductor.fault(text, missing)
        conductor.stopping(wait=True)
        if self._recorder is not None:
            self._recorder.ended("interrupted", conductor.time_s, reason=reason)

    def close(self) -> None:
        """End all threads and close all files, whether the run has ended or not."""
        if self._conductor is not None:
            self._conductor.close()
        if self._recorder is not None:
            self._recorder.close()
        close_logger(self.logger)
        self._hangs.close()
        # What crashed before there were records must be recognised by the next start all the same.
        self._held.release(leave=self.folder.is_run() and not is_ours(self.folder))

    def finish(
        self,
        conductor: Conductor,
        workshop: Workshop,
        server: ParameterServer,
        totals: Sequence[Account],
        reason: str,
    ) -> None:
        """Training is over, or was stopped for a reason: write down all that is left to be.

        A run that was stopped has ended well once its checkpoint is whole: what cannot be written
        after it, to a full disk for one, is reported and does not make it fail.

        Raises:
            NonFiniteError: Every gradient was refused, so that nothing was trained.
            RunFolderError: The weights or the records cannot be written.
        """
        if server.complete and server.version == 0 and self._recorder:
            with self.at_work(conductor):
                refuse_nothing_learnt(self._recorder.nonfinite)
        stopped = "" if server.complete else reason

        def close() -> None:
            write_result(self.folder, self.job, workshop, server)
            if stopped:
                conductor.message(how_to_resume(stopped, self.folder))

        try:
            conductor.finish(totals, reason=stopped, closing=close)
        except (OSError, RunFolderError) as error:
            told = f"{type(error).__name__}: {error}"
            whole = bool(stopped) and self.folder.has_checkpoint(server.version)
            self._say(f"{told}; the checkpoint is whole" if whole else told)
            if self._recorder is not None:
                status: Status = "interrupted" if whole else "failed"
                why = f"{told}; {stopped}" if stopped else told
                record_end(self._recorder, status, conductor.time_s, why, self.logger)
            if not whole:
                raise
