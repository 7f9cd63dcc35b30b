"""Classification: one of several classes for each sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from mpi_dcasgd.errors import ConfigError, DataError
from mpi_dcasgd.learning.data.dataset import Dataset, Split
from mpi_dcasgd.learning.data.source import DataSource
from mpi_dcasgd.learning.models.base import ModelSource
from mpi_dcasgd.learning.settings import Count
from mpi_dcasgd.learning.tasks.sections import SectionTask

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mpi_dcasgd.learning.subject import Subject
    from mpi_dcasgd.learning.task import MetricSums


class Classification(SectionTask):
    """Classification with cross-entropy, of any data set whose targets are numbers of classes.

    Args:
        model: The section of that name.
        data: The section of that name.
        label_smoothing: Of the loss that is trained on; the loss that is measured is without.
        top_k: Errors of the first k answers to report beside that of the first, ``top5_error``.

    Source: C. Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016, section 7, for
    label smoothing.
    """

    primary_metric = "error"
    evaluation_draws = False
    capturable = True
    units: ClassVar[dict[str, str]] = {"error": "%"}

    def __init__(
        self,
        model: ModelSource,
        data: DataSource,
        label_smoothing: Annotated[
            float,
            Field(ge=0, lt=1, description="share of each target that is spread over all classes"),
        ] = 0.0,
        top_k: Annotated[
            tuple[Count, ...],
            Field(description="report, too, how often the class is not among the k best answers"),
        ] = (),
    ) -> None:
        super().__init__(model, data)
        self.label_smoothing = label_smoothing
        self.top_k = top_k
        self.units = {"error": "%", **{_name(k): "%" for k in top_k}}  # type: ignore[misc]

    def train_data(self) -> Split:
        classes = self.dataset.num_classes
        if classes < 2:
            named = "".join(f" ({name})" for name in self.dataset.class_names)
            raise DataError(
                f"{self.dataset.name}: has one class{named}, so that every answer is right; "
                "classification needs at least two"
            )
        beyond = [k for k in self.top_k if k >= classes]
        if beyond:
            raise ConfigError(
                "task", [f"top_k: got {list(self.top_k)}; allowed: below the {classes} classes"]
            )
        return super().train_data()

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        from torch.nn.functional import cross_entropy

        inputs, targets = batch
        return cross_entropy(model(inputs), targets, label_smoothing=self.label_smoothing)

    def metrics(self, model: nn.Module, batch: Any) -> MetricSums:
        from torch.nn.functional import cross_entropy

        inputs, targets = batch
        samples = len(targets)
        scores = model(inputs)
        # PyTorch takes a score that is not a number for the largest, so that it would be an answer.
        answered = ~scores.isnan().any(1)
        right = int(((scores.argmax(1) == targets) & answered).sum())
        found: dict[str, tuple[float | Tensor, float | Tensor]] = {
            "error": (samples - right, samples)
        }
        for k in self.top_k:
            hit = (scores.topk(k, dim=1).indices == targets[:, None]).any(1) & answered
            found[_name(k)] = (samples - int(hit.sum()), samples)
        found["loss"] = (float(cross_entropy(scores, targets, reduction="sum")), samples)
        return found


def classify(dataset: Dataset) -> Subject:
    """Make the classification of a data set that is at hand, without a job.

    Args:
        dataset: Its splits are taken as they are.
    """
    from mpi_dcasgd.learning.subject import Subject

    task = Classification(ModelSource(name="none"), DataSource(name=dataset.name))
    return Subject(task, dataset.train, dataset.test)


def _name(k: int) -> str:
    return f"top{k}_error"
