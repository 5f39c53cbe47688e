"""What guests say on its way to history: only news, all of it, and whatever the version of the agent that tells."""

from __future__ import annotations

import msgspec

from actors.history_port import guest_facts_of
from actors.sampling import SAMPLINGS_PER_RETELLING, GuestFactsBatch, Sampler
from hypervisor_backends.measurements import (
    DomainStatistics,
    GuestContainer,
    GuestFacts,
    GuestFilesystem,
    GuestNic,
    HostStatistics,
)

GUEST = GuestFacts(
    hostname="web",
    fqdn="web.example.org",
    os_name="Debian GNU/Linux",
    os_version="12",
    kernel="6.1.0",
    timezone="Europe/Berlin",
    ips=("192.0.2.7",),
    applications=("bash-5.2",),
    users=("alice",),
    memory_total_kib=1000,
    memory_free_kib=500,
    cpu_count=2,
    agent_api_version=3,
    heartbeat_ns=1,
    os_arch="x86_64",
    interfaces=(GuestNic(name="eth0", mac="52:54:00:00:00:01", inet=("192.0.2.7",)),),
    filesystems=(GuestFilesystem(path="/", type="ext4", total_bytes=100, used_bytes=50),),
    disk_mapping={"s1": "/dev/vda"},
    containers=(GuestContainer(id="c1", names=("db",)),),
    session="Active",
    agents=("olvm 3",),
    sources={"hostname": "olvm"},
    messages_unknown=5,
)
HOST = HostStatistics(
    host="H1",
    sampled_ns=2,
    boot_id="b",
    boot_time_ns=0,
    elapsed_time_s=1,
    cpu_user_percent=1.0,
    cpu_sys_percent=1.0,
    cpu_idle_percent=98.0,
    cpu_load=0.1,
    mem_used_percent=10.0,
    mem_free_mb=900,
    mem_shared_bytes=0,
    swap_total_mb=0,
    swap_free_mb=0,
    anon_huge_pages_mb=0,
    ksm_state=False,
    ksm_pages=0,
    ksm_cpu_percent=0.0,
    vm_count=1,
    vm_active=1,
    incoming_vm_migrations=0,
    outgoing_vm_migrations=0,
    nics=(),
)


def domain(guest: GuestFacts | None) -> DomainStatistics:
    return DomainStatistics(
        vm_id="v1",
        epoch=1,
        name="web",
        status="up",
        status_ns=2,
        elapsed_time_s=1,
        cpu_user_percent=0.0,
        cpu_sys_percent=0.0,
        cpu_usage_ns=0,
        vcpu_count=2,
        mem_usage_percent=50.0,
        mem_total_kib=1000,
        mem_unused_kib=500,
        balloon_cur_kib=1000,
        balloon_max_kib=1000,
        balloon_min_kib=0,
        balloon_target_kib=1000,
        disks=(),
        nics=(),
        guest=guest,
    )


def told(sampler: Sampler, guest: GuestFacts) -> bytes:
    return sampler.encode(7, 1, HOST, [domain(guest)])[1]


def test_all_facts_of_a_guest_arrive_in_the_columns_of_history() -> None:
    (facts,) = guest_facts_of(told(Sampler("H1"), GUEST))
    assert (facts.vm_id, facts.vm_name, facts.host, facts.told_ns) == ("v1", "web", "H1", 7)
    assert (facts.guest_host_name, facts.os_architecture, facts.session) == ("web", "x86_64", "Active")
    assert facts.interfaces[0]["inet"] == ["192.0.2.7"]
    assert facts.filesystems[0]["used_bytes"] == 50
    assert facts.containers[0]["names"] == ["db"]
    assert (facts.agents, facts.sources) == (["olvm 3"], {"hostname": "olvm"})
    assert (facts.disk_mapping, facts.messages_unknown, facts.cpu_count) == ({"s1": "/dev/vda"}, 5, 2)
    assert facts.details["memory_free_kib"] == 500


def test_facts_are_told_when_they_are_news_and_now_and_then() -> None:
    sampler = Sampler("H1")
    assert told(sampler, GUEST)
    restless = msgspec.structs.replace(
        GUEST,
        memory_free_kib=1,
        uptime_s=9,
        messages_unknown=6,
        filesystems=(msgspec.structs.replace(GUEST.filesystems[0], used_bytes=51),),
    )
    assert not told(sampler, restless)
    for changed in (
        {"session": "Locked"},
        {"containers": ()},
        {"interfaces": ()},
        {"messages_unknown": 1000},
    ):
        assert told(sampler, msgspec.structs.replace(GUEST, **changed)), changed
    told(sampler, GUEST)
    later = [told(sampler, GUEST) for _ in range(SAMPLINGS_PER_RETELLING)]
    assert sum(bool(one) for one in later) == 1


def test_facts_from_an_agent_of_another_version_are_stored_as_far_as_they_go() -> None:
    of_old = {"vm_id": "v1", "vm_name": "web", "told_ns": 7, "hostname": "web", "shoe_size": 43}
    (facts,) = guest_facts_of(msgspec.msgpack.encode(GuestFactsBatch("H1", 7, [of_old])))
    assert (facts.guest_host_name, facts.session, facts.interfaces) == ("web", "", [])
    assert facts.details == {"shoe_size": 43}
