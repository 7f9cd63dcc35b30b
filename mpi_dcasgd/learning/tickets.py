"""Tickets: the samples of every minibatch, and all the randomness that belongs to it.

A *ticket* is a minibatch's place in the global order: ticket ``t`` is minibatch
``t % tickets_per_epoch`` of epoch ``t // tickets_per_epoch``. Everything about it follows from
``(seed, epoch, index)``, so it does not matter who computes it, when, or how often.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mpi_dcasgd.learning.seeds import WORD, seeds

_SHUFFLE, _AUGMENT, _DROPOUT = 0, 1, 2
_Numbers = TypeVar("_Numbers", bound=NDArray[Any])


@dataclass(frozen=True)
class TicketPlan:
    """The global order of minibatches of one run.

    Args:
        num_samples: Training samples, >= 1.
        batch_size: Samples in a ticket; an epoch's last ticket may hold fewer.
        seed: The job's seed.
        epochs: Passes over the data; tickets are numbered ``0 .. num_tickets - 1``.
        start: Samples of all epochs that come before ticket 0: where a run resumes whose tickets
            had another size before.
    """

    num_samples: int
    batch_size: int
    seed: int
    epochs: int
    start: int = 0
    _shuffles: dict[int, NDArray[np.int64]] = field(default_factory=dict, repr=False, compare=False)
    _seeds: dict[int, NDArray[np.uint64]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def tickets_per_epoch(self) -> int:
        return -(-self.num_samples // self.batch_size)

    @property
    def num_tickets(self) -> int:
        epochs_left = self.epochs - self.start // self.num_samples - 1
        return self._first_epoch + epochs_left * self.tickets_per_epoch

    @property
    def total_samples(self) -> int:
        """Samples that a whole run applies, each of them ``epochs`` times."""
        return self.epochs * self.num_samples

    @property
    def _first_epoch(self) -> int:
        """Tickets of the epoch that ticket 0 is in."""
        return -(-(self.num_samples - self.start % self.num_samples) // self.batch_size)

    def place(self, ticket: int) -> tuple[int, int]:
        """The epoch of ``ticket``, and the number of its first sample within that epoch."""
        if not self.start:
            epoch, index = divmod(ticket, self.tickets_per_epoch)
            return epoch, index * self.batch_size
        first, skipped = divmod(self.start, self.num_samples)
        if ticket < self._first_epoch:
            return first, skipped + ticket * self.batch_size
        epoch, index = divmod(ticket - self._first_epoch, self.tickets_per_epoch)
        return first + 1 + epoch, index * self.batch_size

    def epoch(self, ticket: int) -> int:
        return self.place(ticket)[0]

    def size(self, ticket: int) -> int:
        """Samples in ``ticket``."""
        return min(self.batch_size, self.num_samples - self.place(ticket)[1])

    def indices(self, ticket: int) -> NDArray[np.int64]:
        """The sample numbers of ``ticket``, shape ``(size(ticket),)``."""
        epoch, start = self.place(ticket)
        return self._shuffle(epoch)[start : start + self.batch_size]

    def generator(self, ticket: int) -> np.random.Generator:
        """The ticket's own source of randomness for augmentation."""
        epoch, start = self.place(ticket)
        return np.random.default_rng([self.seed, _AUGMENT, epoch, start // self.batch_size])

    def torch_seed(self, ticket: int) -> int:
        """The seed for whatever the model draws during this ticket (dropout), in [0, 2**63)."""
        epoch, start = self.place(ticket)
        found = self._seeds.get(epoch)
        if found is None:
            found = self._seeds_of(epoch)
            _remember(self._seeds, epoch, found)
        return int(found[start // self.batch_size]) >> 1

    def split(self, parts: int) -> TicketPlan:
        """The plan of tickets ``parts`` times smaller that covers all epochs in the same order.

        Part ``r`` of a large ticket is the ``r``-th small one from the large one's first sample
        on; at the end of an epoch the last parts may not exist.
        """
        return TicketPlan(self.num_samples, self.batch_size // parts, self.seed, self.epochs)

    def parts(self, ticket: int, rank: int, ranks: int, accumulate: int = 1) -> list[int]:
        """The small tickets (of ``split(ranks * accumulate)``) that ``rank`` takes of ``ticket``.

        Every ``ranks``-th from the ``rank``-th on; at the end of an epoch there may be fewer.
        """
        small = self.split(ranks * accumulate)
        epoch, start = self.place(ticket)
        first = start // small.batch_size
        end = min(first + ranks * accumulate, small.tickets_per_epoch)
        return [epoch * small.tickets_per_epoch + n for n in range(first + rank, end, ranks)]

    def _seeds_of(self, epoch: int) -> NDArray[np.uint64]:
        key = (self.seed, _DROPOUT, epoch)
        if self.seed < WORD:
            return seeds(key, np.arange(self.tickets_per_epoch, dtype=np.uint32))
        each = (np.random.SeedSequence([*key, n]) for n in range(self.tickets_per_epoch))
        return np.array([one.generate_state(1, np.uint64)[0] for one in each])

    def _shuffle(self, epoch: int) -> NDArray[np.int64]:
        found = self._shuffles.get(epoch)
        if found is None:
            rng = np.random.default_rng([self.seed, _SHUFFLE, epoch])
            found = rng.permutation(self.num_samples)
            _remember(self._shuffles, epoch, found)
        return found


_REMEMBERED = 2**20
"""Numbers of an epoch each that are remembered in all, or those of three epochs if that is more."""


def _remember(found: dict[int, _Numbers], epoch: int, value: _Numbers) -> None:
    # Tickets in flight span two epochs, and many short ones where workers are many or very slow.
    while len(found) >= 3 and (len(found) + 1) * len(value) > _REMEMBERED:
        found.pop(next(iter(found)), None)
    found[epoch] = value
