"""Cautions that the report adds by itself: what a reader must know before believing a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mpi_dcasgd.record.run_files import CLUSTER_YAML
from mpi_dcasgd.reporting.closer import rates_too_large
from mpi_dcasgd.reporting.collect import RunResult
from mpi_dcasgd.reporting.groups import Group, Stat
from mpi_dcasgd.reporting.time_to_error import is_synchronous
from mpi_dcasgd.wording import counted

_ENOUGH_SEEDS = 3


def remarks(groups: Sequence[Group], runs: Sequence[RunResult]) -> list[str]:
    """Cautions that apply to these runs, and only those."""
    found = [
        _seeds(groups),
        rates_too_large(groups),
        virtual_seconds(groups),
        server_rank(groups),
        crowded(runs),
        _not_finite(groups),
        epochs_differ(runs),
        _resized(runs),
        _restarted(runs),
        _refused(groups),
        _code(runs),
        hardware_differs(runs),
        _best(groups),
        "Wall seconds and samples/s begin when training begins: start-up, compilation and"
        " loading of data come before.",
    ]
    return [remark for remark in found if remark]


def _seeds(groups: Sequence[Group]) -> str:
    few = [group for group in groups if len(group.runs) < _ENOUGH_SEEDS]
    twice = [group for group in groups if _repeats_a_seed(group)]
    text = ""
    if few:
        which = "every row" if len(few) == len(groups) else ", ".join(g.label for g in few)
        text = (
            f"Fewer than {_ENOUGH_SEEDS} runs ({which}): differences may be chance;"
            f" use at least {_ENOUGH_SEEDS} seeds before drawing a conclusion."
        )
    else:
        text = "± is the sample standard deviation over the runs of a row."
    if twice:
        text += (
            f" One seed was used more than once in {', '.join(g.label for g in twice)}: the spread"
            " there is smaller than over as many seeds."
        )
    return text


def virtual_seconds(groups: Sequence[Group]) -> str:
    """Say that the seconds of simulated rows are virtual; empty if there are none."""
    if not any(group.simulated for group in groups):
        return ""
    text = (
        "Simulated rows: real gradients, but seconds are virtual, those of the cluster in the"
        f" run's {CLUSTER_YAML}"
    )
    if all(group.simulated or group.sequential for group in groups):
        return f"{text}."
    return f"{text}; beside real ones they mean something if that cluster was calibrated."


def _repeats_a_seed(group: Group) -> bool:
    return len({run.seed for run in group.runs}) < len(group.runs)


def server_rank(groups: Sequence[Group]) -> str:
    """Say that rows with a server occupy a rank more; empty if that is not so of some alone."""
    served = [group for group in groups if group.world_size > group.num_workers]
    unserved = [
        group for group in groups if not group.sequential and group.world_size == group.num_workers
    ]
    if not served or not unserved:
        return ""
    workers = served[0].num_workers
    more = served[0].world_size - workers
    who = "The server takes a rank of its own" if more == 1 else f"{more} servers take ranks"
    return (
        f"{who}: an asynchronous run with W workers occupies W + {more}"
        f" ranks, a synchronous one W (here {counted(workers, 'worker')}: {served[0].world_size}"
        f" ranks against {workers}). Rows with equal workers are equal in gradients, "
        "not in hardware."
    )


def fewer_updates(groups: Sequence[Group]) -> str:
    """Say that synchronous rows took fewer updates at the same learning rate; empty if not so."""
    asynchronous = any(max(group.histogram, default=0) > 0 for group in groups)
    unscaled = [
        group.label
        for group in groups
        if is_synchronous(group)
        and group.num_workers > 1
        and any(run.job.get("sync.lr_scaling", "none") == "none" for run in group.runs)
    ]
    if not asynchronous or not unscaled:
        return ""
    return (
        "A synchronous update takes a minibatch of each worker: in as many epochs W workers make"
        " 1/W of the updates that asynchronous ones make, here without a larger learning rate"
        " (sync.lr_scaling: linear would give one)."
    )


def crowded(runs: Sequence[RunResult]) -> str:
    """Say that ranks shared processors; empty if none did."""
    worst: tuple[float, int, int] | None = None
    for run in runs:
        cpus = run.environment.get("cpus")
        ranks = [r for r in run.environment.get("ranks", ()) if r.get("device") == "cpu"]
        if not cpus or not ranks:
            continue
        # The processors are those of rank 0's host.
        here = Counter(r.get("host") for r in ranks)[ranks[0].get("host")]
        if here > cpus and (worst is None or here / cpus > worst[0]):
            worst = (here / cpus, here, int(cpus))
    if worst is None:
        return ""
    return (
        f"Up to {worst[1]} ranks shared {counted(worst[2], 'processor')}: seconds, samples/s and "
        "speed-up say what this machine did, and little about one with a processor "
        f"or GPU for every rank. Test {runs[0].measures.primary} against epochs does not "
        "suffer from it."
    )


def epochs_differ(runs: Sequence[RunResult]) -> str:
    """Say that runs were not equally long; empty if they were."""
    trained = sorted(
        {(r.summary.get("epochs"), r.summary.get("num_samples")) for r in runs}, key=str
    )
    if len(trained) < 2:
        return ""
    return "The runs were not trained for equally many epochs and samples; mind the matched column."


def _resized(runs: Sequence[RunResult]) -> str:
    resized = [run for run in runs if len(set(run.sizes)) > 1]
    if not resized:
        return ""
    told = "; ".join(f"{run.path.name}: {', then '.join(map(str, run.sizes))}" for run in resized)
    return (
        f"Runs that were resumed with another number of workers ({told}) are listed under the last"
        " number: seconds, speed and staleness there are a mixture."
    )


def _restarted(runs: Sequence[RunResult]) -> str:
    told = [
        f"{run.path.name}: {counted(len(run.restarts), 'time')}, for the last "
        f"time after {run.restarts[-1]}"
        for run in runs
        if run.restarts
    ]
    if not told:
        return ""
    return (
        f"Runs that had ended early were started again ({'; '.join(told)}): their seconds have gaps"
        " and a second warm-up; samples and updates are those of one run."
    )


def _refused(groups: Sequence[Group]) -> str:
    parts = []
    for group in groups:
        for key, word in (("dropped", "dropped by the rule"), ("nonfinite", "not finite")):
            refused = Stat.of(run.number(key) for run in group.runs)
            if refused is not None and refused.mean > 0:
                parts.append(f"{group.label}: {refused.mean:,.4g} a run {word}")
    return f"Gradients that were refused ({'; '.join(parts)})." if parts else ""


def _code(runs: Sequence[RunResult]) -> str:
    states = [run.environment.get("git") or {} for run in runs]
    commits = sorted({str(state["commit"])[:12] for state in states if state.get("commit")})
    parts = []
    if len(commits) > 1:
        parts.append(f"The runs were made by different commits ({', '.join(commits)}).")
    dirty = sum(bool(state.get("dirty")) for state in states)
    if dirty:
        which = "The run was" if len(runs) == 1 else f"{dirty} of {len(runs)} runs were"
        parts.append(f"{which} made by code that was not committed.")
    return " ".join(parts)


def hardware_differs(runs: Sequence[RunResult]) -> str:
    """Say that runs were made on different hardware; empty if they were not."""
    kinds = {
        (env.get("cpu"), env.get("cpus"), tuple(sorted(set(_devices(env)))))
        for run in runs
        if (env := run.environment)
    }
    if len(kinds) < 2:
        return ""
    return "The runs were not made on equal hardware: their seconds cannot be compared."


def _devices(environment: Any) -> list[str]:
    return [
        str(rank.get("device_name") or str(rank.get("device")).partition(":")[0])
        for rank in environment.get("ranks", ())
        # A server is on the CPU whatever the workers have.
        if rank.get("role") != "server"
    ]


def _not_finite(groups: Sequence[Group]) -> str:
    told = []
    for group in groups:
        key = f"test_{group.measures.primary}"
        lost = sum(run.number(key) is None for run in group.runs)
        if lost:
            told.append(f"{group.label}: {lost} of {len(group.runs)}")
    if not told:
        return ""
    return (
        f"Runs whose final test {groups[0].measures.primary} is not a finite number"
        f" ({'; '.join(told)}): no mean is shown for their rows, since that of the others would"
        " flatter them."
    )


def _best(groups: Sequence[Group]) -> str:
    measures = groups[0].measures
    primary = measures.primary
    validated = {run.validated for group in groups for run in group.runs}
    if len(validated) > 1:
        return (
            "Some runs have a validation split that chose their best weights, others none: mind"
            ' "best" and times to a target, which go by the test set where there is none.'
        )

    def differs(group: Group) -> bool:
        last, best = group.metric(f"test_{primary}"), group.metric(f"best_test_{primary}")
        if last is None or best is None:
            return False
        return best != last if validated == {True} else measures.better(best.mean, last.mean)

    if not any(differs(group) for group in groups):
        return ""
    best = "highest" if measures.higher_is_better else "lowest"
    final = f'"Test {primary}" is that of the final weights. "Best" is'
    if validated == {True}:
        return (
            f"{final} the test {primary} of the weights with the {best} validation {primary};"
            " the test set chose nothing."
        )
    return (
        f"{final} the {best} of all evaluations,"
        " chosen by the test set itself, and therefore flattering."
    )
