"""Place of a process: what has memory in common with it, and what is on its host."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple

FAR = "is on another host"
"""Why a worker there shares no memory with the server, in the commonest case."""


class Place(NamedTuple):
    """Place of a process, as far as memory is concerned.

    Attributes:
        host: Name of the host.
        kernel: Identity of the running kernel, the same in all containers of a host.
        processes: Identity of the PID namespace: process numbers mean the same within one.
    """

    host: str
    kernel: str
    processes: str

    @classmethod
    def here(cls) -> Place:
        """Return the place of this process; what cannot be told is empty."""
        try:
            kernel = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            processes = str(Path("/proc/self/ns/pid").readlink())
        except OSError:
            kernel = processes = ""
        return cls(socket.gethostname(), kernel, processes)

    def apart(self, other: Place) -> str:
        """Return why a process there and one here have no memory in common; empty if they may."""
        if self.host != other.host:
            return FAR
        if not self.kernel or not other.kernel:
            return "there is no /proc that tells where processes are"
        if self.kernel != other.kernel:  # hosts of one name
            return FAR
        if self.processes != other.processes:
            return "is in another container (PID namespace) than the server"
        return ""
