"""``python -m mpi_dcasgd`` is ``mpi-dcasgd``."""

import os
import sys

# Python has put the current folder first, where a json.py would replace what others import. A job's
# modules are found there all the same (mpi_dcasgd.modules).
try:
    if __name__ == "__main__" and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
except FileNotFoundError:  # the current folder was removed, which main tells
    pass

from mpi_dcasgd.cli import main

if __name__ == "__main__":
    sys.exit(main())
