"""Public base class of tasks: the one place where training meets a user's subject.

Nothing here imports PyTorch, so that jobs are checked without it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

from mpi_dcasgd.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.utils.data import Dataset

    from mpi_dcasgd.learning.data.dataset import Split

    Data: TypeAlias = Dataset[Any] | Split | Tensor | Sequence[Tensor] | Mapping[str, Tensor]
    """A map-style data set, or a nest of tensors of equal length whose first dimension counts
    samples."""

MetricSums: TypeAlias = "Mapping[str, tuple[float | Tensor, float | Tensor]]"
"""Metric to its sum over a batch and the weight of that sum: the mean is their quotient."""


class _Made:
    """Keeps what it was made with, so that a job can say what every rank has to make."""

    _made_with: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        object.__setattr__(made, "_made_with", (args, kwargs))  # not by a setter of the task's
        return made


class Task(_Made):
    """A model, its data, its loss and its metrics: everything that training is about.

    Subclass it and override the methods; the arguments of the constructor are settings that a job
    may give, checked against its type hints. A parameter called ``model`` or ``data`` is no
    setting: it is filled with the settings of the job's section of that name
    (``mpi_dcasgd.learning.models.ModelSource``, ``mpi_dcasgd.learning.data.DataSource``), for a
    task that works with any of them.

    Every rank makes the task for itself, and every ticket's gradient must follow from the weights
    and the ticket alone. Random numbers may come from Python's ``random``, from NumPy and from
    PyTorch, all of which are seeded from the ticket beforehand; whatever else a method remembers
    from call to call makes a run one that cannot be replayed.

    Attributes:
        primary_metric: The metric that says how good the weights are: ``best``, targets and
            verdicts go by it. ``loss`` if there is no other.
        higher_is_better: The direction of the primary metric.
        units: Unit of each metric, for reports. ``%`` says that the metric is a fraction of 1, to
            be shown times 100.
        evaluation_draws: False if ``loss`` and ``metrics`` of a model in evaluation mode draw no
            random numbers, and no sample of the test data does, so that a rank may evaluate on a
            thread while it trains.
        capturable: True if ``loss`` is computed by PyTorch alone and its operations do not depend
            on any value, so that a GPU may record it once as a graph. Neither ``random`` nor NumPy
            is seeded for it then.
        evaluation_batch: Samples that are evaluated at once; the metrics do not depend on it.
        seed: The job's seed. Set when any method is called, not yet in the constructor.
        device: The device that batches go to. Likewise; in a process that loads samples
            (``data.loaders``) the CPU.

    Example:
        A line through points, for a job with ``task: {name: "my_task:Line", points: 100}``::

            class Line(Task):
                def __init__(self, points: int = 50):
                    self.points = points

                def model(self):
                    return nn.Linear(1, 1)

                def train_data(self):
                    x = torch.linspace(0, 1, self.points)[:, None]
                    return x, 3 * x + 1

                def test_data(self):
                    x = torch.rand(20, 1)
                    return x, 3 * x + 1

                def loss(self, model, batch):
                    x, y = batch
                    return (model(x) - y).square().mean()
    """

    primary_metric: ClassVar[str] = "loss"
    higher_is_better: ClassVar[bool] = False
    units: ClassVar[Mapping[str, str]] = {}
    evaluation_draws: ClassVar[bool] = True
    capturable: ClassVar[bool] = False
    evaluation_batch: ClassVar[int] = 512

    seed: int = 0
    device: torch.device

    # Not left to _Made, whose arguments would be taken for the settings of a task without any.
    def __init__(self) -> None:
        pass

    def model(self) -> nn.Module:
        """Build the model with fresh weights, which follow from torch's global random state.

        Returns:
            A module in float32, on the CPU.
        """
        raise NotImplementedError(f"{type(self).__name__} must override model")

    def train_data(self) -> Data:
        """Make the training data: equal data on every rank.

        Returns:
            A map-style data set (``__len__`` and ``__getitem__``, or ``__getitems__`` for many
            samples at once), or tensors of equal length, alone or in a tuple or a dictionary. What
            is tensors is kept on ``device``, and a batch is the same nest with fewer samples.
        """
        raise NotImplementedError(f"{type(self).__name__} must override train_data")

    def test_data(self) -> Data:
        """Make the test data, which are reported and choose nothing."""
        raise NotImplementedError(f"{type(self).__name__} must override test_data")

    def validation_data(self) -> Data | None:
        """Make the data that choose the best weights; None to choose by the test data."""
        return None

    def collate(self, samples: list[Any]) -> Any:
        """Make a batch of samples of a map-style data set; by default as PyTorch does.

        Args:
            samples: One or more, as the data set returned them.

        Returns:
            A nest of tensors on the CPU.
        """
        from torch.utils.data import default_collate

        return default_collate(samples)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Compute the loss whose gradient is followed.

        Args:
            model: What ``model()`` built, in training mode, on ``device``.
            batch: A nest of tensors on ``device``.

        Returns:
            A scalar: the mean over the samples of the batch.
        """
        raise NotImplementedError(f"{type(self).__name__} must override loss")

    def metrics(self, model: nn.Module, batch: Any) -> MetricSums:
        """Measure the model on a batch of test or validation data.

        Args:
            model: What ``model()`` built, in evaluation mode, on ``device``; no gradient is kept.
            batch: A nest of tensors on ``device``.

        Returns:
            Metric to its sum over the batch and the weight of the sum, so that the size of batches
            does not matter: ``{"error": (wrong, answers)}``. Where ``loss`` is not among them, the
            mean of ``loss()`` over the samples is added.
        """
        return {}

    def curvature(self) -> float | None:
        """Return the largest curvature of the training loss, where it is known.

        That is the largest eigenvalue of its Hessian, on all samples, wherever training may go. A
        run then warns of a learning rate that is too large for its delays.
        """
        return None

    def derived(self, means: Mapping[str, float]) -> Mapping[str, float]:
        """Compute further metrics from the means of a whole split.

        For what is no mean over samples but follows from means: a root, an exponential, a ratio.

        Args:
            means: Metric to its mean, ``loss`` among them.

        Returns:
            Further metrics by name, ``{"rmse": means["mse"] ** 0.5}``; the primary one may be
            among them.
        """
        return {}


def made_again(task: Task) -> Task:
    """Make a task anew with its arguments, as every rank does."""
    args, kwargs = task._made_with
    return type(task)(*args, **kwargs)


def arguments_of(task: Task) -> dict[str, Any]:
    """Return the arguments that a task's constructor was called with, by name.

    Args:
        task: Made by whatever call.

    Raises:
        ConfigError: They have no names, since the constructor takes any number of them.

    Example:
        >>> class Line(Task):
        ...     def __init__(self, points=50, *, width=8): ...
        >>> arguments_of(Line(3, width=4)), arguments_of(Line())
        ({'points': 3, 'width': 4}, {})
    """
    args, kwargs = task._made_with
    signature = inspect.signature(type(task))
    given = dict(signature.bind(*args, **kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
        elif name in given and parameter.kind is parameter.VAR_POSITIONAL:
            raise ConfigError("task", [f"{type(task).__name__}: *{name} cannot be named in a job"])
    return given
