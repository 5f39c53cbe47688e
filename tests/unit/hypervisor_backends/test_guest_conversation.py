"""The host's side of guests: an original agent replayed, our agent's answers, and guests that say anything."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guest_agent import protocol as g
from hypervisor_backends.guest_conversation import SILENT_S, GuestConversation
from hypervisor_backends.measurements import GuestFacts
from hypervisor_backends.protocol import CallFailed, CallResult, CallSucceeded
from hypervisor_backends.qemu_guest_agent import PERIOD_S, THROTTLE_S, QemuGuestAgentPoller, facts_of
from olvm.model.limits import GUEST_LINES_PER_S_MAX, GUEST_LIST_ITEMS_MAX, GUEST_TEXT_CHARS_MAX, NS_PER_S

EXCHANGES = Path(__file__).parents[1] / "guest_agent" / "exchanges"
OURS = {"apiVersion": 3, "olvm": 1, "memory-stat": {"mem_total": 100}}


class Talk:
    """A conversation, what was said to the guest, and what was told of it."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, object]]] = []
        self.words: list[str] = []
        self.takes_more = True
        self.now_ns = NS_PER_S
        self.talk = GuestConversation("v1", self._say, self.words.append)
        self.talk.connected()

    def _say(self, line: bytes) -> bool:
        if self.takes_more:
            message = json.loads(line)
            self.said.append((message.pop("__name__"), message))
        return self.takes_more

    def hear(self, name: str, /, **arguments: object) -> None:
        self.talk.feed(g.encode(name, arguments), self.now_ns)

    def beat(self, **more: object) -> None:
        self.talk.feed(g.encode("heartbeat", {**OURS, **more}), self.now_ns)

    def call(self, message: str, arguments: dict[str, object] | None = None) -> list[CallResult]:
        results: list[CallResult] = []
        self.talk.call(message, arguments or {}, self.now_ns, 10.0, results.append)
        return results

    @property
    def facts(self) -> GuestFacts:
        facts = self.talk.facts()
        assert facts is not None
        return facts


def code(results: list[CallResult]) -> str:
    (result,) = results
    assert isinstance(result, CallFailed), result
    return result.code


# ---------------------------------------------------------------- an original agent


def replayed(name: str) -> Talk:
    one = Talk()
    said = iter([("refresh", {"apiVersion": 3})])
    assert next(said) == one.said[0]
    for line in (EXCHANGES / name).read_text().splitlines():
        step = json.loads(line)
        if step.get("guest", {}).get("__name__") == "uninstalled":
            break  # from here on nothing that it said counts
        if "guest" in step:
            one.talk.feed(json.dumps(step["guest"]).encode() + b"\n", one.now_ns)
        elif "host" in step and step["host"]["__name__"] in ("refresh", "api-version"):
            wanted = dict(step["host"])
            assert (wanted.pop("__name__"), wanted) in one.said
        elif "after_s" in step:
            one.now_ns += int(step["after_s"] * NS_PER_S)
    return one


def test_original_agent_of_version_0_is_understood() -> None:
    one = replayed("original_agent_version_0.jsonl")
    assert one.talk.version == 0
    assert (one.facts.hostname, one.facts.ips, one.facts.users) == ("old", ("192.0.2.18",), ())
    assert one.facts.memory_total_kib == 512000
    assert one.facts.agents == ("ovirt 0",)
    assert one.talk.unknown == one.talk.decoder.discarded == 0


def test_original_agent_of_version_3_is_understood() -> None:
    one = replayed("original_agent_version_3.jsonl")
    facts = one.facts
    assert one.talk.version == 3
    assert (facts.os_name, facts.os_version, facts.timezone) == ("CentOS Linux", "7.9", "Europe/Berlin")
    assert (facts.fqdn, facts.cpu_count) == ("el7.example.org", 4)
    assert set(facts.sources.values()) == {"ovirt"}
    assert one.talk.unknown == one.talk.decoder.discarded == 0


def test_agent_that_is_uninstalled_is_forgotten() -> None:
    one = replayed("original_agent_version_3.jsonl")
    one.hear("uninstalled")
    assert one.talk.facts() is None
    assert not one.talk.speaks(one.now_ns)


def test_heartbeat_without_a_version_is_a_downgrade() -> None:
    one = Talk()
    one.hear("heartbeat", apiVersion=3)
    assert one.talk.version == 3
    one.hear("heartbeat")
    assert one.talk.version == 0
    assert one.said[-1][0] == "refresh", "an agent without versions is told none"


def test_call_of_an_original_agent_is_answered_when_it_is_written() -> None:
    one = Talk()
    one.hear("heartbeat", apiVersion=3)
    (result,) = one.call("lock-screen")
    assert isinstance(result, CallSucceeded)
    assert one.said[-1] == ("lock-screen", {})
    assert code(one.call("freeze")) == "not_supported"


def test_call_that_the_version_does_not_have_is_refused() -> None:
    one = Talk()
    one.hear("heartbeat", apiVersion=0)
    assert code(one.call("set-number-of-cpus", {"count": 1})) == "not_supported"


# ---------------------------------------------------------------- our agent


def test_call_of_our_agent_waits_for_its_own_completion() -> None:
    one = Talk()
    one.beat()
    first, second = one.call("notify", {"message": "a"}), one.call("notify", {"message": "b"})
    ids = [arguments["reply_id"] for name, arguments in one.said if name == "notify"]
    one.talk.feed(g.encode("completion", {"reply_id": ids[1], "ok": False, "reason": "no wall"}), one.now_ns)
    assert first == []
    assert code(second) == "guest_refused"
    one.talk.feed(g.encode("completion", {"reply_id": ids[0], "ok": True}), one.now_ns)
    one.talk.feed(g.encode("completion", {"reply_id": ids[0], "ok": True}), one.now_ns)
    assert [type(result) for result in first] == [CallSucceeded]


def test_call_that_is_not_answered_in_time_has_an_unknown_outcome() -> None:
    one = Talk()
    one.beat()
    results = one.call("thaw")
    one.talk.expire(one.now_ns + 9 * NS_PER_S)
    assert results == []
    one.talk.expire(one.now_ns + 11 * NS_PER_S)
    (result,) = results
    assert isinstance(result, CallFailed)
    assert not result.outcome_known


def test_call_whose_machine_ends_is_answered() -> None:
    one = Talk()
    one.beat()
    results = one.call("thaw")
    one.talk.close()
    assert code(results) == "guest_silent"


def test_guest_that_was_not_heard_lately_is_silent() -> None:
    one = Talk()
    assert code(one.call("echo")) == "guest_silent"
    one.beat()
    assert one.talk.speaks(one.now_ns)
    one.now_ns += int((SILENT_S + 1) * NS_PER_S)
    assert code(one.call("echo")) == "guest_silent"


def test_guest_that_does_not_read_is_silent() -> None:
    one = Talk()
    one.beat()
    one.takes_more = False
    assert code(one.call("thaw")) == "guest_silent"


def test_login_carries_no_password() -> None:
    one = Talk()
    one.beat()
    one.call("login", {"username": "alice", "session": "ttyS0"})
    name, arguments = one.said[-1]
    assert (name, arguments["username"]) == ("login", "alice")


def test_sessions_are_events_and_facts_are_news_once() -> None:
    one = Talk()
    one.beat()
    one.hear("session-logon", user="alice")
    one.hear("host-name", name="web")
    one.hear("host-name", name="web")
    assert one.words.count("session-logon alice") == 1
    assert one.words.count("facts") == 1
    assert one.facts.session == "UserLoggedOn"


# ---------------------------------------------------------------- guests that lie


def test_texts_are_cleaned_and_cut_lists_and_numbers_too() -> None:
    one = Talk()
    one.beat()
    one.hear("host-name", name="a\x1b[31m" + "x" * 10_000)
    one.hear("applications", applications=["a"] * 20_000)
    one.hear("number-of-cpus", count=10**9)
    one.hear("os-info", version=7, distribution=None, kernel={"a": 1})
    one.hear(
        "network-interfaces", interfaces=[{"name": "eth0", "inet": ["1.2.3.4", "no address", 7]}, 5, None]
    )
    facts = one.facts
    assert "\x1b" not in facts.hostname
    assert len(facts.hostname) == GUEST_TEXT_CHARS_MAX
    assert len(facts.applications) == GUEST_LIST_ITEMS_MAX
    assert (facts.cpu_count, facts.kernel, facts.ips) == (0, "", ("1.2.3.4",))


def test_unknown_messages_and_bad_lines_are_counted() -> None:
    one = Talk()
    one.hear("no-such-message")
    one.talk.feed(b"no json\n[1]\n{}\n\n" + b"x" * (g.LINE_BYTES_MAX + 10), one.now_ns)
    one.talk.feed(b"still the same line\n", one.now_ns)
    one.beat()
    assert one.facts.messages_unknown == 1
    assert one.facts.lines_discarded == 4


def test_guest_that_floods_is_not_read_for_a_while() -> None:
    one = Talk()
    assert one.talk.may_read(one.now_ns)
    one.talk.feed(g.encode("echo") * (5 * GUEST_LINES_PER_S_MAX), one.now_ns)
    assert not one.talk.may_read(one.now_ns)
    assert one.talk.delayed == 1
    assert one.talk.may_read(one.now_ns + 10 * NS_PER_S)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = sorted(
    {
        "name",
        "list",
        "count",
        "zone",
        "offset",
        "disks",
        "mapping",
        "interfaces",
        "applications",
        "apiVersion",
    }
    | {
        "memory-stat",
        "olvm",
        "uptime",
        "bootId",
        "fqdn",
        "users",
        "reply_id",
        "ok",
        "reason",
        "version",
        "user",
    }
)
LINES = st.builds(
    lambda name, fields: json.dumps({"__name__": name, **fields}).encode() + b"\n",
    st.sampled_from(sorted(g.FROM_GUEST)),
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(LINES | st.binary(max_size=200), max_size=12), st.integers(1, 50))
def test_guest_may_say_anything_split_anywhere(lines: list[bytes], size: int) -> None:
    """Never an exception; what is told can be stored."""
    one = Talk()
    data = b"".join(lines)
    for at in range(0, len(data), size):
        one.talk.feed(data[at : at + size], one.now_ns)
    one.talk.feed(b"\n", one.now_ns)  # the end of what was half said
    one.beat()
    msgspec.json.encode(one.facts)
    assert len(one.talk.decoder._rest) <= g.LINE_BYTES_MAX


# ---------------------------------------------------------------- QEMU's agent


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(PERIOD_S)), JSON | st.fixed_dictionaries({"return": JSON}))
def test_answer_of_qemus_agent_may_be_anything(command: str, answer: object) -> None:
    told, version = facts_of(command, json.dumps(answer))
    assert isinstance(told, dict)
    assert isinstance(version, str)


def test_facts_of_qemus_agent_are_preferred_and_say_so() -> None:
    one = Talk()
    one.beat()
    one.hear("host-name", name="by-channel")
    told, _ = facts_of("guest-get-host-name", '{"return": {"host-name": "by-qemu"}}')
    one.talk.book.take("qemu-ga", told, one.now_ns)
    assert one.facts.hostname == "by-qemu"
    assert one.facts.sources["hostname"] == "qemu-ga"
    one.talk.book.forget("qemu-ga")
    assert one.facts.hostname == "by-channel"


def test_poller_asks_each_question_at_its_period_and_leaves_the_deaf_alone() -> None:
    poller = QemuGuestAgentPoller()
    poller.begin("v1", 0)
    assert sorted(poller.due("v1", 0)) == sorted(PERIOD_S)
    assert poller.due("v1", NS_PER_S) == []
    later_ns = 1_000 * NS_PER_S
    assert sorted(poller.due("v1", later_ns)) == sorted(PERIOD_S)
    assert poller.due("v1", later_ns + 11 * NS_PER_S) == ["guest-get-users"]
    poller.failed("v1", later_ns)
    assert poller.due("v1", later_ns + int((THROTTLE_S - 1) * NS_PER_S)) == []
    poller.end("v1")
    assert poller.due("v1", later_ns * 2) == []


@pytest.mark.parametrize("answer", ["", "{", "[]", '{"return": null}', "x" * (2 * g.LINE_BYTES_MAX)])
def test_answer_that_is_none_tells_nothing(answer: str) -> None:
    assert facts_of("guest-get-osinfo", answer) == ({}, "")
