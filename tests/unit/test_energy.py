"""Joules of a run, from counters made up in a folder."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_runs import NOW

from mpi_dcasgd.record.description import RunDescription
from mpi_dcasgd.record.energy import EnergyMeter, gpus, processors
from mpi_dcasgd.record.recorder import Recorder
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.record.settings import RecordSettings

RUN = RunDescription(
    name="toy",
    algorithm="sgd",
    driver="sequential",
    num_workers=1,
    world_size=1,
    epochs=1,
    seed=1,
    model="m",
    data="d",
    batch_size=1,
    num_samples=1,
)


def zone(root: Path, number: str, name: str, energy_uj: int, limit: int = 10_000_000) -> Path:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{limit}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    return folder / "energy_uj"


def test_packages_and_memory_count_and_parts_of_packages_do_not(tmp_path: Path) -> None:
    counters = [
        zone(tmp_path, number, name, 1_000_000)
        for number, name in (("0", "package-0"), ("0:0", "core"), ("0:1", "dram"), ("1", "psys"))
    ]
    meter = EnergyMeter(processors(tmp_path))
    meter.start()
    for counter in counters:
        counter.write_text("1500000\n")
    meter.sample()
    assert meter.joules == pytest.approx(1.0), "half a joule each, of two"


def test_a_counter_that_began_again_is_followed(tmp_path: Path) -> None:
    counter = zone(tmp_path, "0", "package-0", 9_000_000)
    meter = EnergyMeter(processors(tmp_path))
    meter.start(before=100.0)
    counter.write_text("500000\n")
    meter.sample()
    assert meter.joules == pytest.approx(101.5)


@pytest.mark.parametrize("when", ["never there", "at the start", "later"])
def test_without_a_counter_that_can_be_read_nothing_is_claimed(tmp_path: Path, when: str) -> None:
    counter = None if when == "never there" else zone(tmp_path, "0", "package-0", 1)
    if counter and when == "at the start":
        counter.unlink()
    meter = EnergyMeter(processors(tmp_path))
    meter.start()
    if counter and when == "later":
        counter.unlink()
    meter.sample()
    assert meter.joules is None


def test_a_resumed_run_goes_on_counting_and_the_summary_has_the_sum(tmp_path: Path) -> None:
    counter = zone(tmp_path / "cap", "0", "package-0", 0)
    folder = RunFolder.create(tmp_path / "run", name="toy", algorithm="sgd", now=NOW)

    def recorder(saved: dict[str, Any] | None) -> Recorder:
        made = Recorder(
            folder,
            RUN,
            RecordSettings(trace=False),
            stream=io.StringIO(),
            environ={},
            saved=saved,
            energy={"energy_j": EnergyMeter(processors(tmp_path / "cap"))},
        )
        made.started(0.1)
        return made

    first = recorder(None)
    counter.write_text("3000000\n")
    saved = first.state_dict()
    first.close()
    counter.write_text("5000000\n")
    second = recorder(saved)
    counter.write_text("6000000\n")
    second.ended("completed", 1.0)
    # What was used after the checkpoint, and before the run was resumed, is not its own.
    assert json.loads(folder.summary_json.read_text())["energy_j"] == pytest.approx(4.0)


class Nvml:
    """NVIDIA's library, as ctypes calls it: two GPUs, whose counters a test turns."""

    def __init__(self) -> None:
        self.millijoules = [5_000, 7_000]
        self.error = 0

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, device: Any) -> int:  # noqa: N802
        device._obj.value = 100 + index.value
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, device: Any, energy: Any) -> int:  # noqa: N802
        energy._obj.value = self.millijoules[device.value - 100]
        return self.error


def test_gpus_count_where_the_driver_tells(tmp_path: Path) -> None:
    nvml = Nvml()
    meter = EnergyMeter(gpus(lambda name: nvml))
    meter.start()
    nvml.millijoules = [6_500, 7_250]
    meter.sample()
    assert meter.joules == pytest.approx(1.75)
    nvml.error = 3
    meter.sample()
    assert meter.joules is None, "one that cannot be read any more"


def test_without_a_driver_or_its_functions_no_gpus_joules_are_claimed() -> None:
    def missing(name: str) -> Any:
        raise OSError(name)

    assert gpus(missing) == gpus(lambda name: object()) == []
    refuses = Nvml()
    refuses.nvmlInit_v2 = lambda: 9  # type: ignore[method-assign]
    assert gpus(lambda name: refuses) == []
