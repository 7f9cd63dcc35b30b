"""Asynchronous and synchronous SGD on a cluster: a parameter server over MPI beside Horovod."""

import time

STARTED = time.monotonic()
"""When this process began to import the package; the imports that follow make up most of start-up.

In ``time.monotonic``'s seconds.
"""

__version__ = "0.2.0.dev0"
"""PEP 440: a release, or ``.dev0`` of the one that comes next."""
