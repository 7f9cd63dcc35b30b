"""What a batch script does with signals and exit statuses, with stand-ins for all it calls."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# Stands for `mpi-dcasgd`: notes how it was called, and ends as $RUN says.
RUN = """
echo "$@" > "$FAKE/called"
case $RUN in
    wait) trap 'sleep 0.3; exit 138' USR1; echo ready; while true; do sleep 0.1; done ;;
    *) exit "$RUN" ;;
esac
"""
# Answers from the $FAILURES-th time on.
SCONTROL = """
if [[ $1 == requeue ]]; then echo "$@" >> "$FAKE/requeued"; exit "$REFUSED"; fi
echo "$@" >> "$FAKE/asked"
if (($(wc -l < "$FAKE/asked") <= FAILURES)); then echo "Socket timed out" >&2; exit 1; fi
echo "JobId=12 JobName=toy JobState=$STATE PreemptEligibleTime=2026-01-01 PreemptTime=$PREEMPTED"
if [[ -n $SECOND ]]; then echo "JobId=13 JobName=toy JobState=$SECOND PreemptTime=None"; fi
"""
# Whole seconds are the script's own.
SLEEP = """
if [[ $1 =~ ^[0-9]+$ ]]; then echo "$1" >> "$FAKE/slept"; else /bin/sleep "$1"; fi
"""


class Script:
    """slurm/async.sbatch, started as slurmd would start it."""

    def __init__(self, folder: Path, processes) -> None:
        self.folder = folder
        self._processes = processes
        programs = {
            "mpi-dcasgd": RUN,
            "scontrol": SCONTROL,
            "sleep": SLEEP,
        }
        for name, text in programs.items():
            file = folder / name
            file.write_text(f"#!/bin/bash\n{text}\n")
            file.chmod(0o755)

    def start(self, run: str, name: str = "async", **variables: str):
        env = {
            "PATH": f"{self.folder}:/usr/bin:/bin",
            "FAKE": str(self.folder),
            "RUN": run,
            "STATE": "RUNNING",
            "PREEMPTED": "None",
            "SECOND": "",
            "FAILURES": "0",
            "REFUSED": "0",
            "SLURM_JOB_ID": "12",
            "SLURM_JOB_NAME": "toy",
            "RUN_DIR": str(self.folder / "run"),
            **variables,
        }
        script = REPOSITORY / "slurm" / f"{name}.sbatch"
        return self._processes.start(["bash", script, "lr=1"], env=env, cwd=self.folder)

    def status(self, run: str, **variables: str) -> int:
        return self._processes.finish(self.start(run, **variables)).status

    @property
    def requeued(self) -> list[str]:
        file = self.folder / "requeued"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def script(tmp_path: Path, processes) -> Script:
    return Script(tmp_path, processes)


@pytest.mark.parametrize("name", ["USR1", "TERM"])
@pytest.mark.timeout(60)
def test_a_signal_reaches_the_run_which_is_waited_for_and_requeued(
    script: Script, processes, name: str
) -> None:
    process = script.start("wait")
    processes.wait_for(process, 1)
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert processes.finish(process).status == 0
    assert script.requeued == ["requeue 12"]


@pytest.mark.timeout(60)
def test_many_signals_do_not_end_the_wait(script: Script, processes) -> None:
    process = script.start("wait")
    processes.wait_for(process, 1)
    for _ in range(3):
        process.send_signal(signal.SIGUSR1)
    finished = processes.finish(process)
    assert "back into the queue" in finished.stdout, str(finished)
    assert script.requeued == ["requeue 12"]


def test_the_run_gets_its_words_and_a_folder_that_stays_the_same(script: Script) -> None:
    assert script.status("0", SLURM_RESTART_COUNT="1") == 0
    words = f"run jobs/digits.yaml lr=1 --run-dir {script.folder}/run --resume auto"
    assert (script.folder / "called").read_text().strip() == words
    assert script.status("0", RUN_DIR="") == 0
    assert "--run-dir runs/toy-12 " in (script.folder / "called").read_text()
    assert script.status("0", SLURM_CPUS_PER_TASK="8") == 0
    assert "digits.yaml threads=8 lr=1 " in (script.folder / "called").read_text()
    assert script.requeued == []


@pytest.mark.parametrize("run", ["0", "1", "2"])
def test_a_run_that_ends_by_itself_gives_its_status(script: Script, run: str) -> None:
    assert script.status(run) == int(run)
    assert script.requeued == []


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", "TIMEOUT", ""])
def test_what_slurm_has_ended_is_not_requeued(script: Script, state: str) -> None:
    assert script.status("143", STATE=state) == 143
    assert script.requeued == []


def test_a_failure_in_the_grace_time_of_a_preemption_is_requeued(script: Script) -> None:
    assert script.status("1", PREEMPTED="2026-01-01T00:00:20") == 0
    assert script.requeued == ["requeue 12"]


def test_a_run_that_is_done_before_its_preemption_is_not_requeued(script: Script) -> None:
    assert script.status("0", PREEMPTED="2026-01-01T00:00:20") == 0
    assert script.requeued == []


def test_a_controller_that_does_not_answer_is_asked_again(script: Script) -> None:
    assert script.status("1", PREEMPTED="2026-01-01T00:00:20", FAILURES="3") == 0
    assert script.requeued == ["requeue 12"]
    assert (script.folder / "slept").read_text().split() == ["1", "3", "9"]


def test_a_job_that_is_being_signalled_is_asked_for_again(script: Script) -> None:
    # What SLURM says of a running job while its signals are under way.
    assert script.status("143", STATE="SIGNALING") == 0
    assert script.requeued == ["requeue 12"]
    assert (script.folder / "slept").read_text().split() == ["1", "3", "9", "27", "0"]


def test_a_controller_that_never_answers_has_the_script_end_with_the_runs_status(
    script: Script, processes
) -> None:
    finished = processes.finish(script.start("138", FAILURES="9"))
    assert finished.status == 138
    assert "SLURM does not say why; submit it again" in finished.stderr
    assert len((script.folder / "asked").read_text().splitlines()) == 5
    assert script.requeued == []


def test_a_heterogeneous_jobs_first_component_counts(script: Script) -> None:
    assert script.status("138", STATE="CANCELLED", SECOND="RUNNING") == 138
    assert script.requeued == []
    assert script.status("138", STATE="RUNNING", SECOND="CANCELLED") == 0
    assert script.requeued == ["requeue 12"]


def test_requeues_have_a_bound(script: Script, processes) -> None:
    variables = {"MAX_REQUEUES": "2", "SLURM_RESTART_COUNT": "2"}
    finished = processes.finish(script.start("138", **variables))
    assert finished.status == 138
    assert "it has been started again 2 times already" in finished.stderr
    assert script.requeued == []
    assert script.status("138", MAX_REQUEUES="2", SLURM_RESTART_COUNT="1") == 0


def test_an_arrays_element_and_a_heterogeneous_job_are_requeued_by_their_names(
    script: Script,
) -> None:
    script.status("138", SLURM_ARRAY_JOB_ID="10", SLURM_ARRAY_TASK_ID="3")
    script.status("138", SLURM_HET_JOB_ID="11")
    assert script.requeued == ["requeue 10_3", "requeue 11"]


def test_what_cannot_be_requeued_says_so(script: Script, processes) -> None:
    finished = processes.finish(script.start("138", REFUSED="1"))
    assert finished.status == 138
    assert "submit it again with the same folder" in finished.stderr


def test_a_finished_run_is_not_started_by_a_restart(script: Script) -> None:
    run = script.folder / "run"
    run.mkdir()
    (run / "summary.json").write_text('{\n  "status": "completed"\n}\n')
    assert script.status("1", SLURM_RESTART_COUNT="1") == 0
    assert not (script.folder / "called").exists()
    assert script.status("2") == 2


def test_a_site_file_is_sourced_and_a_missing_one_is_told(script: Script, processes) -> None:
    sites = script.folder / "slurm" / "env"
    sites.mkdir(parents=True)
    (sites / "ours.sh").write_text('export RUN=5; echo "$UNSET"\n')
    assert script.status("0", SITE="ours") == 5
    finished = processes.finish(script.start("0", SITE="theirs"))
    assert finished.status == 2
    assert "no site file slurm/env/theirs.sh" in finished.stderr


def test_an_environment_without_the_package_is_told(script: Script, processes) -> None:
    (script.folder / "mpi-dcasgd").unlink()
    finished = processes.finish(script.start("0"))
    assert finished.status == 2
    assert "mpi-dcasgd is not on PATH" in finished.stderr
