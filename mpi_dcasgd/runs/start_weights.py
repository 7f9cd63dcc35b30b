"""Weights that a job begins with instead of its model's own: those of a run, or of a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from mpi_dcasgd.errors import ConfigError, DataError
from mpi_dcasgd.learning.data.source import expanded
from mpi_dcasgd.learning.settings import StartSettings
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.sealed import DamagedError, load_sealed

_NAMED = 5
"""Names that a message lists."""


@dataclass(frozen=True)
class StartWeights:
    """Weights of a file, by the names that a model's ``state_dict`` has.

    Attributes:
        given: The job's ``start.weights``.
        file: Where they were read.
        fresh: Patterns of names that are the model's own.
        state: The weights, on the CPU.
    """

    given: str
    file: Path
    fresh: tuple[str, ...]
    state: Mapping[str, Tensor] = field(repr=False)

    @classmethod
    def of(cls, settings: StartSettings) -> StartWeights | None:
        """Read the weights that a job names; None if it names none.

        Raises:
            DataError: There are none, or they are damaged.

        Example:
            >>> StartWeights.of(StartSettings()) is None
            True
        """
        if settings.weights is None:
            return None
        file = expanded(settings.weights)
        if file.is_dir():
            file = RunFolder(file).weights_pt
        return cls(settings.weights, file, settings.fresh, _read(file))

    @cached_property
    def sha256(self) -> str:
        """Name of the weights that are used: of their names, types, shapes and values."""
        digest = hashlib.sha256()
        for name, value in sorted(self._used().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def as_plain(self) -> dict[str, str]:
        """Say in plain values what they are, to be compared with later."""
        return {"weights": self.given, "sha256": self.sha256}

    def __str__(self) -> str:
        fresh = f" but for {', '.join(self.fresh)}" if self.fresh else ""
        return f"{self.file}{fresh}, sha256 {self.sha256[:16]}"

    def put_into(self, model: nn.Module) -> None:
        """Give a model these weights, but for those that are to be its own.

        Raises:
            ConfigError: Names or shapes differ, or a pattern matches none; with all problems.
        """
        own = model.state_dict()
        problems = self._misfits(own)
        if problems:
            raise ConfigError(f"start.weights: {self.file}", problems)
        mine = {name: self.state[name] for name in own if not self._is_fresh(name)}
        model.load_state_dict({**own, **mine})

    def _used(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.state.items() if not self._is_fresh(name)}

    def _is_fresh(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.fresh)

    def _misfits(self, own: Mapping[str, Tensor]) -> list[str]:
        wanted = [name for name in own if not self._is_fresh(name)]
        used = self._used()
        missing = [name for name in wanted if name not in used]
        foreign = [name for name in used if name not in own]
        problems = [
            f"start.fresh: {pattern!r} matches nothing of the model, which has {_some(list(own))}"
            for pattern in self.fresh
            if not any(fnmatchcase(name, pattern) for name in own)
        ]
        remedy = "add patterns of them to start.fresh, or take weights of this model"
        if missing:
            problems.append(f"has no {_some(missing)}, which the model has; {remedy}")
        if foreign:
            problems.append(f"has {_some(foreign)}, which the model has not; {remedy}")
        problems += [
            f"{name} is {_shape(used[name])} there and {_shape(own[name])} in the model; {remedy}"
            for name in wanted
            if name in used and used[name].shape != own[name].shape
        ][:_NAMED]
        if not wanted:
            problems.append("start.fresh: matches everything, so that nothing is taken from there")
        return problems


def _read(file: Path) -> dict[str, Tensor]:
    try:
        found = load_sealed(file)
    except FileNotFoundError:
        what = "is not there; name a run folder that has its final weights, or a file of weights"
        raise DataError(f"start.weights: {file}: {what}") from None
    except OSError as error:
        raise DataError(f"start.weights: {file}: cannot be read: {error.strerror}") from error
    except DamagedError as error:
        raise DataError(f"start.weights: {file}: is damaged: {error}") from error
    except Exception as error:  # whatever a file of something else makes PyTorch raise
        raise DataError(
            f"start.weights: {file}: is no file that torch.save wrote of tensors alone "
            f"({type(error).__name__}); save model.state_dict(), not the model"
        ) from error
    state = found.get("state_dict", found) if isinstance(found, Mapping) else None
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise DataError(
            f"start.weights: {file}: holds no state_dict; allowed: tensors by name, by themselves "
            "or under the key state_dict"
        )
    return dict(state)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a number"
