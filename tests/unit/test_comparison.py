"""Comparisons, with small programs in place of training: what runs, what is kept, what is told."""

from __future__ import annotations

import fcntl
import io
import json
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mpi_dcasgd.errors import LaunchError, RunFolderError
from mpi_dcasgd.record.metrics import RunProgress
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.tools import comparison as tools_comparison
from mpi_dcasgd.tools.comparison import (
    Comparison,
    Outcome,
    PlannedRun,
    look_at,
)
from mpi_dcasgd.tools.launch import starts as launch_starts
from mpi_dcasgd.tools.launch.failure_reason import last_words
from mpi_dcasgd.tools.status_line import progress_text

JOB: dict[str, Any] = {
    "name": "toy",
    "seed": 0,
    "model": {"name": "mlp"},
    "record": {"trace": True},
}

# Leaves what a run leaves, and counts how often it was started.
TRAIN = """
import json, pathlib, sys
folder, job, workers = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with open(folder.parent / (folder.name + ".starts"), "a") as starts:
    starts.write("x")
print("trained", flush=True)
(folder / "job.yaml").write_text(job)
summary = {"status": "completed", "test_error": 0.025, "wall_s": 3.0, "num_workers": workers}
(folder / "summary.json").write_text(json.dumps(summary))
"""
FAIL = "import sys; print('one', flush=True); print('two', file=sys.stderr); sys.exit(3)"
# What Ctrl-C does: the signal reaches the comparison, which asks the run to stop.
STOP = """
import os, signal, sys
signal.signal(signal.SIGUSR1, lambda *args: sys.exit(138))
os.kill(os.getppid(), signal.SIGINT)
while True:
    signal.pause()
"""


def planned(out: Path, name: str, program: str = TRAIN, workers: int = 1, **job: Any) -> PlannedRun:
    folder, content = RunFolder(out / name), {**JOB, **job}
    text = yaml.safe_dump(content, default_flow_style=True, width=1000).strip()
    words = [sys.executable, "-c", f"exec({program!r})", str(folder.path), text, str(workers)]
    return PlannedRun(name, folder, content, workers, tuple(words), None)


def compare(out: Path, *runs: PlannedRun, rerun: bool = False) -> tuple[list[Outcome], list[str]]:
    stream = io.StringIO()
    outcomes = Comparison(out, stream).run(runs, rerun=rerun)
    return outcomes, stream.getvalue().splitlines()


def starts(out: Path, name: str) -> int:
    file = out / f"{name}.starts"
    return len(file.read_text()) if file.exists() else 0


def test_every_run_is_started_once_and_has_a_line(tmp_path: Path) -> None:
    outcomes, lines = compare(tmp_path, planned(tmp_path, "a"), planned(tmp_path, "bb"))
    assert [outcome.status for outcome in outcomes] == ["completed", "completed"]
    assert outcomes[0].summary["test_error"] == 0.025
    assert len(lines) == 2
    assert lines[0].startswith("[1/2] a    completed         test error   2.50 %   trained 3.0 s")
    assert lines[1].startswith("[2/2] bb   completed")


def test_the_output_of_a_run_begins_with_its_command(tmp_path: Path) -> None:
    run = planned(tmp_path, "a", "print('hello')")
    compare(tmp_path, run)
    lines = run.folder.output_log.read_text().splitlines()
    assert lines[0].startswith("+ ")
    assert lines[-1] == "hello"


def test_what_is_finished_is_not_repeated(tmp_path: Path) -> None:
    compare(tmp_path, planned(tmp_path, "a"))
    outcomes, lines = compare(tmp_path, planned(tmp_path, "a"))
    assert outcomes[0].status == "kept"
    assert outcomes[0].summary["test_error"] == 0.025
    assert starts(tmp_path, "a") == 1
    assert "finished before   test error   2.50 %" in lines[0]


def test_what_is_only_shown_differently_is_the_same_run(tmp_path: Path) -> None:
    compare(tmp_path, planned(tmp_path, "a"))
    compare(tmp_path, planned(tmp_path, "a", record={"trace": False}))
    assert starts(tmp_path, "a") == 1


def test_a_changed_job_is_run_again_and_the_run_before_is_kept_aside(tmp_path: Path) -> None:
    compare(tmp_path, planned(tmp_path, "a"))
    _, lines = compare(tmp_path, planned(tmp_path, "a", model={"name": "cnn"}, lr=3))
    assert starts(tmp_path, "a") == 2
    moved = tmp_path / "replaced" / "a-1"
    assert f"its job has changed (lr, model.name); the earlier run is now {moved}" in lines[0]
    assert yaml.safe_load((moved / "job.yaml").read_text()) == JOB
    assert look_at(planned(tmp_path, "a", model={"name": "cnn"}, lr=3)).state == "finished"
    _, lines = compare(tmp_path, planned(tmp_path, "a"))
    assert (tmp_path / "replaced" / "a-2").is_dir()


def test_a_job_of_an_earlier_version_lacks_keys_and_is_the_same(tmp_path: Path) -> None:
    def read_stored(job: Mapping[str, Any]) -> dict[str, Any]:
        return {"capture": "auto", **job}

    compare(tmp_path, planned(tmp_path, "a"))
    for value, changes in (("auto", ()), ("off", ("capture",))):
        run = planned(tmp_path, "a", capture=value)
        assert look_at(run).changes == ("capture",)
        assert look_at(replace(run, read_stored=read_stored)).changes == changes


def test_another_number_of_workers_is_another_run(tmp_path: Path) -> None:
    compare(tmp_path, planned(tmp_path, "a"))
    assert look_at(planned(tmp_path, "a", workers=2)).changes == ("number of workers",)


class OneCluster:
    """A cluster as a study plans it; ``ready`` is whether it can be known already."""

    def __init__(self, file: Path, text: str, *, ready: bool = True) -> None:
        self._file, self._text, self._ready = file, text, ready

    def differs(self, stored: Path) -> bool:
        return not stored.exists() or stored.read_text() != self._text

    def write(self) -> None:
        if not self._ready:
            raise RunFolderError("its source is not finished\nmore of it")
        self._file.write_text(self._text)


def simulated(out: Path, text: str, **kwargs: Any) -> PlannedRun:
    cluster = OneCluster(out / "cluster.txt", text, **kwargs)
    copy = (
        f"import shutil; shutil.copy({str(out / 'cluster.txt')!r}, sys.argv[1] + '/cluster.yaml')"
    )
    return replace(planned(out, "a", f"{TRAIN}\n{copy}"), cluster=cluster)


def test_a_simulated_run_of_another_cluster_is_another_run(tmp_path: Path) -> None:
    compare(tmp_path, simulated(tmp_path, "slow"))
    assert (tmp_path / "a" / "cluster.yaml").read_text() == "slow"
    outcomes, _ = compare(tmp_path, simulated(tmp_path, "slow"))
    assert outcomes[0].status == "kept"
    outcomes, lines = compare(tmp_path, simulated(tmp_path, "fast"))
    assert (tmp_path / "a" / "cluster.yaml").read_text() == "fast"
    assert "its job has changed (cluster)" in lines[0]
    assert starts(tmp_path, "a") == 2


def test_a_simulated_run_whose_cluster_is_not_known_yet_fails_and_replaces_nothing(
    tmp_path: Path,
) -> None:
    compare(tmp_path, simulated(tmp_path, "slow"))
    run = simulated(tmp_path, "fast", ready=False)
    outcomes, lines = compare(tmp_path, run, planned(tmp_path, "b"))
    assert [outcome.status for outcome in outcomes] == ["failed", "completed"]
    assert outcomes[0].reason == "its source is not finished\nmore of it"
    assert lines[0].startswith("[1/2] a   failed            not started")
    assert lines[1].strip() == "its source is not finished"
    assert starts(tmp_path, "a") == 1
    assert (tmp_path / "a" / "cluster.yaml").read_text() == "slow"


def test_rerun_repeats_what_is_finished(tmp_path: Path) -> None:
    compare(tmp_path, planned(tmp_path, "a"))
    compare(tmp_path, planned(tmp_path, "a"), rerun=True)
    assert starts(tmp_path, "a") == 2
    assert (tmp_path / "replaced" / "a-1").is_dir()


@pytest.mark.parametrize("status", ["interrupted", "failed", None])
def test_a_run_that_did_not_finish_starts_anew(tmp_path: Path, status: str | None) -> None:
    run = planned(tmp_path, "a")
    run.folder.path.mkdir()
    (run.folder.path / "job.yaml").write_text(yaml.safe_dump(JOB))
    if status:
        (run.folder.path / "summary.json").write_text(json.dumps({"status": status}))
    outcomes, lines = compare(tmp_path, run)
    assert outcomes[0].status == "completed"
    assert "did not finish before; starting over" in lines[0]


def test_a_run_that_has_a_checkpoint_goes_on(tmp_path: Path) -> None:
    run = planned(tmp_path, "a")
    (run.folder.path / "checkpoints").mkdir(parents=True)
    (run.folder.path / "checkpoints" / "update-7.pt").touch()
    (run.folder.path / "job.yaml").write_text(yaml.safe_dump(JOB))
    run.folder.output_log.write_text("before\n")
    outcomes, lines = compare(tmp_path, run)
    assert outcomes[0].status == "completed"
    assert "did not finish before; resuming from its checkpoint" in lines[0]
    text = run.folder.output_log.read_text()
    assert text.startswith("before\n+ ")
    assert text.endswith("trained\n")


def test_a_run_that_did_not_finish_and_is_of_another_job_is_kept_aside(tmp_path: Path) -> None:
    run = planned(tmp_path, "a", lr=3)
    (run.folder.path / "checkpoints").mkdir(parents=True)
    (run.folder.path / "checkpoints" / "update-7.pt").touch()
    (run.folder.path / "job.yaml").write_text(yaml.safe_dump(JOB))
    _, lines = compare(tmp_path, run)
    assert "its job has changed (lr)" in lines[0]
    assert (tmp_path / "replaced" / "a-1" / "checkpoints" / "update-7.pt").exists()
    assert not (run.folder.path / "checkpoints").exists()


def test_a_run_that_fails_is_told_with_its_last_words_and_the_others_run(tmp_path: Path) -> None:
    outcomes, lines = compare(tmp_path, planned(tmp_path, "a", FAIL), planned(tmp_path, "b"))
    assert [outcome.status for outcome in outcomes] == ["failed", "completed"]
    assert "exit status 3" in lines[0]
    assert lines[1].strip() == "one"
    assert lines[2].startswith("[2/2] b")
    told = outcomes[0].reason.splitlines()
    assert told == ["one", "two", f"(all of it: {RunFolder(tmp_path / 'a').output_log})"]


BANNER = (
    f"{'-' * 74}\nprterun detected that one or more processes exited\n  Exit code: 2\n{'-' * 74}\n"
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no output"),
        ("a\nb\n\nc\n", "a\nb\nc"),
        ("1\n2\n3\n4\n5\n6\n", "2\n3\n4\n5\n6"),
        (BANNER + "a\n", "a"),
        (f"DataError: not there\n{BANNER}", "DataError: not there"),
        (
            f"ConfigError: x.yaml: 2 problems\n  lr: a\n  seed: b\n{BANNER}",
            "ConfigError: x.yaml: 2 problems\n  lr: a\n  seed: b",
        ),
        (
            "Traceback:\n  File\nOSError: gone\nrank 2 on n1: OSError: gone\n",
            "rank 2 on n1: OSError: gone",
        ),
        ("epoch 1\repoch 2\rKeyError: 'x'\n", "KeyError: 'x'"),
    ],
)
def test_last_words_are_those_that_say_why(text: str, words: str) -> None:
    assert last_words(text) == words


def test_last_words_of_a_run_that_only_mpirun_speaks_of() -> None:
    assert "prterun detected" in last_words(BANNER)


def test_a_run_that_leaves_nothing_has_failed(tmp_path: Path) -> None:
    outcomes, _ = compare(tmp_path, planned(tmp_path, "a", "pass"))
    assert outcomes[0].status == "failed"


def test_a_failed_run_is_tried_again(tmp_path: Path) -> None:
    compare(tmp_path, planned(tmp_path, "a", FAIL))
    outcomes, _ = compare(tmp_path, planned(tmp_path, "a"))
    assert outcomes[0].status == "completed"


def test_a_start_that_fails_after_a_stop_does_not_stop_the_comparison(tmp_path: Path) -> None:
    run = planned(tmp_path, "a", FAIL)
    run.folder.path.mkdir()
    run.folder.job_yaml.write_text(yaml.safe_dump(JOB))
    run.folder.write_summary({"status": "interrupted", "reason": "stopped by SIGUSR1"})
    outcomes, _ = compare(tmp_path, run, planned(tmp_path, "b"))
    assert [outcome.status for outcome in outcomes] == ["failed", "completed"]


def test_ctrl_c_stops_the_run_and_the_comparison(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    outcomes, _ = compare(
        tmp_path, planned(tmp_path, "a"), planned(tmp_path, "b", STOP), planned(tmp_path, "c")
    )
    assert [outcome.status for outcome in outcomes] == ["completed", "interrupted"]
    assert starts(tmp_path, "c") == 0
    assert signal.getsignal(signal.SIGINT) is before


def test_two_comparisons_do_not_work_in_one_folder(tmp_path: Path) -> None:
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunFolderError, match="another comparison is at work"):
            compare(tmp_path, planned(tmp_path, "a"))
    assert starts(tmp_path, "a") == 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_line_is_written_in_place(tmp_path: Path) -> None:
    stream = Terminal()
    Comparison(tmp_path, stream).run([planned(tmp_path, "a")])
    text = stream.getvalue()
    assert "\r\x1b[K[1/1] a   starting" in text
    assert text.count("\n") == 1
    assert text.splitlines()[-1].split("\x1b[K")[-1].startswith("[1/1] a   completed")


def test_progress_says_how_far_a_run_has_come() -> None:
    start = {"event": "start", "time_s": 0.0}
    assert progress_text(RunProgress.of([])) == "starting"
    assert progress_text(RunProgress.of([start])) == "running"
    events = [
        start,
        {"event": "evaluation", "epoch": 1, "test_error": 0.2},
        {"event": "progress", "epoch": 1.52, "test_error": None},
        {"event": "evaluation", "epoch": 2, "test_error": 0.1},
    ]
    assert progress_text(RunProgress.of(events)) == "epoch 2.0  test error 10.00 %"


# Side by side


def test_elements_of_an_array_share_a_folder_but_not_a_run(tmp_path: Path) -> None:
    inner = f"""
import io, sys
from pathlib import Path
from mpi_dcasgd.errors import LaunchError, RunFolderError
from mpi_dcasgd.tools.comparison import Comparison
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_comparison import planned
out = Path({str(tmp_path)!r})
for name, beside in (("b", True), ("a", True), ("b", False)):
    try:
        comparison = Comparison(out, io.StringIO(), beside_others=beside)
        print(comparison.run([planned(out, name)])[0].status, flush=True)
    except RunFolderError as error:
        print("refused:", error, flush=True)
"""
    program = f"import subprocess\nsubprocess.run([sys.executable, '-c', {inner!r}], check=True)"
    run = planned(tmp_path, "a", f"{TRAIN}\n{program}")
    outcomes = Comparison(tmp_path, io.StringIO(), beside_others=True).run([run])
    assert outcomes[0].status == "completed", outcomes[0].reason
    lines = run.folder.output_log.read_text().splitlines()[-3:]
    assert lines[0] == "completed"
    assert lines[1] == (
        f"refused: {tmp_path / 'a'}: another comparison is at work on this run; wait for it"
    )
    assert "another comparison is at work in this folder" in lines[2]


# The batch system's signal, in a run that ends without having noticed it.
UNNOTICED = f"""
import os, signal, sys
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
os.kill(os.getppid(), %d)
{TRAIN}
"""


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_a_run_did_not_live_to_see_keeps_the_next_from_starting(
    tmp_path: Path, signum: signal.Signals
) -> None:
    # So it is if the comparison itself was suspended until the run was over.
    comparison = Comparison(tmp_path, io.StringIO())
    before = signal.getsignal(signum)
    late = planned(tmp_path, "a", UNNOTICED % signum)
    outcomes = comparison.run([late, planned(tmp_path, "b")])
    assert [outcome.status for outcome in outcomes] == ["completed"]
    assert comparison.stopped_by == signum
    assert starts(tmp_path, "b") == 0
    assert signal.getsignal(signum) is before


def test_a_run_that_a_signal_stopped_tells_which(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path, io.StringIO())
    outcomes = comparison.run([planned(tmp_path, "a", "import sys; sys.exit(138)")])
    assert (outcomes[0].status, outcomes[0].signum) == ("interrupted", signal.SIGUSR1)
    assert comparison.stopped_by == signal.SIGUSR1


# Starting again

# Dies without a word until its folder shows as many starts as it needs; then it trains.
DIES = (
    """
import os, pathlib, signal, sys
folder = pathlib.Path(sys.argv[1])
file = folder.parent / (folder.name + ".starts")
count = len(file.read_text()) if file.exists() else 0
if count < 2:
    file.write_text("x" * (count + 1))
    (folder / "job.yaml").write_text(sys.argv[2])
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / f"update-{count:09d}.pt").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    + TRAIN
)


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_starts, "pause_s", lambda number: 0.0)


def test_a_run_that_dies_is_started_again_and_it_is_told(tmp_path: Path, no_pause: None) -> None:
    stream = io.StringIO()
    runs = [planned(tmp_path, "a", DIES), planned(tmp_path, "b")]
    outcomes = Comparison(tmp_path, stream, restarts=3).run(runs)
    assert [(o.status, o.restarts) for o in outcomes] == [("completed", 2), ("completed", 0)]
    lines = stream.getvalue().splitlines()
    assert lines[0].strip().startswith("restart 1 of 3 in 0 s: the launcher was killed by SIGKILL")
    assert lines[1].endswith("; resuming at update 1")
    assert lines[2].endswith("s in all, restarted 2 times")
    assert [each.version for each in runs[0].folder.restarts()] == [0, 1]
    assert starts(tmp_path, "a") == 3


def test_no_run_is_started_again_unless_that_is_asked_for(tmp_path: Path) -> None:
    outcomes, _ = compare(tmp_path, planned(tmp_path, "a", DIES))
    assert (outcomes[0].status, outcomes[0].restarts) == ("failed", 0)
    assert starts(tmp_path, "a") == 1


MISTAKE = "import sys; print('Error: lr is wrong'); sys.exit(2)"


def test_a_run_that_its_settings_end_is_not_started_again(tmp_path: Path, no_pause: None) -> None:
    stream = io.StringIO()
    runs = [planned(tmp_path, "a", MISTAKE), planned(tmp_path, "b")]
    outcomes = Comparison(tmp_path, stream, restarts=3).run(runs)
    assert [outcome.status for outcome in outcomes] == ["failed", "completed"]
    assert outcomes[0].reason.startswith("Error: lr is wrong\n")
    assert "not started again: the same mistake would end it again" in stream.getvalue()


def test_a_run_of_a_study_is_not_started_again_with_fewer_ranks(tmp_path: Path) -> None:
    plan = tools_comparison._StudyWorld(replace(planned(tmp_path, "a"), ranks=5), None, None, ())
    assert plan.again(5, resumes=True) is plan
    with pytest.raises(LaunchError, match="asks for 5 ranks, and there is room for 3 without"):
        plan.again(3, resumes=True)


def test_a_run_that_its_launcher_left_behind_is_given_time_for_its_summary(tmp_path: Path) -> None:
    # As with ranks that mpirun does not wait for: the summary comes after the exit.
    late = """
import pathlib, subprocess, sys
folder = sys.argv[1]
pathlib.Path(folder, "job.yaml").write_text("name: toy")
pathlib.Path(folder, "metrics.jsonl").touch()
code = (
    "import pathlib, sys, time; time.sleep(0.5); "
    "pathlib.Path(sys.argv[1], 'summary.json').write_text("
    "'{\\"status\\": \\"interrupted\\", \\"reason\\": \\"stopped by SIGTERM\\"}')"
)
subprocess.Popen([sys.executable, "-c", code, folder])
"""
    outcomes = Comparison(tmp_path, io.StringIO()).run([planned(tmp_path, "a", late)])
    assert (outcomes[0].status, outcomes[0].signum) == ("interrupted", signal.SIGTERM)
