"""S16: what a client was told of a snapshot is so on the storage, whoever crashed and wherever the machine is now.

Judged at the end, from what clients asked, how the engine committed that it ended, and what lies beside the disks.
A commit or a revert of unknown outcome may have been done, so from the moment that it was asked for it explains that
a snapshot is gone; and a machine whose snapshot was asked for twice by one name is not judged for that name.
"""

from __future__ import annotations

from typing import ClassVar

from olvm.journal.port import Batch
from olvm.model import messages as m
from olvm.model.records import OperationRecord
from sim.oracles.oracle import Oracle, Witness

DOUBT = "may have been done"  # in the reason of an operation of which nobody knows how it ended
# Of a machine, by the name that clients use, and of a snapshot of it.
Name = tuple[str, str]


class SnapshotsStay(Oracle):
    ID: ClassVar[str] = "S16"
    PROMISE: ClassVar[str] = (
        "a snapshot that was taken stays until its commit, or a revert that discards it, is asked for; one that was "
        "committed, or refused without a doubt, is not there"
    )

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._command_by_request: dict[str, m.VmTask] = {}
        self._taken: dict[Name, str] = {}  # the machine's id
        self._absent: dict[Name, tuple[str, str]] = {}  # the machine's id, and why
        self._given_up: set[Name] = set()  # a commit was asked for
        self._asked_to_take: set[Name] = set()
        self._twice: set[Name] = set()
        self._discarding: set[str] = set()  # machines

    def asked(self, client: str, command: m.Command, request_id: str) -> None:
        del client
        if not isinstance(command, m.VmTask) or not request_id or request_id in self._command_by_request:
            return
        name = command.vm, str(command.arguments.get("name"))
        if command.verb == "create_snapshot":
            (self._twice if name in self._asked_to_take else self._asked_to_take).add(name)
        elif command.verb == "commit_snapshot":
            self._given_up.add(name)
        elif command.verb == "revert_snapshot":
            if command.arguments.get("discard_later"):
                self._discarding.add(command.vm)
        else:
            return
        self._command_by_request[request_id] = command

    def committed(self, silo: str, batch: Batch) -> None:
        if silo != "engine":
            return
        for row in batch.upserts.get(OperationRecord, {}).values():
            assert isinstance(row, OperationRecord)
            command = self._command_by_request.get(row.client_request_id)
            if command is None or row.finished_ns is None:
                continue
            name = command.vm, str(command.arguments["name"])
            succeeded = row.status == "succeeded"
            if command.verb == "create_snapshot" and succeeded:
                self._taken[name] = row.target_id
            elif command.verb == "create_snapshot" and DOUBT not in row.reason:
                self._absent[name] = row.target_id, f"refused ({row.reason})"
            elif command.verb == "commit_snapshot" and succeeded:
                self._absent[name] = row.target_id, "committed"

    def settled(self) -> None:
        stored = self.witness.snapshots_by_vm_id()
        for name, vm_id in sorted(self._taken.items()):
            vm, snapshot = name
            explained = name in self._given_up | self._twice or vm in self._discarding
            if not explained and snapshot not in stored.get(vm_id, ()):
                self.fail(f"snapshot {snapshot} of machine {vm} was taken and is not on the storage any more")
        for name, (vm_id, why) in sorted(self._absent.items()):
            vm, snapshot = name
            if name not in self._twice and snapshot in stored.get(vm_id, ()):
                self.fail(f"snapshot {snapshot} of machine {vm} was {why} and is on the storage")
