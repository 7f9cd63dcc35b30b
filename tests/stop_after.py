"""A stop that comes in the middle of a run, at the same point each time."""

from __future__ import annotations

from mpi_dcasgd.drivers.signals import StopFlag


class StopAfter(StopFlag):
    """Set once it has been looked at so often."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._left = looks

    def __bool__(self) -> bool:
        self._left -= 1
        if self._left <= 0:
            self.set(10)
        return super().__bool__()
