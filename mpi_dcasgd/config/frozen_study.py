"""Copies of studies, for jobs that start hours later."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

from mpi_dcasgd.config.study import Study
from mpi_dcasgd.config.yaml12 import dump_yaml
from mpi_dcasgd.errors import RunFolderError


def freeze_study(study: Study, folder: Path) -> Path:
    """Copy a study file and the files that it names, and return the copy.

    Args:
        study: The study.
        folder: The folder in which ``study-1``, ``study-2``, ... are made.

    Raises:
        RunFolderError: They cannot be copied.
    """
    # As it was read and checked: the file may have been changed since.
    mapping = {**study.mapping, "name": study.name}
    named = {"job": study.job_file}
    cluster = mapping.get("cluster")
    if isinstance(cluster, str) and cluster != "calibrated":
        named["cluster"] = study.file.parent / cluster
    tune = dict(mapping.get("tune") or {})
    try:
        copy = _new_folder(folder)
        for key, file in named.items():
            (copy / key).mkdir()
            shutil.copyfile(file, copy / key / file.name)  # a job is called by its file's name
            mapping[key] = f"{key}/{file.name}"
        if isinstance(tune.get("cluster"), str):
            file = study.file.parent / tune["cluster"]
            (copy / "tune").mkdir()
            shutil.copyfile(file, copy / "tune" / file.name)
            mapping["tune"] = {**tune, "cluster": f"tune/{file.name}"}
        if study.code is not None:
            mapping["set"] = {"code": study.code, **(mapping.get("set") or {})}
        path = copy / study.file.name
        path.write_text(f"# {study.file}\n{dump_yaml(mapping)}", encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written: {error.strerror}") from error
    return path


def _new_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = folder / f"study-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("not reached")
