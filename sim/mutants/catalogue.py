"""All planted bugs, in the order in which they are hunted and shown. The modules `*_bugs.py` have them by part.

Each is one replacement of a text that stands exactly once in its module (tests/sim/test_mutants.py holds them to it),
and each is a mistake that somebody could make: none stops the system, all are found by what they do to machines. How
each is found stands in docs/planted-bugs.md.
"""

from __future__ import annotations

from olvm.model.errors import NotFound
from sim.mutants.engine_bugs import CLUSTER, ENGINE
from sim.mutants.history_bugs import HISTORY
from sim.mutants.host_bugs import AGENT, HOST, LEASES
from sim.mutants.placement_bugs import MODEL, SCHEDULING
from sim.mutants.planting import Mutant
from sim.mutants.silo_bugs import SILO
from sim.mutants.vm_bugs import SIZES, VM

MUTANTS: tuple[Mutant, ...] = (
    *SILO,
    *ENGINE,
    *VM,
    *SIZES,
    *AGENT,
    *HOST,
    *CLUSTER,
    *LEASES,
    *MODEL,
    *SCHEDULING,
    *HISTORY,
)


def mutant_named(name: str) -> Mutant:
    for mutant in MUTANTS:
        if mutant.name == name:
            return mutant
    raise NotFound(f"there is no planted bug {name}; `olvm sim mutants --list` names them")
