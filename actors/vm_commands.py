"""What people and the cluster may order of a machine: its definition, and the commands of its life.

Rules:
1. `vm_refusal` says whether the status takes a command; what else stands in the way is said here, in one sentence.
2. An accepted command begins an operation with a deadline. The one under way gives way to it, and so does a
   migration that has copied nothing yet.
3. `lease` changes only while nothing of the machine can run: a takeover relies on what the running copy was started
   with. A machine with a lease is killed when its storage fails, for its lease cannot be renewed then either.
4. The size may change at any time: it is that of the next start, and what runs stays as large as it is.
5. What the cluster orders (`PowerVm`) is a command whose end is told to the cluster.
"""

from __future__ import annotations

from typing import assert_never

from actors.behaviour import Turn
from actors.vm_core import POWER_ORDER
from actors.vm_migration import UNDOABLE, VmMigration
from olvm.model import messages as m
from olvm.model.errors import BadInput, Conflict
from olvm.model.records import VmRecord
from olvm.model.vm_actions import VmAction, vm_refusal
from olvm.model.vm_states import NOT_RUNNING, VmStatus, VmTrigger

ACTION_BY_VERB: dict[str, VmAction] = {
    "start": VmAction.RUN,
    "resume": VmAction.RUN,
    "shutdown": VmAction.SHUTDOWN,
    "stop": VmAction.STOP,
    "reboot": VmAction.REBOOT,
    "reset": VmAction.RESET,
    "suspend": VmAction.HIBERNATE,
    "migrate": VmAction.MIGRATE,
    "cancel_migration": VmAction.CANCEL_MIGRATE,
    "remove": VmAction.REMOVE,
}


def new_record(message: m.RegisterVm, now_ns: int) -> VmRecord:
    command = message.command
    lease = command.high_availability if command.lease is None else command.lease
    resume = command.resume_behavior or ("kill" if lease else "auto_resume")
    assert not lease or resume == "kill", f"{command.name} has a lease and would be left to {resume}"
    return VmRecord(
        id=message.vm_id,
        name=command.name,
        cluster=command.cluster,
        vcpus=command.vcpus,
        memory_bytes=command.memory_bytes,
        high_availability=command.high_availability,
        pinned_hosts=command.pinned_hosts,
        description=command.description,
        silo=command.silo,
        status_since_ns=now_ns,
        created_ns=now_ns,
        priority=command.priority,
        lease=lease,
        resume_behavior=resume,
        migration_policy=command.migration_policy,
        migratable=command.migratable,
        hardware=command.hardware,
        needs=command.needs,
    )


# What a cluster's own shutdown makes of a machine.
ENDING_ORDERS = frozenset({POWER_ORDER + "shutdown", POWER_ORDER + "stop"})


class VmCommands(VmMigration):
    __slots__ = ()

    # ------------------------------------------------------------------ its definition

    def _on_register(self, message: m.RegisterVm, turn: Turn) -> None:
        turn.save(self.record)
        self._say_configured(
            "vm_created", f"was created in cluster {self.record.cluster}", message.operation_id, turn
        )
        turn.send("engine", m.OperationEnded(message.operation_id, True))

    def _on_change(self, message: m.ChangeVm, turn: Turn) -> None:
        command, record = message.command, self.record
        refusal = self._change_refusal(command)
        if refusal is not None:
            code, reason = refusal
            turn.send("engine", m.OperationEnded(message.operation_id, False, reason, code))
            return
        if command.lease and not record.lease and command.resume_behavior is None:
            record.resume_behavior = "kill"
        if record.host is not None:  # a row of an older version knows one size
            record.now_vcpus, record.now_memory_bytes = self._size
        for name in command.__struct_fields__:
            value = getattr(command, name)
            if name != "vm" and value is not None:
                setattr(record, name, value)
        turn.save(record)
        self._say_configured("vm_updated", "was changed", message.operation_id, turn)
        turn.send("engine", m.OperationEnded(message.operation_id, True))

    def _change_refusal(self, command: m.UpdateVm) -> tuple[str, str] | None:
        """What a change would need that does not hold: (code, reason)."""
        record = self.record
        name, status = record.name, record.status
        if command.lease not in (None, record.lease) and (status is not VmStatus.DOWN or record.strays):
            # The copy that runs was started with or without one, and a takeover relies on it.
            return Conflict.code, f"cannot change the lease of {name}: it is {status.value}; stop it first"
        lease = record.lease if command.lease is None else command.lease
        resume = command.resume_behavior or ("kill" if lease and not record.lease else record.resume_behavior)
        if lease and resume != "kill":
            return BadInput.code, (
                f"{name} has a lease, so it must be killed when its storage fails, not {resume}: "
                "set the resume behavior to kill, or take its lease away"
            )
        return None

    # ------------------------------------------------------------------ commands

    def _on_power(self, message: m.PowerVm, turn: Turn) -> None:
        """The cluster's order is a command whose end is told to the cluster.

        A start that finds an earlier shutdown of the cluster under way waits for that: its end is told, and the
        cluster, which wants the machine now, orders the start again.
        """
        record = self.record
        order = m.CommandVm(POWER_ORDER + message.verb, message.verb)
        if message.verb != "start" and record.status in NOT_RUNNING:
            turn.cancel_timer(record, "ha_retry")
            self._answer(order.operation_id, turn, True)
        elif message.verb == "start" and record.operation_id in ENDING_ORDERS:
            turn.sometimes("cluster_starts_while_a_machine_still_obeys_its_shutdown")
        elif message.verb == "start" and record.host is not None and record.status is not VmStatus.PAUSED:
            self._answer(order.operation_id, turn, True)
        else:
            self._on_command(order, turn)

    def _on_command(self, message: m.CommandVm, turn: Turn) -> None:
        record = self.record
        if message.operation_id == record.operation_id:
            return  # asked twice
        refusal = self._command_refusal(message)
        if refusal is not None:
            self._answer(message.operation_id, turn, False, refusal, Conflict.code)
            return
        if message.verb != "cancel_migration":
            self._gives_way(message.verb, turn)
        self._carry_out(message, turn)

    def _command_refusal(self, message: m.CommandVm) -> str | None:
        record, verb = self.record, message.verb
        name = record.name
        if record.copy_kind == "migration" and record.copy_phase in UNDOABLE:
            if verb == "cancel_migration":
                return None
            if verb == "migrate" and record.operation_kind == "migrate":
                return f"cannot migrate {name}: it is being migrated already; wait for its end, or cancel it"
        if verb == "migrate":
            return self._migration_refusal(message.to_host or "")
        refusal = vm_refusal(name, record.status, ACTION_BY_VERB[verb])
        if refusal is None and verb == "resume" and record.status is VmStatus.DOWN:
            return f"cannot resume {name}: it is down, nothing was saved; start it instead"
        if refusal is None and verb == "cancel_migration" and not record.copy_phase:
            return f"cannot cancel a migration of {name}: none is under way"
        if refusal is None and verb == "remove" and record.strays:
            hosts = ", ".join(stray.host for stray in record.strays)
            return (
                f"cannot remove {name}: the end of a copy of it on {hosts} is not heard yet; "
                "wait for that host, or confirm that it was rebooted"
            )
        return refusal

    def _carry_out(self, message: m.CommandVm, turn: Turn) -> None:
        record, config = self.record, turn.config
        match message.verb:
            case "start" | "resume":
                if record.status is VmStatus.PAUSED:
                    self._begin(message, message.timeout_s or config.stop_timeout_s, turn)
                    self._tell_agent("continue", turn)
                else:
                    self._begin(message, message.timeout_s or config.launch_timeout_s, turn)
                    record.tried_hosts = []
                    self._run(turn)
            case "shutdown":
                self._begin(message, message.timeout_s or config.shutdown_timeout_s, turn)
                self._move(VmTrigger.SHUTDOWN_REQUESTED, turn)
                self._tell_agent("shutdown", turn)
            case "stop":
                self._begin(message, message.timeout_s or config.stop_timeout_s, turn)
                self._stop(turn)
            case "reboot" | "reset":
                self._begin(message, message.timeout_s or config.reboot_timeout_s, turn)
                asked = message.verb == "reboot"
                self._move(VmTrigger.REBOOT_REQUESTED if asked else VmTrigger.RESET_REQUESTED, turn)
                self._tell_agent(message.verb, turn)
            case "suspend":
                self._begin(message, message.timeout_s or config.save_timeout_s, turn)
                self._move(VmTrigger.SAVE_REQUESTED, turn)
                self._tell_agent("save", turn)
            case "migrate":
                self._begin(message, message.timeout_s or config.migration_timeout_s, turn)
                self._start_moving("asked", message.to_host or "", turn)
            case "cancel_migration":
                self._on_cancel(message, turn)
            case "remove":
                self._remove(message.operation_id, turn)
            case _:
                assert_never(message.verb)

    def _stop(self, turn: Turn) -> None:
        record = self.record
        if record.agent is not None:
            self._tell_agent("destroy", turn)
            return
        if record.status is VmStatus.SUSPENDED:
            record.epoch = self._issue_epoch()
            self._move(VmTrigger.STOPPED, turn, "its saved memory was discarded")
            self._finish(turn, True)
            return
        # Nothing was asked of a host yet: the attempt ends here, and its placement is given back.
        turn.send(self.cluster, m.ReleaseVm(record.id, "", record.epoch))
        record.epoch = self._issue_epoch()
        self._move(VmTrigger.LAUNCH_FAILED, turn, "stopped before it was placed")
        self._finish(turn, True)

    def _remove(self, operation_id: str, turn: Turn) -> None:
        record = self.record
        turn.record(
            "vm_removed",
            f"machine {record.name} was removed",
            vm_id=record.id,
            vm_name=record.name,
            cluster=record.cluster,
            operation_id=operation_id,
        )
        for task_id, verb in list(record.tasks.items()):
            said = f"{record.name} was removed before its host said what became of {verb}"
            reason = f"{said}; it may have been done"
            self._end_task(task_id, turn, False, reason, Conflict.code)
        turn.send("engine", m.EntityRemoved("vm", record.name))
        turn.send("engine", m.OperationEnded(operation_id, True))
        turn.cancel_timer(record, "ha_retry")
        turn.saved.clear()
        turn.erase(record)
        turn.stop()
