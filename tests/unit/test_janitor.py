"""No test leaves a process running, not even when its pytest is killed."""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path
from typing import Any

import janitor
import psutil
import pytest

TESTS = Path(janitor.__file__).parent

# Stands for a pytest: it has a janitor, and a process in a session of its own.
SESSION = f"""
import signal, subprocess, sys
sys.path.insert(0, {str(TESTS)!r})
import janitor
held = janitor.begin(sys.argv[1])
env = {{janitor.VARIABLE: sys.argv[1] + "/one"}}
print(subprocess.Popen(["sleep", "1000"], env=env, start_new_session=True).pid, flush=True)
signal.pause()
"""


def test_what_a_killed_session_has_started_ends_with_it(processes: Any, tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    (folder / "one").mkdir(parents=True)
    session = processes.start([sys.executable, "-c", SESSION, folder])
    processes.wait_for(session, 1)
    left = int(processes.output(session))
    ended = os.pidfd_open(left)
    assert janitor.marked(str(folder)) == [left]
    session.kill()
    session.wait(30)
    try:
        assert select.select([ended], [], [], 30)[0]
    finally:
        os.close(ended)
    assert os.getpid() not in janitor.marked(os.environ[janitor.VARIABLE])


def test_a_process_that_ends_as_it_is_killed_is_no_error(
    processes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = processes.start(["true"])
    seen = psutil.Process(process.pid)
    process.wait(30)
    looks = iter([[seen], []])
    monkeypatch.setattr(processes, "alive", lambda: next(looks))
    processes.kill()
    monkeypatch.undo()
    assert processes.alive() == []
