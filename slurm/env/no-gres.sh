# shellcheck shell=bash
# Sites whose sbatch refuses --gres and --gpus-per-node and gives whole nodes (TACC: Vista,
# Lonestar6, Stampede3).
#
# What to change: the modules and the environment. Ask for GPU nodes by partition, never by
# --gpus-per-node, and keep --export away:
#
#   SITE=no-gres sbatch -A ACCOUNT -p gpu-a100 -N 2 --ntasks-per-node=3 slurm/async.sbatch
#   mpi-dcasgd submit JOB --site-env no-gres --partition gpu-a100 --nodes 2 --tasks-per-node 3
#
# Ranks choose their GPU by their number on the host, so nothing else has to be said about GPUs.

# module purge
# module load gcc openmpi python3
# source "$SCRATCH/env/bin/activate"

# Not ibrun: only what mpirun and srun do with a signal is known here.
export MPI_DCASGD_LAUNCHER=${MPI_DCASGD_LAUNCHER:-mpirun}
