"""The report's table of how unequal the workers were."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_runs import synthetic_run

from mpi_dcasgd.cli import main
from mpi_dcasgd.reporting.collect import collect
from mpi_dcasgd.reporting.document import Table
from mpi_dcasgd.reporting.groups import group_runs
from mpi_dcasgd.reporting.workers import worker_table
from mpi_dcasgd.reporting.write import write_report
from mpi_dcasgd.runs.report import report

JOB = """\
epochs: 4
batch_size: 16
lr: 0.05
model: {name: mlp, hidden: [8]}
data: {name: synthetic, num_train: 720, num_test: 20}
"""


def table_of(*folders: Path) -> Table:
    table = worker_table(group_runs(collect(folders).runs))
    assert table is not None
    return table


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three workers of which one takes four times as long, in virtual time."""
    job = tmp_path / "job.yaml"
    job.write_text(JOB)
    out = tmp_path / "runs"
    for algorithm in ("asgd", "ssgd"):
        words = [f"algorithm={algorithm}", "workers=3", "slow={1: 4}"]
        assert main(["simulate", str(job), *words, "--run-dir", str(out / algorithm)]) == 0
    return out


def test_a_slow_worker_is_told_with_its_share_and_its_staleness(runs: Path) -> None:
    ssgd, asgd = table_of(runs).rows
    # In four steps the others push eight gradients, all of them between its pull and its push.
    assert asgd[:6] == ("asgd, simulated", "3", "1,000", "4,000", "44.4", "11.1")
    assert float(asgd[7]) == pytest.approx(8.0, abs=0.1)
    assert float(asgd[6]) == pytest.approx(1.25, abs=0.05), "the mean over all is 2"
    # All give equally many, and there is no staleness to tell of.
    assert ssgd[2:] == ("1,000", "4,000", "33.3", "33.3", "-", "-")


def test_the_report_has_the_table(runs: Path, tmp_path: Path) -> None:
    text = write_report([runs], tmp_path / "report").markdown.read_text()
    _, _, section = text.partition("## How unequal the workers were")
    assert "| asgd, simulated | 3 | 1,000 | 4,000 |" in section


def test_settings_without_effect_are_not_listed(runs: Path, tmp_path: Path) -> None:
    def listed(*names: str) -> str:
        text = report([runs / name for name in names], tmp_path / "report").markdown.read_text()
        return text.partition("## Settings of all runs")[2].partition("## Hardware")[0]

    alone, both = listed("asgd"), listed("asgd", "ssgd")
    assert "| batch_size | 16 |" in alone
    assert "| sync." not in alone
    assert "| schedule.factor |" not in alone
    assert "| sync.backend |" in both, "one of the runs has a use for it"


def test_without_a_trace_there_is_no_staleness_to_tell(runs: Path) -> None:
    (runs / "asgd" / "trace.bin").unlink()
    _, asgd = table_of(runs).rows
    assert asgd[4:] == ("44.4", "11.1", "-", "-")


def test_one_worker_is_not_unequal(tmp_path: Path) -> None:
    folders = [synthetic_run(tmp_path, "sgd"), synthetic_run(tmp_path, "asgd", workers=1)]
    assert worker_table(group_runs(collect(folders).runs)) is None
