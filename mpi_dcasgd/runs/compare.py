"""``mpi-dcasgd compare``: run a study, or what is left of it, and report."""

from __future__ import annotations

import argparse
import fnmatch
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mpi_dcasgd.config.load import job_as_text, job_as_yaml, with_defaults
from mpi_dcasgd.config.study import Element, Study, load_study
from mpi_dcasgd.errors import INTERRUPTED, ConfigError, RunFolderError, did_you_mean
from mpi_dcasgd.record.run_folder import RUNS, RunFolder, write_atomic
from mpi_dcasgd.runs.report import show_report
from mpi_dcasgd.runs.study_cluster import ClusterFile
from mpi_dcasgd.tools.comparison import Comparison, Outcome, PlannedRun, look_at
from mpi_dcasgd.tools.launch.world import rank_program


def compare_command(args: argparse.Namespace) -> int:
    """Run the grid of a study file and compare its runs.

    Returns:
        0 if all runs are there, 1 if one failed, 130 after Ctrl-C, 138 after SIGUSR1.

    Raises:
        ConfigError: The study, or the job of any of its runs, is wrong; nothing was started.
        LaunchError: There is no mpirun.
        RunFolderError: The folder cannot be used.
    """
    study = load_study(args.study)
    out = args.out or RUNS / study.name
    if args.report_only:
        return _report_only(study, out)
    chosen = choose(study, args.only)
    if args.part:
        chosen = _part(chosen, *args.part)
    if not chosen:
        print(f"{study.name}: no run is left for part {args.part[0]} of {args.part[1]}")
        return 0
    runs = [planned(element, out) for element in chosen]
    if args.dry_run:
        print(_overview(study, out, runs, chosen))
        return 0
    for element in chosen:
        write_job(study, element, out)
    print(f"{study.name}: {len(runs)} runs in {out}", flush=True)
    comparison = Comparison(
        out,
        sys.stdout,
        args.mpirun,
        shlex.split(args.mpirun_args),
        launcher=args.launcher,
        beside_others=args.no_report,
    )
    try:
        outcomes = comparison.run(runs, rerun=args.rerun)
    except KeyboardInterrupt:
        outcomes = []
    if len(outcomes) < len(runs) or outcomes[-1].status == "interrupted":
        print(f"stopped; to go on: {shlex.join(_again(args))}", file=sys.stderr)
        return 128 + comparison.stopped_by if comparison.stopped_by else INTERRUPTED
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if not args.no_report:
        _report(study, out)
    for outcome in failed:
        print(_why(outcome), file=sys.stderr)
    return 1 if failed else 0


def choose(study: Study, only: Sequence[str] | None) -> list[Element]:
    """The runs of a study that ``--only`` names, all if it is None.

    Raises:
        ConfigError: A name or a pattern fits none.
    """
    if only is None:
        return list(study.elements)
    names = [element.name for element in study.elements]
    problems = [
        f"--only {pattern}: no such run{did_you_mean(pattern, names)} (allowed: {', '.join(names)})"
        for pattern in only
        if not fnmatch.filter(names, pattern)
    ]
    if problems:
        raise ConfigError(str(study.file), problems)
    return [e for e in study.elements if any(fnmatch.fnmatchcase(e.name, p) for p in only)]


def _part(elements: Sequence[Element], index: int, count: int) -> list[Element]:
    """Every ``count``-th group of runs that belong together, beginning with number ``index``."""
    return [element for group in groups(elements)[index::count] for element in group]


def groups(elements: Sequence[Element]) -> list[list[Element]]:
    """Runs that have to be made by one process: those that take their delays from another's."""
    found: dict[str, list[Element]] = {}
    for element in elements:
        found.setdefault(element.calibrated_from or element.name, []).append(element)
    return list(found.values())


def _report_only(study: Study, out: Path) -> int:
    """Report what is there, and say what is not."""
    _report(study, out)
    missing = [e.name for e in study.elements if not RunFolder(out / e.name).is_finished()]
    if missing:
        print(f"not finished: {', '.join(missing)}", file=sys.stderr)
    return 1 if missing else 0


def planned(element: Element, out: Path) -> PlannedRun:
    """What is to be run in the study's folder for one of its elements."""
    folder, job_file = out / element.name, _job_file(element, out)
    cluster = ClusterFile(element, out) if element.simulated else None
    program = rank_program(str(job_file), ["--run-dir", str(folder)])
    return PlannedRun(
        name=element.name,
        folder=folder,
        job=job_as_yaml(element.job),
        num_workers=element.num_workers,
        program=cluster.program(job_file, folder) if cluster else tuple(program),
        ranks=None if element.sequential or cluster else element.ranks,
        cluster=cluster,
        read_stored=with_defaults,
    )


def _job_file(element: Element, out: Path) -> Path:
    return out / "jobs" / f"{element.name}.yaml"


def write_job(study: Study, element: Element, out: Path) -> None:
    """Ranks read a copy, so that nobody can change the job between one run and the next."""
    file = _job_file(element, out)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{file.parent}: cannot be made: {error.strerror}") from error
    changes = " ".join(f"{key}={value}" for key, value in element.overrides)
    header = f"# {study.job_file} with {changes}\n"
    write_atomic(file, (header + job_as_text(element.job)).encode())


def _overview(
    study: Study, out: Path, runs: Sequence[PlannedRun], elements: Sequence[Element]
) -> str:
    lines = [f"{study.name}: {len(runs)} runs of {study.job_file} in {out}"]
    width = max(len(run.name) for run in runs)
    for run, element in zip(runs, elements, strict=True):
        size = "1 process" if run.ranks is None else f"{run.ranks} ranks"
        size = "simulated" if element.simulated else size
        found = look_at(run)
        job = element.job
        lines.append(
            f"  {run.name:<{width}}  {size:>9}  {job.epochs} epochs, batch_size {job.batch_size}, "
            f"lr {job.lr:g}  {found.state}"
        )
    return "\n".join(lines)


def _report(study: Study, out: Path) -> None:
    folders = [out / element.name for element in study.elements]
    there = [folder for folder in folders if (folder / "job.yaml").is_file()]
    if there:
        print()
        show_report(there, out / "report", study.target_error, title=f"Comparison: {study.name}")


def _again(args: argparse.Namespace) -> list[str]:
    # What was run again has been: with --rerun it would begin from the start.
    return [word for word in args.argv if word != "--rerun"]


def _why(outcome: Outcome) -> str:
    lines = outcome.reason.splitlines()
    return "\n  ".join([f"{outcome.run.name} failed:", *lines])
