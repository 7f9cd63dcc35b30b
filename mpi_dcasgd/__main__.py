"""``python -m mpi_dcasgd`` is ``mpi-dcasgd``."""

import os
import sys

# Python has put the current folder first, where a json.py would replace what others import.
if __name__ == "__main__" and sys.path[0] in ("", os.getcwd()):
    sys.path.append(sys.path.pop(0))

from mpi_dcasgd.cli import main

if __name__ == "__main__":
    sys.exit(main())
