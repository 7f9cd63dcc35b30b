"""What ranks compare before they train together; with other ranks that are made up."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from toy import CPU, toy_model, toy_subject

import mpi_dcasgd
from mpi_dcasgd.config.load import job_as_yaml, load_job
from mpi_dcasgd.drivers.handshake import (
    code_facts,
    data_facts,
    identity_facts,
    job_facts,
    layout_facts,
    shake_hands,
    source_digest,
)
from mpi_dcasgd.errors import LaunchError
from mpi_dcasgd.learning.data.identity import DataIdentity
from mpi_dcasgd.learning.flat import FlatModel

HOST = socket.gethostname()


class Comm:
    """Rank 0, and others that say what they are told to say, question by question."""

    def __init__(self, *others: list[Any]) -> None:
        self._others = [iter(answers) for answers in others]
        self.asked = 0

    def allgather(self, mine: Any) -> list[Any]:
        self.asked += 1
        return [mine, *(next(answers) for answers in self._others)]


def told(*others: list[Any]) -> str:
    with pytest.raises(LaunchError) as caught:
        shake_hands(Comm(*others), {"lr": "0.1", "seed": "0"})  # type: ignore[arg-type]
    return str(caught.value)


def test_ranks_that_agree_ask_one_question_only() -> None:
    comm = Comm()
    shake_hands(comm, {"lr": "0.1"})  # type: ignore[arg-type]
    assert comm.asked == 1


def test_what_differs_is_named_with_both_sides_and_nothing_else() -> None:
    text = told(["x", ("b", {"lr": "0.2", "seed": "0"})], ["y", ("b", {"lr": "0.2", "seed": "0"})])
    assert f"\n  lr: 0.1 on rank 0 ({HOST}); 0.2 on ranks 1, 2 (b)" in text
    assert "seed" not in text


def test_a_fact_that_only_one_has_is_named() -> None:
    text = told(["x", ("b", {"lr": "0.1"})])
    assert f"seed: 0 on rank 0 ({HOST}); nothing on rank 1 (b)" in text


@pytest.mark.parametrize("said", [None, ("b", {"module": object()}), ("b", "an error"), 3])
def test_an_earlier_version_that_answers_something_else_is_named(said: Any) -> None:
    text = told([("b", {}), said])
    assert "a version without this handshake on rank 1 (unknown host)" in text


def test_every_key_of_a_job_is_compared_but_where_and_with_what_files_it_runs() -> None:
    job = load_job("jobs/digits.yaml")
    facts = job_facts(job_as_yaml(job))
    for key in ("lr", "seed", "algorithm", "model.name", "data.name", "faults.patience", "epochs"):
        assert key in facts, key
    changed = load_job("jobs/digits.yaml", ["device=cpu"])
    assert job_facts(job_as_yaml(changed)) == facts
    for change in ("rule.compensation.dc_lambda=0.25", "inject.slow={1: 2}", "batchnorm=latest"):
        assert job_facts(job_as_yaml(load_job("jobs/digits.yaml", [change]))) != facts, change


def test_the_source_is_told_apart_by_a_byte_and_by_a_name(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    (package / "sub").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "sub" / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(mpi_dcasgd, "__file__", str(package / "__init__.py"))
    digest = source_digest.__wrapped__
    first = digest()
    assert digest() == first
    (package / "sub" / "a.py").write_text("x = 2\n")
    second = digest()
    (package / "sub" / "a.py").rename(package / "sub" / "b.py")
    assert len({first, second, digest()}) == 3


def test_facts_of_code_data_and_layout() -> None:
    assert {"mpi_dcasgd", "PyTorch", "NumPy", "byte order"} < code_facts().keys()
    assert data_facts(toy_subject(40)) == {"training samples": "40", "test samples": "20"}
    facts = identity_facts(toy_subject(40), lambda: DataIdentity.of(toy_subject(40)))
    assert facts.keys() == {f"content of the {split} data" for split in ("training", "test")}
    named = [DataIdentity({}, {}, classes) for classes in (("cat", "dog"), ("dog", "cat"))]
    assert len({str(identity_facts(toy_subject(), lambda it=it: it)) for it in named}) == 2
    # Equal in all sizes, and not the same.
    other = toy_subject(40)
    other.train.targets[0] += 1  # type: ignore[attr-defined]
    assert data_facts(other) == data_facts(toy_subject(40))
    apart = identity_facts(other, lambda: DataIdentity.of(other))
    assert {key for key in facts if facts[key] != apart[key]} == {"content of the training data"}
    plain = layout_facts(FlatModel(toy_model(), CPU).layout)
    assert plain == layout_facts(FlatModel(toy_model(seed=1), CPU).layout)
    assert plain != layout_facts(FlatModel(toy_model(batchnorm=True), CPU).layout)
