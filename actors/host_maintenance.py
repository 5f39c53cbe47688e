"""The way of one host into maintenance: its machines are moved off, or it is said which one stays and why.

It decides when the host is empty and when to give up; moving is the cluster's business. Rules:
1. PreparingForMaintenance has a deadline (`maintenance`); past it the operation fails, names every machine that is
   still there with its reason, and the host is back in service.
2. A host that does not answer is not drained: it is empty at once, or its maintenance is given up.
"""

from __future__ import annotations

from actors.behaviour import Turn
from actors.host_core import HostCore
from actors.host_fencing import Fencing
from olvm.model import messages as m
from olvm.model.errors import Conflict, OperationFailed
from olvm.model.host_states import HostStatus, HostTrigger
from olvm.model.limits import MAINTENANCE_BLOCKERS_NAMED_MAX

ASK_PERIOD_S = 5.0
PREPARING = HostStatus.PREPARING_FOR_MAINTENANCE


class Maintenance:
    def __init__(self, core: HostCore, fencing: Fencing) -> None:
        self._core = core
        self._record = core.record
        self._fencing = fencing
        # What the cluster said last, and the most it named; both are asked for again after a restart.
        self._occupancy: m.HostOccupancy | None = None
        self._count_max = 0
        self._told = ""

    @property
    def is_under_way(self) -> bool:
        """Also while the host is silent for a moment and will return to it."""
        record = self._record
        silent = record.status is HostStatus.CONNECTING and record.silent_from == PREPARING.value
        return record.status is PREPARING or silent

    # ------------------------------------------------------------------ begin and go on

    def begin(self, timeout_s: float | None, turn: Turn) -> None:
        self._fencing.drop(turn)
        self._core.move(HostTrigger.MAINTENANCE_REQUESTED, "asked for", turn)
        after_s = turn.config.maintenance_timeout_s if timeout_s is None else timeout_s
        turn.set_timer(self._record, "maintenance", after_s)
        self._occupancy, self._count_max, self._told = None, 0, ""
        self.push(turn)

    def push(self, turn: Turn) -> None:
        """Ask for the machines to be moved, and which are left. Asked again while it lasts."""
        if self._record.status is not PREPARING:
            return
        if "maintenance" not in self._record.timers:  # returned after it had been given up for its silence
            turn.set_timer(self._record, "maintenance", turn.config.maintenance_timeout_s)
        if self._core.silent_s(turn) <= self._core.grace_s(turn):
            turn.send(self._core.cluster, m.DrainHost(self._record.name, "maintenance"))
        turn.send(self._core.cluster, m.AskEmpty(self._record.name))
        turn.wake("drain", ASK_PERIOD_S)

    def on_occupancy(self, message: m.HostOccupancy, turn: Turn) -> None:
        if self._record.status is not PREPARING:
            return
        if not message.vm_names:
            turn.cancel_timer(self._record, "maintenance")
            self._core.move(HostTrigger.EMPTIED, "", turn)
            turn.send(self._core.cluster, m.StopDrain(self._record.name))
            self._core.finish(turn, True)
            return
        self._occupancy = message
        if self._core.silent_s(turn) > self._core.grace_s(turn):
            why = f"host {self._record.name} does not answer and {self._blockers()}"
            self._give_up(f"{why}; their fate must be known first", Conflict.code, turn)
        else:
            self._tell_progress(message, turn)

    def _tell_progress(self, message: m.HostOccupancy, turn: Turn) -> None:
        self._count_max = max(self._count_max, len(message.vm_names))
        text = self._blockers()
        if text == self._told or self._record.operation_id is None:
            return
        self._told = text
        left = self._count_max - len(message.vm_names)
        percent = min(99, 100 * left // self._count_max)
        turn.send("engine", m.OperationProgressed(self._record.operation_id, percent, text))

    def _blockers(self) -> str:
        if self._occupancy is None or not self._occupancy.vm_names:
            return "its cluster has not said which machines are left"
        names, reasons = self._occupancy.vm_names, self._occupancy.reason_by_vm
        shown = [
            f"{name} ({reasons.get(name, 'runs there')})" for name in names[:MAINTENANCE_BLOCKERS_NAMED_MAX]
        ]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        count = "1 machine is" if len(names) == 1 else f"{len(names)} machines are"
        return f"{count} still there: {', '.join(shown)}{more}"

    # ------------------------------------------------------------------ the ways out

    def on_deadline(self, turn: Turn) -> None:
        if not self.is_under_way:
            return
        turn.sometimes("maintenance_deadline_passed")
        why = f"host {self._record.name} was not empty in time: {self._blockers()}"
        self._give_up(f"{why}; move or shut them down, and ask again", OperationFailed.code, turn)

    def cancel_refusal(self) -> str | None:
        if self.is_under_way:
            return None
        record = self._record
        advice = "activate it" if record.status is HostStatus.MAINTENANCE else "there is nothing to do"
        what = f"cannot cancel the maintenance of host {record.name}"
        return f"{what}: it is {record.status.value}, not on its way there; {advice}"

    def cancel(self, turn: Turn) -> None:
        """By a person: the maintenance's own operation fails with that reason."""
        turn.sometimes("maintenance_cancelled")
        self._give_up(f"the maintenance of host {self._record.name} was cancelled", Conflict.code, turn)

    def lost(self, turn: Turn) -> None:
        """The host has fallen silent for good; its operation is ended by whoever saw that."""
        if "maintenance" not in self._record.timers:
            return
        turn.sometimes("host_was_lost_during_its_maintenance")
        turn.cancel_timer(self._record, "maintenance")
        turn.send(self._core.cluster, m.StopDrain(self._record.name))

    def _give_up(self, reason: str, code: str, turn: Turn) -> None:
        record, core = self._record, self._core
        turn.cancel_timer(record, "maintenance")
        turn.send(core.cluster, m.StopDrain(record.name))
        if record.status is HostStatus.CONNECTING:
            record.silent_from = HostStatus.UP.value
            turn.save(record)
        elif core.silent_s(turn) > core.grace_s(turn):
            core.make_non_responsive(reason, turn)
        else:
            core.move(HostTrigger.MAINTENANCE_CANCELLED, reason, turn, "warning")
        core.finish(turn, False, reason, code)
        if record.status is HostStatus.NON_RESPONSIVE:
            self._fencing.begin("not_responding", turn)
