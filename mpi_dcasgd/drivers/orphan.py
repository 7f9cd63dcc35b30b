"""A rank whose launcher is no more: it ends at once, or saves the run first if it is the server.

Open MPI's mpirun ends itself when a host does not answer any more, and leaves the ranks of its own
host running; an mpirun that is killed does so, too. They would train on beside the next start of
their run, or wait for ever for ranks that are gone. The kernel tells them: it sends a signal to the
children of a process that ends.

The server must not call MPI any more once it knows: as soon as ranks on other hosts are gone, too,
Open MPI ends a process that sees their connections close.
"""

from __future__ import annotations

import ctypes
import os
import signal
from types import FrameType

_PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>
SIGNAL = signal.SIGRTMIN + 7
"""Nobody else's; a launcher's death must be told from a request to stop."""
_STATUS = 1


class Orphanage:
    """Conduct of this process when its launcher is no more.

    Attributes:
        gone: The launcher is no more, and this process outlives it to save the run.
    """

    def __init__(self) -> None:
        self.gone = False
        self._outlives = False
        self._parent = 0

    def end_with_launcher(self) -> None:
        """End this process when its parent, a launcher, ends; call it in the main thread."""
        self._parent = os.getppid()
        signal.signal(SIGNAL, self._on_signal)
        self._ask_kernel()
        if os.getppid() != self._parent:  # it ended meanwhile
            os._exit(_STATUS)

    def outlive_launcher(self) -> None:
        """From now on only note that the launcher is no more: the run has something to save."""
        self._outlives = True

    def _ask_kernel(self) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(SIGNAL))

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if os.getppid() == self._parent:
            self._ask_kernel()  # it was only the thread that had started this process
        elif self._outlives:
            self.gone = True
        else:
            os._exit(_STATUS)


launcher = Orphanage()
"""That of this process: there is one launcher in a process's life."""
