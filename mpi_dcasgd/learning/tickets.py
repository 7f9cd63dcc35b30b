"""Which samples are in which minibatch, and all the randomness that belongs to it.

A *ticket* is a minibatch's place in the global order: ticket ``t`` is minibatch
``t % tickets_per_epoch`` of epoch ``t // tickets_per_epoch``. Everything about it follows from
``(seed, epoch, index)``, so it does not matter who computes it, when, or how often.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_SHUFFLE, _AUGMENT, _DROPOUT = 0, 1, 2


@dataclass(frozen=True)
class TicketPlan:
    """The global order of minibatches of one run.

    Args:
        num_samples: Training samples, >= 1.
        batch_size: Samples in a ticket; an epoch's last ticket may hold fewer.
        seed: The job's seed.
        epochs: Passes over the data; tickets are numbered ``0 .. num_tickets - 1``.
    """

    num_samples: int
    batch_size: int
    seed: int
    epochs: int
    _shuffles: dict[int, NDArray[np.int64]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def tickets_per_epoch(self) -> int:
        return -(-self.num_samples // self.batch_size)

    @property
    def num_tickets(self) -> int:
        return self.epochs * self.tickets_per_epoch

    @property
    def total_samples(self) -> int:
        """Samples that a whole run applies, each of them ``epochs`` times."""
        return self.epochs * self.num_samples

    def epoch(self, ticket: int) -> int:
        return ticket // self.tickets_per_epoch

    def size(self, ticket: int) -> int:
        """Samples in ``ticket``."""
        start = (ticket % self.tickets_per_epoch) * self.batch_size
        return min(self.batch_size, self.num_samples - start)

    def indices(self, ticket: int) -> NDArray[np.int64]:
        """The sample numbers of ``ticket``, shape ``(size(ticket),)``."""
        start = (ticket % self.tickets_per_epoch) * self.batch_size
        return self._shuffle(self.epoch(ticket))[start : start + self.batch_size]

    def generator(self, ticket: int) -> np.random.Generator:
        """The ticket's own source of randomness for augmentation."""
        return np.random.default_rng(self._key(_AUGMENT, ticket))

    def torch_seed(self, ticket: int) -> int:
        """The seed for whatever the model draws during this ticket (dropout), in [0, 2**63)."""
        words = np.random.SeedSequence(self._key(_DROPOUT, ticket)).generate_state(1, np.uint64)
        return int(words[0]) >> 1

    def split(self, parts: int) -> TicketPlan:
        """The plan of tickets ``parts`` times smaller that covers the same samples in order.

        Part ``r`` of a large ticket ``t`` of epoch ``e`` is small ticket
        ``e * small.tickets_per_epoch + (t % tickets_per_epoch) * parts + r``; at the end of an
        epoch the last parts may not exist.
        """
        return TicketPlan(self.num_samples, self.batch_size // parts, self.seed, self.epochs)

    def part(self, ticket: int, rank: int, parts: int) -> int | None:
        """The small ticket (of ``split(parts)``) that ``rank`` takes of ``ticket``, if any."""
        small = self.split(parts)
        index = (ticket % self.tickets_per_epoch) * parts + rank
        if index >= small.tickets_per_epoch:
            return None
        return self.epoch(ticket) * small.tickets_per_epoch + index

    def _key(self, purpose: int, ticket: int) -> list[int]:
        return [self.seed, purpose, self.epoch(ticket), ticket % self.tickets_per_epoch]

    def _shuffle(self, epoch: int) -> NDArray[np.int64]:
        found = self._shuffles.get(epoch)
        if found is None:
            rng = np.random.default_rng([self.seed, _SHUFFLE, epoch])
            found = rng.permutation(self.num_samples)
            # Tickets in flight span two epochs at most, and one more when some were handed back.
            while len(self._shuffles) >= 3:
                self._shuffles.pop(next(iter(self._shuffles)), None)
            self._shuffles[epoch] = found
        return found
