"""Hosts that no longer confirm what mpirun has sent them.

mpirun sees by TCP keepalive that a host is cut off, but only while it has nothing to say to it: the
kernel asks no questions on a connection on which bytes wait for their confirmation, and repeats
those for a quarter of an hour. An mpirun that has told all hosts to end their ranks is in just that
state, and names nobody. The kernel's table of connections does.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_RETRIES = 5  # the waits double from 0.2 s: more than 6 s without an answer
_RETRANSMISSION = 1  # of the kinds of timers in that table


def unanswered(pid: int, retries: int = _RETRIES) -> list[str]:
    """Return the hosts that do not confirm what a process has sent them.

    Args:
        pid: The process, one of this user's.
        retries: How often the kernel must have repeated it.

    Returns:
        Their names, or addresses where they have no names.
    """
    found: dict[str, None] = {}
    try:
        own = set(_sockets(Path("/proc", str(pid), "fd")))
        for table in ("tcp", "tcp6"):
            lines = Path("/proc", str(pid), "net", table).read_text().splitlines()[1:]
            found |= dict.fromkeys(silent_peers(lines, own, retries))
    except OSError:  # it has ended in the meantime, or there is no IPv6
        pass
    return [_name(address) for address in found]


def silent_peers(lines: list[str], own: set[int], retries: int = _RETRIES) -> list[str]:
    """Return the addresses whose connections wait for a confirmation.

    Args:
        lines: Of ``/proc/net/tcp`` or ``tcp6``, without the heading.
        own: The inodes of the sockets that count.
        retries: How often the kernel must have repeated it.
    """
    found = []
    for line in lines:
        words = line.split()
        remote, timer, retried, inode = words[2], words[5], words[6], words[9]
        repeats = int(timer.partition(":")[0], 16) == _RETRANSMISSION
        if repeats and int(retried, 16) >= retries and int(inode) in own:
            found.append(_address(remote.partition(":")[0]))
    return found


def _sockets(folder: Path) -> Iterator[int]:
    for file in folder.iterdir():
        with suppress(OSError):  # closed in the meantime
            kind, _, rest = str(file.readlink()).partition(":[")
            if kind == "socket":
                yield int(rest.rstrip("]"))


def _address(digits: str) -> str:
    """Read an address of the kernel's table: words of 32 bits in the machine's byte order."""
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    if len(packed) == 4:
        return socket.inet_ntop(socket.AF_INET, packed)
    if packed.startswith(b"\0" * 10 + b"\xff\xff"):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed)


def _name(address: str) -> str:
    try:
        return socket.gethostbyaddr(address)[0]
    except OSError:
        return address
