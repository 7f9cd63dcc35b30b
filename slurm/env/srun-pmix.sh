# shellcheck shell=bash
# A site where srun starts Open MPI through PMIx (CSCS, JSC, NERSC with Open MPI, OLCF).
#
# What to change: the modules and the environment; `srun --mpi=list` says what this SLURM speaks
# (pmix, or with a version: pmix_v4). Open MPI 5 has no PMI-2: with `--mpi=pmi2` each task would be
# a world of its own, which is noticed and refused.

# module purge
# module load gcc openmpi python
# source "$HOME/env/bin/activate"

export MPI_DCASGD_LAUNCHER=${MPI_DCASGD_LAUNCHER:-srun}
export MPI_DCASGD_SRUN_ARGS=${MPI_DCASGD_SRUN_ARGS:---mpi=pmix}

# Pin each task to its own cores, the server among them, where the site does not do so by itself:
# export MPI_DCASGD_SRUN_ARGS="--mpi=pmix --cpu-bind=cores"

# In a container (CSCS's Container Engine, Shifter): the words that srun needs for it.
# export MPI_DCASGD_SRUN_ARGS="--mpi=pmix --environment=dcasgd"
