"""Tasks of a machine, and what its guest says of itself.

Rules:
1. A task changes no status. Its operation ends by its host's answer or by its own deadline, whichever is first; the
   deadline says that it may have been done.
2. What a task leaves in the hardware is kept when the host says that it was done, also if that comes late: the next
   start, and the target of a migration, must be given what the guest has now. CPUs and memory are `vm_size.py`'s.
3. Several tasks may be under way; the hypervisor orders those of one machine.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from actors.behaviour import Turn
from actors.vm_commands import VmCommands
from actors.vm_size import TASK_TIMER
from hypervisor_backends.measurements import GuestFacts
from olvm.model import messages as m
from olvm.model.errors import Conflict, OlvmError, OperationFailed
from olvm.model.limits import TASKS_PER_OBJECT_MAX
from olvm.model.vm_sizes import SIZE_TASKS
from olvm.model.vm_states import VmStatus
from olvm.model.vm_tasks import VM_TASKS, hardware_after, missing_device, task_refusal

# Events that a person looks for later; the others stand in the operations alone.
SAID_TASKS = frozenset(
    {"log_on", "log_off", "lock_screen", "create_snapshot", "commit_snapshot", "revert_snapshot"}
)


class VmTasks(VmCommands):
    __slots__ = ()

    def _on_task_message(
        self,
        message: m.TaskVm
        | m.TaskEnded
        | m.AskTask
        | m.VmResized
        | m.DomainMeasured
        | m.GuestTold
        | m.AskConsole,
        turn: Turn,
    ) -> None:
        match message:
            case m.TaskVm():
                self._on_task(message, turn)
            case m.TaskEnded():
                self._on_task_ended(message, turn)
            case m.AskTask():
                is_wanted = message.operation_id in self.record.tasks
                turn.send(turn.sender, m.TaskWanted(message.operation_id, is_wanted))
            case m.VmResized():
                self._on_resized(message, turn)
            case m.DomainMeasured():
                self._on_measured(message, turn)
            case m.GuestTold():
                self._on_guest_told(message, turn)
            case m.AskConsole():
                self._on_ask_console(message, turn)
            case _:
                assert_never(message)

    # ------------------------------------------------------------------ begin

    def _on_task(self, message: m.TaskVm, turn: Turn) -> None:
        record, command = self.record, message.command
        if message.operation_id in record.tasks:
            return  # asked twice
        refusal = self._task_refusal(command)
        if refusal is not None:
            self._answer(message.operation_id, turn, False, refusal, Conflict.code)
        elif record.status is VmStatus.DOWN:
            self._change_hardware(message, turn)
        else:
            assert record.agent is not None, f"{self.address} is {record.status} without a host"
            self._carry_out_task(message, turn)

    def _carry_out_task(self, message: m.TaskVm, turn: Turn) -> None:
        record, command = self.record, message.command
        size = None
        if command.verb in SIZE_TASKS:
            try:
                size = self._size_after(command)
            except OlvmError as error:
                reason = f"cannot {VM_TASKS[command.verb].what} {record.name}: {error.message}"
                self._answer(message.operation_id, turn, False, reason, error.code)
                return
            if command.verb == "plug_memory" and size == self._size:
                self._answer(message.operation_id, turn, True)  # it has that device already
                return
        record.tasks[message.operation_id] = command.verb
        timeout_s = command.timeout_s or VM_TASKS[command.verb].timeout_s
        turn.set_timer(record, TASK_TIMER + message.operation_id, timeout_s)
        if size is None:
            self._order_task(message.operation_id, command.verb, command.arguments, turn)
        else:
            self._begin_resize(message, size, turn)

    def _task_refusal(self, command: m.VmTask) -> str | None:
        record = self.record
        refusal = task_refusal(record.name, record.status, command.verb)
        if refusal is not None:
            return refusal
        what = f"cannot {VM_TASKS[command.verb].what} {record.name}"
        if record.copy_phase:
            return f"{what}: a second copy of it is under way ({record.copy_phase}); wait for its end"
        if len(record.tasks) >= TASKS_PER_OBJECT_MAX:
            return f"{what}: {len(record.tasks)} tasks of it are under way; wait for their end"
        open_resize = self._resize_refusal() if command.verb in SIZE_TASKS else None
        if open_resize is not None:
            return f"{what}: {open_resize}"
        missing = missing_device(record.hardware, command.verb, command.arguments)
        return None if missing is None else f"{what}: {missing}"

    def _change_hardware(self, message: m.TaskVm, turn: Turn) -> None:
        """Of a machine that is down: it is given so when it starts."""
        record, command = self.record, message.command
        try:
            record.hardware = hardware_after(record.hardware, command.verb, command.arguments)
        except OlvmError as error:
            self._answer(message.operation_id, turn, False, error.message, error.code)
            return
        turn.save(record)
        self._answer(message.operation_id, turn, True)

    # ------------------------------------------------------------------ end

    def _on_task_ended(self, message: m.TaskEnded, turn: Turn) -> None:
        record = self.record
        verb = record.tasks.pop(message.operation_id, None)
        if message.succeeded and message.result.startswith("hardware/"):
            self._keep_hardware(message.result.removeprefix("hardware/"), turn)
        self._note_end_of_resize(message, turn)
        if verb is None:
            return  # its deadline came first
        turn.cancel_timer(record, TASK_TIMER + message.operation_id)
        turn.save(record)
        # A host knows a machine by its id, people by its name.
        why = message.reason.replace(f"machine {record.id}", f"machine {record.name}")
        done = "was done" if message.succeeded else f"failed: {why}"
        if verb in SAID_TASKS:
            severity = "normal" if message.succeeded else "warning"
            turn.record(
                f"vm_{verb}",
                f"machine {record.name}: {verb} {done}",
                severity,  # type: ignore[arg-type]
                vm_id=record.id,
                vm_name=record.name,
                host=record.host or "",
                cluster=record.cluster,
                operation_id=message.operation_id,
            )
        result = "" if message.result.startswith("hardware/") else message.result
        reason = why if message.outcome_known else f"{why}; it may have been done"
        code = "" if message.succeeded else message.code or OperationFailed.code
        turn.send("engine", m.OperationEnded(message.operation_id, message.succeeded, reason, code, result))

    def _keep_hardware(self, change: str, turn: Turn) -> None:
        """`change`: JSON of (verb, arguments), as the agent carried it out."""
        verb, arguments = msgspec.json.decode(change, type=tuple[str, m.Arguments])
        record = self.record
        record.hardware = hardware_after(record.hardware, verb, arguments)
        turn.save(record)

    def _on_task_deadline(self, operation_id: str, turn: Turn) -> None:
        record = self.record
        verb = record.tasks.pop(operation_id, None)
        if verb is None:
            return
        turn.save(record)
        if self._is_reserving() and record.resize is not None and record.resize.operation_id == operation_id:
            reason = f"cluster {record.cluster} did not say in time whether there is room; nothing was done"
            self._resize_deadline(operation_id, turn)
            self._answer(operation_id, turn, False, reason, OperationFailed.code)
            return
        self._resize_deadline(operation_id, turn)
        reason = (
            f"{record.host or 'its host'} did not say in time what became of {verb} of {record.name}; "
            "it may have been done"
        )
        self._answer(operation_id, turn, False, reason, OperationFailed.code)

    # ------------------------------------------------------------------ the guest

    def _on_guest_told(self, message: m.GuestTold, turn: Turn) -> None:
        record = self.record
        if (message.host, message.epoch) != (record.host, record.epoch):
            return
        facts = msgspec.json.decode(message.facts, type=GuestFacts)
        told = {
            "guest_hostname": facts.hostname,
            "guest_fqdn": facts.fqdn,
            "guest_os": f"{facts.os_name} {facts.os_version}".strip(),
            "guest_kernel": facts.kernel,
            "guest_boot_id": facts.boot_id,
            "guest_ips": list(facts.ips),
            "guest_users": list(facts.users),
            "guest_session": facts.session,
            "guest_agents": list(facts.agents),
            "guest_sources": dict(facts.sources),
            "guest_applications": len(facts.applications),
        }
        if any(getattr(record, name) != value for name, value in told.items()):
            for name, value in told.items():
                setattr(record, name, value)
            record.guest_told_ns = turn.now_ns
            turn.save(record)

    def _on_ask_console(self, message: m.AskConsole, turn: Turn) -> None:
        record = self.record
        if record.agent is None or record.host is None:
            reason = f"machine {record.name} is {record.status.value}: it shows nothing; start it first"
            turn.tell("engine", m.PassOn(message.reply_to, m.Refusal(Conflict.code, reason)))
        else:
            question = m.OpenConsole(record.id, record.epoch, message.reply_to, message.valid_s)
            turn.tell(record.agent, question)
