"""The handshake at the start of a run: ranks that do not belong together never train together.

Each rank says what it is about to run with. Where two differ, every rank raises the same error,
which names both sides, before anything is trained.
"""

from __future__ import annotations

import hashlib
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

import mpi_dcasgd
from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.learning.data.fingerprint import held_bytes
from mpi_dcasgd.wording import agreeing

if TYPE_CHECKING:
    from mpi_dcasgd.drivers.meeting import Ranks
    from mpi_dcasgd.learning.data.identity import DataIdentity
    from mpi_dcasgd.learning.layout import FlatLayout
    from mpi_dcasgd.learning.subject import Subject

S = TypeVar("S")

_MAY_DIFFER = ("device", "code")
"""Keys of a job that may have another value on each rank: what to compute on, and the folder of
the user's modules, whose contents are compared instead."""

_ABSENT = "nothing"
_LARGE = 1 << 30
_SPLITS = {"train": "training", "test": "test", "validation": "validation"}

_OLD = ("unknown host", {"mpi_dcasgd": "a version without this handshake"})


def shake_hands(comm: Ranks, facts: Mapping[str, str]) -> None:
    """Compare what all ranks say of themselves, and continue only if they say the same.

    Args:
        comm: Every rank of it must call this.
        facts: Names and values of this rank, such as those of `code_facts`.

    Raises:
        LaunchError: On every rank, if any two differ; it names the facts and both sides.
    """
    digest = hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()
    if all(its == digest for its in comm.allgather(digest)):
        return
    told = [_understood(said) for said in comm.allgather((socket.gethostname(), dict(facts)))]
    ranks = [((rank, host), its) for rank, (host, its) in enumerate(told)]
    raise LaunchError(
        "these ranks do not belong together, and nothing was trained; start all of them with the "
        f"same command, job, data and installation:{differences(ranks, _who)}"
    )


def differences(told: Sequence[tuple[S, Mapping[str, str]]], who: Callable[[list[S]], str]) -> str:
    r"""Return a line for each fact that not all have alike, with all sides; empty if there is none.

    Args:
        told: Who says it, and what.
        who: Names several of those.

    Example:
        >>> said = [("the server", {"lr": "0.1"}), ("a newcomer", {"lr": "0.2"})]
        >>> differences(said, " and ".join)
        '\n  lr: 0.1 on the server; 0.2 on a newcomer'
    """
    lines = []
    for name in dict.fromkeys(name for _, its in told for name in its):
        sides: dict[str, list[S]] = {}
        for speaker, its in told:
            sides.setdefault(its.get(name, _ABSENT), []).append(speaker)
        if len(sides) > 1:
            each = "; ".join(f"{value} on {who(group)}" for value, group in sides.items())
            lines.append(f"\n  {name}: {each}")
    return "".join(lines)


def code_facts() -> dict[str, str]:
    """Return what this process computes with: versions, sources and byte order."""
    return {
        "mpi_dcasgd": mpi_dcasgd.__version__,
        "source files of mpi_dcasgd": source_digest(),
        "PyTorch": torch.__version__,
        "NumPy": np.__version__,
        "byte order": sys.byteorder,
    }


def job_facts(job: Mapping[str, Any]) -> dict[str, str]:
    """Return the resolved job by dotted key, but for what each rank may have its own way.

    Args:
        job: The job in plain values (``config.load.job_as_yaml``).

    Example:
        >>> job_facts({"lr": 0.1, "device": "cpu", "model": {"name": "mlp"}})
        {'lr': '0.1', 'model.name': "'mlp'"}
    """
    shared = {key: value for key, value in job.items() if key not in _MAY_DIFFER}
    return dict(_leaves("", shared))


def data_facts(subject: Subject) -> dict[str, str]:
    """Return the sizes of the splits."""
    splits = {"training": subject.train, "test": subject.test, "validation": subject.validation}
    return {
        f"{name} samples": str(len(split)) for name, split in splits.items() if split is not None
    }


def identity_facts(subject: Subject, identity: Callable[[], DataIdentity]) -> dict[str, str]:
    """Return what tells apart data of equal sizes: their classes, and names for their content.

    Data that hold more than 1 GiB in memory are left out: every rank would have to read all of it,
    several of them on one host at a time.

    Args:
        subject: The task with its data.
        identity: Returns the identity of the data, as this process has them.
    """
    splits = {"train": subject.train, "test": subject.test, "validation": subject.validation}
    if sum(held_bytes(split) for split in splits.values() if split is not None) > _LARGE:
        return {}
    found, facts = identity(), {}
    if found.classes:
        digest = hashlib.sha256(repr(found.classes).encode()).hexdigest()[:16]
        facts["classes"] = f"{len(found.classes)}, {digest}"
    for name, title in _SPLITS.items():
        if content := found.fingerprints.get(name):
            facts[f"content of the {title} data"] = content[:16]
    return facts


def layout_facts(layout: FlatLayout) -> dict[str, str]:
    """Return what messages look like: the length of the vector, and what lies where in it."""
    digest = hashlib.sha256(repr(layout).encode()).hexdigest()[:16]
    return {"layout of the weights": f"{layout.size} elements, {digest}"}


@cache
def source_digest() -> str:
    """Return sixteen hex digits that tell versions of this package's source files apart."""
    folder = Path(mpi_dcasgd.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(f"{file.relative_to(folder).as_posix()}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _understood(said: Any) -> tuple[str, dict[str, str]]:
    """Return what a rank said; one of an earlier version answers another question."""
    match said:
        case (str() as host, dict() as facts) if all(
            isinstance(word, str) for fact in facts.items() for word in fact
        ):
            return host, facts
    return _OLD


def _leaves(prefix: str, value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, Mapping) or not value:
        return [(prefix, repr(value))]
    return [
        leaf
        for key, item in value.items()
        for leaf in _leaves(f"{prefix}.{key}" if prefix else str(key), item)
    ]


def _who(ranks: list[tuple[int, str]]) -> str:
    """Name ranks by host: ``rank 0 (node1), ranks 1, 2 (node2)``."""
    hosts: dict[str, list[str]] = {}
    for rank, host in ranks:
        hosts.setdefault(host, []).append(str(rank))
    return ", ".join(
        f"{agreeing(len(found), 'rank')} {', '.join(found)} ({host})"
        for host, found in hosts.items()
    )
