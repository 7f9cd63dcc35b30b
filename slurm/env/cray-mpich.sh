# shellcheck shell=bash
# HPE Cray systems (NERSC, LUMI, OLCF): Cray MPICH, started by srun with the site's own protocol.
#
# What to change: the modules and the environment. mpi4py must have been built against Cray MPICH
# (MPICC="cc -shared" pip install --no-binary=mpi4py --no-cache-dir mpi4py), or its wheel be run with
# cray-mpich-abi loaded.

# module purge
# module load PrgEnv-gnu cray-python cray-mpich-abi
# module load craype-accel-nvidia80          (or craype-accel-amd-gfx90a)
# source "$HOME/env/bin/activate"

export MPI_DCASGD_LAUNCHER=${MPI_DCASGD_LAUNCHER:-srun}
# The default of these sites is right (cray_shasta); it is named only where it is not the default.
export MPI_DCASGD_SRUN_ARGS=${MPI_DCASGD_SRUN_ARGS:---cpu-bind=cores}

# Gradients are staged through the host's memory, so GPU support need not be on.
export MPICH_GPU_SUPPORT_ENABLED=${MPICH_GPU_SUPPORT_ENABLED:-0}

# AMD GPUs: each rank picks its own by its number on the host; a mask that shows it one only is as
# good.
