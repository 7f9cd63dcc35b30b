"""SLURM's word on jobs: on those in the queue, and on those that have ended."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

PATIENCE_S = 30.0
_QUEUE_FORMAT = "JobArrayID:60|,State:30|,Reason:80|,RestartCnt:10"


@dataclass(frozen=True)
class JobState:
    """State of a job, or of one element of an array.

    Attributes:
        state: SLURM's word: PENDING, RUNNING, TIMEOUT, ...
        reason: Why it is pending, or ended so; may be empty.
        restarts: Number of times that it was requeued; None if that is not known.
        active: It is in the queue, so it may still run.
    """

    state: str
    reason: str = ""
    restarts: int | None = None
    active: bool = False


@dataclass(frozen=True)
class Answer:
    """SLURM's word on jobs.

    Attributes:
        states: Of the jobs and elements (``12_3``) that SLURM knows of.
        silence: Why SLURM did not say all that it may know; empty if it did. A job without a
            state is then not known to have left the queue.
    """

    states: Mapping[str, JobState] = field(default_factory=dict)
    silence: str = ""


def job_states(job_ids: Iterable[str], patience_s: float = PATIENCE_S) -> Answer:
    """Return the states of jobs and of the elements of arrays (``12_3``), as far as SLURM tells.

    Args:
        job_ids: Numbers, of arrays without their elements.
        patience_s: Seconds until SLURM counts as silent, for all jobs together.
    """
    wanted = set(job_ids)
    if not wanted:
        return Answer()
    deadline = time.monotonic() + patience_s
    words = ("--noheader", "--array", "--me", f"--Format={_QUEUE_FORMAT}")
    queue, silence = _ask(deadline, "squeue", *words)
    active = {
        name: state
        for name, state in parse_squeue(queue).items()
        if name.partition("_")[0] in wanted
    }
    ended: dict[str, JobState] = {}
    forgotten, silent = [], ""
    for job_id in sorted(wanted):
        # squeue knows all that have not ended; of an array some elements may have.
        told = ""
        if not silent:  # or it would be waited for once more with each job
            told, silent = _ask(deadline, "scontrol", "--oneliner", "show", "job", job_id)
            silent = "" if "Invalid job id" in silent else silent
        found = parse_scontrol(told)
        ended |= found
        if not found:
            forgotten.append(job_id)
    if forgotten:
        # Whose silence hides no job that is in the queue.
        fields = "--format=JobID,State,ExitCode"
        jobs = f"--jobs={','.join(forgotten)}"
        told, _ = _ask(deadline, "sacct", "-X", "-n", "-P", "--array", jobs, fields)
        ended = parse_sacct(told) | ended
    return Answer(ended | active, silence or silent)


def max_array_size(patience_s: float = PATIENCE_S) -> int | None:
    """Return the elements that an array counted from 0 may have; None if SLURM does not tell."""
    told, _ = _ask(time.monotonic() + patience_s, "scontrol", "show", "config")
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", told, re.MULTILINE)
    return int(found[1]) if found else None


def parse_squeue(text: str) -> dict[str, JobState]:
    """From the lines that squeue prints of one element or job each."""
    found = {}
    for line in text.splitlines():
        words = [word.strip() for word in line.split("|")]
        if len(words) >= 4 and words[0]:
            reason = "" if words[2] in ("None", "") else words[2]
            found[words[0]] = JobState(words[1], reason, _number(words[3]), active=True)
    return found


def parse_scontrol(text: str) -> dict[str, JobState]:
    """From `scontrol --oneliner show job`; elements that wait together are left out."""
    found = {}
    for line in text.splitlines():
        fields = dict(re.findall(r"(\S+?)=(\S*)", line))
        name = fields.get("JobId")
        if "ArrayJobId" in fields and name:
            if not fields.get("ArrayTaskId", "").isdecimal():
                continue
            name = f"{fields['ArrayJobId']}_{fields['ArrayTaskId']}"
        if name and "JobState" in fields:
            reason = fields.get("Reason", "")
            found[name] = JobState(
                fields["JobState"],
                "" if reason == "None" else reason,
                _number(fields.get("Restarts", "")),
                active=fields["JobState"] in ("PENDING", "RUNNING", "SUSPENDED", "CONFIGURING"),
            )
    return found


def parse_sacct(text: str) -> dict[str, JobState]:
    """From `sacct -X -n -P` with the fields JobID, State and ExitCode."""
    found = {}
    for line in text.splitlines():
        words: Sequence[str] = line.split("|")
        if len(words) < 3 or not re.fullmatch(r"\d+(_\d+)?", words[0]):
            continue
        state = words[1].partition(" ")[0]  # "CANCELLED by 1000"
        reason = "" if words[2] == "0:0" else f"exit status {words[2]}"
        active = state in ("PENDING", "RUNNING", "SUSPENDED", "REQUEUED")
        found[words[0]] = JobState(state, reason, active=active)
    return found


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _ask(deadline: float, program: str, *words: str) -> tuple[str, str]:
    """The output of a program, and why there is none."""
    path = shutil.which(program)
    if not path:
        return "", f"found no {program} on PATH"
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        return "", "no answer in time"
    try:
        done = subprocess.run(
            [path, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=left_s,
        )
    except subprocess.TimeoutExpired:
        return "", f"{program}: no answer in {left_s:.0f} s"
    except OSError as error:
        return "", f"{program}: {error.strerror}"
    if done.returncode:
        said = done.stderr.strip().partition("\n")[0].removeprefix(f"{program}: error: ")
        return "", f"{program}: {said or f'status {done.returncode}'}"
    return done.stdout, ""
