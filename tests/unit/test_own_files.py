"""Files that are not provably a run's are never removed or replaced."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mpi_dcasgd.cli import main
from mpi_dcasgd.errors import RunFolderError
from mpi_dcasgd.record.own_files import reopen
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.run_lock import LOCK
from mpi_dcasgd.record.slurm_folder import SlurmFolder
from mpi_dcasgd.record.study_folder import StudyFolder

JOB = """\
algorithm: sgd
epochs: 1
batch_size: 32
lr: 0.1
model: {name: mlp, hidden: [4]}
data: {name: imagefolder, path: nowhere}
device: cpu
"""


def everything(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def create(path: Path, *, overwrite: bool = False, ours: bool = False) -> RunFolder:
    now = datetime.now(UTC)
    return RunFolder.create(
        path, name="a", algorithm="sgd", now=now, overwrite=overwrite, ours=ours
    )


@pytest.mark.parametrize(
    "words",
    [["train"], ["simulate"], pytest.param(["run", "-n", "3"], marks=pytest.mark.slow)],
)
def test_a_start_in_ones_own_folder_changes_nothing(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "weights.pt").write_text("mine")
    (tmp_path / "logs" / "notes.txt").write_text("mine")
    before = everything(tmp_path)
    monkeypatch.chdir(tmp_path)
    data = ["data={name: digits}"]
    more = {"simulate": ["workers=1"], "run": ["algorithm=asgd"]}.get(words[0], [])
    assert main([*words, "job.yaml", "--run-dir", ".", *data, *more]) == 2
    assert "holds job.yaml, weights.pt, which a run would replace" in capfd.readouterr().err
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    "name",
    [
        *("job.yaml", "trace.bin", "metrics.csv", "best.pt", "environment-3.json"),
        *("checkpoints/update-000000007.pt", "logs/rank-0.log", "code/rule.py"),
    ],
)
def test_every_file_that_a_run_would_replace_is_kept(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    with pytest.raises(RunFolderError, match="nothing was changed"):
        create(tmp_path, overwrite=True)
    assert everything(tmp_path) == {name: "mine"}
    create(tmp_path, ours=True)
    gone = not name.startswith("code")
    assert ("mine" not in everything(tmp_path).values()) == gone


def test_files_of_other_names_are_no_obstacle_and_stay(tmp_path: Path) -> None:
    for name in ("notes.txt", "logs/notes.txt", "checkpoints/last.pt", "environment-old.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    before = everything(tmp_path)
    create(tmp_path)
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("environment.json", '{"mpi_dcasgd": "0.1.0"}'),
        ("summary.json", '{"status": "failed"}'),
        ("metrics.jsonl", '{"event": "start", "time_s": 0.0}\n'),
    ],
)
def test_what_a_run_left_proves_itself(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "job.yaml").write_text("x")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "rank-0.log").write_text("x")
    (tmp_path / "logs" / "notes.txt").write_text("mine")
    create(tmp_path)
    assert everything(tmp_path) == {"logs/notes.txt": "mine"}


def test_a_copy_of_code_that_was_changed_by_hand_stays(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    same = "6a09e667"  # no file's digest
    folder.write_environment({"mpi_dcasgd": "1", "code": [{"module": "a", "sha256": same}]})
    folder.code.mkdir()
    (folder.code / "a.py").write_text("changed")
    create(tmp_path)
    assert everything(tmp_path) == {"code-1/a.py": "changed"}


def test_a_job_that_no_submission_wrote_is_not_replaced(tmp_path: Path) -> None:
    slurm = SlurmFolder(tmp_path)
    slurm.path.mkdir()
    slurm.job_yaml.write_text("mine")
    with pytest.raises(RunFolderError, match="nothing was changed"):
        slurm.refuse_strangers()
    slurm.new_script("")
    slurm.refuse_strangers()


def test_a_study_replaces_no_job_of_somebody_elses(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path)
    file = study.job_file("asgd-w2-s0")
    study.write_job("asgd-w2-s0", "ours")
    study.write_job("asgd-w2-s0", "ours")
    with pytest.raises(RunFolderError, match=r"asgd-w2-s0\.yaml: would be replaced"):
        study.write_job("asgd-w2-s0", "changed")
    study.lock.touch()
    study.write_job("asgd-w2-s0", "changed")
    assert file.read_text() == "changed"


def test_output_that_no_comparison_began_is_not_replaced(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.refuse_strange_output()
    folder.output_log.write_text("+ mpirun ...\n")
    folder.refuse_strange_output()
    folder.output_log.write_text("mine\n")
    with pytest.raises(RunFolderError, match=r"output\.log: would be replaced"):
        folder.refuse_strange_output()


def test_what_was_killed_before_it_had_begun_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its lock proves the folder: there are no records yet."""
    (tmp_path / "toy.yaml").write_text(JOB)
    monkeypatch.chdir(tmp_path)
    Path("r").mkdir()
    Path("r/job.yaml").write_text("x")
    machine = {"machine": "another", "host": "h", "pid": 1, "began": "1", "token": "t"}
    slurm = {"slurm_job": "7", "slurm_restart": "0"}
    Path("r", LOCK).write_text(json.dumps({**machine, **slurm}))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert main(["train", "toy.yaml", "data={name: digits}", "--run-dir", "r"]) == 0
    assert RunFolder("r").is_finished()
    assert not Path("r", LOCK).exists()


def test_what_crashed_before_there_were_records_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy.yaml").write_text(JOB)
    monkeypatch.chdir(tmp_path)
    words = ["train", "toy.yaml", "data={name: digits}", "--run-dir", "r"]

    def crash(*args: object, **options: object) -> None:
        raise RuntimeError("a fault of ours")

    with monkeypatch.context() as broken:
        broken.setattr("mpi_dcasgd.runs.build.Subject.open", crash)
        with pytest.raises(RuntimeError):
            main(words)
    assert RunFolder("r").is_run()
    assert main(words) == 0
    assert not Path("r", LOCK).exists()


def test_a_checkpoint_that_a_start_has_left_half_written_goes_when_the_run_goes_on(
    tmp_path: Path,
) -> None:
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    for name in ("update-000000428.pt.tmp", "update-000000360.pt", "mine.pt.tmp"):
        (checkpoints / name).write_text("torn")
    reopen(RunFolder(tmp_path))
    assert sorted(path.name for path in checkpoints.iterdir()) == [
        "mine.pt.tmp",
        "update-000000360.pt",
    ]
