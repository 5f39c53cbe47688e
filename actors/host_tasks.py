"""Tasks on a host's storage and networks, as the engine sees them: passed on, awaited, ended.

Rule: the operation ends by the agent's answer or by its own deadline; the deadline says that it may have been done.
"""

from __future__ import annotations

from actors.behaviour import Turn
from actors.host_core import HostCore
from olvm.model import messages as m
from olvm.model.errors import Conflict, OperationFailed
from olvm.model.host_states import HostStatus
from olvm.model.host_tasks import host_task_timeout_s
from olvm.model.limits import TASKS_PER_OBJECT_MAX

TIMER = "task/"
SERVING = frozenset({HostStatus.UP, HostStatus.MAINTENANCE, HostStatus.NON_OPERATIONAL, HostStatus.ERROR})


class HostTasks:
    def __init__(self, host: HostCore) -> None:
        self.host = host

    def begin(self, message: m.TaskHost, turn: Turn) -> None:
        record, command = self.host.record, message.command
        if message.operation_id in record.tasks:
            return  # asked twice
        refusal = ""
        if record.status not in SERVING:
            refusal = f"it is {record.status.value}; wait until it is up"
        elif len(record.tasks) >= TASKS_PER_OBJECT_MAX:
            refusal = f"{len(record.tasks)} tasks of it are under way; wait for their end"
        if refusal:
            reason = f"cannot {command.verb} on host {record.name}: {refusal}"
            turn.send("engine", m.OperationEnded(message.operation_id, False, reason, Conflict.code))
            return
        record.tasks[message.operation_id] = command.verb
        timeout_s = command.timeout_s or host_task_timeout_s(command.verb)
        turn.set_timer(record, TIMER + message.operation_id, timeout_s)
        task = m.TaskOfHost(record.name, message.operation_id, command.verb, command.arguments)
        turn.send(self.host.agent, task)

    def on_ended(self, message: m.TaskEnded, turn: Turn) -> None:
        record = self.host.record
        if record.tasks.pop(message.operation_id, None) is None:
            return  # its deadline came first
        turn.cancel_timer(record, TIMER + message.operation_id)
        turn.save(record)
        reason = message.reason if message.outcome_known else f"{message.reason}; it may have been done"
        code = "" if message.succeeded else message.code or OperationFailed.code
        turn.send(
            "engine",
            m.OperationEnded(message.operation_id, message.succeeded, reason, code, message.result),
        )

    def on_deadline(self, operation_id: str, turn: Turn) -> None:
        record = self.host.record
        verb = record.tasks.pop(operation_id, None)
        if verb is None:
            return
        turn.save(record)
        reason = f"host {record.name} did not say in time what became of {verb}; it may have been done"
        turn.send("engine", m.OperationEnded(operation_id, False, reason, OperationFailed.code))
