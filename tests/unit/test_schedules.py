from __future__ import annotations

import pytest

from mpi_dcasgd.learning.schedules import Schedule, ScheduleSettings


def rates(settings: ScheduleSettings, *epochs: float, length: int = 10) -> list[float]:
    schedule = Schedule(settings, lr=0.5, num_samples=100, epochs=length)
    return [schedule(int(epoch * 100)) for epoch in epochs]


def test_constant() -> None:
    assert rates(ScheduleSettings(), 0, 5, 9.99) == [0.5, 0.5, 0.5]


def test_step_drops_at_each_milestone_in_samples() -> None:
    settings = ScheduleSettings(name="step", milestones=(4.0, 8.0), factor=0.1)
    assert rates(settings, 0, 3.99, 4, 7.99, 8) == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005])


def test_cosine_goes_from_the_rate_to_its_final_fraction() -> None:
    settings = ScheduleSettings(name="cosine", final=0.2)
    assert rates(settings, 0, 5, 10, 12) == pytest.approx([0.5, 0.3, 0.1, 0.1])


def test_warmup_is_linear_and_meets_the_shape() -> None:
    settings = ScheduleSettings(warmup_epochs=2.0, warmup_from=0.1)
    assert rates(settings, 0, 1, 2, 3) == pytest.approx([0.05, 0.275, 0.5, 0.5])


def test_cosine_begins_after_the_warmup() -> None:
    settings = ScheduleSettings(name="cosine", warmup_epochs=2.0)
    assert rates(settings, 2, 6, 10) == pytest.approx([0.5, 0.25, 0.0])
