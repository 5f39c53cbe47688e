"""Host groups: names that a trace's VMs ask for and that a fleet's hosts are in; for the kernels, bits.

A VM asks for one group or none; a host may be in several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from olvm.experiments.kernels.state import Ints, SmallInts
from olvm.model.errors import BadInput

GROUP_COUNT_MAX = 62  # of a fleet: bits of an int64 that is never negative


@dataclass(frozen=True, kw_only=True)
class Groups:
    """What each VM of a trace asks for: `names[code]`; -1: nothing. Names are in order of appearance."""

    code: SmallInts
    names: tuple[str, ...]

    def picked(self, at: Ints) -> Groups:
        return Groups(code=self.code[at], names=self.names)


def read_groups(column: Any) -> Groups | None:
    """From an optional column: null, nan and empty text ask for nothing. None: no VM asks for anything."""
    values = np.ma.filled(column.astype(object), None) if np.ma.isMaskedArray(column) else np.asarray(column)
    code_by_name: dict[str, int] = {}
    codes = [
        -1 if name is None else code_by_name.setdefault(name, len(code_by_name))
        for name in map(_name, values.tolist())
    ]
    if not code_by_name:
        return None
    return Groups(code=np.array(codes, np.int32), names=tuple(code_by_name))


def _name(value: object) -> str | None:
    if value is None or value != value:  # noqa: PLR0124 - nan
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # of whole numbers with nulls among them, libraries make floats
    return str(value).strip() or None


def numbered_groups(names: tuple[str, ...]) -> dict[str, int]:
    """A bit for each distinct name of a fleet's groups. Raises BadInput for too many."""
    distinct = list(dict.fromkeys(names))
    if len(distinct) > GROUP_COUNT_MAX:
        raise BadInput(f"hosts are in {len(distinct)} groups: a fleet has at most {GROUP_COUNT_MAX}")
    return {name: 1 << number for number, name in enumerate(distinct)}
