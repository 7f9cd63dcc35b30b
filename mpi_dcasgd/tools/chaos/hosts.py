"""Several hosts on this machine, of which the last can be cut off.

    setpriv ... unshare ... python -m mpi_dcasgd.tools.chaos.hosts 3 AGENT COMMAND ...

executes a command on host ``h1``, with ``h2`` and so on in reach, and ends with its status. Each
is a network namespace with an address of its own (10.77.0.1 and so on), a name, and a folder for
temporary files; AGENT, a script that is written here, stands for ssh. SIGUSR1 takes the last
one's network down, for good. When this process ends, however it ends, the kernel ends everything
on the hosts and removes them.
"""

from __future__ import annotations

import fcntl
import os
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CUT = signal.SIGUSR1
MODULE = "mpi_dcasgd.tools.chaos.hosts"
HOST_FOLDERS = "h[0-9]"
"""Pattern of the hosts' own folders for temporary files, one within another."""

_NAMESPACES = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
)
_HOSTS = 3
_TUNSETIFF = 0x400454CA  # from <linux/if_tun.h>, as the two flags
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_FRAME = 9100
_LOOK_S = 0.05
_AGENT = """\
#!/bin/sh
# What mpirun calls in place of ssh: AGENT HOST COMMAND...
host=$1
shift
mkdir -p "$TMPDIR/$host"
export TMPDIR="$TMPDIR/$host"
exec ip netns exec "$host" unshare --uts sh -c 'hostname "$0"; exec sh -c "$*"' "$host" "$@"
"""


def lacking() -> str:
    """Return why there can be no hosts here, or an empty string."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    missing = [name for name in ("ip", "unshare", "setpriv") if not shutil.which(name)]
    if missing:
        return f"there is no {missing[0]} (iproute2, util-linux)"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    if subprocess.run([*_NAMESPACES, "true"], capture_output=True, check=False).returncode:
        return "namespaces of one's own are not allowed"
    return ""


def on_hosts(argv: Sequence[str], place: Path, ranks: int) -> list[str]:
    """Return the command that executes another on the first of some hosts.

    Args:
        argv: ``mpi-dcasgd run`` with its arguments; it is told of the hosts.
        place: Folder for the agent and the host file.
        ranks: Ranks to spread over the hosts.
    """
    agent = place / "agent"
    agent.write_text(_AGENT)
    agent.chmod(0o755)
    each, more = divmod(ranks, _HOSTS)
    slots = [each + (number < more) for number in range(_HOSTS)]
    file = place / "hosts"
    file.write_text("".join(f"h{n} slots={count}\n" for n, count in enumerate(slots, 1) if count))
    words = f"--prtemca plm ssh --prtemca plm_ssh_agent {agent} --hostfile {file}"
    hosts = [sys.executable, "-m", MODULE, str(_HOSTS), str(agent)]
    return [*_NAMESPACES, *hosts, *argv, f"--mpirun-args={words}"]


class _Hub:
    """Passes every frame of a host on to all others."""

    def __init__(self, hosts: int) -> None:
        self._ports = [self._plug(number) for number in range(1, hosts + 1)]

    def _plug(self, number: int) -> int:
        host, device = f"h{number}", f"tap{number}"
        port = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(port, _TUNSETIFF, struct.pack("16sH", device.encode(), _IFF_TAP | _IFF_NO_PI))
        _call(f"ip netns add {host}")
        _call(f"ip link set {device} netns {host} name eth0 mtu 9000")
        _call(f"ip -n {host} addr add 10.77.0.{number}/24 dev eth0")
        _call(f"ip -n {host} link set eth0 up")
        _call(f"ip -n {host} link set lo up")
        return port

    def turn(self) -> None:
        """Move the frames that are there, or wait a little for some."""
        for source in select.select(self._ports, [], [], _LOOK_S)[0]:
            try:
                frame = os.read(source, _FRAME)
            except OSError:
                continue  # the device is down
            for port in self._ports:
                if port != source:
                    try:
                        os.write(port, frame)
                    except OSError:
                        continue  # down, or its queue is full: as with any cable


def main(argv: Sequence[str]) -> int:
    """Execute a command on the first of some hosts; return its exit status."""
    hosts, agent, *command = argv
    _call("mount -t tmpfs hosts /run")
    os.mkdir("/run/netns")
    names = "".join(f"10.77.0.{number} h{number}\n" for number in range(1, int(hosts) + 1))
    Path("/run/hosts").write_text(f"127.0.0.1 localhost\n{names}")
    _call("mount --bind /run/hosts /etc/hosts")
    hub = _Hub(int(hosts))
    signal.signal(CUT, lambda *_: _call(f"ip -n h{hosts} link set eth0 down"))
    process = subprocess.Popen([agent, "h1", shlex.join(command)])
    while (status := process.poll()) is None:
        hub.turn()
    return status if status >= 0 else 128 - status


def _call(command: str) -> None:
    subprocess.run(command.split(), check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
