"""Simulated runs of a study, made in this process before `compare` looks for them.

`compare` gives every run a process of its own. Where a run takes a second or two, most of the time
is PyTorch's import, so studies of hundreds of small runs are made here, into the same folders, and
`compare` keeps them as finished.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TextIO

from mpi_dcasgd.config.study import Study
from mpi_dcasgd.config.study_elements import Element
from mpi_dcasgd.errors import NonFiniteError
from mpi_dcasgd.record.study_folder import StudyFolder
from mpi_dcasgd.runs.study_runs import write_job
from mpi_dcasgd.tools.comparison import PlannedRun, look_at
from mpi_dcasgd.tools.locks import alone_in

Pair = tuple[Element, PlannedRun]


def make_in_process(
    study: Study, pairs: Sequence[Pair], folder: StudyFolder, show: TextIO | None
) -> None:
    """Make those of a study's runs that are missing and need neither ranks nor a real run before.

    Args:
        study: The study.
        pairs: Its runs, or its tuning runs.
        folder: Of these runs.
        show: Where a line a run is shown; None for nowhere.

    Raises:
        KeyboardInterrupt: A signal asked a run to stop; it has written its checkpoint.
    """
    missing = list(_missing(pairs))
    if not missing:
        return
    with alone_in(folder, None):
        for number, (element, run) in enumerate(missing, start=1):
            write_job(study, element, folder)
            _make(element, run, folder)
            _tell(study.name, f"{number}/{len(missing)}", run, show)


def _missing(pairs: Sequence[Pair]) -> Iterator[Pair]:
    for element, run in pairs:
        alone = run.ranks is None and element.calibrated_from is None
        if alone and look_at(run).state == "missing":
            yield element, run


def _make(element: Element, run: PlannedRun, folder: StudyFolder) -> None:
    from mpi_dcasgd.runs.simulate import simulate  # loads PyTorch
    from mpi_dcasgd.runs.train import train

    job, path = folder.job_file(run.name), run.folder.path
    try:
        if run.cluster is None:
            made = train(job, run_dir=path)
        else:
            run.cluster.write()
            cluster = folder.cluster_file(run.name)
            made = simulate(job, cluster=cluster, workers=element.num_workers, run_dir=path)
    except NonFiniteError:
        return  # Diverged; the run folder says so, and `compare` reads it there.
    if made.stopped_by is not None:
        raise KeyboardInterrupt


def _tell(study: str, place: str, run: PlannedRun, show: TextIO | None) -> None:
    if show is None:
        return
    summary = run.folder.summary(lenient=True)
    error = summary.get("test_error")
    told = f"   test error {100 * error:6.2f} %" if isinstance(error, float) else ""
    print(f"{study} [{place}] {run.name}: {summary.get('status')}{told}", file=show, flush=True)
