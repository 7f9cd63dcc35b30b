"""Draw the faults of a run: which, whom, and at which moment of its progress.

Everything follows from the seed and the number of the run, so that one run can be repeated alone.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mpi_dcasgd.drivers.topology import SERVER, Topology
from mpi_dcasgd.errors import ConfigError, did_you_mean
from mpi_dcasgd.stop_signals import SIGNALS

KINDS = {
    "kill-worker": "SIGKILL of a worker; of any rank but 0 where all of them train",
    "kill-server": "SIGKILL of the server; of rank 0 where there is none",
    "kill-mpirun": "SIGKILL of mpirun",
    "stop-launcher": "a signal that asks for a stop, to `mpi-dcasgd run`",
    "stop-ranks": "the same, to every rank",
    "stop-all": "the same, to the launcher, mpirun and every rank",
    "hang-worker": "SIGSTOP of a worker, for good",
    "hang-server": "SIGSTOP of the server, for good",
    "pause-worker": "SIGSTOP of a worker, for a while",
    "pause-server": "SIGSTOP of the server, for a while",
    "pause-all": "SIGSTOP of everybody, for a while",
    "full-disk": "no rank can make a file longer than it is",
    "cut-off": "a host's network goes down, for good",
    "two-faults": "two of the others, one after the other",
}
"""Kind of fault to what happens."""

FOLLOWED = "two-faults"
ELSEWHERE = "cut-off"
"""Needs several hosts."""

Stage = Literal["start", "training", "end"]

START_EVENTS = ("process", "torch", "mpi", "log", "records")
"""Moments of a start: the victim's process is there, has loaded PyTorch or MPI, the run has a log,
or has begun its records."""
END_EVENTS = ("last", "weights", "summary")
"""Moments of the end: the last tickets are under way, the weights or the summary are there."""

_STAGES: tuple[tuple[Stage, int], ...] = (("start", 2), ("training", 7), ("end", 1))


@dataclass(frozen=True)
class Moment:
    """A moment, as what can be observed of a run.

    Attributes:
        stage: Part of the run.
        event: One of `START_EVENTS` or `END_EVENTS`; empty in training.
        fraction: Share of the tickets that have been dealt with, in training.
    """

    stage: Stage
    event: str = ""
    fraction: float = 0.0

    def __str__(self) -> str:
        if self.stage == "training":
            return f"at {100 * self.fraction:.0f} % of the tickets"
        return f"in the {'start-up' if self.stage == 'start' else 'end'} ({self.event})"


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        kind: A name of `KINDS`.
        rank: The victim, where it is a rank.
        worker: Number of the worker that this is; None for a server.
        moment: When.
        signum: The signal, where the kind does not decide it.
        patience: Length of a pause, as a share of the patience.
        extra_bytes: What a full disk still takes.
    """

    kind: str
    moment: Moment
    rank: int | None = None
    worker: int | None = None
    signum: int = signal.SIGKILL
    patience: float = 0.0
    extra_bytes: int = 0

    def __str__(self) -> str:
        parts = [self.kind]
        if self.rank is not None:
            parts.append(f"of rank {self.rank}")
        if self.kind.startswith("stop"):
            parts.append(f"with {signal.Signals(self.signum).name.removeprefix('SIG')}")
        if self.kind.startswith("pause"):
            parts.append(f"for {self.patience:.1f} of the patience")
        return " ".join([*parts, str(self.moment)])


@dataclass(frozen=True)
class Plan:
    """Plan of what happens to a run.

    Attributes:
        run: Number of the run, from 0.
        kind: A name of `KINDS`: its line in the table.
        faults: In order; the second strikes after the first, in this start or the next.
        fault_tolerant: Whether the run is started with ``--fault-tolerant``.
    """

    run: int
    kind: str
    faults: tuple[Fault, ...]
    fault_tolerant: bool

    def __str__(self) -> str:
        return ", then ".join(map(str, self.faults))


def pick_kinds(words: Sequence[str]) -> tuple[str, ...]:
    """The kinds that are meant: each by its name, or by the word that it begins with.

    Raises:
        ConfigError: With every word that means none.

    Example:
        >>> pick_kinds(["hang", "kill-server"])
        ('kill-server', 'hang-worker', 'hang-server')
    """
    families = [kind.partition("-")[0] for kind in KINDS]
    problems = [
        f"--kinds: got {word!r}{did_you_mean(word, [*KINDS, *families])} (allowed: "
        f"{', '.join(KINDS)}, or what they begin with)"
        for word in words
        if word not in KINDS and word not in families
    ]
    if problems or not words:
        raise ConfigError("command line", problems or ["--kinds: names none"])
    return tuple(
        kind
        for kind, family in zip(KINDS, families, strict=True)
        if kind in words or family in words
    )


def draw(
    seed: int,
    run: int,
    kinds: Sequence[str],
    workers: int,
    *,
    modes: Sequence[bool] = (False,),
    world: Topology | None = None,
) -> Plan:
    """Draw what happens to a run.

    The kinds come in turn, in an order that the seed decides, and so do the modes: any number of
    runs in a row has about as many of each.

    Args:
        seed: Of all runs.
        run: Number of this one, from 0.
        kinds: Those to choose from.
        workers: Number of workers.
        modes: Whether to start with ``--fault-tolerant``: one of these.
        world: Ranks of the run; None for one server and its workers.
    """
    world = Topology("asynchronous", workers) if world is None else world
    order = list(kinds)
    random.Random(f"kinds {seed}").shuffle(order)
    turn, place = divmod(run, len(order))
    rng = random.Random(f"run {seed} {run}")
    single = [kind for kind in order if kind != FOLLOWED]
    kind = order[place]
    chosen = [kind]
    if kind == FOLLOWED:
        chosen = [rng.choice(single or ["kill-worker"]) for _ in range(2)]
    faults = tuple(_fault(one, rng, world) for one in chosen)
    return Plan(run, kind, faults, modes[turn % len(modes)])


def _fault(kind: str, rng: random.Random, world: Topology) -> Fault:
    who, servers = kind.partition("-")[2], world.num_servers
    worker = rng.randrange(world.num_workers)
    server = rng.randrange(servers) if servers > 1 else SERVER  # with one, drawn as ever
    others = range(1, world.num_workers)
    if not servers and others:  # rank 0 stands for the server
        worker = others[worker % len(others)]
    rank = {"worker": world.rank_of(worker), "server": server}.get(who)
    stop = signal.SIGSTOP
    # A host is cut off by a signal to what makes the hosts.
    signum = {"stop": rng.choice(SIGNALS), "hang": stop, "pause": stop, "cut": signal.SIGUSR1}
    return Fault(
        kind,
        _moment(rng),
        rank,
        None if rank is None else world.worker_of(rank),
        signum=int(signum.get(kind.partition("-")[0], signal.SIGKILL)),
        patience=round(rng.uniform(0.2, 1.8), 2) if kind.startswith("pause") else 0.0,
        extra_bytes=rng.randrange(0, 4096) if kind == "full-disk" else 0,
    )


def _moment(rng: random.Random) -> Moment:
    names, weights = zip(*_STAGES, strict=True)
    (stage,) = rng.choices(names, weights)
    if stage == "training":
        return Moment("training", fraction=round(rng.random(), 3))
    return Moment(stage, rng.choice(START_EVENTS if stage == "start" else END_EVENTS))
