"""Who is taken to hold a lease of sanlock, from what its programs print (as sanlock 3.8.5 did)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("libvirt", reason="libvirt-python is not installed (`make apt-libvirt`)")

from hypervisor_backends import sanlock_program
from hypervisor_backends.libvirt_settings import LibvirtSettings, libvirt_settings_from
from hypervisor_backends.libvirt_task_context import TaskRefused
from hypervisor_backends.sanlock_leases import Leader, holder_of, hosts_in, leader_in, refuse_what_would_wait
from hypervisor_backends.sanlock_program import own_id_in

LEADER = """read_leader done 0
magic 0x6152010
version 0x60004
flags 0x10
sector_size 512
num_hosts 2000
owner_id 1
owner_generation 1
lver 1
space_name area
resource_name 52fdb523-21d6-5ef4-be6a-f54534b4a27d
timestamp 53380
checksum 0x315b9105
io_timeout 0
"""
HOSTS = """1 timestamp 53388
    last_check=53391
    last_live=53388
    last_req=0
    owner_id=1
    owner_generation=1
    timestamp=53388
    io_timeout=10
    owner_name=h1
2 timestamp 0
    last_check=53391
    last_live=53391
    last_req=0
    owner_id=2
    owner_generation=4
    timestamp=0
    io_timeout=0
    owner_name=h2
"""
DEAD_AT_S = 53388 + 8 * 10 + 60
HELD = Leader(owner_id=1, owner_generation=1, timestamp=53380)
GETS = "s area:2:/leases/area-sanlock/lockspace:0 \n"


def settings(**more: object) -> LibvirtSettings:
    return libvirt_settings_from({"lock_manager": "sanlock", "lease_directory": "/leases", **more})


def test_what_sanlock_prints_is_read() -> None:
    assert leader_in(LEADER) == HELD
    assert [(host.owner_id, host.owner_name, host.io_timeout) for host in hosts_in(HOSTS)] == [
        (1, "h1", 10),
        (2, "h2", 0),
    ]
    assert own_id_in(GETS, settings()) == 2


@pytest.mark.parametrize(
    "said", ["", "read_leader done -2", "owner_id much\n", "1 timestamp 7\n    last_live=\n"]
)
def test_what_is_not_understood_is_left_to_sanlock(said: str) -> None:
    assert leader_in(said) is None
    assert hosts_in(said) == []
    assert own_id_in(said, settings()) is None


def test_holder_is_whoever_may_be_alive_in_the_same_life() -> None:
    held = holder_of(HELD, HOSTS, DEAD_AT_S - 1)
    assert held is not None
    assert (held.owner_name, held.dead_at_s) == ("h1", DEAD_AT_S)


@pytest.mark.parametrize(
    ("leader", "now_s"),
    [
        (HELD, DEAD_AT_S),  # dead
        (Leader(owner_id=1, owner_generation=2, timestamp=53380), 53389),  # of another life
        (Leader(owner_id=2, owner_generation=4, timestamp=53380), 53392),  # it has left the lockspace
        (Leader(owner_id=3, owner_generation=1, timestamp=53380), 53392),  # never seen
    ],
)
def test_lease_of_a_host_that_is_surely_gone_has_no_holder(leader: Leader, now_s: float) -> None:
    assert holder_of(leader, HOSTS, now_s) is None


# ---------------------------------------------------------------- the whole


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(sanlock_program, "PROGRAM_PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def sanlock(programs: Path, leader: str = LEADER, gets: str = GETS, *, seen_s_ago: int = 1) -> None:
    said = HOSTS.replace("last_live=53388", f"last_live={int(time.monotonic()) - seen_s_ago}")
    path = programs / "sanlock"
    path.write_text(
        "#!/bin/sh\nPATH=/usr/bin:/bin\ncase $2 in\n"
        f"read_leader) cat <<X\n{leader}X\n;;\ngets) cat <<X\n{gets}X\n;;\nhost_status) cat <<X\n{said}X\n;;\nesac\n"
    )
    path.chmod(0o755)


def test_start_that_would_wait_is_refused_with_whom_it_would_wait_for(programs: Path) -> None:
    sanlock(programs)
    with pytest.raises(TaskRefused) as refused:
        refuse_what_would_wait("v1", "StartDomain of domain web-1", settings())
    failure = refused.value.failure
    assert (failure.code, failure.can_retry) == ("lease_held", True)
    assert failure.message.startswith(
        "StartDomain of domain web-1: sanlock keeps its lease for host h1 (number 1)"
    )


@pytest.mark.parametrize(
    "said",
    [
        {"leader": LEADER.replace("timestamp 53380", "timestamp 0")},  # free
        {"leader": "read_leader done -2\n"},
        {"gets": "s area:1:/leases/area-sanlock/lockspace:0\n"},  # its own, of an earlier start
        {"gets": "\n"},
        {"seen_s_ago": 141},
    ],
)
def test_start_that_would_not_wait_is_let_through(programs: Path, said: dict[str, Any]) -> None:
    sanlock(programs, **said)
    refuse_what_would_wait("v1", "StartDomain", settings())


def test_sanlock_that_cannot_be_asked_is_left_to_libvirt(programs: Path) -> None:
    refuse_what_would_wait("v1", "StartDomain", settings())
    (programs / "sanlock").write_text("#!/bin/sh\nexit 1\n")
    (programs / "sanlock").chmod(0o755)
    refuse_what_would_wait("v1", "StartDomain", settings())


def test_daemon_of_a_host_in_namespaces_is_asked_below_its_root(programs: Path) -> None:
    (programs / "sanlock").write_text("#!/bin/sh\necho $SANLOCK_RUN_DIR\n")
    (programs / "sanlock").chmod(0o755)
    code, said = sanlock_program.run_sanlock(("client", "gets"), settings(root="/proc/7/root"))
    assert (code, said) == (0, "/proc/7/root/run/sanlock")
