"""The data of a logistic regression and its minimum, once for each process."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpi_dcasgd.errors import DataError
from mpi_dcasgd.learning.data.source import expanded
from mpi_dcasgd.wording import counted

MOST_FEATURES = 5000
"""The data and the curvature are dense matrices, the latter with as many rows as columns."""

_STEPS = 100
_NEAR = 1e-9
"""Decrease in f below which whole steps are taken: so little is not seen in its rounded values."""
_ENOUGH = 1e-20
"""Decrease at which one more step of Newton's, whose error is squared, ends in rounding."""


class Problem(NamedTuple):
    """Data and minimum.

    Attributes:
        rows: (n, d), float32.
        labels: (n,), 1 or -1, float32.
        l2: Factor of half the squared norm.
        optimum: (d,), float64.
    """

    rows: NDArray[np.float32]
    labels: NDArray[np.float32]
    l2: float
    optimum: NDArray[np.float64]


@lru_cache(maxsize=1)
def made_up(samples: int, dimension: int, seed: int, l2: float | None) -> Problem:
    """Make data up: rows of norm about 1, labels as a model with normal weights would draw them."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((samples, dimension)) / np.sqrt(dimension)
    weights = 5 * rng.standard_normal(dimension)
    positive = rng.random(samples) < 1 / (1 + np.exp(-rows @ weights))
    return _solved(rows, np.where(positive, 1.0, -1.0), l2)


@lru_cache(maxsize=1)
def read(path: str, l2: float | None) -> Problem:
    """Read a file in LIBSVM's format.

    Raises:
        DataError: scikit-learn is missing, or the file is, or it is not what it should be.
    """
    file = expanded(path)
    rows, values = _read(file)
    labels = np.unique(values)
    if len(labels) != 2:
        shown = ", ".join(f"{label:g}" for label in labels[:5])
        more = ", ..." if len(labels) > 5 else ""
        raise DataError(
            f"logistic: {file} has {counted(len(labels), 'different label')} "
            f"({shown}{more}); allowed: 2"
        )
    return _solved(rows, np.where(values == labels[1], 1.0, -1.0), l2)


def _read(file: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not file.is_file():
        raise DataError(f"logistic: no file {file}; task.file must name one in LIBSVM's format")
    try:
        from sklearn.datasets import load_svmlight_file
    except ImportError as error:
        raise DataError(
            f"logistic: {file} is read by scikit-learn, which cannot be imported ({error}); "
            "pip install scikit-learn, or omit task.file for made-up data"
        ) from error
    try:
        sparse, values = load_svmlight_file(str(file), dtype=np.float64)
    except (ValueError, OSError, EOFError, OverflowError) as error:
        raise DataError(
            f"logistic: {file} is not in LIBSVM's format: {error}; each line must be a label and "
            "index:value pairs with ascending indices"
        ) from error
    samples, features = sparse.shape
    if not samples or not features:
        raise DataError(f"logistic: {file} has {counted(samples, 'sample')} of {features} features")
    if features > MOST_FEATURES:
        raise DataError(
            f"logistic: {file} has {features} features; allowed: up to {MOST_FEATURES}, since the "
            "data are kept as a dense matrix"
        )
    rows = sparse.toarray()
    if not (np.isfinite(rows).all() and np.isfinite(values).all()):
        raise DataError(f"logistic: {file} has values that are not finite")
    return rows, values


def _solved(rows: NDArray[np.float64], labels: NDArray[np.float64], l2: float | None) -> Problem:
    # The optimum is that of the numbers which are trained on.
    single = rows.astype(np.float32)
    factor = 1 / len(rows) if l2 is None else l2
    optimum = minimum(single.astype(np.float64) * labels[:, None], factor)
    return Problem(single, labels.astype(np.float32), factor, optimum)


def minimum(signed: NDArray[np.float64], l2: float) -> NDArray[np.float64]:
    """Find the minimum by Newton's method, with steps that are halved until they help.

    Args:
        signed: The rows times their labels, (n, d).
        l2: Factor of half the squared norm, above 0.
    """
    samples, dimension = signed.shape

    def value(x: NDArray[np.float64]) -> float:
        return float(np.logaddexp(0, -signed @ x).mean() + l2 / 2 * (x @ x))

    x = np.zeros(dimension)
    for _ in range(_STEPS):
        wrong = np.exp(-np.logaddexp(0, signed @ x))
        gradient = l2 * x - signed.T @ wrong / samples
        weighted = signed * (wrong * (1 - wrong))[:, None]
        curvature = signed.T @ weighted / samples + l2 * np.eye(dimension)
        step = np.linalg.solve(curvature, gradient)
        decrease = float(gradient @ step)
        if decrease < _ENOUGH:
            return x - step
        size, here = 1.0, value(x)
        while decrease > _NEAR and value(x - size * step) > here - 0.1 * size * decrease:
            size /= 2
        x = x - size * step
    raise DataError(f"logistic: no minimum found in {_STEPS} steps; choose a greater task.l2")
