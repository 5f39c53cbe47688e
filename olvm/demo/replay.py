"""Plays the tenants against a data center: a pool of operations in flight, driven by one thread.

Decides when each request is sent; what is sent next is the tenant's decision. It notes every acknowledgement that
it gets, so that the report can hold the journal to them.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable

import msgspec

from olvm.api.data_center import DataCenter
from olvm.api.operation import Operation
from olvm.demo.plan import Plan, PlannedVm
from olvm.demo.tenants import STATE_DURING, Next, Tenant, Verb
from olvm.model.errors import OlvmError, WaitTimeout

IN_FLIGHT_MAX = 1000
TICK_S = 0.005  # also the error of latencies measured here
SETTLE_S_MAX = 45.0
GO_ON_S_MAX = 150.0
QUIET_S = 1.5  # nothing in flight and nothing due for this long: the story is over


class InFlight(msgspec.Struct, kw_only=True):
    tenant: Tenant
    verb: Verb
    operation: Operation
    sent_s: float
    acknowledged: bool = False


class Ledger(msgspec.Struct, kw_only=True):
    """What the data center told the driver."""

    sent: int = 0
    acknowledged: set[str] = msgspec.field(default_factory=set)  # operation ids
    ends: dict[str, str] = msgspec.field(default_factory=dict)  # operation id -> succeeded, failed
    refusals: Counter[str] = msgspec.field(default_factory=Counter)  # code -> how many, never accepted
    start_latencies_s: list[float] = msgspec.field(default_factory=list)
    accept_latencies_s: list[float] = msgspec.field(default_factory=list)

    def note(self, operations: Iterable[Operation]) -> None:
        """What others than the tenants asked for, accepted and ended or not."""
        for operation in operations:
            self.sent += 1
            self.acknowledged.add(operation.id)
            if operation.done:
                self.ends[operation.id] = operation.status


class Replay:
    """Run one plan. All methods belong to the caller's thread but `tell`."""

    def __init__(self, dc: DataCenter, plan: Plan) -> None:
        self._dc = dc
        self.plan = plan
        self.tenants = {vm.name: Tenant(vm=vm) for vm in plan.vms}
        self.ledger = Ledger()
        self._in_flight: list[InFlight] = []
        self._due: list[tuple[float, int, Tenant, Verb]] = []
        self._order = itertools.count()
        self._told: deque[tuple[str, str]] = deque()
        self._began_s = 0.0
        for tenant in self.tenants.values():
            self._schedule(tenant, Next("create", tenant.vm.arrive_s))

    @property
    def now_s(self) -> float:
        return time.monotonic() - self._began_s if self._began_s else 0.0

    @property
    def in_flight_count(self) -> int:
        return len(self._in_flight)

    def count(self, state: str) -> int:
        return sum(tenant.state == state for tenant in self.tenants.values())

    def tell(self, vm_name: str, event: str) -> None:
        """Pass on an event of the data center. Safe from any thread."""
        self._told.append((vm_name, event))

    def run(self, on_tick: Callable[[], None], is_disturbed: Callable[[], bool]) -> None:
        """Play until all is done and quiet; `is_disturbed` says that a crash is still being measured."""
        self._began_s = time.monotonic()
        self._until_quiet(self.plan.seconds, self.plan.seconds + SETTLE_S_MAX, on_tick, is_disturbed)

    def go_on(self, on_tick: Callable[[], None], is_disturbed: Callable[[], bool]) -> None:
        """After `run`: the tenants look after their machines for as long as something is done to the fleet."""
        self._until_quiet(self.now_s, self.now_s + GO_ON_S_MAX, on_tick, is_disturbed)

    def _until_quiet(
        self, from_s: float, deadline_s: float, on_tick: Callable[[], None], is_disturbed: Callable[[], bool]
    ) -> None:
        """Not before `from_s` of the replay's clock."""
        quiet_since_s = from_s
        with self._dc.pipelined():
            while self.now_s < deadline_s:
                busy = self._step() or bool(self._due) or is_disturbed() or not self._all_back()
                if busy or self.now_s < from_s:
                    quiet_since_s = max(self.now_s, from_s)
                elif self.now_s - quiet_since_s > QUIET_S:
                    return
                on_tick()
                time.sleep(TICK_S)

    def _all_back(self) -> bool:
        """Every running machine was last reported up: the highly available ones came back."""
        return all(tenant.reported_up for tenant in self.tenants.values() if tenant.state == "running")

    def _step(self) -> bool:
        """One look at everything; true when there is something in flight."""
        while self._told:
            name, event = self._told.popleft()
            tenant = self.tenants.get(name)
            if tenant is not None:
                self._schedule(tenant, tenant.heard(event, self.now_s))
        self._in_flight = [flight for flight in self._in_flight if not self._has_ended(flight)]
        now_s = self.now_s
        while self._due and self._due[0][0] <= now_s and len(self._in_flight) < IN_FLIGHT_MAX:
            _, _, tenant, verb = heapq.heappop(self._due)
            self._send(tenant, verb)
        return bool(self._in_flight)

    def _schedule(self, tenant: Tenant, following: Next | None) -> None:
        if following is not None:
            heapq.heappush(self._due, (following.at_s, next(self._order), tenant, following.verb))

    # ------------------------------------------------------------------ requests

    def _send(self, tenant: Tenant, verb: Verb) -> None:
        if not tenant.may_ask(verb):
            return
        tenant.state = STATE_DURING[verb]
        self.ledger.sent += 1
        operation = self._ask(tenant.vm, verb)
        self._in_flight.append(InFlight(tenant=tenant, verb=verb, operation=operation, sent_s=self.now_s))

    def _ask(self, vm: PlannedVm, verb: Verb) -> Operation:
        handle = self._dc.vms[vm.name]
        match verb:
            case "create":
                return self._dc.vms.create_later(
                    vm.name,
                    cluster=vm.cluster,
                    vcpus=vm.vcpus,
                    memory=vm.memory_bytes,
                    high_availability=vm.high_availability,
                    priority=vm.priority,
                    lease=vm.lease,
                )
            case "start":
                return handle.start()
            case "stop":
                return handle.stop()
            case "remove":
                return handle.remove()

    def _has_ended(self, flight: InFlight) -> bool:
        operation, now_s = flight.operation, self.now_s
        if not flight.acknowledged:
            try:
                operation.accepted(0)
            except WaitTimeout:
                return False
            except OlvmError as refusal:
                self.ledger.refusals[refusal.code] += 1
                self._schedule(flight.tenant, flight.tenant.answered(flight.verb, refusal.code, now_s))
                return True
            flight.acknowledged = True
            self.ledger.acknowledged.add(operation.id)
            self.ledger.accept_latencies_s.append(now_s - flight.sent_s)
        if not operation.done:
            return False
        view = operation.view
        self.ledger.ends[view.id] = view.status
        if flight.verb == "start" and view.status == "succeeded":
            self.ledger.start_latencies_s.append(now_s - flight.sent_s)
        code = "" if view.status == "succeeded" else view.error_code or "operation_failed"
        self._schedule(flight.tenant, flight.tenant.answered(flight.verb, code, now_s))
        return True
