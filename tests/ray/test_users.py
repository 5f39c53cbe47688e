"""Users on Ray: what is known of them survives a killed engine; what lets them in is nowhere, before and after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from olvm import DataCenter
from olvm.journal.replay import verify
from olvm.model.errors import Conflict, Denied
from tests.contracts.fault_driver import INSTANT
from tests.contracts.test_users import places_of
from tests.ray.test_kill import kill

WITHIN_S = 60.0
FIRST = "Gx5-before-change-Rt"
PASSWORD = "Lm9-after-change-Vc"
WRONG = "Tz2-never-was-right-Bn"
IN_FLIGHT = 12


@pytest.fixture
def dc(tmp_path: Path) -> Iterator[DataCenter]:
    """With machine `db`, whose simulated guest takes every word, and users who were changed after they were added."""
    with DataCenter.open(tmp_path / "dc", runtime="ray", host_silos=1, simulated=INSTANT) as opened:
        prod = opened.clusters.create("prod")
        prod.hosts.add("kvm00", cpus=4, memory="16GiB")
        for name in ("db", "off"):
            prod.vms.create(name, vcpus=1, memory="1GiB")
        opened.vms["db"].start().wait(WITHIN_S)
        alice = opened.users.create("alice", password=FIRST)
        alice.set_password(PASSWORD).wait(WITHIN_S)
        alice.update(guest_user="al").wait(WITHIN_S)
        opened.users.create("bob", password=PASSWORD).disable().wait(WITHIN_S)
        opened.users.create("carol", password=PASSWORD).remove().wait(WITHIN_S)
        yield opened


def assert_right_ones_are_let_in(dc: DataCenter) -> None:
    """By the password as it was set last, into a machine that is up."""
    assert dc.vms["db"].log_on("alice", PASSWORD, session="ttyS0").wait(WITHIN_S).status == "succeeded"
    for user, password in (("alice", FIRST), ("alice", WRONG), ("bob", PASSWORD), ("carol", PASSWORD)):
        with pytest.raises(Denied):
            dc.vms["db"].log_on(user, password)
    with pytest.raises(Conflict, match="cannot log a user on to off: it is down"):
        dc.vms["off"].log_on("alice", PASSWORD).wait(WITHIN_S)


def words_in(path: Path) -> str:
    """All values of a database, as text: in the file they may be compressed."""
    with duckdb.connect(str(path), read_only=True) as file:
        tables = file.execute(
            "select table_schema, table_name from information_schema.tables where table_type = 'BASE TABLE'"
        ).fetchall()
        rows = [file.execute(f'from "{schema}"."{name}"').fetchall() for schema, name in tables]
    return repr(rows)


def logs_of_ray() -> Path:
    """Where what its processes print is kept."""
    import ray

    return Path(ray._private.worker.global_worker.node.get_logs_dir_path())


@pytest.mark.timeout(180)
def test_users_survive_a_killed_engine_and_what_lets_them_in_does_not(dc: DataCenter) -> None:
    assert_right_ones_are_let_in(dc)
    users = dc.users.list()
    assert [(user.name, user.status, user.guest_user, user.revision) for user in users] == [
        ("alice", "active", "al", users[0].revision),
        ("bob", "disabled", "bob", users[1].revision),
    ]
    print(f"engine back in {kill(dc, 'engine'):.1f} s")
    assert dc.users.list() == users
    assert_right_ones_are_let_in(dc)
    before = dc.users.row("alice").logon_count
    with dc.pipelined():
        flight = [dc.vms["db"].log_on("alice", PASSWORD, session=f"pts/{n}") for n in range(IN_FLIGHT)]
    flight[0].accepted()
    kill(dc, "engine")
    assert {one.wait(WITHIN_S).status for one in flight} == {"succeeded"}
    assert (
        dc.users.row("alice").logon_count == before + IN_FLIGHT
    )  # each once, also those that were asked again
    asked = [event["details"] for event in dc.events() if event["code"] == "vm_logon_asked"][-IN_FLIGHT:]
    assert sorted(details["session"] for details in asked) == sorted(f"pts/{n}" for n in range(IN_FLIGHT))
    directory, logs = dc.directory, logs_of_ray()
    assert any(logs.iterdir())
    dc.close()
    files = sorted(directory.glob("*.duckdb"))
    assert [path.name for path in files] == ["engine.duckdb", "history.duckdb", "host-1.duckdb"]
    for secret in (FIRST, PASSWORD, WRONG):
        assert places_of(secret, directory) + places_of(secret, logs) == []
        assert not any(secret in words_in(path) for path in files)
    assert "vm_logon_asked" in words_in(directory / "engine.duckdb")
    assert verify(directory / "engine.duckdb") == []
