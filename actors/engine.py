"""The `engine` actor: the inventory with its unique names, operations, and the engine's own epoch.

It decides whether a command is accepted and to whom it goes; it never decides what happens to a machine or a host.
A command is accepted exactly when its operation is durable; from then on the operation ends, whatever crashes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import assert_never

import msgspec

from actors.behaviour import TimedRecord, Turn
from actors.cluster import Cluster
from actors.host import Host
from actors.vm import Vm
from actors.wire import at_silo
from olvm.model import messages as m
from olvm.model.errors import BadInput, Conflict, DuplicateName, NotFound, OlvmError
from olvm.model.limits import (
    HOST_CPUS_MAX,
    HOST_MEMORY_BYTES_MAX,
    OPERATIONS_REMEMBERED_MAX,
    VCPUS_MAX,
    VM_MEMORY_BYTES_MAX,
    VM_MEMORY_BYTES_MIN,
)
from olvm.model.names import check_name
from olvm.model.records import EngineRecord, EventRecord, InventoryRecord, OperationRecord, VmRecord
from olvm.model.sizes import format_size
from olvm.scheduling.policy import policy_named


class Engine:
    """One per data center."""

    address = "engine"

    def __init__(
        self,
        record: EngineRecord,
        operations: dict[str, OperationRecord],
        inventory: dict[str, InventoryRecord],
    ) -> None:
        self.record = record
        self.open: dict[str, OperationRecord] = {}
        # Finished operations, oldest first: at most OPERATIONS_REMEMBERED_MAX, the window of recognised retries.
        self.finished: OrderedDict[str, OperationRecord] = OrderedDict()
        self.operation_by_request: dict[str, str] = {}
        self.inventory = inventory
        self.key_by_vm_id = {item.id: item.key for item in inventory.values() if item.kind == "vm"}
        for operation in sorted(operations.values(), key=lambda item: item.created_ns):
            self._remember(operation)

    def timed_record(self) -> TimedRecord | None:
        return None

    def handle(self, message: m.AnyMessage, turn: Turn) -> None:
        match message:
            case m.Submit():
                self._on_submit(message, turn)
            case m.OperationEnded():
                self._on_operation_ended(message, turn)
            case m.OperationProgressed():
                self._on_operation_progressed(message, turn)
            case m.LookUpOperation():
                self._on_look_up(message, turn)
            case m.ExplainPlacement():
                self._on_explain(message, turn)
            case m.EntityRemoved():
                self._on_entity_removed(message, turn)
            case m.VmChanged():
                self._on_vm_changed(message, turn)
            case m.EventTold():
                turn.events.append(msgspec.msgpack.decode(message.row, type=EventRecord))
            case m.Recovered():
                self.record.epoch += 1
                turn.save(self.record)
                turn.record("engine_started", f"engine started, epoch {self.record.epoch}")
            case _:
                raise AssertionError(f"engine cannot handle {type(message).__name__}")

    # ------------------------------------------------------------------ operations

    def _remember(self, operation: OperationRecord) -> None:
        if operation.client_request_id:
            self.operation_by_request[operation.client_request_id] = operation.id
        if operation.finished_ns is None:
            self.open[operation.id] = operation
            return
        self.open.pop(operation.id, None)
        self.finished[operation.id] = operation
        while len(self.finished) > OPERATIONS_REMEMBERED_MAX:
            _, oldest = self.finished.popitem(last=False)
            self.operation_by_request.pop(oldest.client_request_id, None)

    def _find(self, operation_id: str) -> OperationRecord | None:
        return self.open.get(operation_id) or self.finished.get(operation_id)

    def _on_submit(self, message: m.Submit, turn: Turn) -> None:
        known = (
            self.operation_by_request.get(message.client_request_id) if message.client_request_id else None
        )
        if known is not None:
            operation = self._find(known)
            assert operation is not None, f"request {message.client_request_id} names no operation"
            turn.reply(view_of(operation))
            return
        try:
            self._accept(message, turn)
        except OlvmError as refusal:
            turn.reply(m.Refusal(refusal.code, refusal.message))

    def _accept(self, submit: m.Submit, turn: Turn) -> None:
        """Check, then act: everything that can refuse comes before the first change."""
        command = submit.command
        operation = OperationRecord(
            id=turn.new_id(),
            kind="",
            target_kind="",
            target_id="",
            target_name="",
            status="running",
            client_request_id=submit.client_request_id,
            created_ns=turn.now_ns,
            started_ns=turn.now_ns,
        )
        match command:
            case m.VmCommand():
                self._accept_vm_command(command, operation, turn)
            case m.CreateVm():
                self._accept_create_vm(command, operation, turn)
            case m.UpdateVm():
                item = self._vm(command.vm)
                _check_vm_size(command.vcpus, command.memory_bytes)
                _describe(operation, "update_vm", "vm", item.id, item.name)
                turn.send(item.address, m.ChangeVm(operation.id, command))
            case m.AddHost():
                self._accept_add_host(command, operation, turn)
            case m.HostCommand():
                item = self._item("host", command.host)
                _describe(operation, f"{command.action}_host", "host", item.id, item.name)
                turn.send(item.address, m.CommandHost(operation.id, command.action))
            case m.CreateCluster():
                self._accept_create_cluster(command, operation, turn)
            case m.UpdateCluster():
                item = self._item("cluster", command.name)
                if command.policy is not None:
                    policy_named(command.policy, command.policy_parameters or {})
                _check_overcommit(
                    100 if command.memory_overcommit_percent is None else command.memory_overcommit_percent,
                    command.cpu_overcommit_percent or 0,
                )
                _describe(operation, "update_cluster", "cluster", item.id, item.name)
                turn.send(item.address, m.ChangeCluster(operation.id, command))
            case m.RemoveCluster():
                self._accept_remove_cluster(command, operation, turn)
            case _:
                assert_never(command)
        self.open[operation.id] = operation
        if operation.client_request_id:
            self.operation_by_request[operation.client_request_id] = operation.id
        self.record.accepted_count += 1
        turn.save(self.record)
        turn.save(operation)
        turn.reply(view_of(operation))

    def _on_operation_progressed(self, message: m.OperationProgressed, turn: Turn) -> None:
        operation = self.open.get(message.operation_id)
        if operation is not None:
            operation.progress_percent = max(operation.progress_percent, message.progress_percent)
            operation.reason = message.reason
            turn.save(operation)

    def _on_operation_ended(self, message: m.OperationEnded, turn: Turn) -> None:
        operation = self.open.get(message.operation_id)
        if operation is None:
            return  # said again after a crash of the sender: it ended already
        operation.status = "succeeded" if message.succeeded else "failed"
        operation.reason = message.reason
        operation.error_code = message.error_code
        operation.finished_ns = turn.now_ns
        if message.succeeded:
            operation.progress_percent = 100
            self.record.succeeded_count += 1
        else:
            self.record.failed_count += 1
        self._remember(operation)
        turn.save(self.record)
        turn.save(operation)
        if not message.succeeded:
            turn.record(
                "operation_failed",
                f"{operation.kind} of {operation.target_name} failed: {operation.reason}",
                "error",
                operation_id=operation.id,
                vm_id=operation.target_id if operation.target_kind == "vm" else "",
                vm_name=operation.target_name if operation.target_kind == "vm" else "",
                host=operation.target_name if operation.target_kind == "host" else "",
            )

    def _on_look_up(self, message: m.LookUpOperation, turn: Turn) -> None:
        operation = self._find(message.operation_id)
        if operation is not None:
            turn.reply(view_of(operation))
        else:
            turn.reply(m.Refusal(NotFound.code, f"operation {message.operation_id} is not known"))

    # ------------------------------------------------------------------ inventory

    def _item(self, kind: str, name: str) -> InventoryRecord:
        item = self.inventory.get(f"{kind}/{name}")
        if item is None:
            raise NotFound(f"{kind} {name} does not exist; `olvm {kind} list` shows those that do")
        return item

    def _vm(self, name_or_id: str) -> InventoryRecord:
        key = self.key_by_vm_id.get(name_or_id)
        return self.inventory[key] if key is not None else self._item("vm", name_or_id)

    def _add_item(self, item: InventoryRecord, turn: Turn) -> None:
        self.inventory[item.key] = item
        if item.kind == "vm":
            self.key_by_vm_id[item.id] = item.key
        turn.save(item)

    def _check_free(self, kind: str, name: str) -> None:
        check_name(kind, name)
        if f"{kind}/{name}" in self.inventory:
            raise DuplicateName(f"{kind} {name} exists already; choose another name or remove it first")

    def _on_entity_removed(self, message: m.EntityRemoved, turn: Turn) -> None:
        item = self.inventory.pop(f"{message.kind}/{message.name}", None)
        if item is not None:
            self.key_by_vm_id.pop(item.id, None)
            turn.erase(item)

    def _accept_create_cluster(
        self, command: m.CreateCluster, operation: OperationRecord, turn: Turn
    ) -> None:
        self._check_free("cluster", command.name)
        policy_named(command.policy, command.policy_parameters)
        _check_overcommit(command.memory_overcommit_percent, command.cpu_overcommit_percent)
        _describe(operation, "create_cluster", "cluster", command.name, command.name)
        address = f"cluster/{command.name}"
        self._add_item(
            InventoryRecord(key=address, kind="cluster", name=command.name, id=command.name, address=address),
            turn,
        )
        turn.spawn(Cluster.new(command.name))
        turn.send(address, m.StartCluster(operation.id, command))

    def _accept_remove_cluster(
        self, command: m.RemoveCluster, operation: OperationRecord, turn: Turn
    ) -> None:
        item = self._item("cluster", command.name)
        inside = sorted(other.name for other in self.inventory.values() if other.cluster == item.name)
        if inside:
            raise Conflict(
                f"cannot remove cluster {item.name}: it holds {len(inside)} hosts and machines "
                f"({', '.join(inside[:3])}{', …' if len(inside) > 3 else ''}); remove them first"
            )
        _describe(operation, "remove_cluster", "cluster", item.id, item.name)
        turn.send(item.address, m.EndCluster(operation.id))

    def _accept_add_host(self, command: m.AddHost, operation: OperationRecord, turn: Turn) -> None:
        self._check_free("host", command.name)
        self._item("cluster", command.cluster)
        if not 1 <= command.cpus <= HOST_CPUS_MAX:
            raise BadInput(f"host {command.name}: cpus must be 1 to {HOST_CPUS_MAX}, got {command.cpus}")
        if not VM_MEMORY_BYTES_MIN <= command.memory_bytes <= HOST_MEMORY_BYTES_MAX:
            raise BadInput(f"host {command.name}: memory of {command.memory_bytes} bytes is out of range")
        if not command.silo:
            raise BadInput(f"host {command.name}: no host silo was named for its agent")
        _describe(operation, "add_host", "host", command.name, command.name)
        address = f"host/{command.name}"
        self._add_item(
            InventoryRecord(
                key=address,
                kind="host",
                name=command.name,
                id=command.name,
                cluster=command.cluster,
                address=address,
            ),
            turn,
        )
        turn.spawn(Host.new(command.name, command.cluster, turn.now_ns))
        turn.send(address, m.RegisterHost(operation.id, command))

    def _accept_create_vm(self, command: m.CreateVm, operation: OperationRecord, turn: Turn) -> None:
        self._check_free("vm", command.name)
        self._item("cluster", command.cluster)
        _check_vm_size(command.vcpus, command.memory_bytes)
        for host in command.pinned_hosts:
            self._item("host", host)
        vm_id = turn.new_id()
        _describe(operation, "create_vm", "vm", vm_id, command.name)
        address = at_silo(f"vm/{vm_id}", command.silo) if command.silo else f"vm/{vm_id}"
        self._add_item(
            InventoryRecord(
                key=f"vm/{command.name}",
                kind="vm",
                name=command.name,
                id=vm_id,
                cluster=command.cluster,
                address=address,
            ),
            turn,
        )
        register = m.RegisterVm(operation.id, vm_id, command)
        if command.silo:
            turn.send(at_silo("vms", command.silo), register)
        else:
            turn.spawn(Vm.new(register, turn.now_ns))
            turn.send(address, register)

    def _accept_vm_command(self, command: m.VmCommand, operation: OperationRecord, turn: Turn) -> None:
        item = self._vm(command.vm)
        if command.timeout_s is not None and not 0 < command.timeout_s <= 86_400:
            raise BadInput(f"{command.verb} of {item.name}: timeout must be above 0 and at most 86400 s")
        if command.to_host is not None:
            self._item("host", command.to_host)
        _describe(operation, f"{command.verb}_vm", "vm", item.id, item.name)
        turn.send(item.address, m.CommandVm(operation.id, command.verb, command.timeout_s, command.to_host))

    # ------------------------------------------------------------------ machines elsewhere

    def _on_vm_changed(self, message: m.VmChanged, turn: Turn) -> None:
        """Mirror a machine of a VM silo, so that one file answers for all machines."""
        if message.row:
            turn.save(msgspec.msgpack.decode(message.row, type=VmRecord))
        else:
            gone = VmRecord(id=message.vm_id, name="", cluster="", vcpus=0, memory_bytes=0)
            turn.erase(gone)

    def _on_explain(self, message: m.ExplainPlacement, turn: Turn) -> None:
        try:
            item = self._vm(message.vm)
        except OlvmError as error:
            turn.reply(m.Refusal(error.code, error.message))
        else:
            turn.tell(item.address, m.ExplainFor(turn.sender))


def view_of(operation: OperationRecord) -> m.OperationView:
    return m.OperationView(
        id=operation.id,
        kind=operation.kind,
        target_kind=operation.target_kind,
        target_id=operation.target_id,
        target_name=operation.target_name,
        status=operation.status,
        progress_percent=operation.progress_percent,
        reason=operation.reason,
        error_code=operation.error_code,
        created_ns=operation.created_ns,
        started_ns=operation.started_ns,
        finished_ns=operation.finished_ns,
    )


def _describe(operation: OperationRecord, kind: str, target_kind: str, target_id: str, name: str) -> None:
    operation.kind = kind
    operation.target_kind = target_kind
    operation.target_id = target_id
    operation.target_name = name


def _check_vm_size(vcpus: int | None, memory_bytes: int | None) -> None:
    if vcpus is not None and not 1 <= vcpus <= VCPUS_MAX:
        raise BadInput(f"vcpus must be 1 to {VCPUS_MAX}, got {vcpus}")
    if memory_bytes is not None and not VM_MEMORY_BYTES_MIN <= memory_bytes <= VM_MEMORY_BYTES_MAX:
        raise BadInput(
            f"memory must be {format_size(VM_MEMORY_BYTES_MIN)} to {format_size(VM_MEMORY_BYTES_MAX)}, "
            f"got {memory_bytes} bytes"
        )


def _check_overcommit(memory_percent: int, cpu_percent: int) -> None:
    if not 100 <= memory_percent <= 1000:
        raise BadInput(f"memory overcommit must be 100 to 1000 percent, got {memory_percent}")
    if not 0 <= cpu_percent <= 10_000:
        raise BadInput(f"cpu overcommit must be 0 (no limit) to 10000 percent, got {cpu_percent}")
