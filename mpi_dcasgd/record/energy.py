"""Energy of a host: Linux's counters of Intel's and AMD's processors (RAPL), NVIDIA's of GPUs.

Since Linux 5.10 those of processors can be read by root alone, unless a site allows more; where
they cannot be read there is nothing to tell.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
_PACKAGE = "package-"
_MEMORY = "dram"
"""Zones that count: packages, and memory, which is in none. The others are parts of packages."""
_NVML = "libnvidia-ml.so.1"
"""Comes with NVIDIA's driver; no Python package is needed to ask it."""


@dataclass(frozen=True, slots=True)
class Counter:
    """One counter of energy.

    Attributes:
        read: Tells microjoules since some moment; None if it cannot be read.
        limit: What it begins again at 0 after; None if it does not.
    """

    read: Callable[[], int | None]
    limit: int | None = None


class EnergyMeter:
    """Joules that parts of a host used while a run trained.

    Counters of processors are small, and begin again at 0 every hour or so: ``sample`` has to be
    called more often than that.

    Args:
        counters: Of all parts.

    Attributes:
        joules: Used so far, between ``start`` and the last sample; None where a counter cannot
            be read, or there is none.

    Example:
        >>> EnergyMeter(processors(Path("/nowhere"))).joules is None
        True
    """

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = counters
        self._seen: list[int | None] = []
        self.joules: float | None = None

    def start(self, before: float | None = 0.0) -> None:
        """Begin to count.

        Args:
            before: Joules that count already, of a run that resumes; None if they are not known.
        """
        self._seen = [counter.read() for counter in self._counters]
        known = self._seen and None not in self._seen
        self.joules = before if known else None

    def sample(self) -> None:
        """Add what was used since the last sample."""
        if self.joules is None:
            return
        for place, counter in enumerate(self._counters):
            before, now = self._seen[place], counter.read()
            if before is None or now is None or (now < before and not counter.limit):
                self.joules = None
                return
            used = now - before if now >= before else now - before + (counter.limit or 0)
            self.joules += used / 1e6
            self._seen[place] = now


def host_energy() -> dict[str, EnergyMeter]:
    """Return a meter for each key of the summary that tells of energy."""
    return {"energy_j": EnergyMeter(processors()), "gpu_energy_j": EnergyMeter(gpus())}


def processors(root: Path = POWERCAP) -> list[Counter]:
    """Return the counters of a host's processors and memory.

    Args:
        root: Folder of the zones.
    """
    return [
        Counter(partial(_number, zone / "energy_uj"), _number(zone / "max_energy_range_uj"))
        for zone in _zones(root)
    ]


def gpus(load: Callable[[str], Any] = ctypes.CDLL) -> list[Counter]:
    """Return the counters of a host's NVIDIA GPUs, from Volta on; none where there is no driver.

    Args:
        load: Loads a library by its name.
    """
    try:
        nvml = load(_NVML)
        count = ctypes.c_uint()
        if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return []
        return [Counter(_reader(nvml, index)) for index in range(count.value)]
    except (OSError, AttributeError):  # no library, or one without these functions
        return []


def _reader(nvml: Any, index: int) -> Callable[[], int | None]:
    device = ctypes.c_void_p()
    failed = nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(device))
    ask = nvml.nvmlDeviceGetTotalEnergyConsumption

    def read() -> int | None:
        millijoules = ctypes.c_ulonglong()
        if failed or ask(device, ctypes.byref(millijoules)):
            return None
        return 1000 * millijoules.value

    return read


def _zones(root: Path) -> Iterator[Path]:
    for zone in sorted(root.glob("*-rapl:*")):
        try:
            name = (zone / "name").read_text().strip()
        except (OSError, UnicodeDecodeError):
            continue
        if name.startswith(_PACKAGE) or name == _MEMORY:
            yield zone


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
