"""Job files: what is taken, what is refused and in which words, and the way back to a file."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mpi_dcasgd.config.load import job_as_text, job_as_yaml, load_job, with_defaults
from mpi_dcasgd.config.plan import check_models, plan_job
from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.config.yaml12 import dump_yaml
from mpi_dcasgd.errors import ConfigError
from mpi_dcasgd.learning.schedules import ScheduleSettings
from mpi_dcasgd.record.job_changes import changed_keys
from mpi_dcasgd.rules.algorithms import ALGORITHMS, PARTS
from mpi_dcasgd.rules.compensation import AdaptiveCompensation, ConstantCompensation
from mpi_dcasgd.runs.build import Workshop

GOOD = """\
algorithm: dcasgd-a
epochs: 3
batch_size: 16
lr: 0.1
model: {name: mlp, hidden: [32]}
data: {name: digits}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    return path


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_job(path, overrides)
    return caught.value.problems


def test_a_job_is_read_with_its_defaults(file: Path) -> None:
    job = load_job(file)
    assert (job.name, job.algorithm, job.seed, job.epochs, job.lr) == (
        "mine",
        "dcasgd-a",
        0,
        3,
        0.1,
    )
    assert job.model.hidden == (32,)
    assert job.schedule == ScheduleSettings()
    assert job_as_yaml(job)["rule"]["compensation"] == {
        "name": "dc-adaptive",
        "dc_lambda": 2.0,
        "decay": 0.95,
        "eps": 1e-7,
        "mean_square": "global",
    }


def test_an_empty_section_has_its_defaults(file: Path) -> None:
    file.write_text(GOOD + "schedule:\nrule:\nrecord:\n")
    assert load_job(file) == load_job(_with(file, GOOD))


def _with(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def test_overrides_reach_into_sections_and_the_later_one_wins(file: Path) -> None:
    job = load_job(
        file,
        ["lr=1e-3", "model.hidden=[64, 32]", "schedule.name=cosine", "seed=1", "seed=2", "lr=5"],
    )
    assert job.lr == 5
    assert job.model.hidden == (64, 32)
    assert job.schedule.name == "cosine"
    assert job.seed == 2


def test_a_mapping_as_a_value_replaces_the_section(file: Path) -> None:
    assert load_job(file, ["model={name: mlp}"]).model.hidden == (128,)


def test_a_part_that_is_named_alone_can_be_given_settings(file: Path) -> None:
    job = load_job(file, ["rule.momentum=heavy-ball", "rule.momentum.momentum=0.5"])
    assert job_as_yaml(job)["rule"]["momentum"]["name"] == "heavy-ball"
    assert job_as_yaml(job)["rule"]["momentum"]["momentum"] == 0.5


def test_tickets_ahead_follow_the_data(file: Path) -> None:
    assert load_job(file).tickets_ahead == 0
    assert load_job(file, ["ahead=3"]).tickets_ahead == 3
    folder = ["data={name: imagefolder, path: x}", "model={name: resnet20}"]
    assert load_job(file, folder).tickets_ahead == 2


def test_every_problem_is_told_at_once_in_the_order_of_the_keys(file: Path) -> None:
    file.write_text(
        """\
algorithm: dcasgd-q
epochs: 0
lr: fast
ahead: 99
schedule: {name: stepp, factor: .inf}
model: {name: mlp, hidden: [64, 0, x], dropuot: 0.1}
data: {name: digit}
batchnorm: on
record: off
threads: true
"""
    )
    assert problems(file) == [
        "algorithm: unknown algorithm 'dcasgd-q'; did you mean dcasgd-c? (allowed: "
        f"{', '.join(ALGORITHMS)})",
        "epochs: got 0 (a whole number); allowed: a whole number >= 1",
        "batch_size: missing; give a whole number >= 1",
        "lr: got 'fast' (text); allowed: a number > 0",
        "schedule.name: got 'stepp' (text); allowed: one of constant, step, cosine; did you mean"
        " step?",
        "schedule.factor: got inf (not a finite number); allowed: a number > 0",
        "model.dropuot: unknown; did you mean model.dropout?",
        "model.hidden[1]: got 0 (a whole number); allowed: a whole number >= 1",
        "model.hidden[2]: got 'x' (text); allowed: a whole number >= 1",
        "data.name: unknown 'digit'; did you mean digits? (allowed: digits, synthetic, mnist,"
        " fashion-mnist, kmnist, emnist, cifar10, cifar100, arrays, text, imagefolder, or"
        " package.module:Name)",
        "batchnorm: got 'on' (text); allowed: one of average, latest",
        "threads: got true; allowed: a whole number >= 1",
        "ahead: got 99 (a whole number); allowed: a whole number >= 0 and <= 12 or auto",
        "record: got 'off' (text); allowed: a mapping of progress, line_every_s, log_every_s,"
        " trace, trace_flush_s, sinks, tensorboard",
    ]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("epoch", "did you mean epochs?"),
        ("momentum", "did you mean rule.momentum?"),
        ("dc_lambda", "did you mean rule.compensation.dc_lambda?"),
        ("hidden", "did you mean model.hidden?"),
        ("milestones", "did you mean schedule.milestones?"),
        ("hiden", "did you mean model.hidden?"),
        ("path", "data.path?"),
        ("learning_rate", "did you mean lr?"),
        ("learnig_rate", "did you mean lr?"),
        ("workers", "set it at the start (-n)"),
        ("xyzzy", "(allowed: name, algorithm, seed,"),
    ],
)
def test_an_unknown_key_is_told_where_it_belongs(file: Path, key: str, hint: str) -> None:
    (line,) = problems(_with(file, f"{GOOD}{key}: 1\n"))
    assert line.startswith(f"{key}: unknown")
    assert hint in line


def test_an_unknown_key_of_a_section_is_told_where_it_belongs(file: Path) -> None:
    assert problems(file, "schedule.lr=1") == ["schedule.lr: unknown; did you mean lr?"]
    assert problems(file, "data.num_clases=3")[0].endswith("did you mean data.num_classes?")


def test_dotted_keys_are_for_overrides(file: Path) -> None:
    (line,) = problems(_with(file, f"{GOOD}model.dropout: 0.1\n"))
    assert line == (
        "model.dropout: unknown; dots are for overrides, in a file write model: {dropout: ...}"
    )


def test_problems_of_a_rule_have_their_whole_key(file: Path) -> None:
    lines = problems(file, "rule.compensation.dc_lamda=1", "rule.momentm=none", "rule.momentum=3")
    assert any(line.startswith("rule.compensation.dc_lamda: unknown setting") for line in lines)
    assert any("rule.momentm: unknown; did you mean momentum?" in line for line in lines)
    assert any(line.startswith("rule.momentum: got 3") for line in lines)
    assert problems(file, "rule=dc-adaptive")[0].startswith("rule: got 'dc-adaptive' (text)")


@pytest.mark.parametrize(
    ("override", "start"),
    [
        ("model.name=mpl", "model.name: unknown 'mpl'; did you mean mlp?"),
        ("data.name=cifar10", "data.path: missing"),
        ("schedule.name=step", "schedule.milestones: missing"),
        ("schedule={name: step, milestones: [3, 2]}", "schedule.milestones: got [3.0, 2.0]"),
        ("model=mlp", "model: got 'mlp' (text)"),
        ("seed=-1", "seed: got -1"),
        ("seed=", "seed: got null"),
        ("lr=nan", "lr: got 'nan' (text)"),
        ("lr=.nan", "lr: got nan (not a finite number)"),
        ("lr=0", "lr: got 0"),
        ("name=3", "name: got 3 (a whole number); allowed: text that is not empty"),
        ("epochs=1.5", "epochs: got 1.5 (a number)"),
        ("epochs='3'", "epochs: got '3' (text)"),
        ("model.hidden=64", "model.hidden: got 64 (a whole number); allowed: a list of whole"),
        ("sync.lr_scaling=linaer", "sync.lr_scaling: got 'linaer'"),
        ("inject.delays=3", "inject.delays: got 3"),
    ],
)
def test_what_is_wrong_with_a_value_is_told_with_the_value(
    file: Path, override: str, start: str
) -> None:
    (line,) = problems(file, override)
    assert line.startswith(start)


def test_a_model_that_does_not_take_the_data_is_found_before_anything_starts(file: Path) -> None:
    shape = "data={name: synthetic, shape: [7]}"
    assert problems(file, "model={name: resnet20}", shape) == [
        "model.name: resnet20 needs images (channels, height, width); got (7,)"
    ]


def test_a_last_minibatch_that_batchnorm_cannot_take_is_found_before_anything_starts(
    file: Path,
) -> None:
    # 17 images in minibatches of 16; the network leaves one pixel of each channel.
    shape = "data={name: synthetic, num_train: 17, shape: [3, 4, 4]}"
    told = (
        "batch_size: 17 samples in minibatches of 16 leave one for the last, and of a single "
        "sample BatchNorm takes no statistics; choose another size"
    )
    assert problems(file, "model={name: resnet20}", shape) == [told]
    assert load_job(file, ("model={name: resnet20}", shape, "batch_size=5")).batch_size == 5
    assert problems(file, "model={name: resnet20}", shape, "batch_size=1") == [
        "batch_size: got 1, and of a single sample BatchNorm takes no statistics; choose a larger "
        "size"
    ]
    parts = ("model={name: resnet20}", shape, "batch_size=12")  # and 5
    assert problems(file, *parts, "compute.accumulate=3") == [
        "compute.accumulate: 17 samples in minibatches of 12, each in up to 3 parts, leave one for "
        "a part, and of a single sample BatchNorm takes no statistics; choose fewer parts, or "
        "another batch_size"
    ]
    assert load_job(file, (*parts, "compute.accumulate=2")).compute.accumulate == 2
    # Where maps are larger, and without BatchNorm, one sample is enough.
    assert load_job(file, ("model={name: cnn, batchnorm: true}", shape))
    assert load_job(file, ("batch_size=4",)).batch_size == 4, "1437 digits leave one as well"


def test_models_of_torchvision_are_tried_out_when_a_run_is_about_to_start(file: Path) -> None:
    large, small = (
        f"data={{name: synthetic, num_train: 17, shape: [3, {n}, {n}]}}" for n in (224, 32)
    )
    name = "model={name: resnet18}"
    lone, digits, good = (
        load_job(file, words)
        for words in ((name, small), (name,), ("model={name: alexnet}", large))
    )
    for start in (lambda job: plan_job(job, 2), lambda job: check_models([good, job])):
        with pytest.raises(ConfigError, match="batch_size: 17 samples in minibatches of 16 leave"):
            start(lone)
        with pytest.raises(ConfigError, match=r"model.name: resnet18 cannot take .*\(1, 8, 8\)"):
            start(digits)
    with pytest.raises(ConfigError, match="batch_size: 17 samples"):
        Workshop.open(lone, torch.device("cpu"))
    check_models([load_job(file, (name, small, "batch_size=5")), good])
    check_models([load_job(file, (name, "data={name: imagefolder, path: /nowhere}"))])


def test_settings_of_other_models_and_data_sets_are_refused(file: Path) -> None:
    assert problems(file, "data.path=x", "data.noise=1.0", "model.options={a: 1}") == [
        "model.options: mlp has no such setting (it is for torchvision's models); omit it",
        "data.path: digits has no such setting (it is for mnist, fashion-mnist, kmnist, emnist, "
        "cifar10, cifar100, arrays, text and imagefolder); omit it",
        "data.noise: digits has no such setting (it is for synthetic); omit it",
    ]
    assert problems(file, "model={name: resnet20, batchnorm: true, hidden: [3]}")[:2] == [
        "model.batchnorm: resnet20 has no such setting (it is for mlp and cnn); omit it",
        "model.hidden: resnet20 has no such setting (it is for mlp and cnn); omit it",
    ]
    assert problems(file, "data={}") == [
        "data.name: missing; allowed: digits, synthetic, mnist, fashion-mnist, kmnist, emnist, "
        "cifar10, cifar100, arrays, text, imagefolder, or package.module:Name"
    ]
    assert problems(file, "data.name=3")[0].startswith("data.name: got 3 (a whole number); allowed")
    # Equal to the default is not enough if it is of another type.
    assert problems(file, "data.num_train=4096.0")[0].startswith("data.num_train: digits has no")


OLD_MODEL = {"name": "mlp", "hidden": [32], "dropout": 0.0, "batchnorm": False, "options": {}}
OLD_DATA = {
    "name": "digits",
    "path": None,
    "augment": "auto",
    "image_size": 224,
    "train_split": "train",
    "test_split": None,
    "loaders": 4,
    "cache": "auto",
    "num_train": 4096,
    "num_test": 1024,
    "shape": [1, 8, 8],
    "num_classes": 10,
    "noise": 2.0,
}
"""As versions wrote it that had the settings of all data sets in one section."""


def test_a_stored_job_with_the_settings_of_all_data_sets_is_the_same_job(file: Path) -> None:
    now = job_as_yaml(load_job(file))
    assert now["data"] == {"name": "digits", "validation": 0.0, "augment": "auto"}
    later = {"activation": "relu"}  # than that version
    known = {"name": "mlp", "hidden": [32], "dropout": 0.0, "batchnorm": False}
    assert now["model"] == known | later
    old = {**now, "model": OLD_MODEL, "data": OLD_DATA}
    assert changed_keys(with_defaults(old), now) == ()
    stored = file.with_name("stored.yaml")
    stored.write_text(dump_yaml(old))
    assert load_job(stored) == load_job(file, ["name=mine"])
    other = {**old, "data": {**OLD_DATA, "noise": 3.0}}
    assert with_defaults(other) is other


def test_who_loads_samples_makes_no_other_run() -> None:
    here, there = ({"data": {"name": "task", "loaders": n, "validation": n / 4}} for n in (0, 1))
    assert changed_keys(here, there) == ("data.validation",)


def test_a_job_can_be_sent_to_other_processes(file: Path) -> None:
    for words in ((), ("model={name: resnet18}", "data={name: imagefolder, path: x}")):
        job = load_job(file, words)
        assert pickle.loads(pickle.dumps(job)) == job
        assert replace(job, seed=3).data == job.data


def test_a_value_that_repeats_itself_endlessly_is_cut_short(file: Path) -> None:
    (line,) = problems(file, f"lr={'x' * 5000}")
    assert len(line) < 200


@pytest.mark.parametrize(
    ("word", "start"),
    [
        ("lr", "'lr': not an override"),
        ("=3", "'=3': not an override"),
        ("l r=3", "'l r=3': not an override"),
        ("lr.x=3", "lr.x: cannot be set, for lr is 0.1 (a number)"),
        ("lr=[", "lr: not YAML: line 1"),
        ("model={a: 1, a: 2}", "model: not YAML: line 1: key a stands here again"),
    ],
)
def test_an_override_that_cannot_be_made_is_told(file: Path, word: str, start: str) -> None:
    (line,) = problems(file, word)
    assert line.startswith(start)


def test_problems_of_overrides_and_of_the_file_are_told_together(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_job(_with(file, GOOD.replace("epochs: 3", "epochs: 0")), ["lr", "seed=x"])
    assert [line.partition(":")[0] for line in caught.value.problems] == ["'lr'", "seed", "epochs"]
    assert str(caught.value).startswith(f"{file} with overrides: 3 problems\n  'lr'")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "empty; a job file is a mapping"),
        ("# only a comment\n", "empty"),
        ("- a\n- b\n", "got ['a', 'b'] (a list)"),
        ("just text\n", "got 'just text' (text)"),
        ("lr: 1\nlr: 2\n", "line 2: key lr stands here again"),
        ("model: {name: mlp\nlr: 1\n", "line 2"),
    ],
)
def test_a_file_that_is_no_job_is_told_with_its_name(file: Path, content: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_job(_with(file, content))
    assert str(caught.value).startswith(str(file))
    assert words in str(caught.value)


def test_a_file_that_is_not_there(file: Path) -> None:
    assert problems(file.with_name("mnie.yaml")) == [f"no such file; did you mean {file}?"]
    assert problems(file.with_suffix("")) == [f"no such file; did you mean {file}?"]
    assert problems(file.parent / "x" / "y.yaml") == ["no such file"]
    assert problems(file.parent) == ["a folder; name the job file in it"]


def test_a_file_that_is_no_text(file: Path) -> None:
    file.write_bytes(b"name: \xff\n")
    assert problems(file)[0].startswith("not text in UTF-8")


def test_a_part_belongs_to_the_algorithm_that_the_file_names(file: Path) -> None:
    file.write_text(
        GOOD
        + "rule:\n  compensation: {dc_lambda: 1.0}\n  momentum: {name: heavy-ball}\n"
        + "  weight_decay: {rate: 0.5}\n"
    )
    own = load_job(file).rule
    other = load_job(file, ["algorithm=dcasgd-c"]).rule
    assert own.compensation == AdaptiveCompensation(dc_lambda=1.0)
    assert other.compensation == ConstantCompensation()
    for kept in ("momentum", "weight_decay"):
        assert getattr(own, kept) == getattr(other, kept)
    plain = job_as_yaml(load_job(file, ["algorithm=asgd"]))
    assert plain["rule"]["compensation"] == {"name": "none"}


def test_settings_beside_a_new_algorithm_are_for_that_one(file: Path) -> None:
    job = load_job(file, ["rule.compensation.dc_lambda=0.5", "algorithm=dcasgd-c"])
    assert job_as_yaml(job)["rule"]["compensation"] == {"name": "dc-constant", "dc_lambda": 0.5}


def test_a_resolved_job_can_be_run_with_another_algorithm(file: Path, tmp_path: Path) -> None:
    resolved = tmp_path / "job.yaml"
    resolved.write_text(job_as_text(load_job(file)))
    job = load_job(resolved, ["algorithm=asgd"])
    assert job == load_job(file, ["algorithm=asgd"])


SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "name": st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1),
    "algorithm": st.sampled_from([n for n in ALGORITHMS if n != "ssgd"]),
    "seed": st.integers(0, 2**40),
    "epochs": st.integers(1, 500),
    "lr": st.floats(1e-12, 1e6),
    "schedule.warmup_epochs": st.floats(0, 1),
    "rule.weight_decay.rate": st.floats(0, 1),
    "model.hidden": st.lists(st.integers(1, 99), max_size=3),
    "model.dropout": st.floats(0, 0.99),
    "batchnorm": st.sampled_from(["average", "latest"]),
    "ahead": st.sampled_from(["auto", 0, 3]),
    "data.augment": st.sampled_from(["auto", "none", "standard"]),
    "inject.slow": st.dictionaries(st.sampled_from(["0", "3"]), st.floats(1, 9)),
    "record.trace": st.booleans(),
}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    chosen=st.fixed_dictionaries({}, optional=SCALARS),
    milestones=st.lists(st.floats(0.1, 0.9), unique=True).map(sorted),
)
def test_a_job_written_out_loads_as_the_same_job(
    file: Path, chosen: dict[str, Any], milestones: list[float]
) -> None:
    if milestones:
        chosen |= {"schedule.name": "step", "schedule.milestones": milestones}
    assume(chosen.get("algorithm") != "sgd" or "3" not in chosen.get("inject.slow", {}))
    job = load_job(file, [f"{key}={_yaml(value)}" for key, value in chosen.items()])
    for key, value in chosen.items():
        if "." not in key:
            assert getattr(job, key) == value
    resolved = file.with_name("resolved.yaml")
    resolved.write_text(job_as_text(job))
    assert load_job(resolved) == job
    assert job_as_yaml(load_job(resolved)) == job_as_yaml(job)


def _yaml(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {inner}" for key, inner in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_a_resolved_job_says_everything(file: Path) -> None:
    written = job_as_yaml(load_job(file))
    assert list(written) == list(Job.__dataclass_fields__)
    assert written["model"]["hidden"] == [32]
    assert set(written["rule"]) == set(PARTS)


def test_a_stored_job_gets_the_keys_that_have_come_since(file: Path) -> None:
    whole = job_as_yaml(load_job(file))
    old = {key: value for key, value in whole.items() if key not in ("capture", "inject")}
    old["sync"] = {key: value for key, value in whole["sync"].items() if key != "backup"}
    assert with_defaults(old) == whole
    unreadable = {**old, "once_there_was_a_key": 1}
    assert with_defaults(unreadable) is unreadable
