"""Starting a world with mpirun or srun, and understanding how it ended."""
