"""The `engine` actor: operations, the inventory with its unique names, users, and the engine's own epoch.

It decides whether a command is accepted (how, is `engine_commands.py`) and when its operation has ended; it never
decides what happens to a machine or a host.
A command is accepted exactly when its operation is durable; from then on the operation ends, whatever crashes.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from actors.behaviour import TimedRecord, Turn
from actors.engine_commands import Inventory, accept
from actors.users import UserCommand, Users
from olvm.model import messages as m
from olvm.model.errors import NotFound, OlvmError
from olvm.model.limits import OPERATIONS_REMEMBERED_MAX
from olvm.model.records import EngineRecord, EventRecord, InventoryRecord, OperationRecord, VmRecord


class Engine:
    """One per data center."""

    address = "engine"

    def __init__(
        self,
        record: EngineRecord,
        operations: dict[str, OperationRecord],
        inventory: dict[str, InventoryRecord],
        users: Users | None = None,
    ) -> None:
        self.record = record
        self.open: dict[str, OperationRecord] = {}
        # Finished operations, oldest first: at most OPERATIONS_REMEMBERED_MAX, the window of recognised retries.
        self.finished: OrderedDict[str, OperationRecord] = OrderedDict()
        self.operation_by_request: dict[str, str] = {}
        self.inventory = Inventory(inventory)
        self.users = users or Users({}, {})
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
                self._on_removed(message, turn)
            case m.ShowConsole():
                self._on_show_console(message, turn)
            case m.PassOn():
                turn.tell(message.reply_to, message.body)
            case m.UserDenied():
                self.users.told_of_denial(message, turn)
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

    def _on_removed(self, message: m.EntityRemoved, turn: Turn) -> None:
        self.inventory.remove(message.kind, message.name, turn)
        if message.host_epoch > self.record.host_epoch_removed:
            self.record.host_epoch_removed = message.host_epoch
            turn.save(self.record)

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
        if isinstance(submit.command, UserCommand):
            self.users.accept(submit.command, operation, self.inventory, turn)
        else:
            accept(submit.command, operation, self.inventory, turn, self.record.host_epoch_removed)
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
        operation.result = message.result
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

    # ------------------------------------------------------------------ machines elsewhere

    def _on_vm_changed(self, message: m.VmChanged, turn: Turn) -> None:
        """Mirror a machine of a VM silo, so that one file answers for all machines."""
        if message.row:
            turn.save(msgspec.msgpack.decode(message.row, type=VmRecord))
        else:
            gone = VmRecord(id=message.vm_id, name="", cluster="", vcpus=0, memory_bytes=0)
            turn.erase(gone)

    def _on_show_console(self, message: m.ShowConsole, turn: Turn) -> None:
        try:
            item = self.inventory.vm(message.vm)
        except OlvmError as error:
            turn.reply(m.Refusal(error.code, error.message))
        else:
            turn.tell(item.address, m.AskConsole(turn.sender, message.valid_s))

    def _on_explain(self, message: m.ExplainPlacement, turn: Turn) -> None:
        try:
            item = self.inventory.vm(message.vm)
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
        result=operation.result,
    )
