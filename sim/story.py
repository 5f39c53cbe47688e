"""What happened, for a person: who did what, who learnt it when, in true time.

Kept only when asked for (a replay). Each line says the time, whose word it is (the world, a client, the truth on a
host, or a disk), and what. Lines about machines that the failure does not touch can be left out by `about`.
"""

from __future__ import annotations

from typing import cast

from olvm.journal.port import Batch
from olvm.model import messages as m
from olvm.model.records import EventRecord, HostRecord, VmRecord
from sim.world import World

LINES_MAX = 20_000
QUIET_CALLS = frozenset({"GetMigrationStatistics", "ListDomains", "ArmWatchdog", "GetCapabilities"})


class Story:
    """Listens like an oracle; judges nothing."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.lines: list[str] = []
        self._name_by_id: dict[str, str] = {}
        self._status: dict[str, str] = {}
        world.tell = self.said

    def _tell(self, who: str, what: str) -> None:
        if len(self.lines) < LINES_MAX:
            self.lines.append(f"{self._world.now_s:12.3f}  {who:<14} {what}")

    def _vm(self, vm_id: str) -> str:
        return self._name_by_id.get(vm_id, vm_id)

    def said(self, text: str) -> None:
        """A step of the plan, or the world's own word."""
        self._tell("world", text)

    # ------------------------------------------------------------------ clients

    def asked(self, client: str, command: m.Command, request_id: str) -> None:
        del request_id
        self._tell(client, f"asks: {command}")

    def answered(self, client: str, reply: m.AnyMessage) -> None:
        if isinstance(reply, m.OperationView):
            self._tell(client, f"hears: accepted as {reply.kind} of {reply.target_name} ({reply.id})")
        else:
            self._tell(client, f"hears: {reply}")

    # ------------------------------------------------------------------ the truth on hosts

    def vcpus_started(self, host: str, vm_id: str, epoch: int) -> None:
        self._tell(f"truth on {host}", f"{self._vm(vm_id)} executes (epoch {epoch})")

    def vcpus_stopped(self, host: str, vm_id: str, epoch: int) -> None:
        self._tell(f"truth on {host}", f"{self._vm(vm_id)} stands still (epoch {epoch})")

    def domain_removed(self, host: str, vm_id: str, epoch: int, footprint_bytes: int) -> None:
        del footprint_bytes
        self._tell(f"truth on {host}", f"{self._vm(vm_id)} is gone (epoch {epoch})")

    def domain_resized(self, host: str, vm_id: str, epoch: int, more_bytes: int) -> None:
        self._tell(f"truth on {host}", f"{self._vm(vm_id)} (epoch {epoch}) has {more_bytes:+} bytes")

    def called(self, host: str, request: str, vm_id: str, epoch: int) -> None:
        if request not in QUIET_CALLS:
            self._tell(f"truth on {host}", f"{request} of {self._vm(vm_id)} (epoch {epoch})")

    def power_changed(self, host: str, is_on: bool, boot_id: str) -> None:
        self._tell(f"truth on {host}", f"power is {'on' if is_on else 'off'} ({boot_id})")

    # ------------------------------------------------------------------ what is on the disks

    def committed(self, silo: str, batch: Batch) -> None:
        for event in cast("dict[str, EventRecord]", batch.upserts.get(EventRecord, {})).values():
            self._tell(f"disk of {silo}", f"event {event.code}: {event.message}")
        for row in cast("dict[str, VmRecord]", batch.upserts.get(VmRecord, {})).values():
            self._name_by_id[row.id] = row.name
            if (row.silo or "engine") == silo:
                state = f"{row.status.value} on {row.host} (epoch {row.epoch})"
                if row.copy_phase:
                    state += f", {row.copy_kind} to {row.copy_host or '?'} (epoch {row.copy_epoch}) is {row.copy_phase}"
                self._changed(silo, row.name, state)
        for host in cast("dict[str, HostRecord]", batch.upserts.get(HostRecord, {})).values():
            fence = f", fence step {host.fence_step}" if host.fence_step else ""
            self._changed(silo, host.name, f"{host.status.value}{fence}")

    def _changed(self, silo: str, name: str, state: str) -> None:
        if self._status.get(name) != state:
            self._status[name] = state
            self._tell(f"disk of {silo}", f"{name} is {state}")

    def recovered(self, silo: str, records: object, next_event_seq: int) -> None:
        del records, next_event_seq
        self._tell(silo, "starts from its disk")

    def about(self, names: set[str]) -> list[str]:
        """The lines that name one of these, and the world's own."""
        return [line for line in self.lines if "  world " in line or any(name in line for name in names)]
