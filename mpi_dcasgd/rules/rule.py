"""An update rule: one part for each role, in the order in which they act."""

from __future__ import annotations

from dataclasses import dataclass

from mpi_dcasgd.rules.admission import AcceptAll, Admission
from mpi_dcasgd.rules.clipping import NoClipping
from mpi_dcasgd.rules.compensation import NoCompensation
from mpi_dcasgd.rules.momentum import NoMomentum
from mpi_dcasgd.rules.part import Part, StateVector
from mpi_dcasgd.rules.references import Reference
from mpi_dcasgd.rules.step_size import ConstantStep, StepSize
from mpi_dcasgd.rules.weight_decay import WeightDecay


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The parts of an update rule, one a role."""

    admission: Admission = AcceptAll()
    clipping: Part = NoClipping()
    weight_decay: WeightDecay = WeightDecay()
    compensation: Part = NoCompensation()
    momentum: Part = NoMomentum()
    step_size: StepSize = ConstantStep()

    def parts(self) -> tuple[tuple[str, Part], ...]:
        """(role, part) in the order in which they act on the lanes."""
        decay = ("weight_decay", self.weight_decay)
        late = self.weight_decay.place == "decoupled"
        return (
            ("admission", self.admission),
            ("clipping", self.clipping),
            *(() if late else (decay,)),
            ("compensation", self.compensation),
            ("momentum", self.momentum),
            *((decay,) if late else ()),
            ("step_size", self.step_size),
        )

    @property
    def reads_snapshot(self) -> bool:
        """True if a push needs the weights that its worker was sent."""
        return any(part.reads_snapshot for _, part in self.parts())

    def vectors(self) -> tuple[tuple[str, StateVector], ...]:
        """(role, state vector) of all parts; what the server must hold beside the weights."""
        return tuple((role, vector) for role, part in self.parts() for vector in part.vectors())

    def references(self) -> tuple[Reference, ...]:
        """Return the papers that the parts come from, each once."""
        return tuple(dict.fromkeys(r for _, part in self.parts() for r in part.references()))

    def state_vectors(self, num_workers: int) -> int:
        """Return the number of vectors as long as the weights that the rule keeps at the server."""
        return sum(num_workers if vector.per_worker else 1 for _, vector in self.vectors())
