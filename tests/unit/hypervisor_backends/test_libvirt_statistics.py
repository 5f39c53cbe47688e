"""Numbers of libvirt and of a kernel in oVirt's words."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

pytest.importorskip("libvirt", reason="libvirt-python is not installed (`make apt-libvirt`)")

from hypervisor_backends.libvirt_book import Life
from hypervisor_backends.libvirt_host_statistics import (
    Counts,
    cpus_of,
    host_statistics,
    read_host,
)
from hypervisor_backends.libvirt_migration import flags_of, is_limited, statistics_of
from hypervisor_backends.libvirt_settings import LibvirtSettings
from hypervisor_backends.libvirt_statistics import Reading, domain_statistics
from tests.unit.hypervisor_backends.bench import migrate_of, spec_of

S = 10**9


def life_of() -> Life:
    life = Life("v1", "u", 3, spec_of("v1"), "up")
    life.started_ns = life.powered_on_ns = 100 * S
    return life


def test_counters_become_rates_of_the_time_between_two_samples() -> None:
    first = {
        "cpu.user": 10 * S,
        "cpu.system": 1 * S,
        "balloon.current": 2048,
        "balloon.usable": 512,
        "block.count": 1,
        "block.0.name": "vda",
        "block.0.rd.bytes": 1000,
        "block.0.rd.reqs": 10,
        "block.0.rd.times": 1_000_000,
        "net.count": 1,
        "net.0.name": "vnet0",
        "net.0.rx.bytes": 5,
    }
    then = {
        **first,
        "cpu.user": 14 * S,
        "block.0.rd.bytes": 5000,
        "block.0.rd.reqs": 14,
        "block.0.rd.times": 1_400_000,
    }
    before, now = Reading(at_ns=200 * S, numbers=first), Reading(at_ns=202 * S, numbers=then)

    told = domain_statistics(life_of(), now, before, None)

    assert (told.cpu_user_percent, told.cpu_sys_percent, told.cpu_usage_ns) == (200.0, 0.0, 15 * S)
    assert (told.mem_total_kib, told.mem_unused_kib, told.mem_usage_percent) == (2048, 512, 75.0)
    (disk,), (nic,) = told.disks, told.nics
    assert (disk.name, disk.read_rate_bytes_per_s, disk.read_ops, disk.read_latency_ns) == (
        "vda",
        2000.0,
        14,
        100_000,
    )
    assert (nic.name, nic.rx_bytes) == ("vnet0", 5)
    assert told.elapsed_time_s == 102


def test_first_sample_has_counters_and_no_rates() -> None:
    told = domain_statistics(life_of(), Reading(at_ns=200 * S, numbers={"cpu.user": S}), None, None)

    assert (told.cpu_usage_ns, told.cpu_user_percent, told.vcpu_count) == (S, 0.0, 2)


def test_counter_that_went_back_is_of_a_device_that_was_plugged_anew() -> None:
    before = Reading(at_ns=0, numbers={"block.count": 1, "block.0.wr.bytes": 900})
    now = Reading(at_ns=S, numbers={"block.count": 1, "block.0.wr.bytes": 100})

    assert domain_statistics(life_of(), now, before, None).disks[0].write_rate_bytes_per_s == 100.0


def test_machine_that_does_not_answer_is_reported_as_such() -> None:
    life = life_of()
    life.responds = False

    assert domain_statistics(life, Reading(at_ns=0, numbers={}), None, None).monitor_response == -1


def fake_host(root: Path, user: int) -> str:
    (root / "proc/1").mkdir(parents=True, exist_ok=True)
    (root / "proc/sys/kernel/random").mkdir(parents=True, exist_ok=True)
    (root / "proc/sys/kernel/random/boot_id").write_text("abc\n")
    fields = ["S"] + ["0"] * 18 + ["4242"]
    (root / "proc/1/stat").write_text("1 (in (it) x) " + " ".join(fields))
    (root / "proc/stat").write_text(f"cpu  {user} 0 100 800 0 0 0 0 0 0\n")
    (root / "proc/loadavg").write_text("0.10 0.50 0.90 1/2 3\n")
    (root / "proc/meminfo").write_text(
        "MemTotal: 4096 kB\nMemAvailable: 1024 kB\nSwapTotal: 2048 kB\nbroken\n"
    )
    nic = root / "sys/class/net/eth0/statistics"
    nic.mkdir(parents=True, exist_ok=True)
    (nic / "rx_bytes").write_text("77\n")
    (root / "sys/class/net/vnet0").mkdir(exist_ok=True)
    return str(root)


def test_host_is_read_from_the_files_below_its_root(tmp_path: Path) -> None:
    counts = Counts(vm_count=2, vm_active=1, incoming=0, outgoing=0)
    first = read_host(fake_host(tmp_path, 100), S)
    second = read_host(fake_host(tmp_path, 200), 2 * S)

    told = host_statistics("h1", second, first, counts)

    assert (told.cpu_user_percent, told.cpu_sys_percent, told.cpu_idle_percent) == (100.0, 0.0, 0.0)
    assert (told.cpu_load, told.mem_used_percent, told.mem_free_mb) == (0.5, 75.0, 1)
    assert [(nic.name, nic.rx_bytes) for nic in told.nics] == [("eth0", 77)]
    assert told.boot_id == "abc-4242"
    assert told.vm_count == 2


def test_numa_nodes_are_read_with_the_time_of_their_own_processors(tmp_path: Path) -> None:
    readings = []
    for at_s, busy in ((1, 0), (2, 60)):
        root = fake_host(tmp_path, 100)
        (tmp_path / "proc/stat").write_text(
            f"cpu 0 0 0 0\ncpu0 {busy} 0 0 {100 - busy}\ncpu1 0 0 {busy} 100\ncpu2 0 0 0 {busy}\nintr 5\n"
        )
        for node, cpus in ((0, "0-1"), (1, "2")):
            directory = tmp_path / f"sys/devices/system/node/node{node}"
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "cpulist").write_text(f"{cpus}\n")
            (directory / "meminfo").write_text(
                f"Node {node} MemTotal:       {2048 + 2048 * node} kB\nNode {node} MemFree:        1024 kB\n"
            )
        readings.append(read_host(root, at_s * S))
    counts = Counts(vm_count=0, vm_active=0, incoming=0, outgoing=0)

    told = host_statistics("h1", readings[1], readings[0], counts)
    first, second = told.numa_nodes

    assert (first.node, first.mem_total_mb, first.mem_free_mb) == (0, 2, 1)
    assert (second.node, second.mem_total_mb, second.mem_free_mb) == (1, 4, 1)
    # Node 0 has used 60 ticks of each kind in its two processors; of node 1 all 60 were idle.
    assert (first.cpu_user_percent, first.cpu_sys_percent) == (50.0, 50.0)
    assert (second.cpu_user_percent, second.cpu_sys_percent) == (0.0, 0.0)
    assert (told.cores.numbers, told.cores.numa_nodes) == ((0, 1, 2), (0, 0, 1))
    assert told.cores.user_percents == (100.0, 0.0, 0.0)
    assert told.cores.sys_percents == (0.0, 100.0, 0.0)


@pytest.mark.parametrize(("text", "cpus"), [("0-3,8", [0, 1, 2, 3, 8]), ("5\n", [5]), ("", []), ("\n", [])])
def test_list_of_processors_is_read_as_the_kernel_writes_it(text: str, cpus: list[int]) -> None:
    assert cpus_of(text) == cpus


def test_own_time_of_the_agent_is_known_from_the_second_reading_on(tmp_path: Path) -> None:
    counts = Counts(vm_count=0, vm_active=0, incoming=0, outgoing=0)
    first = msgspec.structs.replace(read_host(fake_host(tmp_path, 100), S), agent_s=(1.0, 2.0))
    second = msgspec.structs.replace(first, at_ns=11 * S, agent_s=(1.5, 2.1))

    alone, told = host_statistics("h1", first, None, counts), host_statistics("h1", second, first, counts)

    assert (alone.agent_cpu_user_percent, alone.agent_cpu_sys_percent) == (None, None)
    assert told.agent_cpu_user_percent == pytest.approx(5.0)
    assert told.agent_cpu_sys_percent == pytest.approx(1.0)


def test_host_whose_kernel_tells_nothing_is_still_a_row(tmp_path: Path) -> None:
    told = host_statistics(
        "h1", read_host(str(tmp_path), S), None, Counts(vm_count=0, vm_active=0, incoming=0, outgoing=0)
    )

    assert told.cpu_idle_percent == 100.0
    assert told.nics == ()


def test_migration_progress_is_of_what_is_left() -> None:
    job = {
        "data_total": 1000,
        "data_remaining": 250,
        "data_processed": 900,
        "memory_iteration": 2,
        "downtime": 30,
    }
    told = statistics_of(job, 100, post_copy=False)

    assert (told.progress_percent, told.memory_iteration, told.expected_downtime_ms) == (75, 2, 30)
    assert statistics_of({}, 100, post_copy=False).progress_percent == 0
    assert statistics_of(job, 100, post_copy=False, is_over=True).progress_percent == 100


@pytest.mark.parametrize(
    ("accelerator", "post_copy", "insists", "limited"),
    [
        ("kvm", False, False, True),
        ("tcg", False, False, False),
        ("tcg", True, False, True),
        ("tcg", False, True, True),
    ],
)
def test_bandwidth_limit_under_tcg_needs_post_copy_or_a_setting(
    accelerator: str, post_copy: bool, insists: bool, limited: bool
) -> None:
    request = migrate_of("x", post_copy=post_copy)

    assert is_limited(request, LibvirtSettings(throttle_tcg=insists), accelerator) is limited


def test_flags_of_a_migration_follow_the_request() -> None:
    import libvirt

    plain = flags_of(migrate_of("x", auto_converge=False))
    assert not plain & (
        libvirt.VIR_MIGRATE_POSTCOPY | libvirt.VIR_MIGRATE_NON_SHARED_DISK | libvirt.VIR_MIGRATE_UNSAFE
    )
    assert flags_of(migrate_of("x", post_copy=True)) & libvirt.VIR_MIGRATE_POSTCOPY
    assert flags_of(migrate_of("x", copy_storage=True)) & libvirt.VIR_MIGRATE_NON_SHARED_DISK
