"""Hold the data of a run against those that it began with."""

from __future__ import annotations

from mpi_dcasgd.config.schema import Job
from mpi_dcasgd.drivers.handshake import data_facts, identity_facts
from mpi_dcasgd.errors import DataError
from mpi_dcasgd.learning.data.identity import differences
from mpi_dcasgd.learning.tasks.sections import SectionTask
from mpi_dcasgd.record.run_folder import RunFolder
from mpi_dcasgd.runs.build import Workshop
from mpi_dcasgd.runs.resume import Checkpoint


def facts_of_data(job: Job, workshop: Workshop) -> dict[str, str]:
    """Return what all ranks of a run must have alike of their data.

    Args:
        job: The run's.
        workshop: Has the data of this rank.

    Raises:
        DataError: A sample cannot be read.
    """
    facts = data_facts(workshop.subject)
    if job.checkpoint.other_data == "refuse":
        facts |= identity_facts(workshop.subject, lambda: workshop.identity)
    return facts


def check_resumed(checkpoint: Checkpoint | None, job: Job, workshop: Workshop) -> None:
    """Refuse to resume on other data than the run was trained on, unless the job says to.

    Args:
        checkpoint: What is resumed from; None for a run that begins.
        job: The run's.
        workshop: Has the data of now.

    Raises:
        DataError: The data have changed; with all that differs.
    """
    changes = _changes(checkpoint, workshop)
    if checkpoint is None or not changes:
        return
    accepted = job.checkpoint.other_data == "accept"
    as_many = checkpoint.content["data"]["samples"]["train"] == len(workshop.subject.train)
    if accepted and as_many:
        return
    remedy = (
        "minibatches are numbered, so a run resumes with as many training samples only"
        if not as_many
        else "to resume with them all the same, set checkpoint.other_data=accept"
    )
    raise DataError(
        f"{checkpoint.path}: the data are not those that the run was trained on: "
        f"{'; '.join(changes)}. Put them back, or start from scratch with --resume never; {remedy}"
    )


def write_down(folder: RunFolder, checkpoint: Checkpoint | None, workshop: Workshop) -> list[str]:
    """Write down what the data are at the start of a run, and return what is to be said of them.

    What a run began with stays; a resume with other data is added to it.
    """
    identity, changes = workshop.identity, _changes(checkpoint, workshop)
    stored = folder.data() if checkpoint else {}
    if changes:
        stored["resumed_with"] = [*stored.get("resumed_with", ()), changes]
    folder.write_data({**identity.as_plain(), **stored})
    lines = [str(identity)]
    if workshop.start is not None and checkpoint is None:
        lines.append(f"first weights: {workshop.start}")
    if identity.tests_itself and isinstance(workshop.subject.task, SectionTask):
        lines.append("the test samples are the training samples: what they say proves nothing")
    return lines + [f"the data have changed since the checkpoint: {line}" for line in changes]


def replay_changes(folder: RunFolder, workshop: Workshop) -> list[str]:
    """Say how the data differ from those of a run that is computed again, one line each.

    Raises:
        DataError: There are not as many training samples, so that no minibatch is the same.
    """
    then, now = folder.data(), workshop.identity.as_plain()
    found = differences(then, now)
    if found and then["samples"]["train"] != now["samples"]["train"]:
        raise DataError(
            f"{folder.path}: cannot be computed again, for its data have changed: "
            f"{'; '.join(found)}"
        )
    later = [line for lines in then.get("resumed_with", ()) for line in lines]
    return [f"the data have changed since the run: {line}" for line in found] + [
        f"the run itself resumed with other data: {line}" for line in dict.fromkeys(later)
    ]


def check_replayed(folder: RunFolder, job: Job, workshop: Workshop) -> None:
    """Refuse to put a changed job into a run's order on other data, unless the job says to.

    Raises:
        DataError: The data have changed; with all that differs.
    """
    changes = differences(folder.data(), workshop.identity.as_plain())
    if changes and job.checkpoint.other_data != "accept":
        raise DataError(
            f"{folder.path}: its data have changed: {'; '.join(changes)}. Put them back, or, to "
            "use its order on these data, set checkpoint.other_data=accept"
        )


def _changes(checkpoint: Checkpoint | None, workshop: Workshop) -> list[str]:
    then = (checkpoint.content.get("data") if checkpoint else None) or {}
    return differences(then, workshop.identity.as_plain())
