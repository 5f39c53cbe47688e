"""Plants one bug in a module as it is imported. The files stay as they are.

A bug is a replacement of text that stands exactly once in the module's source. It must be planted before anything
imports the module: so in a process of its own, first thing.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

import msgspec

from olvm.model.errors import BadInput
from sim.plan import Profile


class Mutant(msgspec.Struct, frozen=True, kw_only=True):
    """`pair`: only two faults together bring it to light.

    The rest says where it is looked for: in which profile, in how large a world (drawn if None), and with which
    faults and commands more often than elsewhere (`favour`, see `sim.swarm`). Plans come from seeds all the same.
    """

    name: str
    module: str
    old: str
    new: str
    says: str
    profile: Profile = "rough"
    pair: bool = False
    hosts: int | None = 3
    vms: int | None = 6
    hours: float | None = 0.25
    favour: tuple[str, ...] = ()


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, mutant: Mutant) -> None:
        super().__init__(fullname, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> object:  # type: ignore[override]  # noqa: ARG002
        # No cached bytecode: that is of the module without its bug.
        source = mutated(self.get_data(self.path).decode(), self._mutant)
        return compile(source, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        assert spec is not None, f"there is no module {fullname}"
        assert spec.origin is not None, f"module {fullname} has no file"
        return importlib.util.spec_from_file_location(
            fullname, spec.origin, loader=_Loader(fullname, spec.origin, self._mutant)
        )


def mutated(source: str, mutant: Mutant) -> str:
    """The source with the bug; `BadInput` when the place is not there, or there more than once."""
    count = source.count(mutant.old)
    if count != 1:
        raise BadInput(
            f"mutant {mutant.name}: its place stands {count} times in {mutant.module}; mend it in sim/mutants"
        )
    return source.replace(mutant.old, mutant.new)


def plant(mutant: Mutant) -> None:
    if mutant.module in sys.modules:
        raise BadInput(f"mutant {mutant.name} comes too late: {mutant.module} is imported already")
    sys.meta_path.insert(0, _Finder(mutant))
