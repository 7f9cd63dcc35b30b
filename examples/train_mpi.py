"""Two algorithms side by side in one MPI world, each on half of its ranks.

    mpirun -n 6 python examples/train_mpi.py [FOLDER]

Every rank calls `train` with the communicator of its half; rank 0 of the world prints the result.
"""

import sys
from pathlib import Path

from mpi4py import MPI

import mpi_dcasgd

JOB = {
    "name": "halves",
    "epochs": 3,
    "batch_size": 16,
    "lr": 0.05,
    "model": {"name": "mlp", "hidden": [32]},
    "data": {"name": "synthetic", "num_train": 2000, "num_test": 500},
}


def main(folder: Path) -> None:
    """Train on both halves, and compare."""
    world = MPI.COMM_WORLD
    first = world.rank < world.size // 2
    half = world.Split(0 if first else 1, world.rank)
    algorithm = "asgd" if first else "dcasgd-a"
    mpi_dcasgd.train(JOB, half, folder / algorithm, algorithm=algorithm, overwrite=True)
    half.Free()
    world.Barrier()  # both runs have ended
    if world.rank == 0:
        for path in (folder / "asgd", folder / "dcasgd-a"):
            found = mpi_dcasgd.Run(path).summary
            print(
                f"{found['algorithm']}: {found['num_workers']} workers, "
                f"mean staleness {found['staleness_mean']:.2f}, "
                f"test error {100 * found['test_error']:.1f} %"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/halves"))
