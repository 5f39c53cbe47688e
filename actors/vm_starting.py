"""A machine's way from Down to running: attempts, where they are tried, and when it is started again by itself.

Rules:
1. `epoch` names one attempt to start, or one copy. A placement or answer of another epoch is of another attempt.
2. Nothing is started while it is open whether the attempt before still runs: what calls `_run` has the host's own
   word or a proof that it is over.
3. A highly available machine that ended by no one's wish is started again: at once, then each 30 s ten times, then
   each half hour. The count is durable, so that an engine that restarts does not begin anew.
"""

from __future__ import annotations

from actors.behaviour import Turn
from actors.vm_core import EXIT_ADMIN, EXIT_HOST_SHUTDOWN, EXIT_START_FAILED, LAUNCHING
from actors.vm_size import VmSize
from olvm.model import messages as m
from olvm.model.errors import Conflict, NoCapacity, OperationFailed
from olvm.model.placement_needs import needs_with_hardware
from olvm.model.vm_sizes import Size
from olvm.model.vm_states import VmStatus, VmTrigger

HA_RETRY_S = 30.0  # oVirt: every 30 s, ten times, then every 1800 s
HA_RETRY_SHORT_COUNT = 10
HA_RETRY_LONG_S = 1800.0
PLACE_AGAIN_S = 5.0  # deferred behind machines of higher priority


class VmStarting(VmSize):
    __slots__ = ()

    def _request(self) -> m.PlaceVm:
        record, size = self.record, self._size_held
        return m.PlaceVm(
            record.id,
            record.name,
            record.epoch,
            size.vcpus,
            size.memory_bytes,
            record.pinned_hosts,
            record.tried_hosts,
            record.high_availability,
            record.priority,
            ha_restart=record.status in LAUNCHING and record.operation_id is None,
            leased=record.lease,
            needs=needs_with_hardware(record.needs, record.hardware),
        )

    def _run(self, turn: Turn) -> None:
        """Begin an attempt: from Down or Suspended, or again after one that failed."""
        record = self.record
        assert not record.copy_phase, f"{self.address} begins to run beside its copy on {record.copy_host}"
        record.epoch = self._issue_epoch()
        # Reports of this attempt are known by its epoch; host epochs of another host do not compare.
        self.seen = (0, 0)
        record.host = record.agent = None
        record.boot_id = ""
        record.exit_reason = None
        record.exit_message = ""
        turn.cancel_timer(record, "ha_retry")
        turn.cancel_timer(record, "place")
        if record.status not in LAUNCHING:
            self._move(VmTrigger.RUN_ACCEPTED, turn)
        self._begin_size(turn)
        turn.save(record)
        if record.operation_id is None:
            turn.set_timer(record, "deadline", turn.config.launch_timeout_s)
        turn.send(self.cluster, self._request())

    def _on_placed(self, message: m.VmPlaced, turn: Turn) -> None:
        record = self.record
        if message.epoch == record.epoch and message.host == record.host:
            return  # asked twice, and the same answer
        if message.epoch != record.epoch or record.status not in LAUNCHING:
            turn.sometimes("placement_too_late")
            turn.send(self.cluster, m.ReleaseVm(record.id, message.host, message.epoch))
            return
        if record.host is not None:
            return
        record.host, record.agent, record.boot_id = message.host, message.agent, message.boot_id
        turn.save(record)
        restore = record.status is VmStatus.RESTORING_STATE
        turn.send(message.agent, self._creation(record.epoch, message.boot_id, self._size_held, restore))

    def _creation(self, epoch: int, boot_id: str, size: Size, restore: bool) -> m.CreateDomain:
        record = self.record
        return m.CreateDomain(
            record.id,
            self.full_address,
            epoch,
            record.name,
            size.vcpus,
            size.memory_bytes,
            restore,
            boot_id,
            record.lease,
            record.resume_behavior,
            record.hardware,
        )

    def _on_not_placed(self, message: m.VmNotPlaced, turn: Turn) -> None:
        record = self.record
        if message.epoch != record.epoch or record.status not in LAUNCHING or record.host is not None:
            return
        if message.deferred:
            turn.sometimes("machine_waits_behind_one_of_higher_priority")
            turn.set_timer(record, "place", PLACE_AGAIN_S)
            if record.operation_id is None:  # it waits in a queue, not for an answer
                turn.set_timer(record, "deadline", turn.config.launch_timeout_s)
            return
        tried = f"it failed to start on {', '.join(record.tried_hosts)}; then " if record.tried_hosts else ""
        reason = f"cannot start {record.name}: {tried}{message.reason}"
        self._give_up_launch(reason, NoCapacity.code, turn)

    def _place_again(self, turn: Turn) -> None:
        if self.record.status in LAUNCHING and self.record.host is None:
            turn.send(self.cluster, self._request())

    # ------------------------------------------------------------------ an attempt that failed

    def _end_launch(self, reason: str, turn: Turn) -> None:
        self._move(VmTrigger.LAUNCH_FAILED, turn, reason)
        self.record.host = self.record.agent = None

    def _give_up_launch(self, reason: str, code: str, turn: Turn) -> None:
        record = self.record
        self._end_launch(reason, turn)
        self._say("vm_start_failed", f"did not start: {reason}", turn, "error")
        was_asked_for = record.operation_id is not None
        self._finish(turn, False, reason, code)
        if record.high_availability and not was_asked_for:
            self._schedule_retry(turn)

    def _schedule_retry(self, turn: Turn) -> None:
        record = self.record
        record.ha_attempts += 1
        short = record.ha_attempts <= HA_RETRY_SHORT_COUNT
        turn.set_timer(record, "ha_retry", HA_RETRY_S if short else HA_RETRY_LONG_S)

    def _launch_failed(
        self, host: str, exit_reason: int | None, reason: str, turn: Turn, *, hosts_fault: bool
    ) -> None:
        """The attempt on `host` is over for certain: try another one, at most rerun_count_max in all."""
        record = self.record
        # Whoever asked for a stop meanwhile wants no other attempt, whatever ended this one.
        stopped = exit_reason == EXIT_ADMIN or record.operation_kind == "stop"
        self._release(turn, failed_start=hosts_fault and not stopped)
        if stopped:
            self._end_launch("stopped while starting", turn)
            self._finish(turn, record.operation_kind == "stop", "stopped while starting", Conflict.code)
            return
        record.tried_hosts = [*record.tried_hosts, host]
        if len(record.tried_hosts) >= turn.config.rerun_count_max:
            hosts = ", ".join(record.tried_hosts)
            self._give_up_launch(
                f"cannot start {record.name}: it failed on {len(record.tried_hosts)} hosts ({hosts}), "
                f"last: {reason}",
                OperationFailed.code,
                turn,
            )
            return
        self._say("vm_rerun", f"failed to start on {host} ({reason}); trying another host", turn, "warning")
        if record.operation_id is not None:
            turn.set_timer(record, "deadline", turn.config.launch_timeout_s)
        self._run(turn)

    def _launch_refused(self, message: m.DomainRefused, turn: Turn) -> None:
        """The host did not carry the start out: nothing of this attempt is there."""
        record = self.record
        if record.status not in LAUNCHING:
            return  # Unknown since its deadline: the host is asked until it gives a definite answer
        match message.code:
            case "older_copy" | "other_boot":
                # The host ends the older copy, or has been booted since it was chosen: ask again, on any host.
                if message.code == "other_boot":
                    turn.sometimes("start_refused_as_the_host_was_booted")
                self._start_afresh(turn)
            case "lease_held":
                turn.sometimes("start_refused_as_the_lease_is_held")
                self._release(turn)
                self._give_up_launch(
                    f"cannot start {record.name}: {message.reason}; end that copy, or wait until its host is known",
                    Conflict.code,
                    turn,
                )
            case "lease_unreachable":
                self._launch_failed(message.host, EXIT_START_FAILED, message.reason, turn, hosts_fault=False)
            case _:
                self._launch_failed(message.host, EXIT_START_FAILED, message.reason, turn, hosts_fault=True)

    def _start_afresh(self, turn: Turn) -> None:
        self._release(turn)
        if self.record.operation_kind != "stop":
            self._run(turn)
            return
        self._end_launch("stopped while starting", turn)
        self._finish(turn, True)

    # ------------------------------------------------------------------ high availability

    def _restart(self, turn: Turn) -> None:
        """It is Down for certain, and by no one's wish."""
        self._say("vm_ha_restart", "is highly available and is started again", turn, "warning")
        self.record.tried_hosts = []
        self._run(turn)

    def _retry(self, turn: Turn) -> None:
        if self.record.status is VmStatus.DOWN and self.record.high_availability:
            self.record.tried_hosts = []
            self._run(turn)

    def _launch_lost(self, host: str, reason: str, turn: Turn) -> None:
        """The host is confirmed dead: so is whatever it began."""
        turn.sometimes("host_confirmed_dead_while_starting")
        self._launch_failed(host, EXIT_HOST_SHUTDOWN, reason, turn, hosts_fault=False)
