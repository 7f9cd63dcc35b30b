"""Least squares, quadratic and logistic: values that NumPy finds by other formulas, and minima."""

from __future__ import annotations

import gzip
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpi_dcasgd.errors import DataError
from mpi_dcasgd.learning.evaluation import evaluate
from mpi_dcasgd.learning.subject import Subject
from mpi_dcasgd.learning.task import Task
from mpi_dcasgd.learning.tasks import find_task
from mpi_dcasgd.learning.tasks.least_squares import LeastSquares
from mpi_dcasgd.learning.tasks.logistic import Logistic
from mpi_dcasgd.learning.tasks.logistic_problem import made_up, minimum
from mpi_dcasgd.learning.tasks.objective import Objective
from mpi_dcasgd.learning.tasks.quadratic import Quadratic

CPU = torch.device("cpu")
RNG = np.random.default_rng(5)

SMALL_FILE = "-1 1:0.5 3:2\n+1 2:1.5\n-1 1:1 2:0.25 3:-1\n+1 3:1\n"
SMALL_ROWS = np.array([[0.5, 0, 2], [0, 1.5, 0], [1, 0.25, -1], [0, 0, 1]])
SMALL_LABELS = np.array([-1.0, 1, -1, 1])


def opened(task: Objective) -> Subject:
    return Subject.open(task, 0, CPU)


def measured(task: Task, x: Any = None) -> dict[str, float]:
    """What an evaluation reports at a point, or at the start."""
    subject = opened(task)
    model = subject.build_model(0)
    if x is not None:
        with torch.no_grad():
            model.x.copy_(torch.as_tensor(x))
    return evaluate(model, task, subject.test, CPU)


def gradient(task: Objective, x: Any, indices: Any, seed: int = 0) -> np.ndarray:
    """The gradient of a minibatch in float64."""
    subject = opened(task)
    model = subject.build_model(0)
    with torch.no_grad():
        model.x.copy_(torch.as_tensor(x))
    torch.manual_seed(seed)
    loss = task.loss(model, subject.train.batch(np.asarray(indices), None))
    (found,) = torch.autograd.grad(loss, [model.x])
    return found.double().numpy()


def tridiagonal(d: int) -> tuple[np.ndarray, np.ndarray]:
    a = (2 * np.eye(d) - np.eye(d, k=1) - np.eye(d, k=-1)) / 4
    b = np.zeros(d)
    b[0] = -1 / 4
    return a, b


def test_the_quadratic_is_ringmasters() -> None:
    found = measured(Quadratic())
    assert found["f_gap"] == pytest.approx(442.770232, rel=1e-7)  # f0 - f* of the publication
    model = opened(Quadratic()).build_model(0)
    assert model.x.shape == (1729,)
    assert model.x[0].item() == pytest.approx(math.sqrt(1729))
    assert not model.x[1:].any()


@pytest.mark.parametrize("d", [1, 2, 3, 10])
def test_the_quadratics_metrics_are_those_of_the_dense_matrix(d: int) -> None:
    a, b = tridiagonal(d)
    x = RNG.standard_normal(d).astype(np.float32)
    best = np.linalg.solve(a, b)

    def f(x: np.ndarray) -> float:
        return float(x @ a @ x / 2 - b @ x)

    found = measured(Quadratic(dimension=d), x)
    assert found["loss"] == pytest.approx(f(x.astype(float)), rel=1e-12)
    assert found["f_gap"] == pytest.approx(f(x.astype(float)) - f(best), rel=1e-9)
    assert found["grad_sq"] == pytest.approx(np.sum((a @ x - b) ** 2), rel=1e-12)
    exact = gradient(Quadratic(dimension=d, noise=0.0), x, [0])
    assert exact == pytest.approx(a @ x - b, abs=1e-6)


def test_the_gap_is_that_of_float32_at_the_optimum() -> None:
    a, b = tridiagonal(50)
    found = measured(Quadratic(dimension=50), np.linalg.solve(a, b))
    # Subtracting two values of f in float32 would leave about 1e-8.
    assert 0 <= found["f_gap"] < 1e-14
    assert found["loss"] == pytest.approx(-50 / 51 / 8, rel=1e-12)


@pytest.mark.parametrize(("kind", "different"), [("scalar", 1), ("independent", 400)])
def test_the_quadratics_noise_is_one_number_or_one_for_each_coordinate(
    kind: Any, different: int
) -> None:
    a, b = tridiagonal(400)
    x = np.zeros(400)
    task = Quadratic(dimension=400, noise=0.5, noise_kind=kind)
    noise = gradient(task, x, [3]) - (a @ x - b)
    assert len(np.unique(noise.round(6))) == pytest.approx(different, abs=different // 100)
    # It follows from torch's seed, which is the ticket's.
    assert np.array_equal(gradient(task, x, [3]), gradient(task, x, [3]))
    assert not np.array_equal(gradient(task, x, [3]), gradient(task, x, [3], seed=1))
    many = np.array([gradient(task, x, [0], seed)[-1] for seed in range(300)])
    assert many.std() == pytest.approx(0.5, rel=0.15)
    of_four = np.array([gradient(task, x, range(4), seed)[-1] for seed in range(300)])
    assert of_four.std() == pytest.approx(0.25, rel=0.15)


def test_evaluation_of_the_quadratic_draws_nothing() -> None:
    task = Quadratic(dimension=5, noise=10.0)
    assert not task.evaluation_draws
    torch.manual_seed(0)
    before = torch.get_rng_state()
    task.device = CPU
    values = task.metrics(task.model(), torch.zeros(1))
    assert torch.equal(before, torch.get_rng_state())
    assert float(values["loss"][0]) == pytest.approx(5 / 4 + math.sqrt(5) / 4)
    assert len(opened(Quadratic(dimension=5, samples=7)).train) == 7


def test_least_squares_is_the_published_problem() -> None:
    found = measured(LeastSquares())
    assert found["f_gap"] == pytest.approx(0.1241315, abs=1e-7)  # f0 - f* of the publication
    task = LeastSquares()
    rows, targets = opened(task).train.batch(np.arange(10_000), None)
    assert rows.shape == (10_000, 400)
    assert targets.shape == (10_000,)
    curvature = rows.double().T @ rows.double() / 10_000
    assert float(torch.linalg.eigvalsh(curvature)[-1]) == pytest.approx(0.25007, abs=1e-5)


def test_least_squares_metrics_are_those_of_the_data() -> None:
    task = LeastSquares(samples=40, dimension=6, noise=0.3, data_seed=3)
    subject = opened(task)
    rows, targets = (t.double().numpy() for t in subject.train.batch(np.arange(40), None))
    best = np.linalg.lstsq(rows, targets, rcond=None)[0]
    x = RNG.standard_normal(6).astype(np.float32)

    def f(x: np.ndarray) -> float:
        return float(np.mean((rows @ x - targets) ** 2) / 2)

    found = measured(LeastSquares(samples=40, dimension=6, noise=0.3, data_seed=3), x)
    assert found["loss"] == pytest.approx(f(x), rel=1e-9)
    assert found["f_gap"] == pytest.approx(f(x) - f(best), rel=1e-9)
    whole = rows.T @ (rows @ x - targets) / 40
    assert found["grad_sq"] == pytest.approx(whole @ whole, rel=1e-9)
    some = rows[[1, 5]]
    expected = some.T @ (some @ x - targets[[1, 5]]) / 2
    assert gradient(task, x, [1, 5]) == pytest.approx(expected, abs=1e-6)
    assert 0 <= measured(task, best)["f_gap"] < 1e-14


def test_least_squares_data_follow_from_their_own_seed_alone() -> None:
    def rows(data_seed: int, seed: int) -> torch.Tensor:
        task = LeastSquares(samples=5, dimension=3, data_seed=data_seed)
        return Subject.open(task, seed, CPU).train.batch(np.arange(5), None)[0]

    assert torch.equal(rows(1, 0), rows(1, 7))
    assert not torch.equal(rows(1, 0), rows(2, 0))


def test_fewer_rows_than_columns_have_a_minimum_of_zero() -> None:
    found = measured(LeastSquares(samples=3, dimension=8))
    assert found["f_gap"] == pytest.approx(found["loss"], rel=1e-9)
    assert found["f_gap"] > 0


def logistic_file(folder: Path) -> str:
    file = folder / "small.svm"
    file.write_text(SMALL_FILE)
    return str(file)


def test_logistic_metrics_are_those_of_the_file(tmp_path: Path) -> None:
    task = Logistic(file=logistic_file(tmp_path), l2=0.1)
    x = np.array([0.5, -1, 0.25])
    signed = SMALL_ROWS * SMALL_LABELS[:, None]

    def f(x: np.ndarray) -> float:
        return float(np.mean(np.log(1 + np.exp(-signed @ x))) + 0.05 * x @ x)

    def slope(x: np.ndarray) -> np.ndarray:
        return 0.1 * x - signed.T @ (1 / (1 + np.exp(signed @ x))) / 4

    best = np.zeros(3)
    for _ in range(20_000):  # plain gradient descent, to have the minimum by another way
        best -= slope(best)
    found = measured(task, x)
    assert found["loss"] == pytest.approx(f(x), rel=1e-12)
    assert found["f_gap"] == pytest.approx(f(x) - f(best), rel=1e-9)
    assert found["grad_sq"] == pytest.approx(slope(x) @ slope(x), rel=1e-9)
    assert gradient(task, x, range(4)) == pytest.approx(slope(x), abs=1e-6)
    assert minimum(signed, 0.1) == pytest.approx(best, abs=1e-12)
    assert 0 <= measured(task, best)["f_gap"] < 1e-13
    assert measured(task)["loss"] == pytest.approx(math.log(2), rel=1e-12)


def test_the_gap_next_to_the_minimum_is_not_lost_in_rounding() -> None:
    task = Logistic(samples=300, dimension=5, l2=0.01)
    rows, labels = (t.double() for t in opened(task).train.batch(np.arange(300), None))
    best = torch.from_numpy(made_up(300, 5, 42, 0.01).optimum)
    right = (labels * (rows @ best)).sigmoid()
    curvature = rows.T @ (rows * (right * (1 - right))[:, None]) / 300 + 0.01 * torch.eye(5)
    away = torch.full((5,), 1e-8, dtype=torch.float64)
    # About 1e-17: the difference of two values of f would be a multiple of 5e-17.
    expected = float(away @ curvature @ away / 2)
    assert float(task.measure(best + away).gap) == pytest.approx(expected, rel=1e-3, abs=0)


def test_logistic_far_from_the_minimum_does_not_overflow() -> None:
    task = Logistic(samples=30, dimension=4)
    found = measured(task, [1e5, -1e5, 1e5, 1e5])
    assert math.isfinite(found["f_gap"])
    assert found["f_gap"] == pytest.approx(found["loss"], rel=1e-3)


@pytest.mark.parametrize("l2", [1e-8, 1e-3, 1.0, 100.0])
def test_newtons_method_ends_at_the_minimum(l2: float) -> None:
    problem = made_up(200, 20, 1, l2)
    signed = problem.rows.astype(float) * problem.labels[:, None]
    slope = l2 * problem.optimum - signed.T @ (1 / (1 + np.exp(signed @ problem.optimum))) / 200
    assert np.linalg.norm(slope) < 1e-13


def test_newtons_steps_are_halved_where_whole_ones_lead_away() -> None:
    rng = np.random.default_rng(2)
    signed = rng.standard_normal((8, 3)) * np.exp(3 * rng.standard_normal((8, 1)))
    found = minimum(signed, 1e-6)
    slope = 1e-6 * found - signed.T @ np.exp(-np.logaddexp(0, signed @ found)) / 8
    assert np.linalg.norm(slope) < 1e-10


def test_made_up_logistic_data_have_both_labels_and_the_common_penalty() -> None:
    problem = made_up(2000, 50, 42, None)
    assert problem.l2 == 1 / 2000
    assert set(problem.labels.tolist()) == {1.0, -1.0}
    assert 0.4 < (problem.labels > 0).mean() < 0.6
    assert np.linalg.norm(problem.rows, axis=1).mean() == pytest.approx(1, abs=0.05)


def test_logistic_reads_compressed_files_and_any_two_labels(tmp_path: Path) -> None:
    file = tmp_path / "small.svm.gz"
    file.write_bytes(gzip.compress(SMALL_FILE.replace("-1 1", "3 1").replace("+1", "7").encode()))
    rows, labels = opened(Logistic(file=str(file))).train.batch(np.arange(4), None)
    assert rows.tolist() == SMALL_ROWS.tolist()
    assert labels.tolist() == SMALL_LABELS.tolist()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("1 1:2\n2 1:3\n3 1:4\n", r"has 3 different labels \(1, 2, 3\); allowed: 2"),
        ("1 1:2\n1 1:3\n", r"has 1 different label \(1\); allowed: 2"),
        ("one 1:2\n", "is not in LIBSVM's format"),
        ("1 2:2 1:3\n-1 1:1\n", "is not in LIBSVM's format"),
        ("1 1:nan\n-1 1:1\n", "has values that are not finite"),
        ("1 5001:1\n-1 1:1\n", "has 5001 features; allowed: up to 5000"),
        ("", "is not in LIBSVM's format|has 0 samples"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(
    tmp_path: Path, content: str, told: str
) -> None:
    file = tmp_path / "bad.svm"
    file.write_text(content)
    with pytest.raises(DataError, match=rf"bad\.svm.*({told})|({told})") as caught:
        opened(Logistic(file=str(file)))
    assert str(file) in str(caught.value)


def test_a_missing_file_or_scikit_learn_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"no file .*nothing\.svm; task\.file must name one"):
        opened(Logistic(file=str(tmp_path / "nothing.svm")))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install scikit-learn, or omit task\.file"):
        opened(Logistic(file=logistic_file(tmp_path)))
    opened(Logistic(samples=10, dimension=2))


def test_without_a_minimum_near_by_the_search_ends_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "apart.svm"
    file.write_text("1 1:1\n-1 1:-1\n")  # separable: only the penalty keeps x from infinity
    found = measured(Logistic(file=str(file), l2=1e-300))
    assert found["f_gap"] == pytest.approx(math.log(2), rel=1e-9)


@pytest.mark.parametrize("name", ["least-squares", "quadratic", "logistic"])
def test_a_convex_task_needs_neither_model_nor_data(name: str) -> None:
    settings = find_task(name)
    assert not settings.takes("model")
    assert not settings.takes("data")
    assert settings(name=name).check() == []


@pytest.mark.parametrize(
    ("task", "lr", "steps"),
    [
        (Quadratic(dimension=20, noise=0.0, samples=1), 1.0, 2000),
        (LeastSquares(samples=60, dimension=5), 2.0, 3000),
        (Logistic(samples=60, dimension=5), 20.0, 3000),
    ],
    ids=["quadratic", "least-squares", "logistic"],
)
def test_descent_reaches_the_minimum_that_the_task_knows(
    task: Objective, lr: float, steps: int
) -> None:
    subject = opened(task)
    model = subject.build_model(0)
    whole = subject.train.batch(np.arange(len(subject.train)), None)
    began = evaluate(model, task, subject.test, CPU)["f_gap"]
    for _ in range(steps):
        (found,) = torch.autograd.grad(task.loss(model, whole), [model.x])
        with torch.no_grad():
            model.x -= lr * found
    assert began > 1e-3
    assert 0 <= evaluate(model, task, subject.test, CPU)["f_gap"] < 1e-10
