"""The pieces that batch scripts are put together from."""

from __future__ import annotations

from mpi_dcasgd.record.run_folder import RunFolder

HEADS = {
    "async": """
# Train a job asynchronously: the first task is the parameter server, all others are workers.
#
#   sbatch slurm/async.sbatch
#   JOB=jobs/cifar10_resnet20.yaml sbatch -N 4 slurm/async.sbatch data.path=DIR lr=0.25
#   SITE=srun-pmix sbatch -A ACCOUNT -p PARTITION --gpus-per-node=4 slurm/async.sbatch
#
# Options on sbatch's command line go before those below. docs/slurm.md has all of it.
""",
    "sync": """
# Train a job synchronously with Horovod: every task is a worker.
#
#   sbatch slurm/sync.sbatch
#   JOB=jobs/cifar10_resnet20.yaml sbatch -N 4 slurm/sync.sbatch data.path=DIR sync.backend=ddp
#
# Options on sbatch's command line go before those below. docs/slurm.md has all of it.
""",
    "compare": """
# Compare algorithms: a job array over the runs of a study, and a last job that writes the report.
#
#   sbatch slurm/compare.sbatch
#   STUDY=jobs/compare_digits.yaml sbatch --array=0-14%4 slurm/compare.sbatch
#   STUDY=... ONLY="asgd-w4-s0" sbatch --array=0 slurm/compare.sbatch
#
# The runs are dealt out to as many elements as the array has; what is finished is not run again.
# Ask for as many tasks as the largest run has ranks. docs/slurm.md has all of it.
""",
    "simulate": """
# Train a job on a cluster that is only described, in one process.
#
#   sbatch slurm/simulate.sbatch workers=64 delays=gamma
#   JOB=jobs/cifar10_resnet20.yaml sbatch -c 8 slurm/simulate.sbatch cluster=FILE data.path=DIR
#
# Options on sbatch's command line go before those below. docs/slurm.md has all of it.
""",
    "hetjob": """
# Train a job asynchronously in a heterogeneous job: the server on a CPU node of its own, workers on
# GPU nodes. Only srun can start that, so the MPI must speak one of `srun --mpi=list`. Put
# `--partition` and `--account` of each kind of node below; options on sbatch's command line change
# the first component only. Most sites are better served by async.sbatch: docs/slurm.md says why.
#
#   JOB=jobs/cifar10_resnet20.yaml sbatch slurm/hetjob.sbatch data.path=DIR
""",
    "report": """
# Write the report of a study whose runs are there; compare.sbatch submits this as its last job.
#
#   STUDY=jobs/compare_digits.yaml sbatch slurm/report.sbatch
""",
}

SUBMITTED = "# Written by `mpi-dcasgd submit`. To submit it again as it is: sbatch THIS_FILE"

ENVIRONMENT = """
if [[ -r $site_file ]]; then
    # shellcheck source=/dev/null
    source "$site_file"
elif [[ -n @asked@ ]]; then
    echo "$SLURM_JOB_NAME: no site file $site_file: submit where it is, or set MPI_DCASGD_ENV" >&2
    exit 2
fi
# Not before: modules and conda use variables that are not set.
set -uo pipefail
# A shell within a step (srun --pty) hands these on to the jobs that are submitted there.
unset "${!SLURM_STEP@}"
if ! command -v mpi-dcasgd >/dev/null; then
    echo "$SLURM_JOB_NAME: mpi-dcasgd is not on PATH; have $site_file activate its environment" >&2
    exit 2
fi
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
"""

THREADS = """
# Cores that were asked for are used, unless the words say otherwise.
if ((OMP_NUM_THREADS > 1)); then set -- "threads=$OMP_NUM_THREADS" "$@"; fi
"""

_FINISHED = """
# A node can fail after the run's end, and SLURM then starts this script again.
if ((${SLURM_RESTART_COUNT:-0} > 0)) &&
    grep -qs '"status": "completed"' "@summary@"; then
    echo "$run_dir is finished"
    exit 0
fi
"""

_ONE_RUN = "@threads@" + _FINISHED.strip("\n").replace(
    "@summary@", str(RunFolder("$run_dir").summary_json)
)

STARTS = {
    "async": _ONE_RUN,
    "sync": _ONE_RUN,
    "simulate": _ONE_RUN,
    "hetjob": _ONE_RUN,
    "compare": "",
    "tune": "",
    "report": """
exec mpi-dcasgd compare "$study" -o "$out" --report-only
""",
}

HANDLING = """
# @lead@ s before the time limit SLURM sends USR1 to this shell alone. It is passed on, and so is
# TERM (preempted, or cancelled); the run writes a checkpoint and ends with status 138.
pid="" signals=0
pass_on() {
    signals=$((signals + 1))
    if [[ -n $pid ]]; then kill -s USR1 "$pid" 2>/dev/null; fi
}
trap pass_on USR1 TERM
"""

COMMANDS = {
    "async": """
mpi-dcasgd run "$job" "$@" --run-dir "$run_dir" --resume auto &
""",
    "sync": """
mpi-dcasgd run "$job" algorithm=ssgd "$@" --run-dir "$run_dir" --resume auto &
""",
    "simulate": """
mpi-dcasgd simulate "$job" "$@" --run-dir "$run_dir" --resume --checkpoint-every 1 &
""",
    "hetjob": """
read -ra srun_args <<<"${MPI_DCASGD_SRUN_ARGS:---mpi=pmix}"
srun "${srun_args[@]}" --het-group=0,1 --kill-on-bad-exit=1 \\
    mpi-dcasgd train "$job" "$@" --run-dir "$run_dir" --resume auto &
""",
}

COMPARE = """
# The element that comes first submits the report, to be written when all elements have ended.
if ((SLURM_ARRAY_TASK_ID == SLURM_ARRAY_TASK_MIN && ${SLURM_RESTART_COUNT:-0} == 0)); then
    like=()
    for word in "account=${SLURM_JOB_ACCOUNT:-}" "partition=$SLURM_JOB_PARTITION" \\
        "qos=${SLURM_JOB_QOS:-}"; do
        if [[ ! $word =~ =(\\(null\\))?$ ]]; then like+=("--$word"); fi
    done
    if ! STUDY=$study OUT=$out sbatch "--dependency=afterany:$SLURM_ARRAY_JOB_ID" \\
        "--job-name=$SLURM_JOB_NAME-report" "${like[@]}" slurm/report.sbatch; then
        echo "cannot submit the report from here; when all has ended, on a login node:" >&2
        echo "    mpi-dcasgd compare $study -o $out --report-only" >&2
    fi
fi

# An array may be any list (--array=1,3,5), of which SLURM tells an element only the first and the
# count. So each takes the first part that no other has: to make a link is one step, on NFS, too.
taken=$out/.parts/$SLURM_ARRAY_JOB_ID part=""
mkdir -p "$taken"
for ((index = 0; index < SLURM_ARRAY_TASK_COUNT; index++)); do # ours from before a requeue?
    if [[ $(readlink "$taken/$index") == "$SLURM_ARRAY_TASK_ID" ]]; then part=$index; fi
done
for ((index = 0; index < SLURM_ARRAY_TASK_COUNT; index++)); do
    if [[ -n $part ]]; then break; fi
    if ln -sn "$SLURM_ARRAY_TASK_ID" "$taken/$index" 2>/dev/null; then part=$index; fi
done
if [[ -z $part ]]; then
    echo "$SLURM_JOB_NAME: cannot take a part of the runs in $taken: is the folder writable?" >&2
    exit 2
fi

read -ra only <<<"${ONLY:-}"
mpi-dcasgd compare "$study" -o "$out" --no-report ${only:+--only "${only[@]}"} \\
    --part "$part/$SLURM_ARRAY_TASK_COUNT" &
"""

COMPARE_PARTS = """
parts=(
@parts@
)
read -ra only <<<"${parts[SLURM_ARRAY_TASK_ID]}"
mpi-dcasgd compare "$study" -o "$out" --no-report@how@ --only "${only[@]}" &
"""

WAITING = """
pid=$!
if ((signals > 0)); then pass_on; fi
while true; do
    before=$signals
    wait "$pid"
    status=$?
    # A signal ends `wait`, not the run.
    if ((signals == before)); then break; fi
done
"""

REQUEUE = """
# Back into the queue with what was stopped by a signal (143: TERM), and with what failed while
# SLURM was preempting the job: it ends mpirun's daemons first. Not with a job that was cancelled.
if ((status == 0)); then exit 0; fi
for wait_s in 1 3 9 27 0; do # a busy controller may not answer at once, or be about to send signals
    known=$(scontrol --oneliner show job "$SLURM_JOB_ID")
    if [[ -n $known && ! $known =~ JobState=SIGNALING ]]; then break; fi
    sleep "$wait_s"
done
if [[ -z $known ]]; then
    echo "$SLURM_JOB_NAME: SLURM does not say why; submit it again with the same folder" >&2
    exit "$status"
fi
known=${known%%$'\\n'*} # a heterogeneous job's first component
if [[ $status -ne 138 && $status -ne 143 && ! $known =~ PreemptTime=[0-9] ]]; then
    exit "$status"
fi
if [[ ! $known =~ JobState=(RUNNING|SIGNALING) ]]; then exit "$status"; fi
restarts=${SLURM_RESTART_COUNT:-0}
if ((restarts >= max_requeues)); then
    echo "$SLURM_JOB_NAME: told to stop, and it has been started again $restarts" \\
        "times already; give it more time, or more than MAX_REQUEUES=$max_requeues" >&2
    exit "$status"
fi
this_job=${SLURM_HET_JOB_ID:-$SLURM_JOB_ID}
if [[ -n ${SLURM_ARRAY_JOB_ID:-} ]]; then this_job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi
echo "$SLURM_JOB_NAME: told to stop; back into the queue" \\
    "(restart $((restarts + 1)) of $max_requeues at most)"
if ! scontrol requeue "$this_job"; then
    echo "$SLURM_JOB_NAME: cannot be requeued here; submit it again with the same folder" >&2
    exit "$status"
fi
"""
