"""The exception tree, and the settings policy that every layer's checked dataclasses share.

::

    DcasgdError                exit status 1
    ├── UserError              exit status 2: one message, never a traceback
    │   ├── ConfigError        a job file, an override or a rule's settings
    │   ├── DataError          a data set that is missing or not what it should be
    │   ├── LaunchError        a world that is not the one that was asked for
    │   └── RunFolderError     a run folder that cannot be written or read
    ├── ProtocolError          server and worker disagree: a bug, or a torn message
    ├── NonFiniteError         too many gradients in a row were NaN or infinite
    ├── StartError             an exception of one rank while all of them start
    ├── WorkersFailedError     the same minibatch ended two workers by an exception
    ├── RanksLostError         a rank that the others cannot do without died or hangs
    └── WorkersLostError       every worker died
        └── LauncherLostError  the launcher died, or has lost a host

An error says where it happened, what was seen, what is allowed and what to do.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from pydantic import ConfigDict

from mpi_dcasgd.wording import counted

STRICT = ConfigDict(strict=True, extra="forbid")
"""Settings are never coerced and never carry unknown keys: a typo must not train a model."""


INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells have it."""


class DcasgdError(Exception):
    """Base of all errors that the package raises on purpose."""

    exit_status = 1


class UserError(DcasgdError):
    """Something that the user can put right; shown as one message."""

    exit_status = 2


class ConfigError(UserError):
    """Problems of a job file, or of another source of settings, all at once.

    Args:
        where: The file, or what stands for it ("command line").
        problems: One line each, beginning with the dotted key.
    """

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        self.where = where
        self.problems = list(problems)
        lines = "".join(f"\n  {line}" for line in self.problems)
        super().__init__(f"{where}: {counted(len(self.problems), 'problem')}{lines}")

    def within(self, where: str) -> ConfigError:
        """Make the error of a whole from that of a part, whose name goes before the keys.

        Example:
            >>> ConfigError("data", ["validation: got 2", "raised KeyError"]).within("job").problems
            ['data.validation: got 2', 'data: raised KeyError']
        """
        return ConfigError(where, [self._joined(line) for line in self.problems])

    def _joined(self, line: str) -> str:
        has_key = re.match(r"\w[\w.\[\]]*: ", line) and " " not in self.where
        return f"{self.where}{'.' if has_key else ': '}{line}"


class DataError(UserError):
    """A data set is missing, unreadable, or not what the job says it is."""


class LaunchError(UserError):
    """The processes that were started are not the world that the job needs."""


class RunFolderError(UserError):
    """A run folder is missing, incomplete, changed, or already in use."""


class ProtocolError(DcasgdError):
    """Server and worker disagree about versions, tickets or sizes."""


class NonFiniteError(DcasgdError):
    """Gradients that are NaN or infinite kept arriving, or a weight is beyond its type."""


class StartError(DcasgdError):
    """An exception that is no user's mistake stopped a rank during start-up, and so all of them."""


class WorkersFailedError(DcasgdError):
    """Workers fail one after the other, and the run would lose them all."""


class RanksLostError(DcasgdError):
    """A rank died or hangs that the others cannot do without.

    Args:
        message: Its name, and what is known.
        hung: It hangs, and has to be ended by others.
        told: Another rank says so to people.
    """

    def __init__(self, message: str, *, hung: bool = False, told: bool = False) -> None:
        self.hung = hung
        self.told = told
        super().__init__(message)


class WorkersLostError(DcasgdError):
    """Every worker died; there is nobody left to compute gradients, or to be told so."""


class LauncherLostError(WorkersLostError):
    """The launcher is no more, and with it all ranks on other hosts; the state is saved."""


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """``'; did you mean X?'`` for the closest of ``allowed``, or an empty string."""
    close = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
