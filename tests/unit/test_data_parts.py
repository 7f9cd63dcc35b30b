"""Validation samples set apart from the training samples, and checks that all data sets share."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from data_sets import facts_agree, load, source, whole
from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor

from mpi_dcasgd.config.check import try_job
from mpi_dcasgd.config.load import load_job
from mpi_dcasgd.config.plan import plan_job
from mpi_dcasgd.errors import STRICT, ConfigError, DataError
from mpi_dcasgd.learning.data import (
    Dataset,
    DataSource,
    Facts,
    Part,
    ResidentSplit,
    Split,
    augments,
    describe,
    known_facts,
    load_dataset,
)
from mpi_dcasgd.learning.data.tensors import TensorSplit
from mpi_dcasgd.runs.build import Workshop

JOBS = Path(__file__).parents[2] / "jobs"
CPU = torch.device("cpu")
VALIDATION_DIGITS = "bc71e3d4d62250bb20e09e853ce69eefb06deff81d79bf6dc5488423e8a65e4c"
"""SHA-256 of the numbers of 144 of 1,437 samples: another choice would make selections differ."""


class Noted:
    """A split that is read when asked for and notes whether it was given a generator."""

    augments = True

    def __init__(self, length: int = 10) -> None:
        self.length = length
        self.drawn: list[bool] = []

    def __len__(self) -> int:
        return self.length

    def batch(self, indices: np.ndarray, rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        self.drawn.append(rng is not None)
        numbers = torch.from_numpy(indices)
        return numbers[:, None].float(), numbers % 2


class TestPart:
    def test_serves_the_samples_that_it_names_in_their_order(self) -> None:
        part = Part(TensorSplit(torch.eye(5), torch.arange(5), CPU), np.array([4, 1, 3]))
        assert len(part) == 3
        inputs, targets = part.batch(np.array([2, 0]), None)
        assert targets.tolist() == [3, 4]
        assert torch.equal(inputs, torch.eye(5)[[3, 4]])

    def test_is_resident_if_its_source_is_also_a_part_of_a_part(self) -> None:
        resident = Part(TensorSplit(torch.eye(5), torch.arange(5), CPU), np.array([4, 1, 3]))
        assert isinstance(resident, ResidentSplit)
        assert resident.device == CPU
        assert resident.recipe(np.array([1]), None).tolist() == [[1]]
        again = Part(resident, np.array([2, 1]))
        assert isinstance(again, ResidentSplit)
        assert whole(again)[1].tolist() == [3, 1]
        read: Split = Noted()
        assert not isinstance(Part(read, np.array([1])), ResidentSplit)
        assert whole(Part(read, np.array([7, 2])))[0].tolist() == [[7], [2]]

    def test_augments_as_its_source_does_unless_told_otherwise(self) -> None:
        read = Noted()
        some = np.array([1, 2])
        whole(Part(read, some), seed=0)
        whole(Part(read, some))
        whole(Part(read, some, augment=False), seed=0)
        assert read.drawn == [True, False, False]
        assert augments(Part(read, some))
        assert not augments(Part(read, some, augment=False))
        assert not augments(Part(TensorSplit(torch.eye(2), torch.arange(2), CPU), some - 1))

    def test_draws_what_its_source_draws(self) -> None:
        train = load("digits", augment="standard").train
        some = np.array([5, 900, 31])
        part = Part(train, some)
        expected = train.batch(some, np.random.default_rng(3))[0]
        assert torch.equal(part.batch(np.arange(3), np.random.default_rng(3))[0], expected)
        still = Part(train, some, augment=False)
        assert torch.equal(still.batch(np.arange(3), np.random.default_rng(3))[0], whole(part)[0])
        assert isinstance(part, ResidentSplit)
        assert isinstance(still, ResidentSplit)
        drawn = [one.recipe(np.arange(3), np.random.default_rng(3)) for one in (part, still)]
        assert [len(rows) for rows in drawn] == [4, 1]
        assert not torch.equal(whole(part)[0], expected)


class TestValidation:
    def test_takes_its_fraction_and_no_sample_is_in_both(self) -> None:
        settings = source("digits", validation=0.1)
        dataset = load_dataset(settings, 0)
        facts_agree(dataset, settings)
        assert dataset.validation is not None
        assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (1293, 144, 360)
        plain = load("digits")
        assert plain.validation is None
        pixels = torch.cat([whole(split)[0] for split in (dataset.train, dataset.validation)])
        both, all_of_them = (x.flatten(1).unique(dim=0) for x in (pixels, whole(plain.train)[0]))
        assert torch.equal(both, all_of_them)
        assert torch.equal(whole(dataset.test)[0], whole(plain.test)[0])

    def test_is_the_same_for_every_seed_and_for_ever(self) -> None:
        for seed in (0, 7):
            validation = load("digits", seed, validation=0.1).validation
            assert isinstance(validation, Part)
            chosen = hashlib.sha256(validation.indices.astype("<i8").tobytes()).hexdigest()
            assert chosen == VALIDATION_DIGITS

    def test_is_read_without_augmentation(self) -> None:
        dataset = load("digits", augment="standard", validation=0.1)
        assert dataset.validation is not None
        assert augments(dataset.train)
        assert not augments(dataset.validation)
        assert torch.equal(whole(dataset.validation, seed=1)[0], whole(dataset.validation)[0])
        assert not torch.equal(whole(dataset.train, seed=1)[0], whole(dataset.train)[0])

    def test_stays_on_the_fast_path(self) -> None:
        dataset = load("synthetic", validation=0.5)
        assert isinstance(dataset.train, ResidentSplit)
        assert isinstance(dataset.validation, ResidentSplit)

    def test_is_known_without_files(self) -> None:
        settings = source("mnist", path="/nowhere", validation=0.05)
        known = known_facts(settings)
        assert known is not None
        assert (known.num_train, known.num_validation, known.num_test) == (57_000, 3000, 10_000)
        assert known_facts(source("imagefolder", path="x", validation=0.5)) is None
        assert Facts.of(load("digits", validation=0.1)).num_validation == 144

    @pytest.mark.parametrize(("fraction", "left"), [(0.01, "validate with"), (0.99, "train on")])
    def test_a_fraction_that_leaves_none_is_a_problem(self, fraction: float, left: str) -> None:
        settings = source("synthetic", num_train=20, validation=fraction)
        told = f"validation: got {fraction} of 20 training samples, which leaves none to {left}"
        for ask in (describe, known_facts, lambda one: load_dataset(one, 0)):
            with pytest.raises(ConfigError, match=told):
                ask(settings)
        job, problems = try_job(
            {
                "epochs": 1,
                "batch_size": 1,
                "lr": 0.1,
                "model": {"name": "mlp"},
                "data": {"name": "synthetic", "num_train": 20, "validation": fraction},
            },
            name="mine",
        )
        assert job is None
        (problem,) = problems
        assert problem.startswith(f"data.{told}; choose another fraction, or 0")

    @pytest.mark.parametrize("wrong", [1.0, -0.1, float("nan"), "0.1", True])
    def test_the_fraction_is_checked(self, wrong: Any) -> None:
        with pytest.raises(ValidationError):
            source("digits", validation=wrong)

    def test_a_job_is_planned_checked_and_trained_without_these_samples(self) -> None:
        job = load_job(JOBS / "digits.yaml", ["data.validation=0.5", "algorithm=sgd"])
        assert plan_job(job, 1).num_samples == 719
        workshop = Workshop.open(job, CPU)
        assert workshop.plan.num_samples == len(workshop.subject.train) == 719
        lone = [
            "data={name: synthetic, num_train: 18, shape: [3, 4, 4], validation: 0.05}",
            "model={name: resnet20}",
        ]
        with pytest.raises(ConfigError, match="17 samples in minibatches of 16 leave one"):
            load_job(JOBS / "digits.yaml", lone)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Mine(DataSource):
    """Whatever a test has made of it."""

    wrong: Annotated[str, Field(description="what is wrong")] = ""

    def load(self, seed: int, device: torch.device) -> Dataset:
        train, test = [torch.ones(6, 3), torch.arange(6) % 2], [torch.ones(4, 3), torch.zeros(4)]
        validation: Split | None = None
        if self.wrong == "no training samples":
            train = [torch.ones(0, 3), torch.zeros(0)]
        elif self.wrong == "no validation samples":
            validation = TensorSplit(torch.ones(0, 3), torch.zeros(0), device)
        elif self.wrong == "shape":
            test[0] = torch.ones(4, 2)
        elif self.wrong == "label":
            train[1] = torch.tensor([0, 1, 1, 2, 2, 0])
        elif self.wrong == "negative":
            test[1] = torch.tensor([0, 1, -1, 0])
        return Dataset(
            name="mine",
            train=TensorSplit(*train, device),
            test=Noted(0) if self.wrong == "no test samples" else TensorSplit(*test, device),
            num_classes=2,
            input_shape=(3,),
            class_names=("a", "b"),
            validation=validation,
        )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("no training samples", "there are no training samples; there must be one"),
        ("no test samples", "there are no test samples; there must be one"),
        ("no validation samples", "there are no validation samples; there must be one"),
        (
            "shape",
            "test samples have the shape (2,), but the data set says (3,); all samples must have "
            "one shape",
        ),
        ("label", "training sample 3 has the label 2; with 2 classes, labels are 0 to 1"),
        ("negative", "test sample 2 has the label -1; with 2 classes, labels are 0 to 1"),
    ],
)
@pytest.mark.parametrize("validation", [0.0, 0.5])
def test_data_that_nobody_can_train_on_are_refused_whoever_wrote_them(
    wrong: str, told: str, validation: float
) -> None:
    load_dataset(Mine(name="mine"), 0)
    with pytest.raises(DataError) as caught:
        load_dataset(Mine(name="mine", wrong=wrong, validation=validation), 0)
    assert str(caught.value) == f"mine: {told}"


class Other:
    """A split whose batches are what a task of its own knows to take."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return 3

    def batch(self, indices: np.ndarray, rng: np.random.Generator | None) -> Any:
        return self._batch


@pytest.mark.parametrize(
    "batch",
    [
        {"x": torch.ones(1, 7)},
        torch.ones(1, 7),
        (torch.ones(1, 7), {"y": torch.ones(1)}),
        (torch.ones(1, 3), torch.full((1, 5), -7.5)),
    ],
)
def test_batches_of_other_kinds_are_left_to_those_who_know_them(
    batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = Other(batch)
    monkeypatch.setattr(Mine, "load", lambda *_: Dataset("mine", split, split, 2, (3,), ("a", "b")))
    assert load_dataset(Mine(name="mine"), 0).train is split


def test_a_split_without_a_list_of_labels_is_checked_by_a_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    split = Other((torch.ones(1, 3), torch.tensor([5])))
    monkeypatch.setattr(Mine, "load", lambda *_: Dataset("mine", split, split, 2, (3,), ("a", "b")))
    with pytest.raises(DataError, match="mine: training sample 0 has the label 5; with 2 classes"):
        load_dataset(Mine(name="mine"), 0)


def test_a_job_with_a_bad_file_ends_with_one_message(processes: Any, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("short")
    job = tmp_path / "job.yaml"
    job.write_text(
        "{algorithm: sgd, epochs: 1, batch_size: 1, lr: 0.1, model: {name: mlp}, "
        f"data: {{name: text, path: {tmp_path}/short.txt}}}}"
    )
    words = [sys.executable, "-m", "mpi_dcasgd", "train", str(job), "--run-dir", f"{tmp_path}/run"]
    finished = processes.run(words)
    assert finished.status == 2, finished
    assert "Traceback" not in finished.stderr
    assert f"text: {tmp_path}/short.txt has 5 bytes, " in finished.stderr
