"""A table's hosts as the NumPy columns that a user's `choose` gets, kept current row by row.

NumPy is loaded by the first policy that chooses, and by nothing else. Rule: the arrays that are handed out are views
that cannot be written; a view shows the table as it is now, not as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from olvm.scheduling.host_table import HostTable
from olvm.scheduling.request import GIB
from olvm.scheduling.units import Filter

COLUMNS = ("cpus", "memory_gib", "free_vcpus", "free_memory_gib", "vm_count")


class HostColumns:
    """Hosts in index order, `len()` of them; `slots` has the table's row of each.

    `with_room`: those of some slots that have room for the VM that is being placed; set before the columns are shown.
    """

    with_room: Callable[[list[int]], list[int]]

    def __init__(self, slots: list[int], name: list[str], columns: dict[str, Any]) -> None:
        self.slots = slots
        self.name: Sequence[str] = name
        self.cpus = columns["cpus"]
        self.memory_gib = columns["memory_gib"]
        self.free_vcpus = columns["free_vcpus"]
        self.free_memory_gib = columns["free_memory_gib"]
        self.vm_count = columns["vm_count"]

    @property
    def fits(self) -> Any:
        """Cost: O(hosts), in Python; for a class that does not look at it nothing."""
        import numpy as np

        roomy = set(self.with_room(self.slots))
        return np.fromiter((slot in roomy for slot in self.slots), np.bool_, len(self.slots))

    def __len__(self) -> int:
        return len(self.slots)


class ColumnsWatcher:
    """The columns of all usable hosts; built again when hosts come or go, else changed where a row changes."""

    def __init__(self, table: HostTable, row_filters: tuple[Filter, ...]) -> None:
        self._table = table
        self._row_filters = row_filters
        self.barred: set[int] = set()  # slots that a row filter drops
        self._columns: HostColumns | None = None
        self._cells: dict[str, Any] = {}
        self._at_by_slot: dict[int, int] = {}

    def entered(self, slot: int) -> None:
        del slot
        self._columns = None

    def left(self, slot: int) -> None:
        del slot
        self._columns = None

    def changed(self, slot: int) -> None:
        if self._columns is None:
            return
        if self._is_barred(slot):
            self.barred.add(slot)
        elif self.barred:
            self.barred.discard(slot)
        at = self._at_by_slot[slot]
        for name, value in zip(COLUMNS, row_of(self._table, slot), strict=True):
            self._cells[name][at] = value

    def columns(self) -> HostColumns:
        if self._columns is None:
            slots = list(self._table.usable_slots)
            self._at_by_slot = {slot: at for at, slot in enumerate(slots)}
            self._cells = _cells_of(self._table, slots)
            self._columns = _handed_out(self._table, slots, self._cells)
            self.barred = {slot for slot in slots if self._is_barred(slot)}
        return self._columns

    def _is_barred(self, slot: int) -> bool:
        return any(unit.drops_row(self._table, slot) for unit in self._row_filters)


def columns_watched(table: HostTable, row_filters: tuple[Filter, ...]) -> HostColumns | None:
    """Of all usable hosts; None: a filter of host rows drops some of them.

    Cost: O(n) once, then nothing as long as no host comes or goes.
    """
    key = ("columns", row_filters)
    watcher = table.watcher(key)
    if not isinstance(watcher, ColumnsWatcher):
        watcher = ColumnsWatcher(table, row_filters)
        table.watch(key, watcher)
    columns = watcher.columns()
    return None if watcher.barred else columns


def columns_of(table: HostTable, slots: list[int]) -> HostColumns:
    """Of these hosts alone, as they are now. Cost: O(hosts)."""
    return _handed_out(table, slots, _cells_of(table, slots))


def free_vcpus(table: HostTable, slot: int) -> int:
    """What the cluster may still promise there, overcommit included; without a CPU limit one vCPU takes one thread."""
    limit = table.cpus[slot] * (table.cpu_overcommit_percent or 100) // 100
    return limit - table.taken_cpus(slot)


def free_vcpus_of(table: HostTable, slots: list[int]) -> list[int]:
    """`free_vcpus` of many hosts, without a call for each."""
    percent = table.cpu_overcommit_percent or 100
    cpus, reserved, taken = table.cpus, table.reserved_cpus, table.taken
    return [cpus[slot] * percent // 100 - reserved[slot] - len(taken[slot].exclusive_cpus) for slot in slots]


def row_of(table: HostTable, slot: int) -> tuple[float, float, float, float, int]:
    """One host's cells, in the order of COLUMNS."""
    return (
        float(table.cpus[slot]),
        table.memory_bytes[slot] / GIB,
        float(free_vcpus(table, slot)),
        table.memory_free_bytes[slot] / GIB,
        table.vm_count[slot],
    )


def _cells_of(table: HostTable, slots: list[int]) -> dict[str, Any]:
    import numpy as np

    rows = np.array([row_of(table, slot) for slot in slots], dtype=np.float64).reshape(
        len(slots), len(COLUMNS)
    )
    cells = {name: rows[:, at].copy() for at, name in enumerate(COLUMNS)}
    cells["vm_count"] = cells["vm_count"].astype(np.int64)
    return cells


def _handed_out(table: HostTable, slots: list[int], cells: dict[str, Any]) -> HostColumns:
    views = {name: column.view() for name, column in cells.items()}
    for view in views.values():
        view.flags.writeable = False
    return HostColumns(slots, [table.name[slot] for slot in slots], views)
