"""S11: statuses change by the tables alone, and no transient status outlives its bound."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar, TypeVar, cast

from olvm.journal.port import Batch
from olvm.journal.replay import decode_changes
from olvm.model.config import Config
from olvm.model.host_states import HOST_TRANSITIONS, HostStatus
from olvm.model.limits import NS_PER_S
from olvm.model.record import Record
from olvm.model.records import HostRecord, VmRecord
from olvm.model.vm_states import VM_TRANSITIONS, VmStatus
from sim.oracles.oracle import Oracle, Witness

S = TypeVar("S", bound=StrEnum)
T = TypeVar("T", bound=StrEnum)
# A turn never passes through these on its way: they are where it waits for somebody's word.
_RESTING = frozenset({VmStatus.UNKNOWN, VmStatus.NOT_RESPONDING, HostStatus.NON_RESPONSIVE})
TRANSIENT_VM = frozenset(
    {
        VmStatus.WAIT_FOR_LAUNCH,
        VmStatus.RESTORING_STATE,
        VmStatus.SAVING_STATE,
        VmStatus.POWERING_DOWN,
        VmStatus.REBOOT_IN_PROGRESS,
        VmStatus.MIGRATING_FROM,
        VmStatus.MIGRATING_TO,
        VmStatus.IMAGE_LOCKED,
    }
)
TRANSIENT_HOST = frozenset(
    {
        HostStatus.UNASSIGNED,
        HostStatus.INSTALLING,
        HostStatus.INITIALIZING,
        HostStatus.CONNECTING,
        HostStatus.PREPARING_FOR_MAINTENANCE,
        HostStatus.REBOOT,
        HostStatus.KDUMPING,
    }
)


def within_one_turn(table: Mapping[tuple[S, T], S]) -> frozenset[tuple[str, str]]:
    """Every pair that one turn may show: an edge, or two that rest nowhere on the way."""
    edges = {(str(start), str(to)) for (start, _), to in table.items()}
    resting = {str(status) for status in _RESTING}
    two = {
        (start, to) for start, middle in edges if middle not in resting for at, to in edges if at == middle
    }
    return frozenset(edges | two)


VM_PAIRS = within_one_turn(VM_TRANSITIONS)
HOST_PAIRS = within_one_turn(HOST_TRANSITIONS)
VM_EDGES = frozenset((str(start), str(to)) for (start, _), to in VM_TRANSITIONS.items())
HOST_EDGES = frozenset((str(start), str(to)) for (start, _), to in HOST_TRANSITIONS.items())


def longest_s(config: Config) -> dict[str, float]:
    """How long each transient status may last, over all its retries. The engine may be away for some of it."""
    away_s = 600.0
    launch_s = config.launch_timeout_s * (config.rerun_count_max + 1)
    return {
        VmStatus.WAIT_FOR_LAUNCH: launch_s + away_s,
        VmStatus.RESTORING_STATE: launch_s + away_s,
        VmStatus.SAVING_STATE: config.save_timeout_s + away_s,
        VmStatus.POWERING_DOWN: 86_400.0,  # a client may name its own deadline, up to a day
        VmStatus.REBOOT_IN_PROGRESS: 86_400.0,
        VmStatus.MIGRATING_FROM: config.migration_timeout_s + away_s,
        HostStatus.UNASSIGNED: config.host_init_timeout_s + away_s,
        HostStatus.INSTALLING: config.host_init_timeout_s + away_s,
        HostStatus.REBOOT: config.host_reboot_timeout_s + away_s,
        HostStatus.CONNECTING: config.host_grace_s + 1_000 * config.host_grace_per_vm_s + away_s,
        HostStatus.INITIALIZING: config.host_recovery_timeout_s + away_s,
    }


class LegalTransitions(Oracle):
    ID: ClassVar[str] = "S11"
    PROMISE: ClassVar[str] = (
        "only transitions of the tables happen, and no transient status outlives its bound"
    )

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._status: dict[tuple[type[Record], str], tuple[str, int]] = {}
        self._longest_s = longest_s(witness.config)

    def committed(self, silo: str, batch: Batch) -> None:
        for row in cast("dict[str, VmRecord]", batch.upserts.get(VmRecord, {})).values():
            if (row.silo or "engine") == silo:
                self._moved(VmRecord, row.id, row.status, VM_EDGES, VM_PAIRS, batch)
        for host in cast("dict[str, HostRecord]", batch.upserts.get(HostRecord, {})).values():
            self._moved(HostRecord, host.name, host.status, HOST_EDGES, HOST_PAIRS, batch)
        for kind in (VmRecord, HostRecord):
            for key in batch.erasures.get(kind, ()):
                self._status.pop((kind, key), None)

    def _moved(
        self,
        kind: type[Record],
        key: str,
        status: str,
        edges: frozenset[tuple[str, str]],
        pairs: frozenset[tuple[str, str]],
        batch: Batch,
    ) -> None:
        known = self._status.get((kind, key))
        if known is not None and known[0] == status:
            return
        self._status[kind, key] = (str(status), self.witness.now_ns)
        if known is None or (known[0], str(status)) in edges:
            return
        before = known[0]
        for after in _walk(kind, key, batch):
            if after != before and (before, after) not in pairs:
                self.fail(
                    f"{kind.TABLE} {key} went from {before} to {after}, which no row of the table allows"
                )
            before = after

    def minute(self) -> None:
        now_ns = self.witness.now_ns
        for (kind, key), (status, since_ns) in self._status.items():
            bound_s = self._longest_s.get(status)
            if bound_s is not None and now_ns - since_ns > bound_s * NS_PER_S:
                self.fail(f"{kind.TABLE} {key} is {status} for more than {bound_s:g} s")

    def settled(self) -> None:
        for (kind, key), (status, since_ns) in sorted(self._status.items(), key=lambda item: item[0][1]):
            if status in TRANSIENT_VM or status in TRANSIENT_HOST:
                age_s = (self.witness.now_ns - since_ns) / NS_PER_S
                self.fail(f"{kind.TABLE} {key} is still {status} after {age_s:.0f} s")


def _walk(kind: type[Record], key: str, batch: Batch) -> list[str]:
    """The statuses of one record after each turn of the batch."""
    return [
        str(image["status"])
        for turn in batch.turns
        for table, changed, image in decode_changes(turn.changes)
        if table == kind.TABLE and changed == key and image is not None
    ]
