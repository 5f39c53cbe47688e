"""`DataCenter` on the local runtime: what it refuses and that a refusal changes nothing, retries, events, SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from olvm import DataCenter
from olvm.model.errors import (
    BadInput,
    BadQuery,
    Conflict,
    DuplicateName,
    NoCapacity,
    NotFound,
    OlvmError,
)
from olvm.model.hardware import DiskSpec, Hardware
from tests.builders import GIB
from tests.contracts.fault_driver import INSTANT, poll

Act = Callable[[DataCenter], object]


@pytest.fixture(scope="module")
def dc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataCenter]:
    directory = tmp_path_factory.mktemp("dc")
    (directory / "secret.csv").write_text("word\nswordfish\n")
    with DataCenter.open(
        directory, runtime="local", host_silos=1, simulated=INSTANT, report_period_s=0.3
    ) as opened:
        prod = opened.clusters.create("prod")
        prod.hosts.add("kvm00", cpus=8, memory="16GiB")
        prod.vms.create("web-1", vcpus=1, memory="1GiB").start().wait(30)
        # The last that an idle data center writes: a report has shown the machine on its host.
        poll(lambda: opened.sql("select settled from reservations").one() is True)
        yield opened


def committed(dc: DataCenter) -> tuple[int, int, int]:
    """What a refused command must not move: the engine's journal, operations and silos."""
    silos = dc.status().silos
    engine = next(silo for silo in silos if silo.name == "engine")
    return engine.journal_seq, int(dc.sql("select count(*) from operations").one()), len(silos)


def create(
    name: str = "new", vcpus: int = 1, memory: str | int = "1GiB", cluster: str = "prod", **more: object
) -> Act:
    return lambda dc: dc.vms.create(name, vcpus=vcpus, memory=memory, cluster=cluster, **more)  # type: ignore[arg-type]


def add(
    name: str = "new", cpus: int = 1, memory: str | int = "1GiB", cluster: str = "prod", **more: object
) -> Act:
    return lambda dc: dc.hosts.add(name, cpus=cpus, memory=memory, cluster=cluster, **more)  # type: ignore[arg-type]


def group(name: str = "apart", **more: object) -> Act:
    return lambda dc: dc.clusters.get("prod").affinity_groups.set(name, **more)  # type: ignore[arg-type]


def threshold(percent: int) -> Act:
    return lambda dc: dc.clusters.get("prod").update(fencing_connectivity_threshold_percent=percent)


REFUSED: list[tuple[str, Act, type[OlvmError], str]] = [
    ("duplicate vm", create("web-1"), DuplicateName, "web-1"),
    ("duplicate host", add("kvm00"), DuplicateName, "kvm00"),
    ("duplicate cluster", lambda dc: dc.clusters.create("prod"), DuplicateName, "prod"),
    ("vm in unknown cluster", create(cluster="none"), NotFound, "none"),
    ("host in unknown cluster", add(cluster="none"), NotFound, "none"),
    ("no cluster", lambda dc: dc.vms.create("new", vcpus=1, memory="1GiB"), NotFound, "cluster"),
    ("pinned to unknown host", create(pinned_hosts=["kvm99"]), NotFound, "kvm99"),
    ("unknown vm", lambda dc: dc.vms["nope"].start(), NotFound, "nope"),
    ("unknown host", lambda dc: dc.hosts.get("nope"), NotFound, "nope"),
    ("unknown cluster", lambda dc: dc.clusters.get("nope"), NotFound, "nope"),
    ("unknown operation", lambda dc: dc.operations.wait("nope", 5), NotFound, "nope"),
    ("unknown host to migrate to", lambda dc: dc.vms["web-1"].migrate("kvm99"), NotFound, "kvm99"),
    ("explain unknown vm", lambda dc: dc.vms["nope"].explain(), NotFound, "nope"),
    ("fault in unknown host", lambda dc: dc.inject("nope", {"kind": "fail"}), NotFound, "nope"),
    ("fault that is none", lambda dc: dc.inject("kvm00", {"kind": "no such fault"}), BadInput, "fault"),
    ("no vcpus", create(vcpus=0), BadInput, "vcpus"),
    ("too many vcpus", create(vcpus=711), BadInput, "vcpus"),
    ("no memory", create(memory=0), BadInput, "memory"),
    ("too much memory", create(memory="65TiB"), BadInput, "memory"),
    ("memory that is no size", create(memory="lots"), BadInput, "lots"),
    ("negative memory", create(memory=-1), BadInput, "memory|size"),
    ("host without cpus", add(cpus=0), BadInput, "cpus"),
    ("name with a slash", create("a/b"), BadInput, "'/'"),
    ("empty name", create(""), BadInput, "empty"),
    ("host name that climbs", add("../../evil", dedicated=True), BadInput, "name"),
    ("vm name that climbs", create("x/../../evil", dedicated=True), BadInput, "name"),
    ("unknown policy", lambda dc: dc.clusters.create("new", policy="nope"), BadInput, "nope"),
    ("policy to unknown", lambda dc: dc.clusters.get("prod").update(policy="nope"), BadInput, "nope"),
    ("overcommit", lambda dc: dc.clusters.create("new", memory_overcommit_percent=1), BadInput, "overcommit"),
    ("timeout below 0", lambda dc: dc.vms["web-1"].stop(timeout=-1), BadInput, "timeout"),
    ("timeout of nan", lambda dc: dc.vms["web-1"].stop(timeout=float("nan")), BadInput, "timeout"),
    ("shutdown in no time", lambda dc: dc.clusters.get("prod").shutdown(timeout=0), BadInput, "timeout"),
    ("maintenance in no time", lambda dc: dc.hosts.get("kvm00").maintenance(timeout=-1), BadInput, "timeout"),
    ("priority of 0", create(priority=0), BadInput, "priority"),
    ("priority to 101", lambda dc: dc.vms["web-1"].update(priority=101), BadInput, "priority"),
    ("lease that resumes", create(lease=True, resume_behavior="auto_resume"), BadInput, "lease"),
    ("unknown resume behavior", create(resume_behavior="kil"), BadInput, "did you mean kill"),
    ("resume to unknown", lambda dc: dc.vms["web-1"].update(resume_behavior="die"), BadInput, "leave_paused"),
    ("unknown migration policy", create(migration_policy="fastest"), BadInput, "post_copy"),
    ("fence device of no type", add(fence_devices=[{"address": "bmc"}]), BadInput, "type"),
    ("fence device of unknown type", add(fence_devices=[{"type": "ipmi"}]), BadInput, "simulated"),
    ("unknown rule", group(vms_rule="apart"), BadInput, "positive"),
    ("group without a rule", group(), BadInput, "disabled"),
    ("group with unknown vm", group(vms=["nope"], vms_rule="positive"), NotFound, "nope"),
    ("group with unknown host", group(hosts=["nope"], hosts_rule="positive"), NotFound, "nope"),
    ("group in no cluster", lambda dc: dc.affinity_groups.remove("apart"), NotFound, "cluster"),
    ("unknown group", lambda dc: dc.clusters.get("prod").affinity_groups.row("nope"), NotFound, "nope"),
    ("threshold of 0", threshold(0), BadInput, "threshold"),
    ("cluster in use", lambda dc: dc.clusters.get("prod").remove(), Conflict, "prod"),
    ("malformed where", lambda dc: dc.vms.list("status = = up"), BadInput, "."),
    ("where of unknown field", lambda dc: dc.vms.list("colour = red"), BadInput, "colour"),
    ("events in pages of none", lambda dc: list(dc.events(page_rows=0)), BadInput, "row_count_max"),
]
REFUSED_SQL = [
    "insert into vms (id) values ('x')",
    "update vms set status = 'down'",
    "delete from vms",
    "drop table vms",
    "create table mine (a int)",
    "create temp table mine (a int)",
    "copy vms to 'stolen.csv'",
    "copy (select 1) to 'stolen.csv'",
    "attach 'other.duckdb'",
    "select * from read_csv('{dir}/secret.csv')",
    "select * from '{dir}/secret.csv'",
    "select * from read_text('/etc/passwd')",
    "select * from glob('/*')",
    "select count(*) from history.events, read_csv('{dir}/secret.csv')",
    "select count(*) from history.events, '{dir}/secret.csv'",
    "select count(*) from vms, history.events, read_text('/etc/passwd')",
    "explain analyze delete from vms",
    "set threads = 4",
    "set enable_external_access = true",
    "reset threads",
    "pragma threads = 4",
    "pragma database_list",
    "call pragma_version()",
    "install httpfs",
    "load httpfs",
    "checkpoint",
    "vacuum",
    "begin",
    "export database 'out'",
    "select 1; drop table vms",
    "",
    "selec 1",
    "select * from nowhere",
    "select nothing from vms",
    "select ?",
]


@pytest.mark.parametrize(("what", "act", "error", "says"), REFUSED, ids=[one[0] for one in REFUSED])
def test_bad_input_is_refused_by_its_class_and_changes_nothing(
    dc: DataCenter, what: str, act: Act, error: type[OlvmError], says: str
) -> None:
    before = committed(dc)
    files = sorted(path.name for path in dc.directory.iterdir())
    with pytest.raises(error, match=says) as refusal:
        act(dc)
    assert "\n" not in refusal.value.message
    assert committed(dc) == before
    assert sorted(path.name for path in dc.directory.iterdir()) == files


@pytest.mark.parametrize("sql", REFUSED_SQL)
def test_sql_that_does_more_than_read_is_refused_and_changes_nothing(dc: DataCenter, sql: str) -> None:
    before = committed(dc)
    files = sorted(path.name for path in dc.directory.iterdir())
    with pytest.raises(BadQuery) as refusal:
        dc.sql(sql.replace("{dir}", str(dc.directory)))
    assert "swordfish" not in refusal.value.message
    assert committed(dc) == before
    assert sorted(path.name for path in dc.directory.iterdir()) == files


@pytest.mark.parametrize("scale", ["fast", 0, -1])
def test_time_scale_that_is_no_positive_number_fails_the_host_and_not_its_silo(
    dc: DataCenter, scale: str | int
) -> None:
    with pytest.raises(OlvmError, match="time_scale"):
        dc.hosts.add(
            f"odd{scale}", cpus=1, memory="1GiB", cluster="prod", backend_settings={"time_scale": scale}
        )
    assert all(silo.alive and not silo.note for silo in dc.status().silos)


def test_vm_larger_than_any_host_fails_with_the_reason_and_holds_nothing(dc: DataCenter) -> None:
    big = dc.vms.create("big", vcpus=2, memory="20GiB", cluster="prod")
    operation = big.start()
    with pytest.raises(NoCapacity, match=r"big.*memory"):
        operation.wait(30)
    assert (operation.status, big.status, big.host) == ("failed", "down", None)
    assert "memory" in big.record.status_reason
    assert dc.sql("select count(*) from reservations where vm_id = ?", [big.record.id]).one() == 0
    big.remove().wait(30)


def test_plug_beyond_the_hosts_room_is_refused_by_its_class_and_holds_nothing(dc: DataCenter) -> None:
    room = Hardware(vcpus_max=4, memory_bytes_max=64 * GIB)
    grow = dc.vms.create("grow", vcpus=1, memory="1GiB", cluster="prod", hardware=room)
    grow.start().wait(30)
    held = "select memory_bytes from reservations where vm_id = ?"
    grow.plug_memory("m0", "2GiB").wait(30)
    with pytest.raises(NoCapacity, match=r"cannot plug memory into grow: .* host kvm00 has .* free; migrate"):
        grow.plug_memory("m1", "20GiB").wait(30)
    assert dc.sql(held, [grow.record.id]).one() == 3 * GIB
    grow.unplug_memory("m0").wait(30)
    assert dc.sql(held, [grow.record.id]).one() == grow.record.memory_bytes == GIB
    grow.set_vcpus(3).wait(30)
    grow.stop().wait(30)
    assert (grow.record.vcpus, grow.record.now_vcpus) == (3, 0)
    grow.remove().wait(30)


def test_request_said_twice_has_one_effect_and_one_operation(dc: DataCenter) -> None:
    first = dc.vms.create_later("once", vcpus=1, memory="1GiB", cluster="prod", client_request_id="r-1")
    again = dc.vms.create_later("once", vcpus=1, memory="1GiB", cluster="prod", client_request_id="r-1")
    assert first.id == again.id
    assert again.wait(30).status == first.wait(30).status == "succeeded"
    late = dc.vms.create_later("other", vcpus=9, memory="2GiB", cluster="prod", client_request_id="r-1")
    assert (late.id, late.wait(5).status) == (first.id, "succeeded")
    assert [vm.name for vm in dc.vms.list("name=once or name=other")] == ["once"]
    dc.vms["once"].remove().wait(30)


def test_followed_events_come_in_order_without_a_gap_as_they_happen(dc: DataCenter) -> None:
    cursor = max(event["seq"] for event in dc.events())
    followed = dc.events(cursor, follow=True)
    for n in range(3):
        dc.vms.create(f"seen-{n}", vcpus=1, memory="1GiB", cluster="prod")
        event = next(followed)
        assert (event["seq"], event["code"], event["vm_name"]) == (cursor + 1 + n, "vm_created", f"seen-{n}")
    assert [event["seq"] for event in dc.events(cursor, page_rows=2)] == [cursor + 1, cursor + 2, cursor + 3]


def test_sql_joins_the_engines_tables_with_history(dc: DataCenter) -> None:
    newest = max(event["seq"] for event in dc.events())
    poll(lambda: dc.sql("select max(seq) from history.events").one() == newest)
    rows = dc.sql(
        "select v.name, e.code from vms v join history.events e on e.vm_id = v.id where v.name = ? order by e.seq",
        ["web-1"],
    ).rows()
    assert rows[:2] == [("web-1", "vm_created"), ("web-1", "vm_up")]


def test_machine_is_reverted_to_its_snapshot_and_a_wrong_wish_says_why(dc: DataCenter) -> None:
    hardware = Hardware(disks=(DiskSpec(name="vda", size_bytes=GIB),))
    vm = dc.vms.create("reverted", vcpus=1, memory="1GiB", cluster="prod", hardware=hardware)
    with pytest.raises(
        Conflict, match=r"cannot revert to a snapshot of reverted: it is down; .*start it first"
    ):
        vm.revert_snapshot("s1").wait(30)
    vm.start().wait(30)
    for name in ("s1", "s2"):
        vm.create_snapshot(name).wait(30)
    with pytest.raises(NotFound, match="reverted on host kvm00 has no snapshot s9; it has s1, s2"):
        vm.revert_snapshot("s9").wait(30)
    with pytest.raises(OlvmError, match=r"s2 was taken later and would be lost; .*discard_later"):
        vm.revert_snapshot("s1").wait(30)
    with pytest.raises(OlvmError, match="taken without; ask again without with_memory"):
        vm.revert_snapshot("s2", with_memory=True).wait(30)
    with pytest.raises(BadInput, match="nonsense"):
        vm.task("revert_snapshot", {"name": "s1", "nonsense": True})
    for _ in range(2):
        vm.revert_snapshot("s1", discard_later=True).wait(30)
        poll(lambda: vm.status == "up")
    assert [snapshot["name"] for snapshot in vm.snapshots()] == ["s1"]
    vm.stop().wait(30)
    vm.remove().wait(30)
