"""A machine's second copy, whatever it is for: its place, its authority, its promotion, and what is left of it.

Rules:
1. There is at most one copy beside the machine itself. Its fields are `copy_*`; it is known by (host, epoch).
2. A copy that is given up is ended by its own epoch and remembered as a stray, with its reservation, until its host
   says that it is over, its host has moved on to a later epoch, or its host is confirmed dead.
3. A copy on a host that is neither the machine's nor the second copy's is a ghost and is ended by its own epoch.
   A copy of an epoch that was never given out is not touched: it is somebody's later authority.
"""

from __future__ import annotations

from actors.behaviour import Turn
from actors.vm_running import VmRunning
from olvm.model import messages as m
from olvm.model.placement_needs import needs_with_hardware
from olvm.model.records import Stray
from olvm.model.vm_sizes import Size
from olvm.model.vm_states import VmStatus

# What a copy is before it runs.
NOT_RUNNING_YET = frozenset({VmStatus.WAIT_FOR_LAUNCH, VmStatus.MIGRATING_TO, VmStatus.RESTORING_STATE})
# Phases in which an agent may hold the copy.
PLACED = frozenset({"preparing", "copying", "settling", "starting"})
UNRESOLVED = frozenset({"copying", "settling"})


class VmCopies(VmRunning):
    __slots__ = ()

    # ------------------------------------------------------------------ its place

    def _seek_copy(self, kind: m.CopyKind, reason: m.MoveReason, to_host: str, turn: Turn) -> None:
        record = self.record
        record.copy_phase, record.copy_kind, record.copy_reason = "placing", kind, reason
        record.copy_to_host, record.copy_host, record.copy_agent, record.copy_boot_id = to_host, "", "", ""
        record.copy_epoch = self._issue_epoch()
        record.copy_source_word = record.copy_target_word = ""
        record.copy_cancelled = False
        record.copy_begun_ns = turn.now_ns
        record.copy_data_bytes = record.copy_downtime_ms = 0
        # A takeover is another life, which begins as the machine is defined.
        size = self._size_held if kind == "migration" else Size(record.vcpus, record.memory_bytes)
        record.copy_vcpus, record.copy_memory_bytes = size
        self.copy_seen = (0, 0)
        self._ask_for_copy(turn)

    def _ask_for_copy(self, turn: Turn) -> None:
        """Ask, or ask again: the same epoch has the same answer."""
        record = self.record
        turn.set_timer(record, "copy", turn.config.migration_retry_s)
        excluded, size = record.copy_tried_hosts, self._copy_size
        if record.copy_kind == "takeover":
            excluded = [record.host or "", *excluded]
        turn.send(
            self.cluster,
            m.PlaceCopy(
                record.id,
                record.name,
                record.copy_epoch,
                record.copy_kind,  # type: ignore[arg-type]
                record.host or "",
                size.vcpus,
                size.memory_bytes,
                record.copy_reason,  # type: ignore[arg-type]
                record.copy_to_host,
                record.pinned_hosts,
                excluded,
                record.high_availability,
                record.priority,
                record.lease,
                record.migration_policy,
                needs_with_hardware(record.needs, record.hardware),
            ),
        )

    def _take_place(self, message: m.CopyPlaced, turn: Turn) -> bool:
        """Whether the answer is to the question that is open; a late one gives its capacity back."""
        record = self.record
        if message.epoch != record.copy_epoch or record.copy_phase != "placing":
            held = [record.epoch, record.copy_epoch, *(stray.epoch for stray in record.strays)]
            if message.epoch not in held:
                turn.sometimes("copy_placed_too_late")
                turn.send(self.cluster, m.ReleaseVm(record.id, message.host, message.epoch))
            return False
        record.copy_host, record.copy_agent = message.host, message.agent
        record.copy_boot_id = message.boot_id
        record.copy_policy, record.copy_bandwidth_mib_s = message.migration_policy, message.bandwidth_mib_s
        turn.save(record)
        return True

    # ------------------------------------------------------------------ its end

    def _give_up_copy(self, turn: Turn) -> None:
        """Rule 2, whatever its phase."""
        record = self.record
        if record.copy_phase == "placing":
            turn.send(self.cluster, m.ReleaseVm(record.id, "", record.copy_epoch))
        elif record.copy_phase in PLACED:
            self._command_copy("destroy", turn)
            takeover = record.copy_kind == "takeover"
            self._leave_copy(turn, may_run=takeover, end_ordered=takeover)
            return
        self._clear_copy(turn)

    def _leave_copy(self, turn: Turn, *, may_run: bool = False, end_ordered: bool = False) -> None:
        """It is a stray from now on."""
        record = self.record
        self._add_stray(
            Stray(
                record.copy_host,
                record.copy_agent,
                record.copy_epoch,
                record.copy_boot_id,
                *self.copy_seen,
                may_run,
                end_ordered,
                *self._copy_size,
            )
        )
        self._clear_copy(turn)

    def _clear_copy(self, turn: Turn) -> None:
        record = self.record
        record.copy_phase = record.copy_kind = record.copy_reason = ""
        record.copy_to_host = record.copy_host = record.copy_agent = record.copy_boot_id = ""
        record.copy_policy = ""
        record.copy_epoch = record.copy_vcpus = record.copy_memory_bytes = 0
        record.copy_source_word = record.copy_target_word = ""
        record.copy_cancelled = False
        self.copy_seen = (0, 0)
        turn.cancel_timer(record, "copy")
        turn.save(record)

    def _release_copy(self, turn: Turn) -> None:
        """It is over for certain."""
        record = self.record
        turn.send(self.cluster, m.ReleaseVm(record.id, record.copy_host, record.copy_epoch))

    def _command_copy(self, verb: str, turn: Turn) -> None:
        record = self.record
        turn.send(record.copy_agent, m.CommandDomain(record.id, record.copy_epoch, verb))  # type: ignore[arg-type]

    def _ask_copy(self, turn: Turn) -> None:
        record = self.record
        turn.tell(record.copy_agent, m.QueryDomain(record.id, self.full_address, record.copy_epoch))

    def _is_copy_news(self, message: m.DomainReported, turn: Turn) -> bool:
        if (message.host_epoch, message.seq) <= self.copy_seen:
            turn.sometimes("copy_report_out_of_order")
            return False
        self.copy_seen = (message.host_epoch, message.seq)
        return True

    def _acknowledge(self, message: m.DomainReported, turn: Turn) -> None:
        if not message.absent:
            turn.send(message.agent, m.ForgetDomain(self.record.id, message.domain.epoch))

    def _promote(self, turn: Turn, *, old_is_over: bool) -> None:
        """The copy is the machine from now on; the status is the caller's business."""
        record = self.record
        old_host, copy_size = record.host or "", self._copy_size
        is_new_life = record.copy_kind == "takeover"
        turn.send(self.cluster, m.PromoteCopy(record.id, record.copy_epoch, old_host, record.epoch))
        if old_is_over:
            self._release(turn)
        else:
            self._add_stray(Stray(old_host, record.agent or "", record.epoch, record.boot_id, *self.seen))
        record.host, record.agent = record.copy_host, record.copy_agent
        record.boot_id, record.epoch = record.copy_boot_id, record.copy_epoch
        self.seen = self.copy_seen
        self._clear_copy(turn)
        self._size_of_promoted(copy_size, turn, is_new_life=is_new_life)

    # ------------------------------------------------------------------ strays and ghosts

    def _add_stray(self, stray: Stray) -> None:
        self.record.strays = (*self.record.strays, stray)

    def _drop_stray(self, stray: Stray, turn: Turn) -> None:
        record = self.record
        record.strays = tuple(one for one in record.strays if one is not stray)
        turn.send(self.cluster, m.ReleaseVm(record.id, stray.host, stray.epoch))
        turn.save(record)

    def _stray(self, host: str, epoch: int) -> Stray | None:
        for stray in self.record.strays:
            if stray.host == host and stray.epoch == epoch:
                return stray
        return None

    def _drop_overtaken_strays(self, host: str, epoch: int, turn: Turn) -> None:
        """A host that speaks of a later epoch holds nothing of an earlier one any more."""
        for stray in self.record.strays:
            if stray.host == host and stray.epoch < epoch:
                self._drop_stray(stray, turn)

    def _drop_dead_strays(self, host: str, boot_id: str, turn: Turn) -> None:
        for stray in self.record.strays:
            if stray.host == host and stray.boot_id in ("", boot_id):
                turn.sometimes("host_of_a_stray_confirmed_dead")
                self._drop_stray(stray, turn)

    def _ask_stray(self, host: str, epoch: int, turn: Turn) -> None:
        record = self.record
        for stray in record.strays:
            if stray.host == host and epoch in (0, stray.epoch):
                turn.tell(stray.agent, m.QueryDomain(record.id, self.full_address, stray.epoch))

    def _on_other_report(self, message: m.DomainReported, turn: Turn) -> None:
        """Of a copy that is neither the machine nor its second copy."""
        record, domain = self.record, message.domain
        stray = self._stray(message.host, domain.epoch)
        if domain.epoch > max(record.epoch, record.epoch_issued):
            return
        if message.absent or domain.status is VmStatus.DOWN:
            self._acknowledge(message, turn)
            if stray is not None:
                self._drop_stray(stray, turn)
            elif message.host != record.host:
                turn.send(self.cluster, m.ReleaseVm(record.id, message.host, domain.epoch))
        elif message.host == record.host:
            turn.sometimes("stale_report_after_another_attempt")
        elif stray is None or (message.host_epoch, message.seq) > (stray.seen_host_epoch, stray.seen_seq):
            self._end_ghost(message, stray is not None, turn)

    def _end_ghost(self, message: m.DomainReported, is_stray: bool, turn: Turn) -> None:
        """Rule 3. A waiting copy elsewhere while this machine is Unknown is left alone: better keep Unknown.

        A source that still sends, or serves memory to its target, ends by itself; destroying it could cost the
        machine.
        """
        domain = message.domain
        if not is_stray and self.record.status is VmStatus.UNKNOWN and domain.status in NOT_RUNNING_YET:
            turn.sometimes("waiting_ghost_of_an_unknown_machine")
            return
        if is_stray and (domain.status is VmStatus.MIGRATING_FROM or domain.pause_code == "POSTCOPY"):
            turn.sometimes("source_still_sends_after_the_hand_over")
            return
        turn.sometimes("ghost_ended")
        self._say("vm_ghost", f"had a stray copy on {message.host}, which is ended", turn, "warning")
        turn.send(message.agent, m.CommandDomain(self.record.id, domain.epoch, "destroy"))
