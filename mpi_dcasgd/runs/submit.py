"""``mpi-dcasgd submit``: check a job or a study, write its batch script, hand it to SLURM."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from mpi_dcasgd.config.frozen_study import freeze_study
from mpi_dcasgd.config.load import job_as_text, load_job, parse_overrides, read_mapping
from mpi_dcasgd.config.plan import check_ranks
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.study import Element, Study, load_study
from mpi_dcasgd.errors import ConfigError, LaunchError, RunFolderError
from mpi_dcasgd.record.run_folder import RUNS, RunFolder, write_atomic
from mpi_dcasgd.rules.algorithms import ALGORITHMS
from mpi_dcasgd.runs.compare import choose, groups, planned, write_job
from mpi_dcasgd.tools.comparison import look_at
from mpi_dcasgd.tools.slurm.render import Work, render
from mpi_dcasgd.tools.slurm.site import Site
from mpi_dcasgd.tools.slurm.site_files import find_site_file
from mpi_dcasgd.tools.slurm.states import job_states
from mpi_dcasgd.tools.slurm.submissions import (
    FOLDER,
    Submission,
    dealt,
    find_sbatch,
    new_script,
    remember,
    sbatch,
    submissions,
)

_MOST_ELEMENTS = 1000  # SLURM's MaxArraySize is 1001 unless a site has changed it


def submit(args: argparse.Namespace) -> int:
    """Submit a job, or what is left of a study.

    Returns:
        0.

    Raises:
        ConfigError: The file, or the description of the site, is wrong; nothing was submitted.
        LaunchError: The number of ranks is wrong, there is no sbatch, or it refuses.
        RunFolderError: The folder holds a finished run, or cannot be written.
    """
    if "algorithms" in read_mapping(args.file):
        if args.overrides:
            raise ConfigError(
                "command line",
                [f"{args.overrides[0]}: a study's own `set:` changes the jobs of its runs"],
            )
        return _submit_study(args, load_study(args.file))
    return _submit_job(args, load_job(args.file, args.overrides))


def _submit_job(args: argparse.Namespace, job: Job) -> int:
    if args.only:
        raise ConfigError("command line", ["--only: is for studies; this is a job"])
    mode = ALGORITHMS[job.algorithm].mode
    site = _site(args, 1 if mode == "sequential" else None)
    total = site.total_tasks
    if mode != "sequential":
        check_ranks(job, total)
    if site.cpus_per_task > 1 and not _says_threads(args):
        job = replace(job, threads=site.cpus_per_task)
    folder = args.run_dir
    if folder is not None and RunFolder(folder).is_finished():
        raise RunFolderError(f"{folder}: holds a finished run; name another folder")
    if args.dry_run:
        folder = folder or RUNS / f"{job.name}-{job.algorithm}-TIME"
    else:
        find_sbatch()
        _refuse_active(folder)
        if folder is None:
            now = datetime.now().astimezone()
            folder = RunFolder.create(None, name=job.name, algorithm=job.algorithm, now=now).path
    folder = folder.absolute()
    work = Work(
        name=job.name,
        file=folder / FOLDER / "job.yaml",
        folder=folder,
        logs=folder / FOLDER,
        search_path=_search_path(),
    )
    text = render("sync" if mode == "synchronous" else "async", site, work)
    if args.dry_run:
        print(text, end="")
        return 0
    script = new_script(folder, text)
    write_atomic(work.file, job_as_text(job).encode())
    try:
        job_id = sbatch(script)
    except LaunchError:
        if args.run_dir is None:  # nobody will ever use it
            shutil.rmtree(folder)
        raise
    remember(folder, Submission(job_id, f"{FOLDER}/{script.name}"))
    _tell(f"job {job_id}", folder, f"{FOLDER}/{job.name}-{job_id}.out", [job_id])
    return 0


def _submit_study(args: argparse.Namespace, study: Study) -> int:
    out: Path = (args.run_dir or RUNS / study.name).absolute()
    left = _left(choose(study, args.only), out)
    busy = _in_queue(out)
    waiting = [element.name for element in left if element.name in busy]
    left = [element for element in left if element.name not in busy]
    if waiting:
        print(f"in the queue already: {', '.join(waiting)}", file=sys.stderr)
    if not left:
        print(f"{study.name}: no run is left to submit; mpi-dcasgd status {_short(out)}")
        return 0
    site = _site(args, max(element.ranks for element in left))
    _check_size(left, site)
    names = [[element.name for element in group] for group in groups(left)]
    if not args.dry_run:
        find_sbatch()
    work = Work(
        name=study.name,
        file=out / FOLDER / "study.yaml" if args.dry_run else freeze_study(study, out / FOLDER),
        folder=out,
        logs=out / FOLDER,
        parts=dealt(names, _MOST_ELEMENTS),
        search_path=_search_path(),
    )
    text = render("compare", site, work)
    if args.dry_run:
        print(text, end="")
        return 0
    for element in study.elements:
        write_job(study, element, out)
    array = sbatch(script := new_script(out, text))
    submission = Submission(array, f"{FOLDER}/{script.name}", work.parts)
    remember(out, submission)  # should the report be refused, this is not forgotten
    last = replace(site, nodes=None, tasks_per_node=None, tasks=1, gpus_per_node=None)
    last = replace(last, time="00:15:00", signal_lead_s=min(site.signal_lead_s, 60))
    text = render("report", last, replace(work, name=f"{study.name}-report"))
    report = sbatch(new_script(out, text, "report"), after=array)
    remember(out, replace(submission, report_id=report))
    limit = f", {site.array_limit} at a time" if site.array_limit else ""
    runs = f"{len(left)} run{'s' * (len(left) != 1)}"
    what = f"job {array} ({runs} in an array of {len(work.parts)}{limit}), and job "
    what += f"{report} for the report"
    _tell(what, out, f"{FOLDER}/{study.name}-{array}_*.out, */output.log", [array, report])
    return 0


@dataclass(frozen=True)
class _Size:
    nodes: int | None
    tasks_per_node: int | None
    tasks: int | None


def _site(args: argparse.Namespace, ranks: int | None) -> Site:
    """What the options say; ``ranks`` is what is needed, if that is known."""
    size = _size(args, ranks)
    options = {
        "cpus_per_task": args.cpus_per_task,
        "time": args.time,
        "env": _site_file(args.site_env or os.environ.get("SITE")),
        "launcher": args.launcher,
        "signal_lead_s": args.signal_lead,
        "max_requeues": args.max_requeues,
    }
    return Site(
        nodes=size.nodes,
        tasks_per_node=size.tasks_per_node,
        tasks=size.tasks,
        gpus_per_node=args.gpus_per_node,
        partition=args.partition,
        account=args.account,
        qos=args.qos,
        array_limit=args.array_limit,
        extra=tuple(args.sbatch),
        **{name: value for name, value in options.items() if value is not None},
    )


def _site_file(choice: str | None) -> str | None:
    return None if choice is None else str(find_site_file(choice))


def _size(args: argparse.Namespace, ranks: int | None) -> _Size:
    nodes, each, tasks = args.nodes, args.tasks_per_node, args.ranks
    if tasks is not None:
        if each is not None:
            raise LaunchError("--ranks and --tasks-per-node: give one of them")
        return _Size(nodes, None, tasks)
    if each is None and nodes is not None:
        each = -(-ranks // nodes) if ranks else args.gpus_per_node
        if each is None:
            raise LaunchError(f"--nodes {nodes}: say how many ranks too, with --tasks-per-node")
    if each is not None:
        return _Size(nodes or (-(-ranks // each) if ranks else 1), each, None)
    if ranks is None:
        raise LaunchError(
            "say how many ranks: --ranks N, or --nodes and --tasks-per-node; in an asynchronous "
            "run one of them is the server"
        )
    return _Size(None, None, ranks)


def _check_size(elements: Sequence[Element], site: Site) -> None:
    total = site.total_tasks
    large = [e for e in elements if total is not None and e.ranks > total]
    if large:
        raise LaunchError(
            f"{large[0].name} needs {large[0].ranks} ranks, and the allocation would have {total} "
            "tasks; ask for more with --nodes and --tasks-per-node, or leave runs out with --only"
        )


def _left(elements: Sequence[Element], out: Path) -> list[Element]:
    return [e for e in elements if look_at(planned(e, out)).state != "finished"]


def _in_queue(out: Path) -> set[str]:
    """Names of the runs that submissions from before may still make."""
    before = submissions(out)
    states = job_states(each.job_id for each in before)
    busy: set[str] = set()
    for each in before:
        for index in range(len(each.parts)):
            state = states.get(f"{each.job_id}_{index}")
            if state and state.active:
                busy.update(each.names_of(index))
    return busy


def _refuse_active(folder: Path | None) -> None:
    before = submissions(folder) if folder else []
    for job_id, state in job_states(each.job_id for each in before).items():
        if state.active:
            raise LaunchError(
                f"{folder}: job {job_id} of this folder is {state.state}; wait for it, or "
                f"scancel {job_id}"
            )


def _says_threads(args: argparse.Namespace) -> bool:
    pairs, _ = parse_overrides(args.overrides)
    return "threads" in read_mapping(args.file) or "threads" in dict(pairs)


def _search_path() -> Path | None:
    """The folder of this environment's ``mpi-dcasgd``, where compute nodes find it, too."""
    folder = Path(sys.executable).parent
    return folder if (folder / "mpi-dcasgd").exists() else None


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _tell(what: str, folder: Path, logs: str, job_ids: Sequence[str]) -> None:
    short = _short(folder)
    print(f"submitted {what}")
    print(f"  folder: {short}")
    print(f"  logs:   {', '.join(f'{short}/{log}' for log in logs.split(', '))}")
    print(f"  watch:  mpi-dcasgd status {short}")
    print(f"  cancel: scancel {' '.join(job_ids)}")
