"""Gradients that wait for company: their mean, whatever their size and number."""

from __future__ import annotations

import pytest
import torch
from toy import LR, World

from mpi_dcasgd.server.accumulator import GradientAccumulator
from mpi_dcasgd.server.push import Push


def test_the_mean_is_over_samples() -> None:
    held = GradientAccumulator(2, torch.device("cpu"))
    for values, samples in (([1.0, 4.0], 8), ([4.0, 1.0], 8), ([10.0, 10.0], 2)):
        held.add(torch.tensor(values), samples)
    assert held.take().tolist() == pytest.approx([60 / 18, 60 / 18])
    held.add(torch.tensor([3.0, 5.0]), 2)
    assert held.take().tolist() == [3.0, 5.0], "nothing is left of those before"


def test_a_large_gradient_stays_finite_however_many_samples_it_is_of() -> None:
    held = GradientAccumulator(1, torch.device("cpu"))
    for _ in range(3):
        held.add(torch.tensor([1e37]), 128)
    assert held.take().item() == pytest.approx(1e37, rel=1e-6)


def test_what_is_held_survives_its_state() -> None:
    held, other = (GradientAccumulator(1, torch.device("cpu")) for _ in range(2))
    held.add(torch.tensor([2.0]), 4)
    other.load_state_dict(held.state_dict())
    for each in (held, other):
        each.add(torch.tensor([5.0]), 2)
    assert held.take().tolist() == other.take().tolist() == [3.0]


def test_a_state_of_nothing_empties_what_was_held() -> None:
    held, other = (GradientAccumulator(1, torch.device("cpu")) for _ in range(2))
    held.add(torch.tensor([2.0]), 4)
    held.load_state_dict(other.state_dict())
    held.add(torch.tensor([5.0]), 2)
    assert held.take().tolist() == [5.0]


@pytest.mark.parametrize(("algorithm", "pushes"), [("asgd", 1), ("rennala", 2)])
def test_a_mean_whose_squares_overflow_is_clipped_as_a_single_gradient_is(
    algorithm: str, pushes: int
) -> None:
    admission = {"admission": {"gradients": pushes}} if pushes > 1 else {}
    world = World(1, algorithm, {"clipping": {"name": "norm", "max_norm": 1.0}, **admission})
    vector = torch.zeros_like(world.initial)
    vector[: world.server.layout.num_params] = 3e19
    norm = float(torch.linalg.vector_norm(vector, dtype=torch.float64))
    world.join()
    for _ in range(pushes):
        slot = world.server.slots[0]
        push = Push(slot.version, world.queues[0].pop(0), 8, 1.0, norm, vector)
        world.receive(world.server.push(0, push).ready)
    step = torch.linalg.vector_norm(world.server.weights - world.initial).item()
    assert step == pytest.approx(LR, rel=1e-5), "the rate times a gradient of length 1"


def test_what_is_saved_is_a_copy() -> None:
    held = GradientAccumulator(2, torch.device("cpu"))
    held.add(torch.tensor([1.0, 2.0]), 4)
    state = held.state_dict()
    held.add(torch.tensor([1.0, 2.0]), 4)
    assert torch.equal(state["sum"], torch.tensor([1.0, 2.0]))
