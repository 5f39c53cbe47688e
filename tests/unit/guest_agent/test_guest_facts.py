"""Facts from files as different guests have them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from guest_agent.addresses import addresses, parsed
from guest_agent.facts import Facts
from guest_agent.sessions import UTMP_BYTES, read_sessions
from tests.unit.guest_agent.agent_bench import write_tree


def utmp(kind: int, user: str, line: str) -> bytes:
    entry = struct.pack("<hxxi32s4s32s256s", kind, 1, line.encode(), b"1", user.encode(), b"")
    return entry.ljust(UTMP_BYTES, b"\0")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path)


def test_applications_of_dpkg_are_those_installed(root: Path) -> None:
    assert Facts(str(root)).applications() == ["tiny-base-1.0"]


def test_applications_of_apk_and_flatpak_are_named(tmp_path: Path) -> None:
    write_tree(tmp_path, {"lib/apk/db/installed": "C:Q1\nP:musl\nV:1.2.4-r2\n\nP:zlib\nV:1.3\n"})
    (tmp_path / "var/lib/flatpak/app/org.example.App").mkdir(parents=True)
    assert Facts(str(tmp_path)).applications() == ["musl-1.2.4-r2", "org.example.App-flatpak", "zlib-1.3"]


def test_fqdn_comes_from_hosts_else_is_the_plain_name(root: Path) -> None:
    assert Facts(str(root)).fqdn() == "web1.example.org"
    write_tree(root, {"etc/hosts": "127.0.0.1 localhost\n"})
    assert Facts(str(root)).fqdn() == "web1"


def test_interfaces_have_all_addresses_and_no_loopback(root: Path) -> None:
    said = [
        ("lo", "127.0.0.1"), ("eth0", "192.0.2.7"), ("eth0", "192.0.2.8"), ("eth0", "fe80::1"), ("gone", "192.0.2.9"),
    ]  # fmt: skip
    write_tree(root, {"sys/class/net/bonding_masters": "\n"})
    (found,) = Facts(str(root), lambda: said).interfaces()
    assert found == {
        "name": "eth0", "hw": "52:54:00:00:00:01", "inet": ["192.0.2.7", "192.0.2.8"], "inet6": ["fe80::1"],
    }  # fmt: skip


def test_addresses_of_this_machine_have_its_loopback() -> None:
    assert ("lo", "127.0.0.1") in addresses()


@pytest.mark.parametrize("data", [b"", b"\2" * 8, b"\2\0\0\0\1\0\0\0\0\0\0\0", b"\x0a" + b"\xff" * 40])
def test_address_that_the_kernel_would_not_send_is_none(data: bytes) -> None:
    assert parsed(data) == []


@pytest.mark.parametrize(("online", "count"), [("0", 1), ("0-3", 4), ("0,2-3,7", 4)])
def test_cpu_count_is_of_those_online(root: Path, online: str, count: int) -> None:
    write_tree(root, {"sys/devices/system/cpu/online": online + "\n"})
    assert Facts(str(root)).cpu_count() == count


def test_disk_mapping_is_by_serial(root: Path) -> None:
    assert Facts(str(root)).disk_mapping() == {"disk-1": {"name": "/dev/vda"}}


def test_mounts_are_real_file_systems_once_with_their_names_decoded(root: Path) -> None:
    write_tree(
        root,
        {
            "proc/self/mounts": "proc /proc proc rw 0 0\n/dev/vda1 / ext4 rw 0 0\n/dev/vda1 /again ext4 rw 0 0\n"
            "/dev/vdb /my\\040data xfs rw 0 0\ntmpfs /run tmpfs rw 0 0\n"
        },
    )
    assert Facts(str(root)).mounts() == [("/", "ext4"), ("/my data", "xfs")]


def test_sessions_of_utmp_are_users_and_not_logins_that_wait(root: Path) -> None:
    (root / "run").mkdir()
    (root / "run/utmp").write_bytes(
        utmp(7, "bob", "pts/0") + utmp(6, "LOGIN", "tty1") + utmp(7, "alice", "tty2") + b"x"
    )
    assert [(one.user, one.line) for one in read_sessions(str(root))] == [("bob", "pts/0"), ("alice", "tty2")]
    assert Facts(str(root)).active_user() == "alice"


def test_sessions_that_logind_and_utmp_know_are_said_once(root: Path) -> None:
    record = "UID=1000\nUSER=alice\nTTY=hvc0\nCLASS=user\nSTATE=active\n"
    write_tree(
        root, {"run/systemd/sessions/3": record, "run/systemd/sessions/4": "USER=alice\nCLASS=manager\n"}
    )
    (root / "run/utmp").write_bytes(utmp(7, "alice", "hvc0"))
    write_tree(root, {"run/olvm-locks/hvc0": '{"user": "alice"}'})
    (one,) = read_sessions(str(root))
    assert (one.user, one.line, one.number, one.is_locked) == ("alice", "hvc0", "3", True)


def test_facts_of_files_with_nonsense_are_empty_and_no_error(tmp_path: Path) -> None:
    nonsense = "\x00\ufffd:::\n= \n\n-\n,,\n"
    names = ["proc/meminfo", "proc/vmstat", "etc/hosts", "etc/os-release", "var/lib/dpkg/status", "run/utmp"]
    names += [
        "proc/net/if_inet6",
        "proc/net/route",
        "proc/net/fib_trie",
        "proc/self/mounts",
        "lib/apk/db/installed",
    ]
    names += ["proc/uptime", "run/systemd/sessions/1", "sys/devices/system/cpu/online"]
    write_tree(tmp_path, dict.fromkeys(names, nonsense))
    facts = Facts(str(tmp_path))
    assert facts.applications() == []
    assert facts.interfaces() == []
    assert facts.sessions() == []
    assert facts.mounts() == []
    assert facts.memory()["mem_total"] == 0
    assert facts.cpu_count() >= 1
    assert facts.uptime_s() == 0.0


def test_active_user_is_of_the_console_before_those_who_came_over_the_network(tmp_path: Path) -> None:
    remote = "USER=bob\nCLASS=user\nSTATE=active\nREMOTE=1\n"
    desktop = "USER=alice\nCLASS=user\nSTATE=online\nTTY=tty2\nTYPE=wayland\nREMOTE=0\n"
    write_tree(tmp_path, {"run/systemd/sessions/1": remote, "run/systemd/sessions/2": desktop})
    facts = Facts(str(tmp_path))
    assert facts.active_user() == "alice"
    assert [one.is_desktop for one in facts.sessions()] == [False, True]


def test_software_records_are_not_changed_by_being_read(tmp_path: Path) -> None:
    """RPM makes and removes files beside its database at every question."""
    write_tree(tmp_path, {"var/lib/rpm/rpmdb.sqlite": "x"})
    before = Facts(str(tmp_path)).applications_changed_s()
    assert before > 0
    write_tree(tmp_path, {"var/lib/rpm/rpmdb.sqlite-shm": "x"})
    assert Facts(str(tmp_path)).applications_changed_s() == before
