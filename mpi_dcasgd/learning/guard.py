"""Calls of a user's own code: its exceptions become mistakes in the job, with their place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mpi_dcasgd.errors import ConfigError, UserError
from mpi_dcasgd.places import place_of

_log = logging.getLogger(__name__)


@contextmanager
def guarded(owner: object, method: str) -> Iterator[Callable[..., Any]]:
    """Give a method of a user's object to be called within, and explain what it raises.

    Args:
        owner: A task, say.
        method: Its name.

    Raises:
        ConfigError: In place of any exception but a ``UserError``, with the file and the line of
            the user's code that it comes from.

    Example:
        >>> with guarded("words", "upper") as upper:
        ...     upper()
        'WORDS'
    """
    try:
        yield getattr(owner, method)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise failed(f"{type(owner).__name__}.{method}", error) from error


def failed(what: str, error: BaseException) -> ConfigError:
    """Make the message about a user's code that raised an exception.

    Args:
        what: The code, ``Class.method``.
        error: What it raised. Its traceback goes to the log, for whoever has to mend it.
    """
    _log.debug("%s raised", what, exc_info=error)
    reason = str(error).strip().partition("\n")[0]
    said = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return ConfigError(what, [f"raised {said}{place_of(error)}"])
