"""Progress of a run for people: when the next line is due, and the rate of samples in it."""

from __future__ import annotations

import math

from mpi_dcasgd.record.description import RunDescription
from mpi_dcasgd.record.progress import Progress, Status
from mpi_dcasgd.record.results import Results
from mpi_dcasgd.record.tally import Tally
from mpi_dcasgd.server.records import Action

_FEWER_LINES = 40
"""Lines of a virtual run after which they become half as frequent (``spread``)."""
_RATE_MEMORY_S = 10.0


def spread(every_s: float, count: int, most: int, run: RunDescription) -> float:
    """Return the time to the next event of a kind.

    Nobody knows before how many of its own seconds a virtual run takes, and thousands of workers
    have something new at every one. So its events become rarer as there are more of them.

    Args:
        every_s: Time between the first of them.
        count: Number of events so far.
        most: Events after which they become half as frequent; then again, and so on.
        run: The run that they tell of.
    """
    return every_s * 2 ** (count // most) if run.virtual else every_s


class Display:
    """Progress of a run as it is shown on the terminal.

    Args:
        run: What is known of the run.
        progress: Bar or lines.
        tally: Sums over the run so far, which somebody else adds to.
        results: Evaluations so far, likewise.

    Attributes:
        rate: Smoothed samples a second; not a number before the first line.
        next_s: Time at which the next line is due.
    """

    def __init__(
        self, run: RunDescription, progress: Progress, tally: Tally, results: Results
    ) -> None:
        self.rate = math.nan
        self.next_s = progress.every_s
        self._run = run
        self._progress = progress
        self._tally = tally
        self._results = results
        self._shown = (0.0, 0)
        self._lines = 0

    def resume(self, time_s: float, rate: float) -> None:
        """Go on from a checkpoint, to whose time the tally has been set.

        Args:
            time_s: Time of the checkpoint.
            rate: The rate at that time.
        """
        self.rate = rate
        self.next_s = time_s + self._progress.every_s
        self._shown = (time_s, self._tally.samples)

    def due(self, time_s: float) -> None:
        """Show the progress and set the time of the next line."""
        self.show(time_s)
        self._lines += 1
        self.next_s = time_s + spread(self._progress.every_s, self._lines, _FEWER_LINES, self._run)

    def show(self, time_s: float) -> None:
        """Show the progress."""
        tally, rate = self._tally, self._rate_at(time_s)
        left = self._run.total_samples - tally.samples
        self._progress.show(
            Status(
                epoch=tally.samples / self._run.num_samples,
                epochs=self._run.epochs,
                samples=tally.samples,
                total_samples=self._run.total_samples,
                samples_per_s=0.0 if math.isnan(rate) else rate,
                loss=None if math.isnan(tally.loss) else tally.loss,
                result=self._results.latest(),
                staleness_mean=tally.staleness,
                staleness_max=max(tally.histogram, default=0),
                dropped=tally.refused[Action.DROPPED],
                nonfinite=tally.refused[Action.NONFINITE],
                eta_s=left / rate if rate > 0 and not self._run.virtual else None,
            )
        )

    def say(self, text: str) -> None:
        """Show a line of text."""
        self._progress.line(text)

    def close(self) -> None:
        """Leave the terminal."""
        self._progress.close()

    def _rate_at(self, time_s: float) -> float:
        """The smoothed rate, with what has come since the last line."""
        then, samples_then = self._shown
        self._shown = (time_s, self._tally.samples)
        if time_s > then:
            rate = (self._tally.samples - samples_then) / (time_s - then)
            weight = 1 - math.exp((then - time_s) / _RATE_MEMORY_S) if then else 1.0
            self.rate = rate if math.isnan(self.rate) else self.rate + weight * (rate - self.rate)
        return self.rate
