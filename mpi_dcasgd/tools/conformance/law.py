"""Laws, and the verdict on a target that is held against one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

Status = Literal["holds", "fails", "does not apply"]


class Violation(Exception):  # noqa: N818  # an outcome, like the next
    """A law does not hold; says what was seen and what was expected."""


class DoesNotApply(Exception):  # noqa: N818
    """The law says nothing about this target; says why."""


@dataclass(frozen=True)
class Law(Generic[T]):
    """A statement and the way to check it.

    Attributes:
        name: The statement, as reports and tests have it.
        check: Returns if the law holds; raises ``Violation`` or ``DoesNotApply`` if not.
    """

    name: str
    check: Callable[[T], None]

    @property
    def why(self) -> str:
        """Explanation for a target that breaks the law, from the check's docstring."""
        return (self.check.__doc__ or "").strip()


@dataclass(frozen=True)
class LawResult:
    """Verdict of a law on a target.

    Attributes:
        law: Its name.
        status: Whether it holds.
        detail: What was seen, or why the law does not apply; empty where it holds.
    """

    law: str
    status: Status
    detail: str = ""


def judge(law: Law[T], target: T) -> LawResult:
    """Hold a target against a law. Whatever the target raises is a failure, too."""
    try:
        law.check(target)
    except DoesNotApply as reason:
        return LawResult(law.name, "does not apply", str(reason))
    except Violation as seen:
        return LawResult(law.name, "fails", str(seen))
    except Exception as error:  # the target's own, of any kind
        first = (str(error).strip() or "no message").splitlines()[0]
        return LawResult(law.name, "fails", f"raised {type(error).__name__}: {first}")
    return LawResult(law.name, "holds")


def require(true: bool, otherwise: str) -> None:
    """Raise ``Violation`` with a message unless something is true."""
    if not true:
        raise Violation(otherwise)


def require_equal(seen: Tensor, expected: Tensor, what: str) -> None:
    """Two vectors agree to rounding: 1e-9 of the largest element in float64, 1e-4 in float32."""
    require(seen.shape == expected.shape, f"{what}: shape {tuple(seen.shape)}")
    tolerance = 1e-9 if seen.dtype == expected.dtype == torch.float64 else 1e-4
    seen, expected = seen.double(), expected.double()
    scale = max(float(expected.abs().max()), 1e-300)
    apart = float((seen - expected).abs().max())
    require(
        apart <= tolerance * scale,  # also False for NaN
        f"{what}: {_some(seen)}, expected {_some(expected)}",
    )


def require_all_equal(seen: Sequence[Tensor], expected: Sequence[Tensor], what: str) -> None:
    """``require_equal`` for every step of two trajectories."""
    for step, (mine, theirs) in enumerate(zip(seen, expected, strict=True)):
        require_equal(mine, theirs, f"{what}, step {step}")


def _some(vector: Tensor) -> str:
    numbers = ", ".join(f"{float(x):.6g}" for x in vector.flatten()[:3])
    return f"[{numbers}{', ...' if vector.numel() > 3 else ''}]"
