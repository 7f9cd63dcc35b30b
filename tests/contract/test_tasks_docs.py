"""docs/tasks.md says what the tasks are, and its examples work as printed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from mpi_dcasgd.config.check import try_job
from mpi_dcasgd.drivers.simulation.delays import parse_delays
from mpi_dcasgd.learning.tasks import TASKS, find_task

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


def test_every_task_is_in_the_table_with_its_primary_metric() -> None:
    table = PAGE.partition("\n\n## ")[0]
    rows = re.findall(
        r"^\| \[?`([\w-]+)`(?:\]\(#[\w-]+\))? \|[^|]*\| `(\w+)` \| (.*) \|", table, re.M
    )
    assert [name for name, _, _ in rows] == list(TASKS)
    for name, primary, brings in rows:
        assert TASKS[name].primary_metric == primary
        assert brings == ("the job's" if find_task(name).takes("model") else "its own")


@pytest.mark.parametrize("block", [block for block in blocks("yaml") if "algorithm" in block])
def test_every_example_is_a_job(block: str) -> None:
    job, problems = try_job(yaml.safe_load(block), name="mine")
    assert job is not None, problems


def test_the_model_of_ones_own_is_called_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = (block for block in blocks("yaml") if "my_models" in block)
    signature = re.search(r"# (def gru\(.*\)):", block)
    assert signature
    (tmp_path / "my_models.py").write_text(f"{signature[1]}:\n    raise NotImplementedError\n")
    monkeypatch.syspath_prepend(tmp_path)
    example = next(block for block in blocks("yaml") if "language-model" in block)
    job, problems = try_job(yaml.safe_load(example) | yaml.safe_load(block), name="mine")
    assert job is not None, problems


def test_the_published_delays_are_what_the_page_says() -> None:
    (name,) = re.findall(r"with `delays=([\w-]+)`", PAGE)
    delays = parse_delays(name)
    rng = np.random.default_rng(0)
    steps = delays.of_worker(8, rng)(rng, 10_000)
    assert steps.min() == pytest.approx(1 + 8**0.5, abs=0.01)
    assert steps.mean() == pytest.approx(1 + 8**0.5 + 3 * (2 / np.pi) ** 0.5, rel=0.02)
