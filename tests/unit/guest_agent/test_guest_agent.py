"""What the agent says and when, and what it does with an order, without a port or a wait."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guest_agent import freezing
from guest_agent import protocol as p
from guest_agent.actions import run_hooks
from guest_agent.agent import INTERVALS, Agent
from guest_agent.facts import Facts
from tests.unit.guest_agent.agent_bench import AgentBench, write_tree

ALICE = "UID=1000\nUSER=alice\nACTIVE=1\nSTATE=active\nTTY=hvc0\nCLASS=user\n"


@pytest.fixture
def bench(tmp_path: Path) -> AgentBench:
    one = AgentBench(tmp_path)
    one.agent.connected()
    return one


def test_agent_connected_says_first_that_it_is_there(bench: AgentBench) -> None:
    assert [one["__name__"] for one in bench.said] == ["session-startup"]


def test_agent_heartbeat_is_said_every_five_seconds_and_offers_its_version_from_the_second_on(
    bench: AgentBench,
) -> None:
    bench.pass_time(20)
    assert [one["apiVersion"] for one in bench.named("heartbeat")] == [0, 3, 3, 3, 3]
    beat = bench.named("heartbeat")[0]
    assert beat["free-ram"] == "117"
    assert beat["memory-stat"]["mem_total"] == 188416
    assert beat["memory-stat"]["swap_usage"] == 96
    assert (beat["olvm"], beat["agentVersion"], beat["bootId"]) == (1, "1", "b-1")


def test_agent_says_each_fact_at_its_interval(bench: AgentBench) -> None:
    bench.order("refresh", apiVersion=3)
    bench.said.clear()
    bench.pass_time(601)
    for name, interval_s in INTERVALS.items():
        assert abs(len(bench.named(name)) - (600 / interval_s + 1)) <= 1, name


def test_agent_refresh_says_everything_now(bench: AgentBench) -> None:
    bench.pass_time(3)
    bench.said.clear()
    bench.order("refresh", apiVersion=3)
    bench.agent.tick()
    bench.wait_for_errands()
    assert {one["__name__"] for one in bench.said} == {*INTERVALS, "memory-stats"}


def test_agent_connected_again_negotiates_anew(bench: AgentBench) -> None:
    bench.order("refresh", apiVersion=3)
    bench.pass_time(10)
    bench.said.clear()
    bench.agent.connected()
    bench.pass_time(130)
    assert bench.named("heartbeat")[0]["apiVersion"] == 0
    assert not bench.named("os-info")


def test_agent_user_who_comes_locks_unlocks_and_goes_is_told(bench: AgentBench) -> None:
    record = bench.root / "run/systemd/sessions/7"
    bench.pass_time(1)
    for lock in ("", '{"user": "alice"}', ""):
        write_tree(bench.root, {"run/systemd/sessions/7": ALICE, "run/olvm-locks/hvc0": lock})
        bench.pass_time(10)
    record.unlink()
    bench.pass_time(10)
    events = [one for one in bench.said if one["__name__"].startswith("session-")][1:]
    names = [one["__name__"] for one in events]
    assert names == ["session-logon", "session-lock", "session-unlock", "session-logoff"]
    assert {(one["user"], one["session"]) for one in events} == {("alice", "hvc0")}
    assert [name for name, _ in groupby(one["name"] for one in bench.named("active-user"))] == [
        "",
        "alice",
        "",
    ]


def test_agent_text_of_the_guest_is_clean_on_the_line(bench: AgentBench) -> None:
    write_tree(bench.root, {"proc/sys/kernel/hostname": "we\x01b\x1b1\n"})
    bench.pass_time(1)
    assert bench.named("host-name")[0]["name"] == "we\ufffdb\ufffd1"


def test_agent_echo_answers_with_the_same(bench: AgentBench) -> None:
    bench.order("echo", reply_id=5, a=[1, {"b": None}])
    assert bench.named("echo") == [{"__name__": "echo", "reply_id": 5, "a": [1, {"b": None}]}]
    assert not bench.named("completion")


def test_agent_order_without_reply_id_is_not_answered(bench: AgentBench) -> None:
    bench.order("no-such-order")
    bench.order("set-number-of-cpus", count="many")
    assert not bench.named("completion")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("login", {}),
        ("login", {"username": "-froot"}),
        ("login", {"username": "a\nb"}),
        ("login", {"username": ""}),
        ("set-number-of-cpus", {"count": 0}),
        ("set-number-of-cpus", {"count": 10**9}),
        ("set-number-of-cpus", {}),
        ("lifecycle-event", {}),
        ("lifecycle-event", {"type": "../hooks"}),
        ("shutdown", {"timeout": "soon"}),
        ("shutdown", {"timeout": []}),
        ("notify", {}),
        ("log-off", {"session": "no-such-terminal"}),
        ("lock-screen", {"session": "no-such-terminal"}),
        ("refresh", {"apiVersion": "x"}),
        ("api-version", {"apiVersion": None}),
        ("heartbeat", {}),
        ("shutdown", {"timeout": -1}),
        ("shutdown", {"timeout": 10**12}),
        ("login", {"username": 3}),
        ("login", {"username": "alice", "session": {"a": 1}}),
    ],
)
def test_agent_order_that_is_wrong_is_answered_with_a_reason(
    bench: AgentBench, name: str, arguments: dict[str, object]
) -> None:
    bench.order(name, reply_id="r", **arguments)
    (answer,) = bench.named("completion")
    assert (answer["reply_id"], answer["ok"]) == ("r", False)
    assert answer["reason"]


def test_agent_freeze_of_a_guest_without_file_systems_and_thaw_are_done(bench: AgentBench) -> None:
    bench.order("freeze", reply_id=1)
    bench.order("thaw", reply_id=2)
    assert [(one["reply_id"], one["ok"]) for one in bench.named("completion")] == [(1, True), (2, True)]


def test_agent_freeze_that_nobody_thaws_ends_by_itself(bench: AgentBench) -> None:
    bench.order("freeze")
    assert (bench.root / "frozen").exists()
    bench.pass_time(freezing.THAW_AFTER_S - 2)
    assert (bench.root / "frozen").exists()
    bench.pass_time(4)
    assert not (bench.root / "frozen").exists()


def test_agent_that_begins_thaws_what_the_last_one_froze(bench: AgentBench) -> None:
    bench.order("freeze")
    again = AgentBench(bench.root)
    again.pass_time(1)
    assert not (bench.root / "frozen").exists()


def test_agent_freeze_that_fails_says_where_and_leaves_nothing_frozen(bench: AgentBench) -> None:
    write_tree(bench.root, {"proc/self/mounts": "/dev/vda1 /no/such/place ext4 rw 0 0\n"})
    bench.order("freeze", reply_id=1)
    (answer,) = bench.named("completion")
    assert not answer["ok"]
    assert answer["reason"].startswith("/no/such/place: ")
    assert not (bench.root / "frozen").exists()


def test_freeze_where_a_file_system_cannot_be_frozen_holds_nobody_up(tmp_path: Path) -> None:
    """/proc has no such thing; what has one comes in a real guest."""
    mark = str(tmp_path / "mark")
    assert freezing.freeze(["/proc"], mark) == ""
    assert freezing.is_frozen(mark)
    assert freezing.thaw(mark) == ""
    assert not freezing.is_frozen(mark)


def test_hooks_of_an_event_run_in_the_order_of_their_names_and_failures_are_named(tmp_path: Path) -> None:
    place = tmp_path / "before_migration"
    write_tree(
        place,
        {
            "10-first": f'#!/bin/sh\necho "first $OLVM_EVENT $OLVM_FAILURE" >> {tmp_path}/out\n',
            "20-fails": f"#!/bin/sh\necho second >> {tmp_path}/out\necho no good >&2\nexit 3\n",
            "30-no-program": "not executable",
        },
    )
    for name in ("10-first", "20-fails"):
        (place / name).chmod(0o755)
    assert run_hooks("before_migration", "x", (str(tmp_path), "/nowhere")) == "20-fails: no good"
    assert (tmp_path / "out").read_text() == "first before_migration x\nsecond\n"


def test_agent_in_an_empty_file_system_still_says_everything(tmp_path: Path) -> None:
    said: list[bytes] = []
    agent = Agent(Facts(str(tmp_path)), said.append)
    agent.connected()
    agent.on_message("refresh", {"apiVersion": 3})
    agent.tick()
    assert len(said) >= len(INTERVALS) - 2


def test_agent_that_nobody_listens_to_does_not_look_without_a_pause(tmp_path: Path) -> None:
    """Its facts are overdue all the while; they are no reason to wake up."""
    bench = AgentBench(tmp_path)
    bench.agent.connected()
    bench.now_s += 3600
    assert bench.agent.look() >= 1.0
    bench.agent.tick()
    assert 0.0 < bench.agent.tick() <= 5.0


def test_agent_line_nested_deeply_costs_itself_alone(bench: AgentBench) -> None:
    for depth in range(100, 1000, 50):
        line = b'{"__name__":"echo","x":' + b"[" * depth + b"]" * depth + b"}\n"
        for message in p.LineDecoder().feed(line):
            bench.agent.on_message(*message)
    bench.said.clear()
    bench.order("echo", n=1)
    assert [one["n"] for one in bench.named("echo")] == [1]


@pytest.mark.parametrize("reply_id", [[1], {"a": 1}, 1.5, None])
def test_agent_reply_id_that_is_none_is_not_answered(bench: AgentBench, reply_id: object) -> None:
    bench.order("refresh", reply_id=reply_id)
    assert not bench.named("completion")


def test_agent_two_messages_for_the_user_at_once_are_both_done(bench: AgentBench) -> None:
    for reply_id in (1, 2):
        for message in p.LineDecoder().feed(p.encode("notify", {"message": "\x00", "reply_id": reply_id})):
            bench.agent.on_message(*message)
    bench.wait_for_errands()
    assert not any("still being done" in one["reason"] for one in bench.named("completion"))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
# Without those that would do something to the machine that runs the tests.
HARMLESS = ("refresh", "api-version", "echo", "login", "freeze", "thaw", "no-such-order")
KEYS = st.sampled_from(["apiVersion", "username", "session", "reply_id", "type", "failure", "x"])


@given(
    st.lists(st.tuples(st.sampled_from(HARMLESS), st.dictionaries(KEYS, ANYTHING, max_size=4)), max_size=6)
)
@settings(max_examples=150, deadline=None)
def test_agent_ordered_anything_goes_on(
    tmp_path_factory: pytest.TempPathFactory, orders: list[tuple[str, dict[str, object]]]
) -> None:
    bench = AgentBench(tmp_path_factory.mktemp("guest"))
    bench.agent.connected()
    for name, arguments in orders:
        for message in p.LineDecoder().feed(p.encode(name, arguments)):
            bench.agent.on_message(*message)
    bench.wait_for_errands()
    bench.agent.tick()
    bench.order("echo", n=1)
    assert bench.named("echo")[-1]["n"] == 1
    assert 0 <= bench.agent.version <= p.API_VERSION_MAX
