"""The cluster's affinity groups: accepted or refused, kept, and asked about each machine that looks for a host.

Rule: groups whose enforcing rules cannot hold together are refused when they are made, with the reason; so a broken
group is always one that hosts or capacity break, and moving machines can mend it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from actors.behaviour import Turn
from actors.cluster_book import Book
from olvm.model import messages as m
from olvm.model.errors import BadInput, Conflict, NotFound
from olvm.model.records import AffinityGroupRecord
from olvm.scheduling.affinity import Affinity, AffinityGroup, affinity_of, contradiction, is_broken

PRIORITY_MAX = 1000.0


class Groups:
    def __init__(self, book: Book, records: dict[str, AffinityGroupRecord]) -> None:
        self.book = book
        self.records = records
        # Derived from the records.
        self.groups: list[AffinityGroup] = []
        self._groups_by_vm: dict[str, list[AffinityGroup]] = {}
        self._derive()

    def _derive(self) -> None:
        self.groups = [_group(record) for _, record in sorted(self.records.items())]
        self._groups_by_vm = {}
        for group in self.groups:
            for vm_id in group.name_by_vm:
                self._groups_by_vm.setdefault(vm_id, []).append(group)

    def affinity_for(self, vm_id: str) -> Affinity | None:
        """What the machine's groups say about hosts now; None: it is in none. Cost: O(members of its groups)."""
        groups = self._groups_by_vm.get(vm_id)
        if not groups:
            return None
        members = [member for group in groups for member in group.name_by_vm]
        return affinity_of(vm_id, groups, self.book.places(members), self.book.is_up)

    def companions(self, vm_id: str) -> Iterator[str]:
        """Those it shares a group with, itself among them."""
        for group in self._groups_by_vm.get(vm_id, ()):
            yield from group.name_by_vm

    # ------------------------------------------------------------------ changes

    def on_change(self, message: m.ChangeAffinity, turn: Turn) -> None:
        match message.command:
            case m.SetAffinityGroup():
                refusal = self._set(message.command, message.vm_ids, turn)
            case m.RemoveAffinityGroup():
                refusal = self._remove(message.command, turn)
            case _:
                assert_never(message.command)
        code, reason = refusal or ("", "")
        turn.send("engine", m.OperationEnded(message.operation_id, refusal is None, reason, code))

    def _set(self, command: m.SetAffinityGroup, vm_ids: list[str], turn: Turn) -> tuple[str, str] | None:
        problem = _problem(command, vm_ids)
        if problem is not None:
            return BadInput.code, f"cannot set affinity group {command.name}: {problem}"
        key = f"{command.cluster}/{command.name}"
        old = self.records.get(key)
        record = AffinityGroupRecord(
            key=key,
            name=command.name,
            cluster=command.cluster,
            vm_ids=vm_ids,
            vm_names=command.vms,
            hosts=command.hosts,
            vms_rule=command.vms_rule,
            vms_enforcing=command.vms_enforcing,
            hosts_rule=command.hosts_rule,
            hosts_enforcing=command.hosts_enforcing,
            priority=command.priority,
            broken=False if old is None else old.broken,
            created_ns=turn.now_ns if old is None else old.created_ns,
        )
        others = [group for group in self.groups if group.name != command.name]
        against = contradiction([*others, _group(record)])
        if against is not None:
            turn.sometimes("contradicting_affinity_groups_are_refused")
            return Conflict.code, f"cannot set affinity group {command.name}: {against}; change one of them"
        self.records[key] = record
        self._derive()
        turn.save(record)
        self._say("affinity_group_set", f"affinity group {command.name} was set", turn)
        return None

    def _remove(self, command: m.RemoveAffinityGroup, turn: Turn) -> tuple[str, str] | None:
        record = self.records.pop(f"{command.cluster}/{command.name}", None)
        if record is None:
            return NotFound.code, f"cluster {command.cluster} has no affinity group {command.name}"
        self._derive()
        turn.erase(record)
        self._say("affinity_group_removed", f"affinity group {command.name} was removed", turn)
        return None

    def erase_all(self, turn: Turn) -> None:
        for record in self.records.values():
            turn.erase(record)

    # ------------------------------------------------------------------ whether they hold

    def note_broken(self, turn: Turn) -> None:
        """By where machines are, not by where they are going: a migration may fail."""
        for group in self.groups:
            record = self.records[f"{self.book.record.name}/{group.name}"]
            held = self.book.reservations
            places = {vm_id: (held[vm_id].host,) for vm_id in group.name_by_vm if vm_id in held}
            broken = is_broken(group, places)
            if broken != record.broken:
                record.broken = broken
                turn.save(record)
                what = "is broken" if broken else "holds again"
                code = "affinity_group_broken" if broken else "affinity_group_mended"
                self._say(code, f"affinity group {group.name} {what}", turn)

    def _say(self, code: str, text: str, turn: Turn) -> None:
        cluster = self.book.record.name
        severity = "warning" if code == "affinity_group_broken" else "normal"
        turn.record(code, f"cluster {cluster}: {text}", severity, cluster=cluster)  # type: ignore[arg-type]


def _group(record: AffinityGroupRecord) -> AffinityGroup:
    return AffinityGroup(
        name=record.name,
        name_by_vm=dict(zip(record.vm_ids, record.vm_names, strict=True)),
        hosts=tuple(record.hosts),
        vms_rule=record.vms_rule,
        vms_enforcing=record.vms_enforcing,
        hosts_rule=record.hosts_rule,
        hosts_enforcing=record.hosts_enforcing,
        priority=record.priority,
    )


def _problem(command: m.SetAffinityGroup, vm_ids: list[str]) -> str | None:
    if len(vm_ids) != len(command.vms) or len(dict.fromkeys(vm_ids)) != len(vm_ids):
        return "it names a machine twice"
    if not 0 <= command.priority <= PRIORITY_MAX:
        return f"its priority must be 0 to {PRIORITY_MAX:g}, got {command.priority:g}"
    if command.vms_rule == "disabled" and command.hosts_rule == "disabled":
        return "it has no rule; give it one among its machines, or one between them and hosts"
    if command.vms_rule != "disabled" and len(vm_ids) < 2:
        return f"a rule among machines needs two of them, it has {len(vm_ids)}"
    if command.hosts_rule != "disabled" and not (vm_ids and command.hosts):
        return "a rule between machines and hosts needs one of each"
    return None
