"""Variables that suit Open MPI to these programs, unless the user has set them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLES = {
    # A thread of Horovod's waits within Open MPI, which polls: on a processor that others want,
    # too, a group is several times as fast if it lets them. Where nobody does, it costs nothing
    # measurable.
    "OMPI_MCA_mpi_yield_when_idle": "1",
    # On one TCP connection long messages do not go both ways at a time: what is to steer those of
    # one direction waits behind the data of the other. With two both have the whole rate.
    "OMPI_MCA_btl_tcp_links": "2",
}
"""Read by Open MPI when it is started, and by no other MPI."""


@contextmanager
def for_start() -> Iterator[None]:
    """Have MPI started with these variables, and leave the environment as it was.

    Example:
        >>> with for_start():
        ...     os.environ["OMPI_MCA_btl_tcp_links"]
        '2'
    """
    ours = [name for name in VARIABLES if name not in os.environ]
    os.environ.update({name: VARIABLES[name] for name in ours})
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
