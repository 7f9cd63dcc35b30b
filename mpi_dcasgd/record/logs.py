"""Every rank's own log file, so that ranks which print nothing still tell what they did."""

from __future__ import annotations

import logging

from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.hangs import working_on
from mpi_dcasgd.record.run_folder import RunFolder


def rank_logger(folder: RunFolder, rank: int, replacement: int = 0) -> logging.Logger:
    """A logger that writes to ``logs/rank-N.log`` of the run folder, and nowhere else.

    The n-th process that was started in place of a rank's writes to ``logs/rank-N-n.log``.

    On a cluster whose nodes share no file system, a rank's log stays on its own node, under the
    same path.

    Raises:
        RunFolderError: The log cannot be written.
    """
    path = folder.log(rank, replacement)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _Handler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be written: {error.strerror}") from error
    handler.setFormatter(
        logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
    )
    # Not by name: two runs in one process (a test, a comparison) must not share a log.
    logger = logging.Logger(f"mpi_dcasgd.rank-{rank}", logging.INFO)
    logger.addHandler(handler)
    return logger


class _Handler(logging.FileHandler):
    """Writes to a file, and has it known that it does."""

    def emit(self, record: logging.LogRecord) -> None:
        with working_on(self.baseFilename):
            super().emit(record)


def close_logger(logger: logging.Logger) -> None:
    """Close the files of a logger."""
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        with working_on("the log"):
            handler.close()
