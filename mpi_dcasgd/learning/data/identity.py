"""Identity of a run's data: sizes, classes in order and fingerprints, to be compared later.

Nothing here imports PyTorch, so that records are compared without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpi_dcasgd.learning.subject import Subject

_SPLITS = {"train": "training", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class DataIdentity:
    """Identity of the data that a run trains on.

    Attributes:
        samples: Of each split.
        fingerprints: Of each split (``fingerprint_of``).
        classes: In the order of the targets; none where the task knows none.
        left_out: What lies beside the data and is none of them, in words.
        start: Where the first weights are from, and their SHA-256; empty for the model's own.
    """

    samples: Mapping[str, int]
    fingerprints: Mapping[str, str]
    classes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    start: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, subject: Subject) -> DataIdentity:
        """Take it from a task with its data, as this process made them.

        Raises:
            DataError: A sample cannot be read.
        """
        from mpi_dcasgd.learning.data.dataset import Dataset
        from mpi_dcasgd.learning.data.fingerprint import fingerprint_of

        splits = {"train": subject.train, "test": subject.test, "validation": subject.validation}
        there = {name: split for name, split in splits.items() if split is not None}
        dataset = getattr(subject.task, "dataset", None)
        return cls(
            samples={name: len(split) for name, split in there.items()},
            fingerprints={name: fingerprint_of(split) for name, split in there.items()},
            classes=dataset.class_names if isinstance(dataset, Dataset) else (),
            left_out=dataset.left_out if isinstance(dataset, Dataset) else (),
        )

    def as_plain(self) -> dict[str, Any]:
        """The identity in plain values, for ``differences``."""
        plain = {
            "samples": dict(self.samples),
            "classes": list(self.classes),
            "fingerprints": dict(self.fingerprints),
        }
        return {**plain, "start": dict(self.start)} if self.start else plain

    @property
    def tests_itself(self) -> bool:
        """True if the test samples are the training samples, as far as can be seen."""
        names = self.fingerprints
        alike = self.samples["train"] == self.samples["test"]
        return alike and bool(names["train"]) and names["train"] == names["test"]

    def __str__(self) -> str:
        """Say in one line what was found.

        Example:
            >>> str(DataIdentity({"train": 3, "test": 1}, {}, ("a", "b")))
            'data: 2 classes, 3 training and 1 test samples'
        """
        counts = [
            f"{self.samples[name]} {word}" for name, word in _SPLITS.items() if name in self.samples
        ]
        head = f"{len(self.classes)} classes, " if len(self.classes) > 1 else ""
        line = f"data: {head}{', '.join(counts[:-1])} and {counts[-1]} samples"
        return f"{line}; left out: {', '.join(self.left_out)}" if self.left_out else line


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say how data differ from those of before, in words; what either does not tell is equal.

    Args:
        then: What ``DataIdentity.as_plain`` returned; empty if nobody wrote it down.
        now: The same of the data as they are now.

    Example:
        >>> was = {"samples": {"train": 182}, "classes": ["cat", "dog"]}
        >>> differences(was, {"samples": {"train": 186}, "classes": ["cat", "eel"]})
        ['186 training samples, where there were 182', "class 1 is 'eel' and was 'dog'"]
    """
    if not then or not now:
        return []
    found = []
    for name, word in _SPLITS.items():
        before, after = (data.get("samples", {}).get(name) for data in (then, now))
        if before != after:
            found.append(f"{after or 'no'} {word} samples, where there were {before or 'none'}")
            continue
        before, after = (data.get("fingerprints", {}).get(name) for data in (then, now))
        if before and after and before != after:
            found.append(f"as many {word} samples, but others: names, sizes or contents differ")
    found += _class_differences(then.get("classes") or [], now.get("classes") or [])
    before, after = then.get("start") or {}, now.get("start") or {}
    # Another file is a change of the job, which is told where jobs are compared.
    if before.get("weights") == after.get("weights") and before != after:
        found.append(f"start.weights: {after['weights']} holds other weights")
    return found


def _class_differences(then: list[str], now: list[str]) -> list[str]:
    if len(then) != len(now):
        apart = sorted(set(then) ^ set(now))
        more = f" and {len(apart) - 5} more" if len(apart) > 5 else ""
        return [
            f"{len(now)} classes, where there were {len(then)} "
            f"(only on one side: {', '.join(apart[:5])}{more})"
        ]
    pairs = [pair for pair in enumerate(zip(then, now, strict=True)) if pair[1][0] != pair[1][1]]
    lines = [f"class {number} is {is_!r} and was {was!r}" for number, (was, is_) in pairs[:3]]
    return lines + ([f"and {len(pairs) - 3} more classes"] if len(pairs) > 3 else [])
