"""``mpi-dcasgd stability``: what it prints, and what it refuses."""

from __future__ import annotations

import json

import pytest

from mpi_dcasgd.cli import main

JOB = "jobs/digits.yaml"


def test_a_line_for_each_number_of_workers(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["algorithm=asgd", "rule.momentum={name: shifted, momentum: 0.5}", "lr=0.2"]
    assert main(["stability", JOB, *words, "--workers", "1", "3"]) == 0
    title, *head, one, three, _, _, foot = capsys.readouterr().out.splitlines()
    assert title == "digits: asgd, momentum 0.5, lr 0.2"
    assert one.split() == ["1", "0", "6.0000", "0.2", "(x", "1.0000)"]
    assert three.split() == ["3", "2", "0.8229", "0.02743", "(x", "0.1371)"]
    assert head[0].index("staleness") + len("staleness") == one.index("0 ", 9) + 1
    assert "mpi-dcasgd simulate" in foot


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stability", JOB, "algorithm=stable-asgd", "lr=0.2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["algorithm"], found["lr"]) == ("stable-asgd", 0.2)
    assert [row["workers"] for row in found["workers"]] == [1, 2, 4, 8, 16, 32]
    for row in found["workers"]:
        assert row["rate"] == pytest.approx(2.0, rel=1e-4)
        assert row["lr"] == pytest.approx(0.2, rel=1e-4)


def test_what_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stability", JOB, "algorithm=ssgd"]) == 2
    assert "algorithm: no gradient of ssgd is stale" in capsys.readouterr().err
    assert main(["stability", JOB, "algorithm=gap-aware"]) == 2
    assert "a largest stable rate cannot be told" in capsys.readouterr().err
    assert main(["stability", JOB, "algorithm=asgdd", "lr=-1"]) == 2
    error = capsys.readouterr().err
    assert "did you mean asgd?" in error
    assert "lr: " in error
