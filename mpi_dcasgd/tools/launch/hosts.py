"""Hosts of a world: how soon mpirun sees that one is cut off, its name, and a start without it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from mpi_dcasgd.errors import LaunchError

KEEPALIVE = {"time": 20, "intvl": 10, "probes": 4}
"""Seconds without a word before a daemon is asked, seconds between questions, and how many are
asked: 60 s in all, in place of Open MPI's 480 s. Shorter breaks of a network go unnoticed."""

_FILES = ("--hostfile", "-hostfile", "--machinefile", "-machinefile", "--default-hostfile")
_NAMES = ("--host", "-host", "-H")
_ALLOCATIONS = ("SLURM_JOB_ID", "PBS_NODEFILE", "LSB_HOSTS", "LSB_JOBID", "PE_HOSTFILE")
_LOST = re.compile(
    r"PRTE has lost communication with a remote daemon.*?"
    r"Remote daemon:[^\n]* on node (\S+)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Without:
    """A start without hosts that were lost.

    Attributes:
        lost: Names of those hosts.
        ranks: Ranks on each host of the last start, in order of the hosts.
        hostfile: Place for a list of the hosts that are left, where the user had one.
    """

    lost: tuple[str, ...]
    ranks: Mapping[str, int]
    hostfile: Path

    @property
    def left(self) -> dict[str, int]:
        """Ranks on each host of the last start that is left."""
        return {host: n for host, n in self.ranks.items() if not is_one_of(host, self.lost)}


def keepalive(words: Sequence[str], env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables with which mpirun tells in a minute that a host is cut off.

    Args:
        words: mpirun's arguments.
        env: The environment; a variable that is set there stays as it is.
    """
    if not _may_be_elsewhere(words, env):
        return {}
    wanted = {f"oob_tcp_keepalive_{name}": str(value) for name, value in KEEPALIVE.items()}
    if any(name in words or f"PRTE_MCA_{name}" in env for name in wanted):
        return {}
    return {f"PRTE_MCA_{name}": value for name, value in wanted.items()}


def _may_be_elsewhere(words: Sequence[str], env: Mapping[str, str]) -> bool:
    if {word.partition("=")[0] for word in words} & {*_FILES, *_NAMES}:
        return True
    if (env.get("SLURM_JOB_NUM_NODES") or env.get("SLURM_NNODES")) == "1":
        return False
    return any(name in env for name in _ALLOCATIONS)


def lost_hosts(text: str) -> list[str]:
    r"""Return the hosts that mpirun says it has lost.

    Args:
        text: What it has printed.

    Example:
        >>> lost_hosts(
        ...     "PRTE has lost communication with a remote daemon.\n"
        ...     "  Remote daemon: [prterun-h1-7@0,2] on node h3\n"
        ... )
        ['h3']
    """
    return list(dict.fromkeys(_LOST.findall(text)))


def is_one_of(host: str, hosts: Sequence[str]) -> bool:
    """Return whether a host is among others; names may be with and without their domain.

    Example:
        >>> is_one_of("h3.cluster", ["h3"]), is_one_of("10.0.0.1", ["10.0.0.2"])
        (True, False)
    """
    return _short(host) in {_short(other) for other in hosts}


def _short(host: str) -> str:
    """Name of a host without its domain; an address as it is."""
    try:
        ip_address(host)
    except ValueError:
        return host.partition(".")[0]
    return host


def leave_out(words: Sequence[str], without: Without) -> list[str]:
    """Rewrite mpirun's arguments so that it starts nothing on lost hosts.

    Args:
        words: The arguments.
        without: The hosts.

    Raises:
        LaunchError: No host is left, or the user's list of hosts cannot be read.
    """
    rewritten: list[str] = []
    named = False
    following = iter(words)
    for word in following:
        option, equals, value = word.partition("=")
        if option not in (*_FILES, *_NAMES):
            rewritten.append(word)
            continue
        named = True
        value = value if equals else next(following, "")
        if option in _FILES:
            kept = _hostfile_without(Path(value), without)
        else:
            kept = ",".join(h for h in value.split(",") if not is_one_of(_name(h), without.lost))
        if not kept:
            raise LaunchError(f"no host is left: {value} names only {', '.join(without.lost)}")
        rewritten += [option, kept]
    if not named:
        left = ",".join(f"{host}:{n}" for host, n in without.left.items())
        if not left:
            raise LaunchError(f"no host is left without {', '.join(without.lost)}")
        rewritten += ["--host", left]
    return rewritten


def _hostfile_without(file: Path, without: Without) -> str:
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise LaunchError(f"{file}: cannot be read: {error.strerror}") from error
    kept = [line for line in lines if not is_one_of(_name(line), without.lost)]
    if not any(_name(line) for line in kept):
        return ""
    without.hostfile.write_text("".join(f"{line}\n" for line in kept))
    return str(without.hostfile)


def _name(entry: str) -> str:
    """Name of a host in ``user@host slots=2``, ``host:2``, or nothing in an empty line."""
    words = entry.partition("#")[0].split()
    return words[0].rpartition("@")[2].partition(":")[0] if words else ""
