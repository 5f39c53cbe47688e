"""The source's side of a simulated live migration.

Decides when the guest stands still, when it is handed over, and when it goes on here. The rule that keeps one copy
running: once `Finish` was sent, the source never goes back by itself, unless the target says that it never will run
this attempt. Before that it may always go back, because a target runs on `Finish` alone.

One timer per migration carries the copying, the repeats, the keep-alives and every time limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TypeAlias, assert_never

import msgspec

from hypervisor_backends.protocol import (
    CallFailed,
    CallSucceeded,
    Done,
    ExitReason,
    FailureCode,
    MigrateDomain,
    MigrationStatistics,
)
from hypervisor_backends.simulated_copying import Copying
from hypervisor_backends.simulated_domain import SimulatedDomain
from hypervisor_backends.simulated_host import SimulatedHost
from hypervisor_backends.simulated_load import draw
from hypervisor_backends.simulated_moving import (
    Abandon,
    Accepted,
    Alive,
    Begin,
    Confirm,
    Finish,
    Gone,
    Got,
    GuestState,
    Last,
    Message,
    Outgoing,
    Refused,
    SourcePhase,
    ToSource,
    ToTarget,
)
from olvm.model.limits import NS_PER_S

Send: TypeAlias = Callable[[str, Message], None]


class Departures:
    """All domains that leave one host. `changed` is called when a migration began or ended here."""

    def __init__(
        self,
        host: SimulatedHost,
        send: Send,
        changed: Callable[[], None],
        share_bytes_per_s: Callable[[], float],
    ) -> None:
        self._host = host
        self._send = send
        self._changed = changed
        self._share_bytes_per_s = share_bytes_per_s
        self._attempt_count = 0

    # ------------------------------------------------------------ what is asked

    def begin(self, domain: SimulatedDomain, request: MigrateDomain, target: str, done: Done) -> None:
        host, now_ns = self._host, self._host.scheduler.now_ns()
        self._attempt_count += 1
        out = Outgoing(
            attempt=f"{host.name}/{host.capabilities.boot_id}/{self._attempt_count}",
            target=target,
            to_epoch=request.to_epoch,
            copying=self._copying(domain, request),
            now_ns=now_ns,
        )
        out.cap_bytes_per_s = request.bandwidth_bytes_per_s or math.inf
        out.may_post_copy = request.post_copy
        out.silence_ns = host.silence_ns(out.attempt)
        out.waiters.append(done)
        if host.faults:
            fault = host.faults.use("migration_fails", domain.vm_id, domain.spec.name)
            out.fails_ns = None if fault is None else now_ns + int(fault.after_s * NS_PER_S)
        domain.outgoing = out
        host.observe_status(domain)
        self._ask(
            out,
            Begin(attempt=out.attempt, vm_id=domain.vm_id, uri=request.to_uri, to_epoch=request.to_epoch),
        )
        self._changed()

    def cancel(self, domain: SimulatedDomain) -> None:
        self._go_on(domain, "migration_cancelled", "cancelled on request")

    def break_off(self, domain: SimulatedDomain, reason: str) -> None:
        self._go_on(domain, "migration_failed", reason)

    def start_post_copy(self, domain: SimulatedDomain) -> None:
        out = domain.outgoing
        assert out is not None, f"domain {domain.vm_id} is not the source of a migration"
        self._stop(domain, out)
        out.copying.begin_rest(self._host.scheduler.now_ns(), self._core_ns(domain))
        out.post_copy = True
        self._host.pause(domain, "POSTCOPY", "its copy runs while memory follows")
        self._ask_finish(domain, out)
        self._rearm(domain, out)

    def statistics(self, domain: SimulatedDomain) -> MigrationStatistics:
        out = domain.outgoing
        assert out is not None, f"domain {domain.vm_id} is not the source of a migration"
        cores, core_ns = domain.core_ns(self._host.scheduler.now_ns(), self._host.identity_of(domain).profile)
        return out.copying.statistics(self._host.scheduler.now_ns(), core_ns, cores, out.post_copy)

    def replan(self) -> None:
        """The bandwidth of this host or of a target is shared anew."""
        now_ns, share_bytes_per_s = self._host.scheduler.now_ns(), self._share_bytes_per_s()
        for domain in self._host.domains.values():
            out = domain.outgoing
            if out is not None:
                rate = min(out.cap_bytes_per_s, out.target_share or math.inf, share_bytes_per_s)
                out.copying.set_rate(math.inf if share_bytes_per_s == math.inf else rate, now_ns)
                self._rearm(domain, out)

    def on_ended(self, domain: SimulatedDomain, out: Outgoing) -> None:
        """The domain is gone from this host while it was being sent."""
        if (out.phase != "finishing" or out.post_copy) and out.phase != "connecting":
            self._abandon(domain, out, "the domain ended at its source")
        text = (
            f"domain {domain.spec.name} ({domain.vm_id}) ended on host {self._host.name} during its migration"
        )
        for done in out.waiters:
            self._host.fail(done, "domain_ended", f"{text}; look for it at its target, or start it again")
        domain.outgoing = None
        self._changed()

    # ------------------------------------------------------------ what the target says

    def on_message(self, domain: SimulatedDomain, out: Outgoing, message: ToSource) -> None:
        if isinstance(message, Confirm) and self._loses_confirm(domain, out):
            return
        out.heard_ns = self._host.scheduler.now_ns()
        match message:
            case Accepted():
                self._on_accepted(domain, out, message)
            case Got() if out.phase == "sending":
                self._succeed(domain, out) if out.post_copy else self._ask_finish(domain, out)
            case Confirm() if out.phase == "finishing":
                self._on_confirm(domain, out)
            case Refused() if out.phase == "finishing":
                self._break_off(domain, out, message.reason)
            case Gone() if out.phase != "finishing":
                self._break_off(domain, out, message.reason)
            case Got() | Confirm() | Refused() | Gone():
                return  # late, or twice
            case _:
                assert_never(message)
        self._progress(domain, out)

    def _on_accepted(self, domain: SimulatedDomain, out: Outgoing, message: Accepted) -> None:
        has_changed = out.target_share != message.share_bytes_per_s
        out.target_share = message.share_bytes_per_s
        if out.phase == "connecting":
            out.pending = None
            out.copying.begin(self._host.scheduler.now_ns(), self._core_ns(domain))
            self._enter(out, "copying")
        elif out.phase == "drained":
            self._ask_last(domain, out)
        if has_changed:
            self.replan()

    def _on_confirm(self, domain: SimulatedDomain, out: Outgoing) -> None:
        if not out.post_copy:
            self._succeed(domain, out)
            return
        out.pending = None
        self._enter(out, "draining")

    def _loses_confirm(self, domain: SimulatedDomain, out: Outgoing) -> bool:
        faults = self._host.faults
        if not out.confirm_is_lost and faults:
            fault = faults.use("migration_loses_confirm", domain.vm_id, domain.spec.name)
            out.confirm_is_lost = fault is not None
        return out.confirm_is_lost

    # ------------------------------------------------------------ as time passes

    def _on_timer(self, domain: SimulatedDomain, out: Outgoing) -> None:
        out.timer = None
        now_ns, is_due = self._host.scheduler.now_ns(), self._move_due_ns(out)
        if out.fails_ns is not None and now_ns >= out.fails_ns:
            self._break_off(domain, out, "the connection to the target broke (planted)")
        elif is_due is not None and now_ns >= is_due:
            self._progress(domain, out)
        elif now_ns >= self._limit_ns(out):
            self._give_up(domain, out)
        elif now_ns >= self._repeat_ns(out):
            self._ask(out, out.pending or Alive(attempt=out.attempt, vm_id=domain.vm_id))
        if domain.outgoing is out:
            self._rearm(domain, out)
        self._host.outbox.drain()

    def _progress(self, domain: SimulatedDomain, out: Outgoing) -> None:
        """Take each step that is due; where copies take no time, all of them."""
        now_ns = self._host.scheduler.now_ns()
        while domain.outgoing is out:
            due_ns = self._move_due_ns(out)
            if due_ns is None or due_ns > now_ns:
                self._rearm(domain, out)
                return
            self._move(domain, out)

    def _move(self, domain: SimulatedDomain, out: Outgoing) -> None:
        now_ns = self._host.scheduler.now_ns()
        if out.phase == "copying":
            if not out.copying.end_iteration(now_ns, self._core_ns(domain)):
                return
            if out.fails_ns is None:
                self._stop(domain, out)
                self._enter(out, "stopping")
                return
        if out.fails_ns is not None:
            self._break_off(domain, out, "the connection to the target broke (planted)")
            return
        out.copying.end_rest()
        if out.phase == "draining":
            self._enter(out, "drained")
            self._ask(out, Alive(attempt=out.attempt, vm_id=domain.vm_id))
        else:
            self._ask_last(domain, out)

    def _stop(self, domain: SimulatedDomain, out: Outgoing) -> None:
        """The switch-over: the guest stands still here, and what goes with it is written down."""
        self._host.freeze(domain)
        out.stopped_ns = self._host.scheduler.now_ns()
        out.state = GuestState(
            status=domain.status,
            pause_code=domain.pause_code,
            paused_from=domain.paused_from,
            step=domain.step,
            remaining_ns=domain.remaining_ns,
            guest_heard=domain.guest_since_ns is not None,
            ignores_shutdown=domain.guest_ignores_shutdown,
            vcpus=domain.spec.vcpus,
            memory_bytes=domain.spec.memory_bytes,
            powered_on_ns=domain.powered_on_ns,
            plugged=dict(domain.plugged),
        )

    def _move_due_ns(self, out: Outgoing) -> int | None:
        if out.copying.rate == 0.0:
            return None
        if out.phase == "copying":
            return out.copying.due_ns()
        return out.copying.rest_due_ns() if out.phase in {"stopping", "draining"} else None

    def _limit_ns(self, out: Outgoing) -> int:
        if out.phase in {"sending", "finishing"}:
            return out.phase_ns + int(self._host.config.migration_confirm_timeout_s * NS_PER_S)
        return out.heard_ns + out.silence_ns

    def _repeat_ns(self, out: Outgoing) -> int:
        config = self._host.config
        is_asking = out.pending is not None or out.phase == "drained"
        period_s = config.migration_repeat_s if is_asking else config.migration_keepalive_s
        return out.asked_ns + int(period_s * NS_PER_S)

    def _rearm(self, domain: SimulatedDomain, out: Outgoing) -> None:
        due_ns = min(self._limit_ns(out), self._repeat_ns(out))
        move_ns = self._move_due_ns(out)
        if move_ns is not None:
            due_ns = min(due_ns, move_ns)
        if out.fails_ns is not None:
            due_ns = min(due_ns, out.fails_ns)
        if out.timer is not None:
            out.timer()
        out.timer = self._host.scheduler.call_at(due_ns, partial(self._on_timer, domain, out))

    def _enter(self, out: Outgoing, phase: SourcePhase) -> None:
        out.phase, out.phase_ns = phase, self._host.scheduler.now_ns()

    # ------------------------------------------------------------ how it ends

    def _succeed(self, domain: SimulatedDomain, out: Outgoing) -> None:
        now_ns = self._host.scheduler.now_ns()
        downtime_ms = math.ceil((now_ns - out.stopped_ns) * 1000 / NS_PER_S)
        value = msgspec.structs.replace(
            self.statistics(domain), progress_percent=100, expected_downtime_ms=downtime_ms
        )
        self._close(domain, out)
        for done in out.waiters:
            self._host.outbox.answer(done, CallSucceeded(value=value))
        text = f"handed over to host {out.target}"
        self._host.end(domain, "stopped", ExitReason.MIGRATION_SUCCEEDED, text)
        self._changed()

    def _break_off(self, domain: SimulatedDomain, out: Outgoing, reason: str) -> None:
        """The target surely does not run it, or, with post-copy, does not have all of it."""
        if out.post_copy:
            text = f"lost during post-copy: {reason}"
            if self._host.config.broken_post_copy_holds:
                self._host.held_vm_ids.add(domain.vm_id)
            self._host.end(domain, "crashed", ExitReason.POSTCOPY_MIGRATION_FAILED, text)
        else:
            self._go_on(domain, "migration_failed", reason)

    def _give_up(self, domain: SimulatedDomain, out: Outgoing) -> None:
        asked_last = "sending" if out.post_copy else "finishing"
        if out.phase == asked_last:
            self._strand(domain, out)
        else:
            self._break_off(domain, out, f"nothing was heard from host {out.target}")

    def _go_on(self, domain: SimulatedDomain, code: FailureCode, reason: str) -> None:
        out = domain.outgoing
        assert out is not None, f"domain {domain.vm_id} is not the source of a migration"
        self._close(domain, out)
        if out.phase != "connecting":  # else it has nobody to tell: the target waits for its time
            self._abandon(domain, out, reason)
        message = (
            f"migration of domain {domain.spec.name} ({domain.vm_id}) from host {self._host.name} "
            f"to host {out.target} ended: {reason}; it goes on at its source"
        )
        for done in out.waiters:
            self._host.fail(done, code, message, can_retry=True)
        self._host.observe_status(domain)
        self._host.thaw(domain)
        self._changed()

    def _strand(self, domain: SimulatedDomain, out: Outgoing) -> None:
        """All was sent and nothing came back: only somebody who knows more may decide."""
        self._close(domain, out)
        domain.ran_elsewhere = out.post_copy
        message = (
            f"migration of domain {domain.spec.name} ({domain.vm_id}): host {out.target} did not confirm that it "
            f"runs; find out there before this copy is continued or destroyed"
        )
        self._host.pause(domain, "POSTMIGRATE", message)
        for done in out.waiters:
            failure = CallFailed(code="timed_out", message=message, outcome_known=False)
            self._host.outbox.answer(done, failure)
        self._changed()

    def _close(self, domain: SimulatedDomain, out: Outgoing) -> None:
        if out.timer is not None:
            out.timer()
            out.timer = None
        domain.outgoing = None

    # ------------------------------------------------------------ words

    def _ask(self, out: Outgoing, message: ToTarget) -> None:
        out.asked_ns = self._host.scheduler.now_ns()
        if not isinstance(message, Alive):
            out.pending = message
        self._send(out.target, message)

    def _ask_last(self, domain: SimulatedDomain, out: Outgoing) -> None:
        self._enter(out, "sending")
        self._ask(out, Last(attempt=out.attempt, vm_id=domain.vm_id))

    def _ask_finish(self, domain: SimulatedDomain, out: Outgoing) -> None:
        assert out.state is not None, f"domain {domain.vm_id} is handed over before it stands still"
        self._enter(out, "finishing")
        self._ask(
            out,
            Finish(attempt=out.attempt, vm_id=domain.vm_id, state=out.state, post_copy=out.post_copy),
        )

    def _abandon(self, domain: SimulatedDomain, out: Outgoing, reason: str) -> None:
        self._send(out.target, Abandon(attempt=out.attempt, vm_id=domain.vm_id, reason=reason))

    def _core_ns(self, domain: SimulatedDomain) -> float:
        host = self._host
        return domain.core_ns(host.scheduler.now_ns(), host.identity_of(domain).profile)[1]

    def _copying(self, domain: SimulatedDomain, request: MigrateDomain) -> Copying:
        host, spec = self._host, domain.spec
        least, most = host.config.dirty_bytes_per_s_min, host.config.dirty_bytes_per_s_max
        dirty_bytes_per_s = least + (most - least) * draw(host.seed, "dirty", domain.vm_id)
        never = host.faults and host.faults.use("migration_never_converges", domain.vm_id, spec.name)
        return Copying(
            memory_bytes=domain.memory_bytes,
            working_set_bytes=domain.memory_bytes * host.identity_of(domain).profile.memory_share,
            dirty_bytes_per_core_ns=dirty_bytes_per_s / spec.vcpus / NS_PER_S,
            downtime_ms=request.downtime_ms,
            auto_converge=request.auto_converge,
            never_converges=bool(never),
        )
