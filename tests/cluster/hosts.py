"""Several hosts on one machine: network namespaces, and a switch that delays and limits.

    unshare --mount --net --pid --fork --kill-child --mount-proc \\
        python hosts.py --latency-ms 1 --mbit 500 3 COMMAND ...

executes a command on host ``h1``, with ``h2`` and so on in reach (``agent`` stands for ssh), and
ends with its status. Each host has its own address (10.77.0.1 and so on) and name. SIGUSR1 cuts
the last host off, and SIGUSR2 brings it back. The namespaces are private to this process: when it
ends, however it ends, the kernel ends all processes on the hosts and removes the hosts.

The switch is a few lines of Python over TAP devices, and not `tc netem`, because many kernels are
built without that: frames are held for the latency, and follow each other at the rate. Where only
the rate matters, `--kernel` joins the hosts by the kernel's own bridge, whose ports have a token
bucket in either direction (`tc tbf`): for measurements, since Python gets no further than some
hundred megabits a second beside ranks that compute.
"""

from __future__ import annotations

import argparse
import fcntl
import heapq
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence

_TUNSETIFF = 0x400454CA  # from <linux/if_tun.h>, as the two flags
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_MTU = 9000
_LEAST_BURST, _MOST_BURST, _BURST_S = 64 << 10, 256 << 10, 2e-3
_BROADCAST = 1  # the lowest bit of an address's first byte


def _shell(command: str) -> None:
    subprocess.run(command.split(), check=True)


def _mac(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


class Switch:
    """A full-duplex port for each host: frames wait for their turn on the wire, then travel.

    Args:
        hosts: How many.
        latency_s: From the end of sending to arriving.
        bytes_per_s: Of each port, in either direction.
    """

    def __init__(self, hosts: int, latency_s: float, bytes_per_s: float) -> None:
        self._latency_s = latency_s
        self._bytes_per_s = bytes_per_s
        self._ports = [self._plug(number) for number in range(1, hosts + 1)]
        self._macs = {
            bytes.fromhex(_mac(number).replace(":", "")): port
            for number, port in enumerate(self._ports, 1)
        }
        # When a port's wire has taken what it was given so far: out of the host, and into it.
        self._sent = dict.fromkeys(self._ports, 0.0)
        self._received = dict.fromkeys(self._ports, 0.0)
        self._travelling: list[tuple[float, int, int, bytes]] = []
        self._count = 0

    def _plug(self, number: int) -> int:
        """Give a host its device; the file of the device stays here."""
        host, device = f"h{number}", f"tap{number}"
        port = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(port, _TUNSETIFF, struct.pack("16sH", device.encode(), _IFF_TAP | _IFF_NO_PI))
        _shell(f"ip netns add {host}")
        os.mkdir(f"/run/tmp-{host}")
        _shell(f"ip link set {device} netns {host} name eth0 address {_mac(number)} mtu {_MTU}")
        _shell(f"ip -n {host} addr add 10.77.0.{number}/24 dev eth0")
        _shell(f"ip -n {host} link set eth0 up")
        _shell(f"ip -n {host} link set lo up")
        return port

    def turn(self, patience_s: float) -> None:
        """Wait for frames, at most so long, and move what is due."""
        if self._travelling:
            patience_s = min(patience_s, max(0.0, self._travelling[0][0] - time.monotonic()))
        for port in select.select(self._ports, [], [], patience_s)[0]:
            self._accept(port)
        now = time.monotonic()
        while self._travelling and self._travelling[0][0] <= now:
            _, _, port, frame = heapq.heappop(self._travelling)
            try:
                os.write(port, frame)
            except OSError:
                continue  # the device is down, or its queue full: as with any cable

    def _accept(self, source: int) -> None:
        for _ in range(64):  # others want their turn, too
            try:
                frame = os.read(source, _MTU + 64)
            except OSError:
                return
            others = [port for port in self._ports if port != source]
            known = self._macs.get(frame[:6])
            wire_s = len(frame) / self._bytes_per_s
            self._sent[source] = max(self._sent[source], time.monotonic()) + wire_s
            for port in others if frame[0] & _BROADCAST else [known] if known else []:
                start = max(self._received[port], self._sent[source] - wire_s)
                self._received[port] = start + wire_s
                self._count += 1
                due = self._received[port] + self._latency_s
                heapq.heappush(self._travelling, (due, self._count, port, frame))


class Bridge:
    """The kernel's bridge in a namespace of its own, with a rate for each port and direction.

    Args:
        hosts: How many.
        bytes_per_s: Of each port, in either direction.
        buffer_s: The longest that a frame waits at a port; one that would wait longer is dropped.
    """

    def __init__(self, hosts: int, bytes_per_s: float, buffer_s: float) -> None:
        _shell("ip netns add switch")
        _shell("ip -n switch link add bridge type bridge")
        _shell("ip -n switch link set bridge up")
        # What a port may send at once after a pause: as little as keeps it at its rate.
        burst = min(max(_LEAST_BURST, bytes_per_s * _BURST_S), _MOST_BURST)
        bucket = f"tbf rate {8 * bytes_per_s:.0f}bit burst {burst:.0f} latency {1e3 * buffer_s:g}ms"
        for number in range(1, hosts + 1):
            host, port = f"h{number}", f"port{number}"
            _shell(f"ip netns add {host}")
            os.mkdir(f"/run/tmp-{host}")
            there = f"name eth0 address {_mac(number)} mtu {_MTU} netns {host}"
            _shell(f"ip link add {there} type veth peer name {port} mtu {_MTU} netns switch")
            _shell(f"ip -n {host} addr add 10.77.0.{number}/24 dev eth0")
            _shell(f"ip -n switch link set {port} master bridge up")
            for namespace, device in ((host, "eth0"), (host, "lo")):
                _shell(f"ip -n {namespace} link set {device} up")
            for namespace, device in ((host, "eth0"), ("switch", port)):
                _shell(f"tc -n {namespace} qdisc add dev {device} root {bucket}")

    def turn(self, patience_s: float) -> None:
        """Wait; the kernel does the rest."""
        time.sleep(patience_s)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--mbit", type=float, default=10_000.0)
    parser.add_argument("--kernel", action="store_true", help="a rate, but no latency")
    parser.add_argument("--buffer-ms", type=float, default=50.0, help="queues, with --kernel")
    parser.add_argument("hosts", type=int)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(argv)
    _shell("mount -t tmpfs hosts /run")
    os.mkdir("/run/netns")
    names = [f"10.77.0.{number} h{number}\n" for number in range(1, options.hosts + 1)]
    with open("/run/hosts", "w") as file:
        file.write("127.0.0.1 localhost\n" + "".join(names))
    _shell("mount --bind /run/hosts /etc/hosts")
    bytes_per_s = options.mbit * 1e6 / 8
    switch: Bridge | Switch
    if options.kernel:
        switch = Bridge(options.hosts, bytes_per_s, options.buffer_ms / 1e3)
    else:
        switch = Switch(options.hosts, options.latency_ms / 1e3, bytes_per_s)
    last = f"h{options.hosts}"
    for signum, state in ((signal.SIGUSR1, "down"), (signal.SIGUSR2, "up")):
        link = f"ip -n {last} link set eth0 {state}"
        signal.signal(signum, lambda *_, link=link: _shell(link))
    agent = os.path.join(os.path.dirname(os.path.abspath(__file__)), "agent")
    command = subprocess.Popen([agent, "--here", "h1", *options.command])
    while (status := command.poll()) is None:
        switch.turn(0.05)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
