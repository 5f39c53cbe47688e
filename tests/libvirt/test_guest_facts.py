"""What a real guest says of itself, by both of its agents, against what it measures; and a guest that floods."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from hypervisor_backends.measurements import GuestFacts
from hypervisor_backends.protocol import CallFailed, CallGuest, CallSucceeded, RebootDomain
from olvm.lab.guest import GuestImage
from olvm.lab.hosts import Lab
from olvm.model.limits import NS_PER_S
from tests.libvirt.lab_bench import InGuest, LabBench
from tests.unit.hypervisor_backends.bench import RealClock

FACTS_S = 60.0
HEARTBEAT_S = 5
PORT = "/dev/virtio-ports/ovirt-guest-agent.0"
AGENT = "/olvm-guest-agent.pyz"


@pytest.fixture
def bench(lab: Lab, guest: GuestImage) -> Iterator[LabBench]:
    clock = RealClock()
    made = LabBench(lab, lab.host("h1"), guest, clock)
    made.willing_guest = made.our_agent_in_guest = True
    clock.is_quiet = made.is_quiet
    yield made
    made.backend.close()
    made.host.mend()
    made.remove_all()


def facts_of(bench: LabBench, vm_id: str = "v1") -> GuestFacts | None:
    _, domains = bench.backend.statistics()
    return next((one.guest for one in domains if one.vm_id == vm_id), None)


def wait_for_facts(bench: LabBench, vm_id: str = "v1") -> GuestFacts:
    """Of both agents. QEMU's is asked one question after another, and until its answer ours says what the kernel is."""

    def has_both() -> bool:
        facts = facts_of(bench, vm_id)
        if (
            facts is None or "olvm 3" not in facts.agents
        ):  # before the two have agreed on it, it is another version
            return False
        return facts.sources.get("kernel") == "qemu-ga" and "olvm" in facts.sources.values()

    assert bench.clock.run_until(has_both, FACTS_S), (facts_of(bench, vm_id), bench.console())
    facts = facts_of(bench, vm_id)
    assert facts is not None
    return facts


def wait_for_heartbeat(bench: LabBench, vm_id: str = "v1", timeout_s: float = 4 * HEARTBEAT_S) -> GuestFacts:
    """A new one of the channel's agent."""
    before = facts_of(bench, vm_id)
    assert before is not None

    def is_newer() -> bool:
        facts = facts_of(bench, vm_id)
        return facts is not None and facts.uptime_s > before.uptime_s

    assert bench.clock.run_until(is_newer, timeout_s), (before, facts_of(bench, vm_id))
    facts = facts_of(bench, vm_id)
    assert facts is not None
    return facts


def test_facts_of_both_agents_are_what_the_guest_measures(bench: LabBench) -> None:
    bench.start()
    facts, inside = wait_for_facts(bench), InGuest(bench)
    assert facts.hostname == inside.run("/bin/hostname").strip()
    assert facts.kernel == inside.run("/bin/uname", "-r").strip()
    assert facts.boot_id == inside.boot_id()
    assert facts.cpu_count == int(inside.run("/bin/nproc"))
    meminfo = dict(line.split(":", 1) for line in inside.run("/bin/cat", "/proc/meminfo").splitlines())
    assert facts.memory_total_kib == int(meminfo["MemTotal"].split()[0])
    assert 0 < facts.memory_free_kib < facts.memory_total_kib
    (card,) = [one for one in facts.interfaces if one.name == "eth0"]
    assert card.mac == inside.run("/bin/cat", "/sys/class/net/eth0/address").strip()
    assert card.inet == ("10.99.7.77",)
    assert facts.ips[0] == "10.99.7.77"
    assert facts.agents[1] == "olvm 3"
    assert facts.agents[0].startswith("qemu-ga ")
    assert (facts.sources["kernel"], facts.sources["boot_id"]) == ("qemu-ga", "olvm")
    assert (facts.lines_discarded, facts.messages_unknown, facts.messages_delayed) == (0, 0, 0)
    later = wait_for_heartbeat(bench)
    uptime_s = float(inside.run("/bin/cat", "/proc/uptime").split()[0])
    assert 0 <= uptime_s - later.uptime_s <= 2 * HEARTBEAT_S


def test_name_that_changes_in_the_guest_is_told_and_a_reboot_is_another_boot(bench: LabBench) -> None:
    bench.start()
    before = wait_for_facts(bench)
    InGuest(bench).run("/bin/hostname", "renamed")
    bench.succeed(CallGuest(vm_id="v1", message="refresh"))
    assert bench.clock.run_until(lambda: (f := facts_of(bench)) and f.hostname == "renamed", 130)
    bench.succeed(RebootDomain(vm_id="v1"))

    def has_booted() -> bool:
        facts = facts_of(bench)
        return facts is not None and facts.boot_id not in ("", before.boot_id)

    assert bench.clock.run_until(has_booted, FACTS_S), facts_of(bench)


def test_guest_that_floods_is_held_back_and_its_neighbour_is_heard(bench: LabBench) -> None:
    bench.start("v1")
    bench.start("v2")
    wait_for_facts(bench, "v1")
    wait_for_facts(bench, "v2")
    noise = '{\\"__name__\\":\\"echo\\",\\"x\\":\\"' + "y" * 200 + '\\"}'
    InGuest(bench, "v1").begin(
        f'mv {AGENT} /agent; for i in $(seq 600); do echo "{noise}"; echo no-json; done > /noise;'
        f" killall python3; until cat /noise > {PORT}; do sleep 0.1; done; mv /agent {AGENT}"
    )
    assert bench.clock.run_until(lambda: (f := facts_of(bench, "v1")) and f.messages_delayed > 0, 120)
    begun_s = time.monotonic()
    before = facts_of(bench, "v1")
    wait_for_heartbeat(bench, "v2")
    during = facts_of(bench, "v1")
    assert before is not None
    assert during is not None
    lines_per_s = (during.lines_discarded - before.lines_discarded) / (time.monotonic() - begun_s)
    assert lines_per_s < 400, "half of its lines are none, and it is read at so many a second"
    wait_for_heartbeat(bench, "v1", 60)  # behind all that was on its way, at 100 lines a second


def test_guest_is_heard_while_libvirtd_is_dead_and_asked_again_after(bench: LabBench) -> None:
    bench.start()
    wait_for_facts(bench)
    bench.host.kill_libvirtd()
    assert bench.clock.run_until(lambda: not bench.hypervisor.is_connected, 30)
    wait_for_heartbeat(bench)
    assert isinstance(
        bench.ask(CallGuest(vm_id="v1", message="lifecycle-event", arguments={"type": "x"})), CallFailed
    )
    answer = bench.ask(
        CallGuest(vm_id="v1", message="lifecycle-event", arguments={"type": "after_migration"})
    )
    assert isinstance(answer, CallSucceeded)
    bench.host.start_libvirtd()
    bench.wait_connected()
    asked_again_ns = bench.clock.now_ns() + NS_PER_S
    assert bench.clock.run_until(
        lambda: (
            (f := facts_of(bench))
            and f.heartbeat_ns > asked_again_ns
            and f.sources.get("kernel") == "qemu-ga"
        ),
        FACTS_S,
    )
