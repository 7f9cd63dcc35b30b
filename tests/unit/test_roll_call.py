"""What people, the records and `status` are told of workers that are gone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.drivers.account import Account
from mpi_dcasgd.drivers.roll_call import RollCall
from mpi_dcasgd.drivers.topology import Topology
from mpi_dcasgd.record.description import RunDescription
from mpi_dcasgd.record.metrics import RunProgress
from mpi_dcasgd.record.recorder import Recorder
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.settings import RecordSettings
from mpi_dcasgd.tools.run_status import run_status


class Told:
    """Takes what a conductor is told."""

    def __init__(self) -> None:
        self.faults: list[tuple[str, list[str]]] = []

    def fault(self, text: str, missing: Sequence[str]) -> None:
        self.faults.append((text, list(missing)))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def roll(told: Any) -> RollCall:
    accounts = [Account(worker=0, host="a"), Account(worker=1, host="b"), Account(worker=2)]
    return RollCall(Topology("asynchronous", 3), accounts, told)


def test_who_hangs_or_dies_is_named_with_rank_host_and_tickets(roll: RollCall, told: Told) -> None:
    roll.hangs(1, (4, 5), 60.04, 60.0)
    roll.died(0, (7,))
    assert told.faults == [
        (
            "worker 1 (rank 2 on b) hangs: nothing came from it for 60.0 s (patience 60 s); its "
            "tickets [4, 5] are requeued, 2 of 3 workers are left",
            ["worker 1 (rank 2 on b) hangs"],
        ),
        (
            "worker 0 (rank 1 on a) died; its tickets [7] are requeued, 1 of 3 workers are left",
            ["worker 0 (rank 1 on a) died", "worker 1 (rank 2 on b) hangs"],
        ),
    ]
    assert roll.hung == [1]
    assert roll.present == [2]
    assert roll.name(2) == "worker 2 (rank 3)"


def test_who_hangs_may_come_back_or_die(roll: RollCall, told: Told) -> None:
    roll.hangs(1, (), 1.0, 1.0)
    roll.back(1)
    assert told.faults[-1][0].startswith("worker 1 (rank 2 on b) is back; ")
    assert told.faults[-1][1] == []
    assert roll.present == [0, 1, 2]
    roll.hangs(1, (), 1.0, 1.0)
    roll.died(1, ())
    assert told.faults[-1] == (
        "worker 1 (rank 2 on b) died, 2 of 3 workers are left",
        ["worker 1 (rank 2 on b) died"],
    )
    assert roll.hung == []


def test_a_worker_that_failed_has_said_why_and_is_not_told_to_have_died(
    roll: RollCall, told: Told
) -> None:
    roll.failed(1, "ValueError: odd", (4, 5))
    roll.died(1, ())
    assert told.faults == [
        (
            "worker 1 (rank 2 on b) failed: ValueError: odd; its tickets [4, 5] are requeued, 2 of "
            "3 workers are left",
            ["worker 1 (rank 2 on b) failed"],
        )
    ]
    assert (roll.hung, roll.present, roll.repeated) == ([], [0, 2], "")


def test_only_the_ticket_that_was_computed_counts_as_failed_not_those_granted_ahead(
    roll: RollCall,
) -> None:
    roll.failed(1, "ValueError: odd", (4, 5))
    roll.failed(2, "ValueError: odd", (5, 4))
    assert roll.repeated == ""
    roll.failed(0, "ValueError: odd", (4,))
    assert roll.repeated == (
        "ticket 4 failed on worker 1 (rank 2 on b) and again on worker 0 (rank 1 on a): "
        "ValueError: odd"
    )


def test_when_none_is_left_it_is_said_why_once_if_all_had_the_same(roll: RollCall) -> None:
    roll.failed(0, "MemoryError", (1,))
    roll.failed(1, "MemoryError", (2,))
    assert roll.why_all().startswith("all died or hang")
    assert roll.why_all().endswith(
        "; worker 0 (rank 1 on a): MemoryError; worker 1 (rank 2 on b): MemoryError"
    )
    roll.failed(2, "MemoryError", (3,))
    assert roll.why_all() == "all failed: MemoryError"


def test_the_last_one_is_named_and_not_given_up(roll: RollCall, told: Told) -> None:
    roll.hangs(0, (), 1.0, 1.0)
    roll.silent(1, 2.0)
    assert told.faults[-1][1] == ["worker 0 (rank 1 on a) hangs", "worker 1 (rank 2 on b) hangs"]
    assert roll.hung == [0]
    roll.speaks(1)
    assert told.faults[-1] == ("worker 1 (rank 2 on b) is back", ["worker 0 (rank 1 on a) hangs"])


def test_status_knows_who_is_gone_now(tmp_path: Path) -> None:
    begun = {"event": "start", "primary_metric": "error", "higher_is_better": False, "units": {}}
    gone = {"event": "fault", "text": "...", "missing": ["worker 1 hangs"]}
    back = {"event": "fault", "text": "...", "missing": []}
    assert RunProgress.of([begun, gone]).missing == ("worker 1 hangs",)
    assert RunProgress.of([begun, gone, back]).missing == ()
    assert RunProgress.of([begun, gone, begun]).missing == (), "a restart has new workers"


def test_a_fault_is_recorded_shown_and_told_by_status(tmp_path: Path) -> None:
    folder, shown = RunFolder(tmp_path), io.StringIO()
    folder.job_yaml.write_text("name: x\n")
    run = RunDescription(
        name="x",
        algorithm="asgd",
        driver="mpi",
        num_workers=2,
        world_size=3,
        epochs=1,
        seed=0,
        model="mlp",
        data="digits",
        batch_size=4,
        num_samples=8,
        kernel="blocks",
    )
    recorder = Recorder(folder, run, RecordSettings(), stream=shown)
    recorder.started(0.0)
    recorder.fault("worker 1 hangs: ...", ["worker 1 hangs"])
    told = run_status("x", folder, None, None)
    assert (told.state, told.reason) == ("running", "worker 1 hangs")
    assert "worker 1 hangs: ..." in shown.getvalue()
    recorder.fault("worker 1 is back", [])
    assert run_status("x", folder, None, None).reason == ""
    recorder.close()


def test_a_replacement_has_a_name_of_its_own_and_what_hangs_is_remembered(
    roll: RollCall, told: Told
) -> None:
    roll.died(0, (7,))
    roll.hangs(1, (4,), 60.0, 60.0)
    roll.replaced(0, 1, "c")
    assert told.faults[-1] == (
        "worker 0 (replacement 1 on c) trains in place of worker 0 (rank 1 on a), 2 of 3 workers "
        "are left",
        ["worker 1 (rank 2 on b) hangs"],
    )
    assert roll.stuck == ["worker 1 (rank 2 on b)"]
    roll.replaced(1, 2, "b")
    assert told.faults[-1][1] == []
    assert roll.hung == []
    assert roll.present == [0, 1, 2]
    assert roll.stuck == ["worker 1 (rank 2 on b)"], "the world cannot end by itself beside it"
    roll.died(1, (9,))
    assert told.faults[-1][0].startswith("worker 1 (replacement 2 on b) died; its tickets [9]")
