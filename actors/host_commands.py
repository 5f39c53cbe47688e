"""What a person asks of a host: registration, activation, maintenance, power, "it was restarted", removal.

It decides whether the command is accepted, before the first effect, and who carries it out. Rules:
1. One operation at a time. Only `cancel_maintenance`, `activate` as its other name, and `confirm_rebooted` are taken
   while another one is under way: they are what ends it.
2. Power is never switched by two: a command waits neither for a fence flow that switches already nor beside one.
"""

from __future__ import annotations

from typing import cast

from actors.behaviour import Turn
from actors.host_core import HostCore
from actors.host_fence_steps import SWITCHING
from actors.host_fencing import FenceIntent, Fencing
from actors.host_maintenance import Maintenance
from olvm.model import messages as m
from olvm.model.errors import Conflict
from olvm.model.host_states import HostAction, HostStatus, HostTrigger, host_refusal
from olvm.model.limits import NS_PER_S

# cancel_maintenance is no action of oVirt's: `Maintenance.cancel_refusal` speaks for it.
ACTION_BY_NAME: dict[str, HostAction] = {
    "activate": HostAction.ACTIVATE,
    "maintenance": HostAction.MAINTENANCE,
    "remove": HostAction.REMOVE,
    "confirm_rebooted": HostAction.CLEAR_NON_RESPONSIVE_VMS,
    "restart": HostAction.STOP,
    "power_off": HostAction.STOP,
    "power_on": HostAction.START,
}
POWER = frozenset({"restart", "power_off", "power_on"})
RESTART = "restart {}"


class HostCommands:
    def __init__(self, core: HostCore, fencing: Fencing, maintenance: Maintenance) -> None:
        self._core = core
        self._record = core.record
        self._fencing = fencing
        self._maintenance = maintenance

    # ------------------------------------------------------------------ accepted or refused

    def command(self, message: m.CommandHost, turn: Turn) -> None:
        refusal = self._refusal(message.action, turn)
        if refusal is not None:
            turn.send("engine", m.OperationEnded(message.operation_id, False, refusal, Conflict.code))
        elif message.action == "confirm_rebooted":
            self._confirm(message.operation_id, turn)
        elif self._is_cancel(message.action):
            self._maintenance.cancel(turn)
            turn.send("engine", m.OperationEnded(message.operation_id, True))
        else:
            self._record.operation_id = message.operation_id
            turn.save(self._record)
            self._carry_out(message, turn)

    def _is_cancel(self, action: m.HostVerb) -> bool:
        preparing = self._record.status is HostStatus.PREPARING_FOR_MAINTENANCE
        return action == "cancel_maintenance" or (action == "activate" and preparing)

    def _refusal(self, action: m.HostVerb, turn: Turn) -> str | None:
        """Why the command is not taken, as one sentence; None: it is."""
        record = self._record
        if action == "cancel_maintenance":
            return self._maintenance.cancel_refusal()
        asked = RESTART if action == "restart" else ""
        refusal = host_refusal(record.name, record.status, ACTION_BY_NAME[action], asked=asked)
        if refusal is not None:
            return refusal
        what = f"cannot {action} host {record.name}"
        if action == "confirm_rebooted":
            talks = record.status is not HostStatus.NON_RESPONSIVE and self._core.answers(turn)
            return f"{what}: it answers, and reports its machines itself" if talks else None
        if record.operation_id is not None and not self._is_cancel(action):
            return f"{what}: operation {record.operation_id} is under way; wait for its end"
        if self._fencing.step in SWITCHING:
            step = self._fencing.step.value
            return f"{what}: its power is being switched ({step}); wait until it is up or down"
        return self._power_refusal(what, turn) if action in POWER else None

    def _power_refusal(self, what: str, turn: Turn) -> str | None:
        record = self._record
        if not record.fence_devices:
            return f"{what}: it has no power management; switch it by hand"
        due_ns = record.timers.get("power_quiet")
        if due_ns is not None:
            left_s = (due_ns - turn.now_ns) / NS_PER_S
            return f"{what}: its power was switched a moment ago; ask again in {left_s:.0f} s"
        return None

    def _carry_out(self, message: m.CommandHost, turn: Turn) -> None:
        action = message.action
        match action:
            case "activate":
                turn.cancel_timer(self._record, "recover")
                self._core.move(HostTrigger.ACTIVATE, "", turn)
                self._start_agent(turn)
            case "maintenance":
                turn.cancel_timer(self._record, "recover")
                self._maintenance.begin(message.timeout_s, turn)
            case "remove":
                self._remove(turn)
            case _:
                assert action in POWER, f"host command {action}"
                turn.set_timer(self._record, "power_quiet", turn.config.fence_quiet_between_s)
                self._fencing.drop(turn)
                self._fencing.begin(cast("FenceIntent", action), turn)

    # ------------------------------------------------------------------ carried out

    def register(self, message: m.RegisterHost, turn: Turn) -> None:
        command, record = message.command, self._record
        record.backend = command.backend
        record.backend_settings = command.backend_settings
        record.silo = command.silo
        record.cpus = command.cpus
        record.memory_bytes = command.memory_bytes
        record.fence_devices = [dict(device) for device in command.fence_devices]
        record.kdump = command.kdump
        record.profile = command.profile
        record.operation_id = message.operation_id
        turn.save(record)
        text = f"host {record.name} was added to cluster {record.cluster}"
        self._core.tell("host_added", text, turn)
        self._start_agent(turn)
        turn.wake_each("watch", turn.config.heartbeat_period_s)

    def _start_agent(self, turn: Turn) -> None:
        turn.set_timer(self._record, "init", turn.config.host_init_timeout_s)
        turn.send(f"agents@{self._record.silo}", self._core.agent_order())

    def _confirm(self, operation_id: str, turn: Turn) -> None:
        """A person's word that the host was restarted or is off: as good as a verified "off"."""
        turn.sometimes("person_confirmed_that_a_host_was_restarted")
        record, core = self._record, self._core
        reason = "a person confirmed that it was restarted"
        core.make_non_responsive(reason, turn)
        self._maintenance.lost(turn)
        if self._fencing.step not in SWITCHING:
            self._fencing.drop(turn)
            core.finish(turn, False, f"host {record.name}: {reason}", Conflict.code)
        core.prove_over(reason, turn)
        turn.record(
            "host_confirmed_rebooted",
            f"host {record.name}: {reason}; what ran on it is gone",
            "warning",
            host=record.name,
            cluster=record.cluster,
            operation_id=operation_id,
        )
        turn.send("engine", m.OperationEnded(operation_id, True))

    def _remove(self, turn: Turn) -> None:
        record, core = self._record, self._core
        turn.send(core.cluster, m.HostLeft(record.name))
        turn.send(core.agent, m.StopAgent(record.name))
        turn.send("engine", m.EntityRemoved("host", record.name, record.host_epoch))
        core.tell("host_removed", f"host {record.name} was removed", turn)
        core.finish(turn, True)
        turn.saved.clear()
        turn.erase(record)
        turn.stop()
