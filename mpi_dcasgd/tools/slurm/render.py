"""The text of every batch script, by one pure function.

``python -m mpi_dcasgd.tools.slurm.render slurm/`` writes the scripts of the repository again.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mpi_dcasgd.record.run_folder import plain_name
from mpi_dcasgd.tools.slurm import text
from mpi_dcasgd.tools.slurm.directives import directives, output_option
from mpi_dcasgd.tools.slurm.site import Site

Kind = Literal["async", "sync", "compare", "simulate", "hetjob", "report", "tune"]

KINDS: tuple[Kind, ...] = ("async", "sync", "compare", "simulate", "hetjob", "report")
"""Those that the repository has; ``tune`` is for studies that are submitted."""

DEFAULT_JOB = "jobs/digits.yaml"
DEFAULT_STUDY = "jobs/compare_digits_workers.yaml"

_DEFAULT_SITES = {
    "async": Site(nodes=2, tasks_per_node=2),
    "sync": Site(nodes=2, tasks_per_node=2),
    "compare": Site(tasks=5),
    "simulate": Site(tasks=1),
    "hetjob": Site(nodes=1, tasks_per_node=4, gpus_per_node=4),
    "report": Site(tasks=1, time="00:15:00"),
}
DEFAULT_PARTS = 8
_ARRAYS = ("compare", "tune")


@dataclass(frozen=True, kw_only=True)
class Work:
    """Work of a script, where ``submit`` has settled it; a committed script asks variables.

    Attributes:
        name: Name of the job in the queue.
        file: The job file, or the study file.
        folder: The run folder, or the folder of the study's runs.
        logs: An existing folder, for what the script prints.
        parts: The runs of each element of a study's array.
        tuned: The study's values are chosen by tuning runs, which come before.
        search_path: Folder that holds ``mpi-dcasgd``.
    """

    name: str
    file: Path
    folder: Path
    logs: Path
    parts: tuple[tuple[str, ...], ...] = ()
    tuned: bool = False
    search_path: Path | None = None


def render(kind: Kind, site: Site | None = None, work: Work | None = None) -> str:
    """A batch script, ready for sbatch.

    Args:
        kind: Kind of work.
        site: Where it runs; None for modest defaults.
        work: The work itself; None has the script ask the variables JOB or STUDY, RUN_DIR or OUT,
            and take ``key=value`` words of its own.
    """
    site = site or _DEFAULT_SITES[kind]
    blocks = [
        "#!/bin/bash",
        text.HEADS[kind] if work is None else text.SUBMITTED,
        _options(kind, site, work),
        _settings(kind, site, work),
        # First of all: to load modules can take its time, and a signal would end the shell.
        "" if kind == "report" else text.HANDLING.replace("@lead@", str(site.signal_lead_s)),
        _environment(site, work),
        text.STARTS[kind].replace("@threads@", "" if work else text.THREADS.lstrip("\n")),
    ]
    if kind != "report":
        blocks += [_command(kind, work), text.WAITING, text.REQUEUE]
    body = "\n\n".join(block.strip("\n") for block in blocks if block)
    return body.replace("#!/bin/bash\n\n", "#!/bin/bash\n", 1) + "\n"


def _options(kind: Kind, site: Site, work: Work | None) -> str:
    """The #SBATCH lines; of a heterogeneous job, those of its two components."""
    shared = _words(time=site.time, partition=site.partition, account=site.account, qos=site.qos)
    number = "%A_%a" if kind in _ARRAYS else "%j"
    # A job's name may have a slash, which would begin a folder that is not there.
    log = (
        output_option(str(work.logs), f"{plain_name(work.name)}-{number}.out")
        if work
        else f"--output=%x-{number}.out"
    )
    own = [f"--job-name={work.name if work else kind}"]
    if kind in _ARRAYS:
        count = len(work.parts) if work else DEFAULT_PARTS
        limit = f"%{site.array_limit}" if site.array_limit else ""
        own.append(f"--array=0-{count - 1}{limit}")
    behaviour = ["--requeue", "--open-mode=append", log]
    if kind != "report":
        behaviour.insert(0, f"--signal=B:USR1@{site.signal_lead_s}")
    size = _words(
        nodes=site.nodes,
        ntasks_per_node=site.tasks_per_node,
        ntasks=site.tasks,
        cpus_per_task=site.cpus_per_task,
        gpus_per_node=site.gpus_per_node,
    )
    # The user's own come last: of options that are given twice sbatch takes the last.
    if kind != "hetjob":
        return directives([*own, *size, *shared, *behaviour, *site.extra])
    server = _words(nodes=1, ntasks=1, cpus_per_task=site.cpus_per_task)
    first = directives([*own, *server, *shared, *behaviour, *site.extra])
    return f"{first}\n#SBATCH hetjob\n{directives([*size, *shared, *site.extra])}"


def _words(**options: object) -> list[str]:
    return [
        f"--{name.replace('_', '-')}={value}"
        for name, value in options.items()
        if value is not None
    ]


def _settings(kind: Kind, site: Site, work: Work | None) -> str:
    study = kind in (*_ARRAYS, "report")
    what, where = ("study", "out") if study else ("job", "run_dir")
    if work is None:
        default = DEFAULT_STUDY if study else DEFAULT_JOB
        lines = [f"{what}=${{{what.upper()}:-{default}}}"]
        if study:
            lines += ["name=${study##*/}", "out=${OUT:-runs/${name%.yaml}}"]
        else:
            lines += ["run_dir=${RUN_DIR:-runs/$SLURM_JOB_NAME-$SLURM_JOB_ID}"]
    else:
        lines = [f"{what}={_quote(work.file)}", f"{where}={_quote(work.folder)}"]
    if kind != "report":
        lines.append(f"max_requeues=${{MAX_REQUEUES:-{site.max_requeues}}}")
    return "\n".join(lines)


def _environment(site: Site, work: Work | None) -> str:
    parts = []
    if work and work.search_path:
        parts.append(f"PATH={_quote(work.search_path)}:$PATH")
    named = _quote(Path(site.env)) if "/" in site.env else f"slurm/env/{site.env}.sh"
    if work:
        parts.append(f"site_file=${{MPI_DCASGD_ENV:-{named}}}")
        optional = site.env == "generic"
        asked = '"${MPI_DCASGD_ENV:-}"' if optional else '"$site_file"'
    else:
        parts.append("site_file=${MPI_DCASGD_ENV:-slurm/env/${SITE:-generic}.sh}")
        asked = '"${MPI_DCASGD_ENV:-}${SITE:-}"'
    if site.launcher != "auto":  # before the site's own choice, which is a default
        parts.append(f"export MPI_DCASGD_LAUNCHER={site.launcher}")
    parts.append(text.ENVIRONMENT.replace("@asked@", asked).strip("\n"))
    return "\n".join(parts)


def _command(kind: Kind, work: Work | None) -> str:
    if kind in _ARRAYS:
        if work is None:
            return text.COMPARE
        how = " --tune-only" if kind == "tune" else " --tuned" if work.tuned else ""
        # shlex.join: names have neither blanks nor quotes, but that is config's to say, not ours.
        lists = "\n".join(f"    {shlex.quote(' '.join(names))}" for names in work.parts)
        return text.COMPARE_PARTS.replace("@parts@", lists).replace("@how@", how)
    command = text.COMMANDS[kind]
    if work:  # whose job is settled
        command = command.replace(" algorithm=ssgd", "")
    return command


def _quote(path: Path) -> str:
    return shlex.quote(str(path))


def write_all(folder: Path) -> list[Path]:
    """Write the scripts that the repository has, and return which."""
    files = []
    for kind in KINDS:
        file = folder / f"{kind}.sbatch"
        file.write_text(render(kind))
        files.append(file)
    return files


if __name__ == "__main__":
    for written in write_all(Path(sys.argv[1])):
        print(written)
