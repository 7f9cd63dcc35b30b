"""``python -m mpi_dcasgd`` is ``mpi-dcasgd``."""

import sys

from mpi_dcasgd.cli import main

if __name__ == "__main__":
    sys.exit(main())
