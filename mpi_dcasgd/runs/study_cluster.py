"""A study's simulated runs: their commands, and their clusters, measured by its real runs."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpi_dcasgd.config.load import read_mapping
from mpi_dcasgd.config.study_elements import Element
from mpi_dcasgd.config.yaml12 import dump_yaml
from mpi_dcasgd.errors import ConfigError, RunFolderError
from mpi_dcasgd.record.atomic import write_atomic
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.study_folder import StudyFolder

_CHECKPOINTS = 20  # of a run, about


class ClusterFile:
    """The cluster that one simulated run of a study is to take place on.

    Args:
        element: The run.
        study: The folder of the study's runs.
    """

    def __init__(self, element: Element, study: StudyFolder) -> None:
        self._element = element
        self._name = element.calibrated_from or element.name
        self.path = study.cluster_file(self._name)
        self._source = study.run(self._name)

    def differs(self, stored: Path) -> bool:
        """Return whether a run made on the cluster in the file ``stored`` was on another one.

        One that is yet to be measured is another: the run that measures it changes it.
        """
        from mpi_dcasgd.drivers.simulation.cluster import parse_cluster  # loads NumPy

        if self._element.cluster is not None:
            wanted: Mapping[str, Any] = self._element.cluster
        elif self._measured():
            wanted = _read(self.path)
        else:
            return True
        try:
            return parse_cluster("", _read(stored)) != parse_cluster("", wanted)
        except ConfigError:
            return True

    def write(self) -> None:
        """Make the file, by measuring where a real run is to tell.

        Raises:
            RunFolderError: That run does not exist, or did not complete.
        """
        if self._element.cluster is not None:
            self._write(f"the study's, for {self._name}", self._element.cluster)
            return
        if not self._source.is_finished():
            raise RunFolderError(
                f"{self._element.name} takes its delays from {self._name}, which is not finished; "
                f"run that first (--only {self._name})"
            )
        if not self._measured():
            # PyTorch is loaded here at the earliest: a study of real runs alone has no need of it.
            from mpi_dcasgd.runs.calibrate import cluster_of

            settings = cluster_of(self._source)
            self._write(f"{self._name}, {_mark(self._source)}", settings)

    def program(self, job: Path, folder: Path) -> tuple[str, ...]:
        """The command that executes the run."""
        words = [f"cluster={self.path}", f"workers={self._element.num_workers}"]
        command = [sys.executable, "-m", "mpi_dcasgd", "simulate", str(job), *words]
        every = max(1, self._element.job.epochs // _CHECKPOINTS)
        return (*command, "--run-dir", str(folder), "--checkpoint-every", str(every), "--resume")

    def _measured(self) -> bool:
        """Return whether the file was measured from the real run as it is now."""
        try:
            first = self.path.read_text(encoding="utf-8").partition("\n")[0]
        except OSError:
            return False
        return self._source.is_finished() and first.endswith(_mark(self._source))

    def _write(self, what: str, settings: Mapping[str, Any]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            where = self.path.parent
            raise RunFolderError(f"{where}: cannot be made: {error.strerror}") from error
        write_atomic(self.path, f"# cluster: {what}\n{dump_yaml(dict(settings))}".encode())


def _mark(folder: RunFolder) -> str:
    """The file that a run was measured by, and its content in short."""
    digest = hashlib.sha256(folder.metrics_jsonl.read_bytes()).hexdigest()[:16]
    return f"{folder.metrics_jsonl.name} {digest}"


def _read(path: Path) -> dict[str, Any]:
    settings = read_mapping(path, "cluster")
    settings.pop("workers", None)
    return settings
