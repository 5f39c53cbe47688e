"""Tasks of machines as a table: when each may be asked for, and what it leaves in the hardware."""

from __future__ import annotations

import pytest

from olvm.model.errors import BadInput, Conflict, NotFound
from olvm.model.hardware import CloudInit, DiskSpec, Hardware, NicSpec, hardware_from
from olvm.model.vm_states import VmStatus
from olvm.model.vm_tasks import VM_TASKS, hardware_after, missing_device, task_refusal, vm_task

GIB = 1024**3
TWO_DISKS = Hardware(disks=(DiskSpec(name="vda", source="/a"), DiskSpec(name="vdb", size_bytes=GIB)))


@pytest.mark.parametrize("verb", sorted(VM_TASKS))
@pytest.mark.parametrize("status", list(VmStatus))
def test_task_in_each_status_is_let_through_or_refused_with_a_sentence(verb: str, status: VmStatus) -> None:
    refusal = task_refusal("web", status, verb)
    rule = VM_TASKS[verb]
    if refusal is None:
        assert status in rule.statuses or (rule.when_down and status is VmStatus.DOWN)
    else:
        assert refusal.startswith("cannot ")
        assert "web" in refusal
        assert ";" in refusal, "says what to do"


@pytest.mark.parametrize("verb", sorted(VM_TASKS))
def test_task_of_a_machine_of_unknown_state_is_refused(verb: str) -> None:
    assert task_refusal("web", VmStatus.UNKNOWN, verb) is not None


def test_revert_of_a_machine_that_is_down_says_to_start_it() -> None:
    refusal = task_refusal("web", VmStatus.DOWN, "revert_snapshot")
    assert refusal == ("cannot revert to a snapshot of web: it is down; it must be running: start it first")


@pytest.mark.parametrize("verb", ["create_snapshot", "commit_snapshot"])
def test_refusal_names_what_was_asked_for_and_not_the_action_that_it_shares(verb: str) -> None:
    refusal = task_refusal("web", VmStatus.MIGRATING_FROM, verb)
    assert refusal is not None
    assert refusal.startswith(f"cannot {VM_TASKS[verb].what} web: ")


def test_task_that_is_unknown_names_those_that_are() -> None:
    with pytest.raises(NotFound, match="attach_disk"):
        vm_task("explode")


def test_attached_disk_is_in_the_hardware_and_detached_one_is_not() -> None:
    attached = hardware_after(TWO_DISKS, "attach_disk", {"name": "vdc", "source": "/c"})
    assert attached is not None
    assert [disk.name for disk in attached.disks] == ["vda", "vdb", "vdc"]
    detached = hardware_after(attached, "detach_disk", {"name": "vdb"})
    assert detached is not None
    assert [disk.name for disk in detached.disks] == ["vda", "vdc"]


def test_attached_card_of_a_machine_without_hardware_is_its_first() -> None:
    attached = hardware_after(None, "attach_nic", {"name": "eth0", "network": "br0"})
    assert attached == Hardware(nics=(NicSpec(name="eth0", network="br0"),))
    linked = hardware_after(attached, "set_nic_link", {"name": "eth0", "up": False})
    assert linked is not None
    assert not linked.nics[0].link_up


def test_medium_and_quota_change_what_they_name() -> None:
    cd = Hardware(disks=(DiskSpec(name="sda", device="cdrom", bus="scsi"),))
    changed = hardware_after(cd, "change_medium", {"name": "sda", "source": "/iso"})
    assert changed is not None
    assert changed.disks[0].source == "/iso"
    limited = hardware_after(None, "set_cpu_quota", {"percent": 50})
    assert limited is not None
    assert limited.cpu_quota_percent == 50


def test_task_that_leaves_no_hardware_keeps_it() -> None:
    assert hardware_after(TWO_DISKS, "create_snapshot", {"name": "s"}) is TWO_DISKS


def test_attaching_what_makes_no_machine_is_a_conflict() -> None:
    with pytest.raises(Conflict, match="usable"):
        hardware_after(None, "attach_disk", {"name": "VDA", "source": "/a"})


@pytest.mark.parametrize(
    ("verb", "name", "word"),
    [
        ("attach_disk", "vda", "already"),
        ("detach_disk", "vdz", "vda, vdb"),
        ("change_medium", "sda", "no disk sda"),
        ("detach_nic", "eth0", "none"),
    ],
)
def test_task_that_names_a_wrong_device_says_what_is_there(verb: str, name: str, word: str) -> None:
    missing = missing_device(TWO_DISKS, verb, {"name": name})
    assert missing is not None
    assert word in missing


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"disks": [{"name": "vda"}]}, "size_bytes"),
        ({"disks": [{"name": "vda", "source": "/a"}, {"name": "vda", "source": "/b"}]}, "twice"),
        ({"disks": [{"name": "vda", "source": "/a/../b"}]}, "plain path"),
        ({"disks": [{"name": "sda", "device": "cdrom"}]}, "virtio"),
        ({"disks": [{"name": "vda", "source": "/a", "base": "/b"}]}, "base"),
        ({"disks": [{"name": "vda", "size_bytes": -1}]}, "negative"),
        ({"disks": [{"name": "v" * 40, "source": "/a"}]}, "usable"),
        ({"disks": [{"name": "vda", "source": "/a", "serial": "x" * 21}]}, "serial"),
        ({"nics": [{"name": "eth0", "mac": "53:54:00:00:00:00"}]}, "unicast"),
        ({"nics": [{"name": f"eth{n}"} for n in range(29)]}, "at most"),
        ({"initrd": "/x"}, "kernel"),
        ({"kernel": "vmlinuz"}, "absolute"),
        ({"secure_boot": True}, "uefi"),
        ({"numa_nodes": 0}, "NUMA"),
        ({"huge_page_bytes": 4096}, "huge"),
        ({"cpu_quota_percent": -1}, "negative"),
        ({"cloud_init": {"user_data": "x" * 70_000}}, "user_data"),
        ({"disk": []}, "disk"),
        ({"firmware": "coreboot"}, "firmware"),
    ],
)
def test_hardware_that_cannot_be_is_refused_by_name(fields: dict[str, object], word: str) -> None:
    with pytest.raises(BadInput, match=word):
        hardware_from(fields)


def test_hardware_from_plain_fields_is_what_they_say() -> None:
    hardware = hardware_from(
        {"disks": [{"name": "vda", "size_bytes": GIB}], "cloud_init": {"user_data": "#cloud-config"}}
    )
    assert hardware == Hardware(
        disks=(DiskSpec(name="vda", size_bytes=GIB),), cloud_init=CloudInit(user_data="#cloud-config")
    )
