"""The ports of a host silo, with real agents over simulated hosts: leases, migration and fencing as a whole."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from actors.fence_port import Fence
from actors.hypervisor_port import FoundDomain, HostSeen, HypervisorPort, LookAround
from actors.lease_port import CheckLease, LeaveLease, RenewLease, TakeLease
from hypervisor_backends.fencing import FenceAnswer
from hypervisor_backends.measurements import DomainStatistics, HostStatistics
from hypervisor_backends.protocol import (
    ArmWatchdog,
    CallFailed,
    CallSucceeded,
    Capabilities,
    DomainList,
    DomainSpec,
    DomainState,
    Done,
    HypervisorBackend,
    HypervisorRequest,
    ListDomains,
    Listener,
    StartDomain,
)
from olvm.model import messages as m
from olvm.model.hardware import Hardware
from tests.unit.actors.host_bench import MEMORY_BYTES, VM, HostBench


@pytest.fixture
def bench() -> Iterator[HostBench]:
    made = HostBench()
    yield made
    assert made.silo.fault_count == 0, "a turn failed"


def prepare(bench: HostBench, *, leased: bool = True, epoch: int = 4) -> None:
    order = m.PrepareIncoming("v1", VM, epoch, "web", 1, MEMORY_BYTES, "H1", leased=leased)
    bench.say("agent/H2", order)
    bench.run(1)


def migrate(bench: HostBench, *, policy: str = "minimal_downtime", mib_s: float = 100.0) -> None:
    ready = next(one for one in bench.vm.heard if isinstance(one, m.IncomingReady))
    bench.say("agent/H1", m.MigrateDomain("v1", 3, "H2", 4, ready.uri, policy, mib_s))


# ---------------------------------------------------------------------- what is under way


def test_agent_restarted_in_its_process_waits_for_the_start_that_is_under_way(bench: HostBench) -> None:
    hypervisor, asked = bench.hypervisors["H1"], list[str]()
    submit = hypervisor.submit

    def listen(request: HypervisorRequest, done: Done) -> None:
        asked.append(type(request).__name__)
        submit(request, done)

    hypervisor.submit = listen  # type: ignore[method-assign]
    bench.say("agent/H1", m.CreateDomain("v1", VM, 3, "web", 1, MEMORY_BYTES))
    bench.run(0.2)
    bench.say("agents", m.RestartAgent("H1"))
    bench.run(10)
    assert asked.count("StartDomain") == 1
    assert bench.heard()[-1] == ("H1", 3, "up", None)


# ---------------------------------------------------------------------- leases


def test_leased_machine_runs_with_its_lease_and_gives_it_back_when_it_ends(bench: HostBench) -> None:
    bench.started()
    assert (bench.runs(), bench.holders()) == ({"H1": "up"}, ["H1"])
    bench.say("agent/H1", m.CommandDomain("v1", 3, "destroy"))
    bench.run(1)
    assert (bench.runs(), bench.holders(), bench.heard()[-1]) == ({}, [], ("H1", 3, "down", 6))


def test_leased_start_elsewhere_is_refused_as_long_as_the_holder_renews(bench: HostBench) -> None:
    bench.started()
    bench.say("agent/H2", m.CreateDomain("v1", VM, 4, "web", 1, MEMORY_BYTES, leased=True))
    bench.run(40)
    (refused,) = [one for one in bench.vm.heard if isinstance(one, m.DomainRefused)]
    assert (refused.host, refused.code) == ("H2", "lease_held")
    assert (bench.runs(), bench.holders()) == ({"H1": "up"}, ["H1"])


def test_leased_machine_is_stopped_by_its_host_when_the_storage_is_away_and_taken_over_elsewhere(
    bench: HostBench,
) -> None:
    bench.started()
    bench.storage_faults.cut("H1")
    bench.say("agent/H2", m.CreateDomain("v1", VM, 4, "web", 1, MEMORY_BYTES, leased=True))
    bench.run(60)
    assert bench.runs() == {"H2": "up"}
    assert ("H1", 3, "down", 1) in bench.heard()
    assert bench.record("H1").lease_taken  # not left yet: the storage does not answer
    bench.storage_faults.heal("H1")
    bench.run(10)
    assert (bench.holders(), bench.record("H1").lease_taken) == (["H2"], False)


def test_start_without_the_lease_is_stopped_at_the_port_whatever_the_agent_believed(bench: HostBench) -> None:
    spec = DomainSpec(name="web", vcpus=1, memory_bytes=MEMORY_BYTES, leased=True)
    start = StartDomain(vm_id="v1", epoch=3, spec=spec)
    bench.silo.ports["hypervisor"].submit("agent/H1", start, "start/v1/3")
    bench.run(1)
    assert bench.runs() == {}
    bench.lease_port.submit("vm/v1", TakeLease("H1", "v1", 3), "take")
    bench.silo.ports["hypervisor"].submit("agent/H1", start, "start/v1/3")
    bench.run(5)
    assert bench.runs() == {"H1": "up"}


def test_lease_port_answers_with_the_outcome_as_code(bench: HostBench) -> None:
    port = bench.lease_port
    port.submit("vm/v1", TakeLease("H1", "v1", 5), "take")
    port.submit("vm/v1", TakeLease("H2", "v1", 4), "stale")
    port.submit("vm/v1", LeaveLease("H1", "v1", 5), "leave")
    port.submit("vm/v1", CheckLease("H2", "H1"), "check")
    port.submit("vm/v1", TakeLease("H3", "v1", 6), "closed")
    bench.run(10)
    answers = [one for one in bench.vm.heard if isinstance(one, m.CallEnded)]
    assert {one.tag: (one.ok, one.code) for one in answers} == {
        "take": (True, ""),
        "stale": (False, "stale"),
        "leave": (True, ""),
        "check": (True, ""),
        "closed": (False, "host_down"),
    }
    assert next(one.value for one in answers if one.tag == "check") == b"live"


def renewals_answered(bench: HostBench, seconds: float) -> list[bool]:
    """How the renewals of a listener, one each 5 s, are answered."""
    before = len(bench.vm.heard)
    for _ in range(int(seconds / 5)):
        bench.lease_port.submit("vm/v1", RenewLease("H1"), "renew")
        bench.run(5)
    return [one.ok for one in bench.vm.heard[before:] if isinstance(one, m.CallEnded)]


def test_renewal_is_answered_when_it_fails_and_when_it_works_again_and_not_else(bench: HostBench) -> None:
    assert renewals_answered(bench, 20) == []
    bench.storage_faults.cut("H1")
    failed = renewals_answered(bench, 30)
    assert len(failed) >= 3  # each is answered within the storage's time-out
    assert not any(failed)
    bench.storage_faults.heal("H1")
    bench.run(10)
    assert renewals_answered(bench, 20).count(True) == 1


def test_agent_whose_storage_hangs_says_so_until_it_answers_again(bench: HostBench) -> None:
    agent = next(one for one in bench.agents() if one.record.host == "H1")
    bench.storage_faults.cut("H1")
    bench.run(25)
    assert agent.leases.problems() == ["storage_domain_unreachable"]
    bench.storage_faults.heal("H1")
    bench.run(15)
    assert agent.leases.problems() == []


class Inner:
    """A hypervisor before another one, which does all that it is not said to do itself."""

    def __init__(self, inner: HypervisorBackend) -> None:
        self._inner = inner

    @property
    def capabilities(self) -> Capabilities:
        return self._inner.capabilities

    def submit(self, request: HypervisorRequest, done: Done) -> None:
        self._inner.submit(request, done)

    def set_listener(self, listener: Listener | None) -> None:
        self._inner.set_listener(listener)

    def domains(self) -> list[DomainState]:
        return self._inner.domains()

    def statistics(self) -> tuple[HostStatistics, list[DomainStatistics]]:
        return self._inner.statistics()

    def close(self) -> None:
        self._inner.close()


class Unarmable(Inner):
    """Its watchdog refuses, until it is let."""

    refuses = True

    def submit(self, request: HypervisorRequest, done: Done) -> None:
        if self.refuses and isinstance(request, ArmWatchdog):
            done(CallFailed(code="lease_expired", message="host H1 was suspended"))
        else:
            super().submit(request, done)


def test_agent_whose_watchdog_is_not_armed_hears_of_it_with_its_renewals(bench: HostBench) -> None:
    hypervisors = bench.silo.ports["hypervisor"]
    assert isinstance(hypervisors, HypervisorPort)
    watchdog = hypervisors.backends["H1"] = Unarmable(hypervisors.backends["H1"])
    bench.lease_port.keepers.clear()  # as before the host's first renewal
    agents = {one.record.host: one for one in bench.agents()}
    bench.run(25)
    assert agents["H1"].leases.problems() == ["watchdog_not_armed"]
    assert agents["H2"].leases.problems() == []
    watchdog.refuses = False
    bench.run(15)
    assert agents["H1"].leases.problems() == []


# ---------------------------------------------------------------------- what runs


class Equipped(Inner):
    """A hypervisor that says what hardware its domains have."""

    hardware = Hardware(vcpus_max=8)

    def domains(self) -> list[DomainState]:
        return [msgspec.structs.replace(one, hardware=self.hardware) for one in self._inner.domains()]

    def submit(self, request: HypervisorRequest, done: Done) -> None:
        if isinstance(request, ListDomains):
            done(CallSucceeded(value=DomainList(domains=tuple(self.domains()))))
        else:
            super().submit(request, done)


def test_hardware_is_told_to_who_asks_for_the_list_and_not_each_time_that_a_host_is_looked_at(
    bench: HostBench,
) -> None:
    bench.started(leased=False)
    hypervisors = bench.silo.ports["hypervisor"]
    assert isinstance(hypervisors, HypervisorPort)
    hypervisors.backends["vm/v1"] = Equipped(hypervisors.backends["H1"])  # the listener asks for its own
    hypervisors.submit("vm/v1", ListDomains(), "list")
    hypervisors.submit("vm/v1", LookAround("vm/v1"), "look")
    bench.run(1)
    answers = {one.tag: one.value for one in bench.vm.heard if isinstance(one, m.CallEnded)}
    listed = msgspec.msgpack.decode(answers["list"], type=dict[str, FoundDomain])
    looked = msgspec.msgpack.decode(answers["look"], type=HostSeen)
    assert listed["v1"].hardware == Equipped.hardware
    assert looked.found["v1"].hardware is None


# ---------------------------------------------------------------------- migration


def test_leased_machine_migrates_with_both_hosts_as_holders_until_it_is_handed_over(bench: HostBench) -> None:
    bench.started()
    prepare(bench)
    assert bench.holders() == ["H1", "H2"]
    migrate(bench, mib_s=5.0)
    bench.run(60)
    assert (bench.runs(), bench.holders()) == ({"H2": "up"}, ["H2"])
    assert ("H1", 3, "down", 4) in bench.heard()
    assert ("H2", 4, "up", None) in bench.heard()
    assert any(isinstance(one, m.MigrationProgressed) for one in bench.vm.heard)


def test_migration_cancelled_leaves_the_machine_where_it_was(bench: HostBench) -> None:
    bench.started(leased=False)
    prepare(bench, leased=False)
    migrate(bench, mib_s=1.0)
    bench.run(5)
    assert bench.runs() == {"H1": "migrating_from", "H2": "migrating_to"}
    bench.say("agent/H1", m.CancelMigration("v1", 3))
    bench.run(1)
    (failed,) = [one for one in bench.vm.heard if isinstance(one, m.MigrationFailed)]
    assert (failed.to_epoch, failed.code) == (4, "migration_cancelled")
    bench.say("agent/H2", m.CommandDomain("v1", 4, "destroy"))
    bench.run(1)
    assert bench.runs() == {"H1": "up"}
    assert bench.heard()[-1] == ("H2", 4, "down", 8)


def test_migration_goes_on_over_a_restart_of_both_agents_and_is_heard_of_by_them(bench: HostBench) -> None:
    bench.started()
    prepare(bench)
    migrate(bench, mib_s=4.0)
    bench.run(5)
    bench.restart()
    bench.run(100)
    assert (bench.runs(), bench.holders()) == ({"H2": "up"}, ["H2"])
    assert ("H2", 4, "up", None) in bench.heard()
    assert ("H1", 3, "down", 4) in bench.heard()


def test_migration_that_does_not_converge_is_given_up_by_its_policy(bench: HostBench) -> None:
    bench.started(leased=False)
    prepare(bench, leased=False)
    migrate(bench, mib_s=1.0)
    bench.run(1_500)
    failed = [one for one in bench.vm.heard if isinstance(one, m.MigrationFailed)]
    assert [one.code for one in failed] == ["not_converging"]
    assert bench.record("H1").schedule_step == 6


# ---------------------------------------------------------------------- fencing


def test_fence_port_answers_with_what_the_device_says(bench: HostBench) -> None:
    device: dict[str, str | int | float | bool] = {"type": "simulated"}
    bench.silo.ports["fence"].submit("vm/v1", Fence(device, "H2", "status"), "status")
    bench.silo.ports["fence"].submit("vm/v1", Fence({"type": "ipmi"}, "H2", "off"), "unknown")
    bench.run(1)
    answers = [one for one in bench.vm.heard if isinstance(one, m.CallEnded)]
    read = {one.tag: msgspec.msgpack.decode(one.value, type=FenceAnswer) for one in answers}
    assert (read["status"].power, read["unknown"].ok) == ("on", False)


@pytest.mark.parametrize(("late_ns", "is_on"), [(0, False), (1, True)])
def test_order_to_switch_that_a_commit_has_kept_for_too_long_is_not_sent(
    bench: HostBench, late_ns: int, is_on: bool
) -> None:
    until_ns = bench.time.now_ns()
    bench.time.advance(late_ns / 1e9)

    order = Fence({"type": "simulated"}, "H2", "off", not_after_ns=until_ns)
    bench.silo.ports["fence"].submit("vm/v1", order, "off")
    bench.run(1)

    (answer,) = [one for one in bench.vm.heard if isinstance(one, m.CallEnded)]
    assert answer.ok is not is_on
    assert ("H2" not in bench.off) is is_on


def test_host_fenced_through_a_proxy_loses_what_it_ran_and_its_agent_finds_out(bench: HostBench) -> None:
    bench.started(leased=False)
    proxy = next(one.record for one in bench.agents() if one.record.host == "H2")
    for action in (
        "off",
        "on",
    ):  # each is the repeated order: the question goes to the engine, which is not here
        asked_ns = bench.time.now_ns()
        bench.say("agent/H2", m.FenceHost("H1", 1, action, {"type": "simulated"}, proxy.host_epoch, asked_ns))
        bench.run(1)
    bench.run(20)
    assert bench.runs() == {}
    assert bench.heard()[-1] == ("H1", 3, "down", 11)
