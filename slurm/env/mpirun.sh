# shellcheck shell=bash
# A site whose MPI (Open MPI, Intel MPI, MPICH built for SLURM) is started by mpirun inside the
# allocation: what Open MPI's own documentation advises, and TACC's pages show.
#
# What to change: the modules, the environment, and, if it must be, what mpirun is told.

# module purge
# module load gcc openmpi python
# source "$HOME/env/bin/activate"

export MPI_DCASGD_LAUNCHER=${MPI_DCASGD_LAUNCHER:-mpirun}

# The mpirun beside the environment's python comes first, then PATH's. To name another:
# export MPIRUN=/opt/openmpi/bin/mpirun

# Further words for mpirun, e.g. to keep messages off an administrative network:
# export MPI_DCASGD_MPIRUN_ARGS="--mca btl_tcp_if_include ib0 --mca oob_tcp_if_include ib0"

# Horovod: one line on each algorithm and buffer that NCCL sets up, while a site is being tried.
# export NCCL_DEBUG=INFO
