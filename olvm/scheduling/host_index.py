"""The usable hosts of a table, ordered as oVirt's even distribution looks for them: by load, then by free memory.

It answers in steps that do not grow with the number of hosts: which hosts come next by load, how many of them have
room, which of those has most memory, how many have more. `fast_placement` decides with it; it knows no policy.

Hosts stand in *rows* of equal facts, CPUs, room for vCPUs and exact load; rows stand in a *lane* for each number of
CPUs, in order of load, because load per thread in whole percent grows with load only among hosts of equal CPUs. Hosts
of equal facts, CPUs and room are a *group*, whatever their load.

Invariants, each held by `tests/unit/scheduling/test_fast_placement.py`:
1. Each usable host that no row filter drops is in one row and one group, by what the table said of it last.
2. `frees` has one entry a host, and a row's hosts are in order of free memory, then of name.
3. There is no row or group without a host.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import NamedTuple

from olvm.scheduling.host_table import HostTable
from olvm.scheduling.sorted_numbers import SortedNumbers
from olvm.scheduling.units import Filter


class Facts(NamedTuple):
    """What filters that read groups look at; equal facts have one object, so that `is` compares them."""

    cpu_model: str
    features: frozenset[str]
    compatibility_versions: tuple[str, ...] | None
    cpu_models: tuple[str, ...] | None
    cpu_flags: tuple[str, ...] | None
    topology: tuple[int, int, int]
    emulated_machines: tuple[str, ...] | None
    networks: tuple[str, ...] | None
    hooks: tuple[str, ...] | None
    labels: tuple[str, ...]


class Group:
    """Hosts of equal facts, CPUs and room, as rows."""

    __slots__ = ("cpus", "facts", "room", "rows")

    def __init__(self, cpus: int, facts: int, room: int) -> None:
        self.cpus = cpus
        self.facts = facts
        self.room = room
        self.rows: list[Row] = []

    def count_from(self, free: int) -> int:
        """How many hosts have at least so much. Cost: of its rows."""
        count = 0
        for row in self.rows:
            if row.highest >= free:
                count += len(row.hosts) - bisect_left(row.hosts, (free,))
        return count


class Row:
    """Hosts of one group and one load: pairs of free memory and name, in order. `lowest` and `highest` are of them."""

    __slots__ = ("facts", "group", "highest", "hosts", "key", "load", "lowest", "room")

    def __init__(self, key: _RowKey, group: Group, load: int) -> None:
        self.key = key
        self.group = group
        self.facts = group.facts
        self.room = group.room
        self.load = load
        self.hosts: list[tuple[int, str]] = []
        self.lowest = self.highest = 0

    def first_name(self, least: int) -> str:
        """The smallest name of the hosts that have at least so much free, of which there is one.

        Cost: of the different amounts above `least`.
        """
        hosts = self.hosts
        at = bisect_left(hosts, (hosts[-1][0],))
        name = hosts[at][1]
        while at and hosts[at - 1][0] >= least:
            at = bisect_left(hosts, (hosts[at - 1][0],), 0, at)
            name = min(name, hosts[at][1])
        return name


class Lane:
    """Rows of hosts with equal CPUs: `loads` and `rows` are parallel and in order of load."""

    __slots__ = ("_runs_by_added", "cpus", "loads", "rows")

    def __init__(self, cpus: int) -> None:
        self.cpus = cpus
        self.loads: list[int] = []
        self.rows: list[Row] = []
        self._runs_by_added: dict[int, list[tuple[int, list[Row]]]] = {}

    def insert(self, row: Row) -> None:
        at = bisect_left(self.loads, row.load)
        self.loads.insert(at, row.load)
        self.rows.insert(at, row)
        self._runs_by_added.clear()

    def remove(self, row: Row) -> None:
        at = self.rows.index(row, bisect_left(self.loads, row.load))
        del self.loads[at], self.rows[at]
        self._runs_by_added.clear()

    def runs(self, added: int) -> list[tuple[int, list[Row]]]:
        """With so much load more: percent of a thread, and all rows that have it, in order of it.

        Kept until a row comes or goes, which is much rarer than that a host changes its row.
        """
        runs = self._runs_by_added.get(added)
        if runs is None:
            runs = self._runs_by_added[added] = []
            for row in self.rows:
                # As `weights.load_per_thread`.
                percent = (2 * (row.load + added) + self.cpus) // (2 * self.cpus)
                if runs and runs[-1][0] == percent:
                    runs[-1][1].append(row)
                else:
                    runs.append((percent, [row]))
        return runs


# CPUs, load, number of the facts, room.
_RowKey = tuple[int, int, int, int]


class HostIndex:
    """A watcher of its table. `row_filters` drop hosts by their rows, whatever is asked for.

    Cost: about 5 µs for each change of a host, and log n.
    """

    def __init__(self, table: HostTable, row_filters: tuple[Filter, ...]) -> None:
        self._table = table
        self._row_filters = row_filters
        self.lanes: dict[int, Lane] = {}
        # Parallel, in order of room.
        self.rooms: list[int] = []
        self.groups_by_room: list[Group] = []
        self.frees = SortedNumbers()  # of all hosts
        self._groups: dict[tuple[int, int, int], Group] = {}
        self._rows: dict[_RowKey, Row] = {}
        # Of each host that is in the index: its row, and what it is there.
        self._row_by_slot: dict[int, Row] = {}
        self._host_by_slot: dict[int, tuple[int, str]] = {}
        self._facts: dict[Facts, int] = {}
        # Of each slot: what its facts were made of, and their number.
        self._told: dict[int, tuple[object, object, str, int]] = {}

    def __len__(self) -> int:
        return len(self._row_by_slot)

    # ---------------------------------------------------------------- the table's changes

    def entered(self, slot: int) -> None:
        self.changed(slot)

    def left(self, slot: int) -> None:
        row = self._row_by_slot.pop(slot, None)
        if row is not None:
            self._take_out(row, self._host_by_slot.pop(slot))
        self._told.pop(slot, None)

    def changed(self, slot: int) -> None:
        table = self._table
        for unit in self._row_filters:
            if unit.drops_row(table, slot):
                self.left(slot)
                return
        key = (
            table.shared_cpus[slot],
            table.thread_load_percent[slot],
            self._facts_of(slot),
            table.vcpus_max[slot],
        )
        free = table.memory_free_bytes[slot]
        before = self._row_by_slot.get(slot)
        if before is None:
            host = free, table.name[slot]
        else:
            host = self._host_by_slot[slot]
            if host[0] == free and before.key == key:
                return
            self._take_out(before, host)
            host = free, host[1]
        row = self._rows.get(key) or self._new_row(key)
        self._put_in(row, host)
        self._row_by_slot[slot] = row
        self._host_by_slot[slot] = host

    def _facts_of(self, slot: int) -> int:
        table = self._table
        profile, features, model = table.profile[slot], table.features[slot], table.cpu_model[slot]
        told = self._told.get(slot)
        if told is not None and told[0] is profile and told[1] is features and told[2] == model:
            return told[3]
        facts = Facts(
            cpu_model=model,
            features=features,
            compatibility_versions=profile.compatibility_versions,
            cpu_models=profile.cpu_models,
            cpu_flags=profile.cpu_flags,
            topology=(profile.cpu_sockets, profile.cpu_cores_per_socket, profile.cpu_threads_per_core),
            emulated_machines=profile.emulated_machines,
            networks=profile.networks,
            hooks=profile.hooks,
            labels=profile.labels,
        )
        number = self._facts.setdefault(facts, len(self._facts))
        self._told[slot] = (profile, features, model, number)
        return number

    # ---------------------------------------------------------------- in and out

    def without(self, slots: list[int]) -> None:
        """Take these hosts out until `restore`, which must follow whatever happens in between."""
        for slot in slots:
            row = self._row_by_slot.get(slot)
            if row is not None:
                self._take_out(row, self._host_by_slot[slot])

    def restore(self, slots: list[int]) -> None:
        for slot in slots:
            row = self._row_by_slot.get(slot)
            if row is not None:
                # The row is dropped if it was left without a host.
                now = self._row_by_slot[slot] = self._rows.get(row.key) or self._new_row(row.key)
                self._put_in(now, self._host_by_slot[slot])

    def _put_in(self, row: Row, host: tuple[int, str]) -> None:
        self.frees.add(host[0])
        hosts = row.hosts
        insort(hosts, host)
        row.lowest, row.highest = hosts[0][0], hosts[-1][0]

    def _take_out(self, row: Row, host: tuple[int, str]) -> None:
        self.frees.remove(host[0])
        hosts = row.hosts
        del hosts[bisect_left(hosts, host)]
        if hosts:
            row.lowest, row.highest = hosts[0][0], hosts[-1][0]
        else:
            self._drop(row)

    def _new_row(self, key: _RowKey) -> Row:
        """A row without hosts yet, in its lane and group."""
        cpus, load, facts, room = key
        group = self._groups.get((cpus, facts, room))
        if group is None:
            group = self._groups[cpus, facts, room] = Group(cpus, facts, room)
            at = bisect_left(self.rooms, room)
            self.rooms.insert(at, room)
            self.groups_by_room.insert(at, group)
        row = self._rows[key] = Row(key, group, load)
        group.rows.append(row)
        lane = self.lanes.get(cpus)
        if lane is None:
            lane = self.lanes[cpus] = Lane(cpus)
        lane.insert(row)
        return row

    def _drop(self, row: Row) -> None:
        """A row without a host, and what is empty with it."""
        group = row.group
        lane = self.lanes[group.cpus]
        del self._rows[row.key]
        lane.remove(row)
        if not lane.rows:
            del self.lanes[group.cpus]
        group.rows.remove(row)
        if not group.rows:
            del self._groups[group.cpus, group.facts, group.room]
            at = self.groups_by_room.index(group, bisect_left(self.rooms, group.room))
            del self.rooms[at], self.groups_by_room[at]


def index_watched(table: HostTable, row_filters: tuple[Filter, ...]) -> HostIndex:
    """The table's index for these row filters. Cost: 5 µs a host the first time, then nothing."""
    key = ("index", row_filters)
    watcher = table.watcher(key)
    if not isinstance(watcher, HostIndex):
        watcher = HostIndex(table, row_filters)
        table.watch(key, watcher)
    return watcher
