"""SLURM's word on jobs: on those in the queue, and on those that have ended."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_PATIENCE_S = 30
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


def job_states(job_ids: Iterable[str]) -> dict[str, JobState]:
    """The states of jobs and of the elements of arrays (``12_3``), as far as SLURM tells.

    Args:
        job_ids: Numbers, of arrays without their elements.

    Returns:
        Nothing for jobs that SLURM has forgotten, or where there is no SLURM.
    """
    wanted = set(job_ids)
    if not wanted:
        return {}
    found = {
        name: state
        for name, state in parse_squeue(
            _output("squeue", "--noheader", "--array", "--me", f"--Format={_QUEUE_FORMAT}")
        ).items()
        if name.partition("_")[0] in wanted
    }
    for job_id in sorted(wanted):
        # squeue knows for all that have not ended; of an array some elements may have.
        ended = parse_scontrol(_output("scontrol", "--oneliner", "show", "job", job_id))
        if not ended:
            fields = "--format=JobID,State,ExitCode"
            ended = parse_sacct(
                _output("sacct", "-X", "-n", "-P", "--array", f"--jobs={job_id}", fields)
            )
        found = ended | found
    return found


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
    return int(text) if text.isdecimal() else None


def _output(*argv: str) -> str:
    program = shutil.which(argv[0])
    if not program:
        return ""
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""
