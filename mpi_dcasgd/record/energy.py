"""Energy of a host, from the counters that Linux has of Intel's and AMD's processors (RAPL).

Since Linux 5.10 the counters can be read by root alone, unless a site allows more; where they
cannot be read there is nothing to tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
_PACKAGE = "package-"
_MEMORY = "dram"
"""Zones that count: packages, and memory, which is in none. The others are parts of packages."""


class EnergyMeter:
    """Joules that a host's processors and memory used while a run trained.

    The counters are small, and begin again at 0 every hour or so: ``sample`` has to be called more
    often than that.

    Args:
        root: Folder of the zones.

    Attributes:
        joules: Used so far, between ``start`` and the last sample; None where a counter cannot
            be read.

    Example:
        >>> EnergyMeter(Path("/nowhere")).joules is None
        True
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        self._zones = {zone: _number(zone / "max_energy_range_uj") for zone in _zones(root)}
        self._seen: dict[Path, int | None] = {}
        self.joules: float | None = None

    def start(self, before: float | None = 0.0) -> None:
        """Begin to count.

        Args:
            before: Joules that count already, of a run that resumes; None if they are not known.
        """
        self._seen = {zone: _number(zone / "energy_uj") for zone in self._zones}
        known = self._seen and None not in self._seen.values()
        self.joules = before if known else None

    def sample(self) -> None:
        """Add what was used since the last sample."""
        if self.joules is None:
            return
        for zone, limit in self._zones.items():
            before, now = self._seen[zone], _number(zone / "energy_uj")
            if before is None or now is None or (now < before and not limit):
                self.joules = None
                return
            used = now - before if now >= before else now - before + (limit or 0)
            self.joules += used / 1e6
            self._seen[zone] = now


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
