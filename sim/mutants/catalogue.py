"""The planted bugs."""

from __future__ import annotations

from olvm.model.errors import NotFound
from sim.mutants.planting import Mutant

MUTANTS: tuple[Mutant, ...] = ()


def mutant_named(name: str) -> Mutant:
    for mutant in MUTANTS:
        if mutant.name == name:
            return mutant
    raise NotFound(f"there is no planted bug {name}; `olvm sim mutants --list` names them")
