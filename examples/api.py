"""Simulate a straggler under two algorithms, and compare the two runs.

    python examples/api.py [FOLDER]

Needs no MPI and no data; takes a few seconds on two cores.
"""

import sys
from pathlib import Path

import mpi_dcasgd

JOB = {
    "name": "straggler",
    "epochs": 5,
    "batch_size": 16,
    "lr": 0.1,
    "model": {"name": "mlp", "hidden": [32]},
    "data": {"name": "synthetic", "num_train": 2000, "num_test": 500},
}


def main(folder: Path) -> None:
    """Simulate, report, and show what a run knows."""
    runs = [
        mpi_dcasgd.simulate(
            JOB,
            workers=8,
            delays="gamma",
            slow={0: 4},  # worker 0 takes four times as long
            algorithm=algorithm,
            run_dir=folder / algorithm,
            overwrite=True,
        )
        for algorithm in ("asgd", "dcasgd-a")
    ]
    try:
        report = mpi_dcasgd.report([run.path for run in runs], folder / "report")
    except mpi_dcasgd.ReportWithoutPlotsError as error:  # no matplotlib: all but the plots is there
        report = error.report
    print(report.table)
    for run in runs:
        errors = [row["test_error"] for row in run.metrics("evaluation")]
        parameters = sum(tensor.numel() for tensor in run.weights().values())
        print(f"{run.path.name}: {parameters} parameters, test errors {errors}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/api"))
