"""Janitor of a test session: ends what a pytest that was itself killed has left running.

Run as a program with a folder as its argument, it waits until nobody holds its standard input any
more, and kills all processes whose session folder (``VARIABLE``) lies in that folder.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

VARIABLE = "PRTE_MCA_prte_tmpdir_base"
_ROUNDS = 100
_PAUSE_S = 0.05


def begin(folder: str) -> subprocess.Popen[bytes]:
    """Start a janitor over this process; keep what is returned.

    Args:
        folder: All that this process starts has a session folder below it in its environment.
    """
    watching = subprocess.Popen(
        [sys.executable, "-S", __file__, folder],
        env={"PATH": os.defpath},  # it must not carry the mark itself
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    atexit.register(watching.communicate)
    return watching


def marked(folder: str) -> list[int]:
    """Return the processes that were started in a session folder below another folder."""
    word, found = f"{VARIABLE}={folder}/".encode(), []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if any(each.startswith(word) for each in (place / "environ").read_bytes().split(b"\0")):
                found.append(int(place.name))
    return found


def _main(folder: str) -> None:
    sys.stdin.buffer.read()  # ends with the last who could write: the process that is watched
    for _ in range(_ROUNDS):  # a launcher may start another while it is being killed
        left = marked(folder)
        if not left:
            break
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_S)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main(sys.argv[1])
