"""Settings without effect: given, and disarmed by what stands beside them.

``WITHOUT_EFFECT`` has a line for each setting that can be; ``ALWAYS`` has the others. A job file
serves several algorithms, and is tried out with fewer epochs: what it says for others than the one
that an override names stays. What is asked for, and can do nothing, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any

from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.learning.schedules import ScheduleSettings
from mpi_dcasgd.messages import seen, settings_of
from mpi_dcasgd.rules.algorithms import PARTS
from mpi_dcasgd.wording import counted

Reason = Callable[[Job], str]
"""Says why a setting has no effect in a job; empty where it has one."""

_MODE = "algorithm"


def _only_for(name: str) -> Reason:
    return lambda job: (
        "" if job.schedule.name == name else f"only the schedule {name} has an effect of it"
    )


def _milestones(job: Job) -> str:
    if job.schedule.name != "step":
        return "only the schedule step drops lr at milestones"
    beyond = [m for m in job.schedule.milestones if m >= job.epochs]
    return f"{beyond[0]:g} is never reached in {_epochs(job)}" if beyond else ""


def _warmup(job: Job) -> str:
    beyond = job.schedule.warmup_epochs > job.epochs
    return f"the run is over after {_epochs(job)}, before the ramp is" if beyond else ""


def _warmup_from(job: Job) -> str:
    return "" if job.schedule.warmup_epochs else "there is no warm-up (schedule.warmup_epochs)"


def _epochs(job: Job) -> str:
    return counted(job.epochs, "epoch")


def _synchronous(job: Job) -> str:
    synchronous = job.mode == "synchronous"
    return "" if synchronous else f"{job.algorithm} is {job.mode}, this is for synchronous runs"


def _transport(job: Job) -> str:
    return "" if job.mode == "asynchronous" else f"{job.algorithm} is {job.mode} and has no server"


def _chunks(job: Job) -> str:
    if job.mode == "asynchronous" and job.transport == "shared" and not job.faults.respawn:
        return "all workers share memory with the server (transport)"
    if job.mode == "asynchronous" and job.servers > 1:
        return "pushes to several servers travel in one piece each (servers)"
    return _transport(job)


def _asynchronous(job: Job) -> str:
    asynchronous = job.mode == "asynchronous"
    return "" if asynchronous else f"{job.algorithm} is {job.mode}, this is for asynchronous runs"


def _slow(job: Job) -> str:
    return _one_process(job, job.inject.slow)


def _pauses(job: Job) -> str:
    pauses = job.inject.pauses
    return _one_process(job, () if pauses is None else pauses.workers or ())


def _one_process(job: Job, workers: Iterable[int]) -> str:
    others = [worker for worker in workers if worker > 0]
    if job.mode != "sequential" or not others:
        return ""
    return f"{job.algorithm} is one process, worker 0: there is no worker {others[0]}"


def _line_every(job: Job) -> str:
    shown = job.record.progress
    return f"record.progress is {shown}, which has no lines" if shown in ("bar", "off") else ""


def _trace_flush(job: Job) -> str:
    return "" if job.record.trace else "there is no trace (record.trace)"


def _decay(job: Job) -> str:
    return "" if job.rule.weight_decay.rate else "nothing decays (rule.weight_decay.rate is 0)"


def _fresh(job: Job) -> str:
    return "" if job.start.weights else "all weights are fresh (start.weights is null)"


def _huber(job: Job) -> str:
    loss = getattr(job.task, "loss", "huber")
    return "" if loss == "huber" else f"task.loss is {loss}; only huber has it"


_SCHEDULE = ("schedule.name",)
_LENGTH = ("schedule.name", "epochs")

WITHOUT_EFFECT: dict[str, tuple[tuple[str, ...], Reason]] = {
    "schedule.milestones": (_LENGTH, _milestones),
    "schedule.factor": (_SCHEDULE, _only_for("step")),
    "schedule.final": (_SCHEDULE, _only_for("cosine")),
    "schedule.warmup_epochs": (("epochs",), _warmup),
    "schedule.warmup_from": (("schedule.warmup_epochs",), _warmup_from),
    "sync.backend": ((_MODE,), _synchronous),
    "sync.compression": ((_MODE,), _synchronous),
    "sync.overlap": ((_MODE,), _synchronous),
    "sync.accumulate": ((_MODE,), _synchronous),
    "sync.backup": ((_MODE,), _synchronous),
    "sync.lr_scaling": ((_MODE,), _synchronous),
    "transport": ((_MODE,), _transport),
    "servers": ((_MODE,), _transport),
    "chunk_mb": ((_MODE,), _chunks),
    "wire.push": ((_MODE,), _transport),
    "wire.reply": ((_MODE,), _transport),
    "faults.respawn": ((_MODE,), _asynchronous),
    "inject.slow": ((_MODE,), _slow),
    "inject.pauses": ((_MODE,), _pauses),
    "rule.weight_decay.place": (("rule.weight_decay.rate", _MODE), _decay),
    "rule.weight_decay.on": (("rule.weight_decay.rate", _MODE), _decay),
    "start.fresh": (("start.weights",), _fresh),
    "task.huber_delta": (("task.loss",), _huber),
    "record.line_every_s": (("record.progress",), _line_every),
    "record.trace_flush_s": (("record.trace",), _trace_flush),
}
"""Setting to the keys that decide whether it has an effect, and the reason why it has none."""

ALWAYS = {
    "a run has it, whatever else is set": (
        *("name", "algorithm", "seed", "epochs", "batch_size", "lr", "batchnorm", "device"),
        *("threads", "ahead", "fuse", "capture", "schedule.name", "inject.delays"),
        *("compute.precision", "compute.channels_last", "compute.compile", "compute.accumulate"),
        *("record.progress", "record.log_every_s", "record.trace", "record.sinks"),
        *("record.tensorboard", "start.weights"),
        *("checkpoint.keep", "checkpoint.best", "checkpoint.other_data"),
    ),
    "a limit, which may lie beyond the run's end": (
        *("evaluate_every", "checkpoint.every", "checkpoint.every_s"),
    ),
    "for what may go wrong, whether it does or not": (
        *("faults.patience", "faults.setup_patience", "checkpoint.patience_s"),
    ),
    "where modules are looked for, if there are any": ("code",),
    "else checked by what they configure": ("rule", "groups", "task", "model", "data"),
}
"""Why a setting needs no line in ``WITHOUT_EFFECT``, and the settings of which that holds."""


def idle_settings(
    job: Job, given: Mapping[str, Any], overrides: Iterable[str], shared: Iterable[str] = ()
) -> list[str]:
    """Find the settings that were asked for and have no effect.

    Args:
        job: With the overrides.
        given: The content of its file. One that was written out by a run has all settings of the
            job as it was started, and is not asked.
        overrides: Keys of changes, which are for this run.
        shared: Keys of changes that several algorithms have in common.

    Returns:
        A line each, beginning with the key.
    """
    mine, shared = list(overrides), list(shared)
    problems = []
    for key, (deciders, reason) in WITHOUT_EFFECT.items():
        value, default = _value_and_default(job, key)
        if value == default:
            continue
        if _names(mine, key):
            asked = True
        elif _names(shared, key):
            asked = deciders != (_MODE,)
        else:
            changed = any(_names([*mine, *shared], decider) for decider in deciders)
            asked = not changed and deciders != (_MODE,) and not _is_written_out(given)
        why = reason(job) if asked else ""
        if why:
            shown = seen(list(value) if isinstance(value, tuple) else value)
            problems.append(f"{key}: got {shown}, which has no effect: {why}; omit it")
    return problems + _idle_factors(job, given, [*mine, *shared])


def _idle_factors(job: Job, given: Mapping[str, Any], changes: list[str]) -> list[str]:
    """Find the groups that scale a weight decay that there is not."""
    why = _decay(job)
    changed = any(_names(changes, key) for key in (_MODE, "rule.weight_decay.rate"))
    if not why or changed or _is_written_out(given):
        return []
    return [
        f"groups[{number}].weight_decay: got {group.weight_decay:g}, which has no effect: {why}; "
        "omit it"
        for number, group in enumerate(job.groups)
        if group.weight_decay != 1.0
    ]


def without_effect(job: Job) -> frozenset[str]:
    """Return the settings, and sections, that have no effect in a job, given or not.

    Example:
        >>> from mpi_dcasgd import load_job
        >>> job = {"algorithm": "asgd", "epochs": 1, "batch_size": 8, "lr": 0.1}
        >>> job |= {"model": {"name": "mlp"}, "data": {"name": "digits"}}
        >>> "sync.overlap" in without_effect(load_job(job))
        True
    """
    return frozenset(key for key, (_, reason) in WITHOUT_EFFECT.items() if reason(job))


def _value_and_default(job: Job, key: str) -> tuple[Any, Any]:
    """Of a setting; twice None where the job's sections have no such one."""
    *sections, name = key.split(".")
    settings: Any = job
    for section in sections:
        settings = getattr(settings, section)
    if (info := settings_of(type(settings)).get(name)) is None:
        return None, None
    return getattr(settings, name), info.get_default(call_default_factory=True)


def _names(keys: Iterable[str], key: str) -> bool:
    """Return whether one of the keys is this one, a section that it is in, or a part of it."""
    return any(one == key or key.startswith(f"{one}.") or one.startswith(f"{key}.") for one in keys)


def _is_written_out(given: Mapping[str, Any]) -> bool:
    schedule, rule = given.get("schedule"), given.get("rule")
    names = {setting.name for setting in fields(ScheduleSettings)}
    return (
        isinstance(schedule, Mapping)
        and isinstance(rule, Mapping)
        and names <= schedule.keys()
        and PARTS.keys() <= rule.keys()
    )
