"""Shutting a whole cluster down in order, and starting it again: a saga in the cluster's record.

Shutdown: no machine is placed any more; machines are shut down in waves of ascending priority (the database after
what uses it), a wave that does not obey is stopped; then all hosts go into maintenance. Start: hosts are activated,
then the machines that ran before are started in waves of descending priority.

Rules:
1. What is done next follows from the record and the book alone, so a restart of the engine goes on where it stands.
   Everything that is asked may be asked twice.
2. A wave is over when its machines are: when they hold no host (shutdown), or when each has answered or its time is
   up (start). Nothing is believed to be down because it was told to be.
3. The operation ends at its deadline whatever happens, and names who was waited for.
"""

from __future__ import annotations

from actors.behaviour import Turn
from actors.cluster_book import Book
from olvm.model import messages as m
from olvm.model.errors import Conflict, OperationFailed
from olvm.model.host_states import HostStatus
from olvm.model.records import ReservationRecord

IN_SERVICE = frozenset({HostStatus.UP.value, HostStatus.NON_OPERATIONAL.value, HostStatus.ERROR.value})
LEAVING = frozenset({HostStatus.PREPARING_FOR_MAINTENANCE.value})
OUT_OF_SERVICE = frozenset({HostStatus.MAINTENANCE.value, HostStatus.NON_OPERATIONAL.value})
COMING = frozenset({HostStatus.UNASSIGNED.value, HostStatus.INITIALIZING.value, HostStatus.REBOOT.value})
ENDING_VERBS = frozenset({"shutdown", "stop"})
TIMERS = ("power_deadline", "power_wave", "power_hosts")
NAMES_SHOWN_MAX = 5


class Power:
    def __init__(self, book: Book) -> None:
        self.book = book
        # Hosts that this start has told to come into service; volatile, for all may be asked twice.
        self._activated: set[str] = set()

    @property
    def is_under_way(self) -> bool:
        return self.book.record.power in ("shutting_down", "starting")

    def refusal(self) -> str | None:
        """Why no machine may be placed now; None: it may."""
        record = self.book.record
        if record.power == "shutting_down":
            return f"cluster {record.name} is being shut down; start it when that is over"
        if record.power == "shut_down":
            return f"cluster {record.name} is shut down; start the cluster first"
        return None

    # ------------------------------------------------------------------ commands and deadlines

    def on_command(self, message: m.CommandCluster, turn: Turn) -> None:
        record, verb = self.book.record, message.command.verb
        if record.operation_id == message.operation_id:
            return  # asked twice
        if self.is_under_way:
            why = f"operation {record.operation_id} is under way"
        elif verb == "shutdown" and record.power == "shut_down":
            why = "it is shut down already"
        else:
            self._begin(message, turn)
            return
        reason = f"cannot {verb} cluster {record.name}: {why}"
        turn.send("engine", m.OperationEnded(message.operation_id, False, reason, Conflict.code))

    def _begin(self, message: m.CommandCluster, turn: Turn) -> None:
        record, command = self.book.record, message.command
        record.operation_id = message.operation_id
        record.power_timeout_s = command.timeout_s or turn.config.cluster_power_timeout_s
        record.power_wave = None
        record.power_reasons = {}
        turn.set_timer(record, "power_deadline", record.power_timeout_s)
        if command.verb == "shutdown":
            record.power = "shutting_down"
            self._plan()
        else:
            record.power = "starting"
            self._activated = set()
            # What is left of the time after this is the machines'.
            turn.set_timer(record, "power_hosts", record.power_timeout_s / 2)
        code = "cluster_shutdown_begun" if command.verb == "shutdown" else "cluster_start_begun"
        self._say(code, f"{command.verb} has begun", turn)
        self._watch(turn)
        self.advance(turn)

    def _plan(self) -> None:
        """Who runs now comes back by a start, the most important first."""
        record = self.book.record
        held = sorted(
            self.book.reservations.values(), key=lambda item: (-item.priority, item.vm_name, item.vm_id)
        )
        record.power_plan = [item.vm_id for item in held]
        record.power_names = {item.vm_id: item.vm_name for item in held}
        record.power_addresses = {item.vm_id: item.vm_address for item in held}
        record.power_priorities = {item.vm_id: item.priority for item in held}

    def _watch(self, turn: Turn) -> None:
        turn.wake_each("power", turn.config.query_period_s)

    def recover(self, turn: Turn) -> None:
        if self.is_under_way:
            turn.sometimes("engine_restarts_during_a_cluster_shutdown_or_start")
            self._watch(turn)

    def on_timer(self, name: str, turn: Turn) -> None:
        match name:
            case "power":
                if self.is_under_way:
                    self._watch(turn)
                    self.advance(turn)
            case "power_wave":
                self._wave_is_late(turn)
            case "power_hosts":
                self.advance(turn)
            case "power_deadline":
                self._on_deadline(turn)
            case _:
                raise AssertionError(f"the cluster has no timer {name}")

    def _on_deadline(self, turn: Turn) -> None:
        record = self.book.record
        if not self.is_under_way:
            return
        turn.sometimes("cluster_power_deadline_passes")
        if record.power == "shutting_down":
            waited = self._waited_for(list(self.book.reservations.values())) or self._hosts_text(
                self._hosts_in(IN_SERVICE | LEAVING)
            )
        else:
            names = [record.power_names.get(vm_id, vm_id) for vm_id in record.power_plan]
            waited = self._names_text(names) or "no host is Up"
        reason = f"not done in {record.power_timeout_s:g} s: {waited}"
        self._finish(turn, "running", f"cluster {record.name}: {reason}")

    def _finish(self, turn: Turn, power: str, failure: str = "") -> None:
        record = self.book.record
        done = "cluster_shut_down" if power == "shut_down" else "cluster_started"
        code = "cluster_power_failed" if failure else done
        self._say(code, failure or done.replace("_", " "), turn)
        if record.operation_id is not None:
            code = OperationFailed.code if failure else ""
            turn.send("engine", m.OperationEnded(record.operation_id, not failure, failure, code))
        record.operation_id = None
        record.power = "shut_down" if power == "shut_down" else "running"
        record.power_wave = None
        for name in TIMERS:
            turn.cancel_timer(record, name)
        turn.save(record)

    # ------------------------------------------------------------------ going on

    def advance(self, turn: Turn) -> None:
        """Do what is due. Called when a machine has ended, a host has changed, and each query period."""
        match self.book.record.power:
            case "shutting_down":
                self._advance_shutdown(turn)
            case "starting":
                self._advance_start(turn)
            case "running" | "shut_down":
                pass

    def _advance_shutdown(self, turn: Turn) -> None:
        record, book = self.book.record, self.book
        if book.reservations:
            priority = min(held.priority for held in book.reservations.values())
            if priority != record.power_wave:
                self._open_wave(priority, turn)
                for held in self._wave():
                    turn.send(held.vm_address, m.PowerVm("shutdown"))
                turn.set_timer(record, "power_wave", turn.config.shutdown_timeout_s * 2)
            self._progress(f"waits for {self._waited_for(self._wave())}", turn)
            return
        turn.cancel_timer(record, "power_wave")
        for host in self._hosts_in(IN_SERVICE):
            turn.send(f"host/{host}", m.CommandHost("", "maintenance"))
        waited = self._hosts_in(IN_SERVICE | LEAVING)
        if waited:
            self._progress(self._hosts_text(waited), turn)
        else:
            self._finish(turn, "shut_down")

    def _wave(self) -> list[ReservationRecord]:
        wave = self.book.record.power_wave
        held = [item for item in self.book.reservations.values() if item.priority == wave]
        return sorted(held, key=lambda item: (item.vm_name, item.vm_id))

    def _open_wave(self, priority: int, turn: Turn) -> None:
        record = self.book.record
        record.power_wave = priority
        turn.save(record)

    def _advance_start(self, turn: Turn) -> None:
        record = self.book.record
        coming = self._hosts_in(COMING | OUT_OF_SERVICE)
        if record.power_wave is None and coming and "power_hosts" in record.timers:
            self._activate_hosts(turn)
            self._progress(self._hosts_text(coming), turn)
            return
        turn.cancel_timer(record, "power_hosts")
        if not record.power_plan:
            self._end_start(turn)
            return
        if not self._hosts_in(frozenset({HostStatus.UP.value})):
            self._progress("no host is Up yet", turn)
            return
        priority = max(record.power_priorities[vm_id] for vm_id in record.power_plan)
        if priority != record.power_wave:
            self._open_wave(priority, turn)
            for vm_id in self._planned(priority):
                turn.send(record.power_addresses[vm_id], m.PowerVm("start"))
            turn.set_timer(record, "power_wave", turn.config.launch_timeout_s * 2)
        names = [record.power_names[vm_id] for vm_id in self._planned(priority)]
        self._progress(f"waits for {self._names_text(names)}", turn)

    def _activate_hosts(self, turn: Turn) -> None:
        """A host that lacks something is told once: it would say so at once, again and again; it recovers by itself."""
        for host in self._hosts_in(OUT_OF_SERVICE):
            lacks = self.book.hosts[host].status == HostStatus.NON_OPERATIONAL.value
            if not (lacks and host in self._activated):
                turn.send(f"host/{host}", m.CommandHost("", "activate"))
            self._activated.add(host)

    def _planned(self, priority: int) -> list[str]:
        record = self.book.record
        return [vm_id for vm_id in record.power_plan if record.power_priorities[vm_id] == priority]

    def _end_start(self, turn: Turn) -> None:
        record = self.book.record
        failed = record.power_reasons
        if not failed:
            self._finish(turn, "running")
            return
        shown = "; ".join(f"{name}: {failed[name]}" for name in sorted(failed)[:NAMES_SHOWN_MAX])
        self._finish(turn, "running", f"cluster {record.name}: {len(failed)} machines did not start: {shown}")

    # ------------------------------------------------------------------ what is heard

    def on_powered(self, message: m.VmPowered, turn: Turn) -> None:
        """The answer to an order of a shutdown that failed may come when the cluster is being started again."""
        record = self.book.record
        if record.power == "starting" and message.verb in ENDING_VERBS:
            if message.vm_id in record.power_plan and record.power_wave is not None:
                self._start_again(message.vm_id, turn)
        elif record.power == "starting" and message.vm_id in record.power_plan:
            self._answered(message.vm_id, message.reason or "it is down" if message.down else "", turn)
            self.advance(turn)
        elif record.power == "shutting_down":
            if not message.down and message.verb != "start":
                record.power_reasons[message.vm_name] = message.reason
                turn.save(record)
            self.advance(turn)

    def _start_again(self, vm_id: str, turn: Turn) -> None:
        record = self.book.record
        if record.power_priorities[vm_id] == record.power_wave:
            turn.send(record.power_addresses[vm_id], m.PowerVm("start"))

    def _answered(self, vm_id: str, failure: str, turn: Turn) -> None:
        record = self.book.record
        record.power_plan.remove(vm_id)
        if failure:
            record.power_reasons[record.power_names[vm_id]] = failure
        turn.save(record)

    def _wave_is_late(self, turn: Turn) -> None:
        record = self.book.record
        if record.power == "shutting_down":
            turn.sometimes("cluster_shutdown_stops_a_machine_that_does_not_obey")
            for held in self._wave():
                turn.send(held.vm_address, m.PowerVm("stop"))
        elif record.power == "starting" and record.power_wave is not None:
            for vm_id in self._planned(record.power_wave):
                self._answered(vm_id, f"did not come up in {turn.config.launch_timeout_s * 2:g} s", turn)
        self.advance(turn)

    # ------------------------------------------------------------------ words

    def _hosts_in(self, statuses: frozenset[str]) -> list[str]:
        return [name for name in sorted(self.book.hosts) if self.book.hosts[name].status in statuses]

    def _hosts_text(self, hosts: list[str]) -> str:
        shown = [f"{host} ({self.book.hosts[host].status})" for host in hosts[:NAMES_SHOWN_MAX]]
        more = f" and {len(hosts) - NAMES_SHOWN_MAX} more" if len(hosts) > NAMES_SHOWN_MAX else ""
        return f"waits for host {', '.join(shown)}{more}"

    def _waited_for(self, held: list[ReservationRecord]) -> str:
        reasons = self.book.record.power_reasons
        ordered = sorted(held, key=lambda item: (item.priority, item.vm_name))
        return self._names_text(
            [
                f"{item.vm_name} ({reasons[item.vm_name]})" if item.vm_name in reasons else item.vm_name
                for item in ordered
            ]
        )

    def _names_text(self, names: list[str]) -> str:
        more = f" and {len(names) - NAMES_SHOWN_MAX} more" if len(names) > NAMES_SHOWN_MAX else ""
        return ", ".join(names[:NAMES_SHOWN_MAX]) + more

    def _progress(self, text: str, turn: Turn) -> None:
        record, book = self.book.record, self.book
        if record.operation_id is None:
            return
        # Machines are nine tenths of the way, hosts the rest.
        total = max(1, len(record.power_names))
        left = len(book.reservations) if record.power == "shutting_down" else len(record.power_plan)
        percent = max(0, min(99, 90 * (total - left) // total))
        turn.send("engine", m.OperationProgressed(record.operation_id, percent, text))

    def _say(self, code: str, text: str, turn: Turn) -> None:
        record = self.book.record
        turn.record(
            code,
            f"cluster {record.name}: {text}",
            "error" if code == "cluster_power_failed" else "normal",
            cluster=record.name,
            operation_id=record.operation_id or "",
        )
