"""Variables that suit Open MPI to these programs, unless the user has set them.

Those of TCP are about long messages that go both ways at a time. By default what is to steer those
of one direction (Open MPI has to agree on each) waits on the connection behind all of a message in
the other. There are two ways out, and which is better is a matter of what a program sends
(docs/performance.md, "Both ways at a time"). Networks that are not driven by TCP read neither.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_LINKS, _FLAGS = "OMPI_MCA_btl_tcp_links", "OMPI_MCA_btl_tcp_flags"

COMMON = {
    # A thread of Horovod's waits within Open MPI, which polls: on a processor that others want,
    # too, a group is several times as fast if it lets them. Where nobody does, it costs nothing
    # measurable.
    "OMPI_MCA_mpi_yield_when_idle": "1",
}
SYNCHRONOUS = {
    # A second connection: what steers one direction may take that on which there is no data.
    _LINKS: "2",
}
ASYNCHRONOUS = {
    # Send (1) in place (8), and no put (2): long messages are pieces of 128 kB, so nothing waits
    # for long. Costs a copy at the receiver.
    _FLAGS: "9",
    # Of these pieces so many are on the connection at a time: with the usual three it runs dry at
    # 1 Gbit/s while the receiver has other things to do.
    "OMPI_MCA_pml_ob1_send_pipeline_depth": "8",
}
"""Read by Open MPI when it is started, and by no other MPI."""


@contextmanager
def for_start(*, asynchronous: bool) -> Iterator[None]:
    """Have MPI started with these variables, and leave the environment as it was.

    Args:
        asynchronous: Whether messages go between workers and servers, and not among all.

    Example:
        >>> with for_start(asynchronous=False):
        ...     os.environ["OMPI_MCA_btl_tcp_links"]
        '2'
    """
    variables = {**COMMON, **_of_tcp(ASYNCHRONOUS if asynchronous else SYNCHRONOUS)}
    ours = [name for name in variables if name not in os.environ]
    os.environ.update({name: variables[name] for name in ours})
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _of_tcp(variables: Mapping[str, str]) -> Mapping[str, str]:
    """Return them if the user has not chosen either way: the two of them do not go together."""
    return {} if _LINKS in os.environ or _FLAGS in os.environ else variables
