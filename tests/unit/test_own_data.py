"""Data that a function of a user's own loads: what it may return, and what is told of the rest."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from mpi_dcasgd import simulate
from mpi_dcasgd.config.load import job_as_yaml, load_job
from mpi_dcasgd.errors import ConfigError, DataError, UserError
from mpi_dcasgd.learning.data import describe, find_data, load_dataset
from mpi_dcasgd.learning.data.returned import dataset_of

CPU = torch.device("cpu")
X, Y = torch.rand(12, 1, 4, 4), torch.arange(12) % 3


class Pictures(Dataset):
    """As torchvision's are: pairs of an image and a number, with the labels as a list."""

    def __init__(self, size: int = 12, **attributes: Any) -> None:
        self.size = size
        self.__dict__ |= attributes

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return X[index], int(Y[index])


def sizes(returned: Any) -> tuple[Any, ...]:
    dataset = dataset_of(returned, "mine", CPU)
    return dataset.num_classes, dataset.input_shape, dataset.class_names


def pair(n: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    return X[:n], Y[:n]


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ((pair(), pair(4)), (3, (1, 4, 4), ("0", "1", "2"))),
        # A class that only the test samples have is one as well.
        ((pair(2), pair(4)), (3, (1, 4, 4), ("0", "1", "2"))),
        ((TensorDataset(*pair()), TensorDataset(*pair())), (3, (1, 4, 4), ("0", "1", "2"))),
        (((X.numpy(), Y.numpy()), pair()), (3, (1, 4, 4), ("0", "1", "2"))),
        ((Pictures(classes=["a", "b", "c"]), Pictures()), (3, (1, 4, 4), ("a", "b", "c"))),
        ((Pictures(num_classes=5), Pictures()), (5, (1, 4, 4), tuple("01234"))),
        ((Pictures(targets=Y.tolist()), Pictures(4)), (3, (1, 4, 4), ("0", "1", "2"))),
        (
            (Subset(Pictures(classes=["a", "b", "c"]), [0, 1]), Pictures(4)),
            (3, (1, 4, 4), ("a", "b", "c")),
        ),
        (
            (Subset(Pictures(targets=Y.tolist()), [0, 1, 3]), Pictures(4)),
            (2, (1, 4, 4), ("0", "1")),
        ),
        (
            {"train": Pictures(), "test": Pictures(), "class_names": ["x", "y", "z"]},
            (3, (1, 4, 4), ("x", "y", "z")),
        ),
        (
            {"train": Pictures(), "test": pair(), "num_classes": 7, "input_shape": [16]},
            (7, (16,), tuple("0123456")),
        ),
        # Targets that are no labels: so many numbers are to be predicted.
        (((X, X.sum((1, 2, 3))), (X, X.sum((1, 2, 3)))), (1, (1, 4, 4), ("0",))),
        (((X, X[:, 0, :2, 0]), (X, X[:, 0, :2, 0])), (2, (1, 4, 4), ("0", "1"))),
    ],
)
def test_sizes_are_found_out_where_they_are_not_given(returned: Any, expected: Any) -> None:
    assert sizes(returned) == expected


def test_a_third_split_is_for_validation() -> None:
    for returned in (
        (pair(), pair(4), pair(3)),
        {"train": pair(), "test": pair(4), "validation": pair(3)},
    ):
        dataset = dataset_of(returned, "mine", CPU)
        assert dataset.validation is not None
        assert [len(s) for s in (dataset.train, dataset.test, dataset.validation)] == [12, 4, 3]
    assert dataset_of((pair(), pair(), None), "mine", CPU).validation is None


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (None, "returned NoneType; allowed: .train, test., .train, test, validation., or a map"),
        (pair()[0], "returned Tensor; allowed"),
        ((pair(),), "returned a tuple of 1; allowed"),
        ({"train": pair()}, "returned no test data; allowed"),
        ({"train": pair(), "tests": pair()}, "returned the key 'tests'; did you mean test"),
        ((pair(0), pair()), "train data: empty"),
        ((pair(), pair(0)), "test data: empty"),
        ((pair(), 3), "test data: got int"),
        # Whoever returns inputs and targets has forgotten the test data.
        (pair(), "returned 2 tensors, which are no pairs of inputs and targets"),
        ((Pictures(), Pictures()), "number of classes is not known: it has no attribute targets"),
        (({"x": X}, {"x": X}), "number of classes is not known: samples are no pairs"),
        (
            {"train": pair(), "test": pair(), "num_classes": 2},
            "train sample 2 has the label 2; with 2 classes labels are 0 to 1",
        ),
        (
            (Pictures(classes=["a", "b", "c"]), (X, Y + 1)),
            "test sample 2 has the label 3; with 3 classes labels are 0 to 2",
        ),
        (((X, Y - 1), pair()), "train sample 0 has the label -1"),
        (
            (Pictures(targets=[9] * 12, classes=["a"]), Pictures()),
            "train sample 0 has the label 9; with 1 class",
        ),
        ({"train": pair(), "test": pair(), "num_classes": 2.5}, "num_classes: got 2.5"),
        ({"train": pair(), "test": pair(), "class_names": "abc"}, "class_names: got str"),
        (
            {"train": pair(), "test": pair(), "class_names": ["a"], "num_classes": 3},
            "1 class_names for num_classes 3",
        ),
        ({"train": pair(), "test": pair(), "input_shape": "all"}, "input_shape: got 'all'"),
    ],
)
def test_what_no_data_set_can_be_made_of_is_told(returned: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        dataset_of(returned, "mine", CPU)


FUNCTIONS = '''
import random
from typing import Annotated
import numpy as np
import torch
from pydantic import Field


def load(size: Annotated[int, Field(ge=1, description="training samples")] = 40, *, seed: int):
    """Points in two clouds."""
    x = torch.randn(size, 3) + random.random() + np.random.rand()
    return (x, (x[:, 0] > 1).long()), (x[:10], (x[:10, 0] > 1).long())


def must(size: int):
    return load(size, seed=0)


def broken(size: int = 3):
    return {}[size]


def wrong():
    return 3


calls = 0


def counted():
    global calls
    calls += 1
    return load(seed=0)


class Thing:
    pass
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path) -> Path:
    """A job whose data are those of a function beside it; its file."""
    (tmp_path / "own_functions.py").write_text(FUNCTIONS)
    file = tmp_path / "job.yaml"
    file.write_text(
        "epochs: 1\nbatch_size: 8\nlr: 0.1\nmodel: {name: mlp, hidden: [4]}\n"
        "data: {name: 'own_functions:load', size: 30}\n"
    )
    return file


def test_a_job_with_a_function_for_data_trains(module: Path, tmp_path: Path) -> None:
    run = simulate(module, workers=2, run_dir=tmp_path / "run", delays="constant")
    assert run.status == "completed"
    written = job_as_yaml(run.job)["data"]
    assert (written["name"], written["size"]) == ("own_functions:load", 30)
    assert len(run.trace()) == 4


def test_the_seed_is_the_jobs_and_the_generators_are_planted_and_given_back(module: Path) -> None:
    data = load_job(module).data

    def first(seed: int) -> torch.Tensor:
        return load_dataset(data, seed, CPU).train.batch(np.arange(30), None)[0]

    state = random.getstate(), torch.get_rng_state()
    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
    assert state[0] == random.getstate()
    assert torch.equal(state[1], torch.get_rng_state())


def test_the_settings_can_be_sent_and_the_sizes_are_worked_out_once(module: Path) -> None:
    data = load_job(module, ["data={name: 'own_functions:counted'}"]).data
    assert describe(data) == describe(data)
    import own_functions

    assert own_functions.calls == 1
    assert pickle.loads(pickle.dumps(data)) == data


@pytest.mark.parametrize(
    ("override", "problems"),
    [
        ("data.size=0", ["data.size: got 0 (a whole number); allowed: a whole number >= 1"]),
        ("data.size=x", ["data.size: got 'x' (text); allowed: a whole number >= 1"]),
        ("data.sise=4", ["data.sise: unknown; did you mean data.size?"]),
        ("data.seed=4", ["data.seed: unknown; did you mean seed?"]),
        (
            "data={name: 'own_functions:must', sze: 3}",
            [
                "data.size: missing; give a whole number",
                "data.sze: unknown; did you mean data.size",
            ],
        ),
        ("data={name: 'own_functions:Thing'}", ["data.name: own_functions:Thing is neither a sub"]),
        ("data={name: 'own_functions:calls'}", ["data.name: own_functions:calls is neither a sub"]),
    ],
)
def test_settings_are_checked_against_the_signature(
    module: Path, override: str, problems: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_job(module, [override])
    found = sorted(caught.value.problems)
    assert len(found) == len(problems)
    for line, expected in zip(found, problems, strict=True):
        assert line.startswith(expected)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "broken",
            r"name: own_functions:broken raised KeyError: 3 \(.*functions.py, line 20\)",
        ),
        ("wrong", "own_functions:wrong: returned int; allowed: "),
    ],
)
def test_a_function_that_fails_is_told_with_its_place(module: Path, name: str, told: str) -> None:
    job = load_job(module, [f"data={{name: 'own_functions:{name}'}}"])
    with pytest.raises(UserError, match=told):
        load_dataset(job.data, 0)


def test_built_in_data_and_own_classes_are_found_as_before() -> None:
    assert find_data("digits").__name__ == "Digits"
    assert find_data("mpi_dcasgd.learning.data.digits:Digits").__name__ == "Digits"
    with pytest.raises(UserError, match="unknown 'digit'; did you mean digits"):
        find_data("digit")
