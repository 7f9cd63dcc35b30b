"""Settings that were asked for and can do nothing are refused, wherever they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mpi_dcasgd.config.effects import ALWAYS, WITHOUT_EFFECT
from mpi_dcasgd.config.load import job_as_text, load_job
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.study import load_study
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.messages import is_section, settings_of
from mpi_dcasgd.runs.jobs import load_job as load_any
from mpi_dcasgd.runs.simulate import simulate_timing

BASE = """\
epochs: 4
batch_size: 16
lr: 0.1
model: {name: mlp}
data: {name: digits}
"""

SETTINGS: dict[str, str] = {
    "schedule.milestones": "[1]",
    "schedule.factor": "0.5",
    "schedule.final": "0.1",
    "schedule.warmup_epochs": "5",
    "schedule.warmup_from": "0.5",
    "sync.backend": "ddp",
    "sync.compression": "fp16",
    "sync.overlap": "off",
    "sync.accumulate": "2",
    "sync.backup": "1",
    "sync.lr_scaling": "linear",
    "transport": "messages",
    "servers": "2",
    "chunk_mb": "4",
    "wire.push": "bf16",
    "wire.reply": "fp16",
    "inject.slow": "{7: 3}",
    "inject.pauses": "{every_s: 1, for_s: 1, workers: [2]}",
    "faults.respawn": "true",
    "rule.weight_decay.place": "decoupled",
    "rule.weight_decay.on": "conv-and-linear",
    "start.fresh": "[fc.*]",
    "task.huber_delta": "2.0",
    "record.line_every_s": "3",
    "record.trace_flush_s": "3",
}
"""A value of each setting that may be without effect."""

DISARMED = {
    "transport": ["algorithm=sgd"],
    "servers": ["algorithm=sgd"],
    "chunk_mb": ["algorithm=asgd", "transport=shared"],
    "wire.push": ["algorithm=sgd"],
    "wire.reply": ["algorithm=sgd"],
    "faults.respawn": ["algorithm=sgd"],
    "inject.slow": ["algorithm=sgd"],
    "inject.pauses": ["algorithm=sgd"],
    "task.huber_delta": ["task.name=regression"],
    "record.line_every_s": ["record.progress=off"],
    "record.trace_flush_s": ["record.trace=false"],
}
"""What stands beside it then, if not what a plain job has."""

OF_A_MODE = [key for key, (deciders, _) in WITHOUT_EFFECT.items() if deciders == ("algorithm",)]


def leaves() -> set[str]:
    """Every setting of a job; sections that are checked by what they configure as they are."""
    found = set()
    for key, info in settings_of(Job).items():
        if is_section(info.annotation) and key not in ("task", "model", "data"):
            found |= {f"{key}.{inner}" for inner in settings_of(info.annotation)}
        else:
            found.add(key)
    return found


def test_every_setting_is_in_one_of_the_tables() -> None:
    always = [key for keys in ALWAYS.values() for key in keys]
    within = [key for key in WITHOUT_EFFECT if key.partition(".")[0] in ("rule", "task")]
    assert sorted([*always, *WITHOUT_EFFECT]) == sorted([*leaves(), *within])
    assert SETTINGS.keys() == WITHOUT_EFFECT.keys()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(BASE)
    return path


@pytest.mark.parametrize("key", WITHOUT_EFFECT)
def test_an_override_without_effect_is_refused(file: Path, key: str) -> None:
    words = [*DISARMED.get(key, []), f"{key}={SETTINGS[key]}"]
    for load in (lambda: load_job(file, words), lambda: load_any(file, words=words)):
        with pytest.raises(ConfigError) as told:
            load()
        [line] = told.value.problems
        assert line.startswith(f"{key}: got ")
        assert "has no effect: " in line


@pytest.mark.parametrize("key", [key for key in WITHOUT_EFFECT if key not in OF_A_MODE])
def test_so_is_one_in_a_file(tmp_path: Path, key: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(BASE + "".join(f"{section}\n" for section in sections(key)))
    with pytest.raises(ConfigError, match="has no effect: "):
        load_job(path)


def sections(key: str) -> list[str]:
    """The setting, and what disarms it, as sections of a file."""
    found: dict[str, list[str]] = {}
    for word in (*DISARMED.get(key, []), f"{key}={SETTINGS[key]}"):
        name, _, value = word.partition("=")
        section, _, inner = name.partition(".")
        outer, _, last = inner.rpartition(".")
        text = f"{outer}: {{{last}: {value}}}" if outer else f"{last}: {value}"
        found.setdefault(section, []).append(text if inner else value)
    return [f"{section}: {{{', '.join(inner)}}}" for section, inner in found.items()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sync: {lr_scaling: linear}", []),
        ("sync: {lr_scaling: linear}", ["algorithm=sgd"]),
        ("inject: {slow: {2: 4}}", ["algorithm=sgd"]),
        ("schedule: {name: step, milestones: [3]}", ["epochs=2"]),
        ("schedule: {name: step, milestones: [3]}", ["schedule.name=constant"]),
        ("schedule: {warmup_epochs: 3}", ["epochs=2"]),
        ("record: {line_every_s: 3}", ["record.progress=off"]),
        ("evaluate_every: 9", []),
        ("schedule: {final: 0, factor: 0.1, warmup_from: 0.1}", ["sync.accumulate=1"]),
    ],
)
def test_a_file_is_for_several_algorithms_and_lengths(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    """And the job that is written out of it loads again, as it is read by ranks and by replay."""
    path = tmp_path / "job.yaml"
    path.write_text(f"{BASE}{text}\n")
    job = load_job(path, words)
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(job_as_text(job))
    assert load_job(resolved) == job


def test_what_an_earlier_version_wrote_out_loads_and_its_changes_are_checked(file: Path) -> None:
    """It accepted milestones that are never reached."""
    text = job_as_text(load_job(file)).replace("milestones: []", "milestones: [1]")
    assert "milestones: [1]" in text
    file.write_text(text)
    assert load_job(file).schedule.milestones == (1.0,)
    with pytest.raises(ConfigError, match=r"schedule\.factor: got 0\.5 .* no effect"):
        load_job(file, ["schedule.factor=0.5"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["schedule={name: step, milestones: [2, 4]}"], "4 is never reached in 4 epochs"),
        (["schedule={name: step, milestones: [0.5], final: 0.5}"], "only the schedule cosine"),
        (["schedule.warmup_epochs=.inf"], "schedule.warmup_epochs: got inf"),
        (["algorithm=ssgd", "sync.lr_scaling=linear", "epochs=2"], ""),
        (["schedule={name: cosine, final: 0.5, warmup_epochs: 4, warmup_from: 0}"], ""),
        (["algorithm=sgd", "inject.slow={0: 3}"], ""),
        (["inject.slow={7: 3}"], ""),
    ],
)
def test_what_has_an_effect(file: Path, words: list[str], told: str) -> None:
    if not told:
        load_job(file, words)
        return
    with pytest.raises(ConfigError) as error:
        load_job(file, words)
    assert told in str(error.value)


def study(tmp_path: Path, text: str) -> Any:
    (tmp_path / "job.yaml").write_text(BASE)
    path = tmp_path / "study.yaml"
    path.write_text(f"job: job.yaml\n{text}")
    return load_study(path)


def test_studies_are_checked_too(tmp_path: Path) -> None:
    both = "algorithms: [asgd, ssgd]\nworkers: [2]\n"
    assert study(tmp_path, f"{both}set: {{sync.lr_scaling: linear}}\n"), "ssgd has use of it"
    with pytest.raises(ConfigError, match=r"schedule\.milestones: .* never reached in 2 epochs"):
        study(tmp_path, f"{both}set: {{epochs: 2, schedule: {{name: step, milestones: [3]}}}}\n")
    mine = "algorithms: [{algorithm: asgd, sync.accumulate: 2}, ssgd]\nworkers: [2]\n"
    with pytest.raises(ConfigError, match=r"asgd: sync\.accumulate: got 2 .*for synchronous runs"):
        study(tmp_path, mine)


def test_a_simulation_is_as_slow_as_the_job_makes_real_runs(file: Path) -> None:
    plain = simulate_timing(file, workers=2)
    file.write_text(file.read_text() + "inject: {slow: {0: 3, 1: 3}}\n")
    slowed = simulate_timing(file, workers=2)
    assert slowed.updates_per_s == pytest.approx(plain.updates_per_s / 3)
    fast = {"delays": {"model": "constant", "mean_s": 1.0}}
    assert simulate_timing(file, workers=2, cluster=fast).updates_per_s == plain.updates_per_s


def test_a_simulation_refuses_injected_slowness_that_its_cluster_overrules(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"inject\.slow: has no effect here: slow is the cluster"):
        simulate_timing(file, workers=2, slow={1: 2}, words=["inject.slow={1: 3}"])
    with pytest.raises(ConfigError, match=r"inject\.slow: there is no worker 7"):
        simulate_timing(file, workers=2, words=["inject.slow={7: 3}"])
