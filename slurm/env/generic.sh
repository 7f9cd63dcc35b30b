# shellcheck shell=bash
# Any site: sourced by the batch scripts unless the variable SITE names another file of this folder.
#
# What to change: load the modules that the environment was made with, and activate it. Nothing of
# that is needed where sbatch is called from a shell in which it is active already, since SLURM
# hands the shell's variables on (unless the site or --export=NONE forbids it).

# module purge
# module load python openmpi
# source "$HOME/env/bin/activate"

# `make setup` puts an environment here.
if [[ -x ${SLURM_SUBMIT_DIR:-.}/.venv/bin/mpi-dcasgd ]]; then
    PATH=${SLURM_SUBMIT_DIR:-.}/.venv/bin:$PATH
fi

# mpirun if there is one, or else srun. To choose: auto, mpirun, srun.
export MPI_DCASGD_LAUNCHER=${MPI_DCASGD_LAUNCHER:-auto}
