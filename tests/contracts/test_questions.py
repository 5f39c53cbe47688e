"""SQL of clients over a real socket: it can be ended, it ends with its client, and it keeps nobody else waiting."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from olvm import DataCenter
from olvm.model.client_protocol import Events
from olvm.model.errors import BadInput, BadQuery, EngineUnreachable, WaitTimeout
from tests.contracts.fault_driver import INSTANT, poll

ENDLESS = {
    "engine": "select sum(a.range * b.range) from vms, range(10000000) a, range(10000000) b",
    "history": "select sum(a.range * b.range) from history.events, range(10000000) a, range(10000000) b",
    "both": "select count(*) from vms, history.events, range(10000000) a, range(10000000) b where a.range <> b.range",
}


@pytest.fixture(scope="module")
def dc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataCenter]:
    with DataCenter.open(
        tmp_path_factory.mktemp("dc"), runtime="local", host_silos=1, simulated=INSTANT, sample_period_s=0.2
    ) as opened:
        opened.clusters.create("prod").hosts.add("kvm00", cpus=8, memory="16GiB")
        opened.clusters.get("prod").vms.create("web-1", vcpus=1, memory="1GiB").start().wait(30)
        poll(lambda: opened.sql("select count(*) from history.events where code = 'vm_up'").one() == 1)
        yield opened


def running(dc: DataCenter) -> int:
    return len(dc._runtime.process.gateway._questions._stop_by_key)  # type: ignore[union-attr]


@pytest.fixture
def ask(dc: DataCenter) -> Iterator[Callable[[str], DataCenter]]:
    """Ask in a thread, over the socket; the client that asks."""
    clients: list[DataCenter] = []
    threads: list[threading.Thread] = []

    def ask(sql: str) -> DataCenter:
        client = DataCenter.connect(dc.directory)
        before = running(dc)

        def wait_for_it() -> None:
            with contextlib.suppress(BadQuery, EngineUnreachable, WaitTimeout):
                client.sql(sql, timeout=600)

        thread = threading.Thread(target=wait_for_it, daemon=True)
        thread.start()
        poll(lambda: running(dc) == before + 1)
        clients.append(client)
        threads.append(thread)
        return client

    yield ask
    for client in clients:
        client.close()
    poll(lambda: running(dc) == 0)


@pytest.mark.parametrize("where", list(ENDLESS))
def test_question_ends_with_its_client(dc: DataCenter, ask: Callable[[str], DataCenter], where: str) -> None:
    ask(ENDLESS[where]).close()
    poll(lambda: running(dc) == 0)


@pytest.mark.parametrize("where", list(ENDLESS))
def test_interrupted_command_line_ends_its_question(dc: DataCenter, where: str) -> None:
    command = [sys.executable, "-m", "olvm.cli", "sql", ENDLESS[where], "-d", str(dc.directory)]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True
    ) as asking:
        poll(lambda: running(dc) == 1)
        asking.send_signal(signal.SIGINT)
        _, said = asking.communicate(timeout=60)
    assert (asking.returncode, said) == (130, "olvm: interrupted\n")
    poll(lambda: running(dc) == 0)


def test_killed_command_line_ends_its_question(dc: DataCenter) -> None:
    command = [sys.executable, "-m", "olvm.cli", "sql", ENDLESS["history"], "-d", str(dc.directory)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL) as asking:
        poll(lambda: running(dc) == 1)
        os.kill(asking.pid, signal.SIGKILL)
    poll(lambda: running(dc) == 0)


def test_answer_that_nobody_waits_for_any_more_is_not_computed(dc: DataCenter) -> None:
    with DataCenter.connect(dc.directory) as client:
        for link in (client._link, dc._link):
            asked = link.ask(_sql(ENDLESS["engine"]))
            poll(lambda: running(dc) == 1)
            link.cancel(asked)
            poll(lambda: running(dc) == 0)
            link.cancel(asked)  # the second time nothing is there to end
    assert dc.sql("select 1").one() == 1


def test_long_questions_keep_neither_commands_nor_events_nor_samples_waiting(
    dc: DataCenter, ask: Callable[[str], DataCenter]
) -> None:
    ask(ENDLESS["engine"])
    ask(ENDLESS["history"])
    prod = dc.clusters.get("prod")
    seq = max(event["seq"] for event in dc.events())
    prod.vms.create("beside", vcpus=1, memory="1GiB").start().wait(30)
    assert next(event["code"] for event in dc.events(seq)) == "vm_created"
    store = dc._runtime._nodes["telemetry"].history  # type: ignore[union-attr]
    stored = store.counters.sample_count
    poll(lambda: store.counters.sample_count > stored)
    assert len(dc.vms.list()) == 2
    assert dc.status().silos
    assert running(dc) == 2
    dc.vms["beside"].stop().wait(30)
    dc.vms["beside"].remove().wait(30)


def test_question_over_its_time_says_so_from_either_file(dc: DataCenter) -> None:
    for sql in ENDLESS.values():
        with pytest.raises(BadQuery, match=r"longer than 0\.2 s"):
            dc.sql(sql, timeout=0.2)


def test_answer_that_is_too_large_is_refused_from_either_file_and_the_next_is_answered(
    dc: DataCenter,
) -> None:
    for table in ("vms", "history.events"):
        with pytest.raises(BadQuery, match="256 MiB of memory"):
            dc.sql(f"select repeat('x', 8000000) from (from {table} limit 1), range(100)")
        assert dc.sql(f"select count(*) > 0 from {table}").one() is True


def test_limits_that_are_none_are_refused(dc: DataCenter) -> None:
    with pytest.raises(BadInput, match="timeout"):
        dc.sql("select 1", timeout=0)
    with pytest.raises(BadInput, match="at least 1 row"):
        dc.sql("select 1", limit=0)


def _sql(text: str) -> object:
    from olvm.model.client_protocol import Sql

    return Sql(text, [], 10, 600.0)


def test_command_line_writes_an_answer_into_a_file_whole_or_not_at_all(
    dc: DataCenter, tmp_path: Path
) -> None:
    def olvm(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "olvm.cli", "sql", *arguments, "-d", str(dc.directory)]
        return subprocess.run(
            command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=60
        )

    query = "select name, memory_bytes from vms where name = 'web-1'"
    for kind in ("json", "jsonl", "csv", "parquet"):
        done = olvm(query, "-o", kind, "--out", str(tmp_path / f"vms.{kind}"))
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        read = duckdb.execute(f"select name, memory_bytes from '{tmp_path}/vms.{kind}'").fetchall()
        assert read == [("web-1", 2**30)]
    assert olvm("select 1", "-o", "parquet").returncode == 2
    assert olvm("select nothing", "-o", "csv", "--out", str(tmp_path / "none.csv")).returncode == 2
    assert olvm("select 1", "--out", str(tmp_path / "no" / "such" / "place")).returncode == 1
    assert len(list(tmp_path.iterdir())) == 4


def timers() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if isinstance(one, threading.Timer)]


def test_client_that_waits_for_an_event_when_the_engine_ends_hurts_nobody(tmp_path: Path) -> None:
    failed: list[threading.ExceptHookArgs] = []
    before, threading.excepthook = threading.excepthook, failed.append
    try:
        with DataCenter.open(tmp_path, runtime="local", host_silos=1, simulated=INSTANT) as opened:

            def waits() -> bool:
                """An event that happens now ends the waiting, so it is begun until nothing does."""
                opened._link.ask(Events(after=10**6, wait_s=2.0))
                return timers() != []

            poll(waits)
            waiting = timers()
        for timer in waiting:
            timer.join(30)
    finally:
        threading.excepthook = before
    assert [str(one.exc_value) for one in failed] == []
