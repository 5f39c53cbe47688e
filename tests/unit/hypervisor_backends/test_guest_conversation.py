"""The host's side of the talk with a guest: calls and their answers, events, and what a guest that lies may cause."""

from __future__ import annotations

import pytest

from guest_agent import protocol as g
from hypervisor_backends.guest_conversation import SILENT_S
from hypervisor_backends.protocol import GUEST_FACTS, CallFailed, CallSucceeded
from olvm.model.limits import (
    GUEST_BYTES_PER_S_MAX,
    GUEST_CALLS_MAX,
    GUEST_EVENT_PERIOD_S,
    GUEST_EVENTS_AT_ONCE_MAX,
    GUEST_LINES_PER_S_MAX,
    GUEST_LIST_CHARS_MAX,
    GUEST_LIST_ITEMS_MAX,
    GUEST_NEWS_AT_ONCE_MAX,
    GUEST_NEWS_PERIOD_S,
    GUEST_TEXT_CHARS_MAX,
    NS_PER_S,
)
from tests.unit.hypervisor_backends.guest_talk import Talk, code

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


def test_login_carries_no_password_and_an_agent_that_wants_one_is_not_asked() -> None:
    one = Talk()
    one.beat()
    one.call("login", {"username": "alice", "session": "ttyS0"})
    assert one.said[-1] == ("login", {"username": "alice", "session": "ttyS0", "reply_id": 1})
    original = Talk()
    original.hear("heartbeat", apiVersion=3)
    assert code(original.call("login", {"username": "alice"})) == "not_supported"


def test_questions_to_one_guest_have_an_end() -> None:
    one = Talk()
    one.beat()
    calls = [one.call("thaw") for _ in range(GUEST_CALLS_MAX + 1)]
    assert [code(results) for results in calls[-2:]] == ["open", "guest_silent"]


def test_version_that_could_not_be_said_is_said_later() -> None:
    one = Talk()
    one.takes_more = False
    one.beat()
    one.takes_more = True
    one.beat()
    assert one.said[-1] == ("api-version", {"apiVersion": 3})
    one.beat()
    assert [name for name, _ in one.said].count("api-version") == 1


def test_agent_that_turns_out_to_be_ours_keeps_what_it_said() -> None:
    one = Talk()
    one.hear("host-name", name="web")
    assert one.facts.sources["hostname"] == "ovirt"
    one.beat()
    assert one.facts.sources["hostname"] == "olvm"
    assert one.facts.agents == ("olvm 3",)
    one.hear("heartbeat", apiVersion=3)  # replaced by an original, which has not said its name yet
    assert one.facts.sources["hostname"] == "ovirt"
    assert one.facts.agents == ("ovirt 3",)


def test_boot_ends_sessions_and_hearing_but_not_the_facts() -> None:
    one = Talk()
    one.beat(bootId="b1", uptime=70)
    one.hear("host-name", name="web")
    one.hear("session-logon", user="alice")
    one.hear("active-user", name="alice", users=["alice"])
    one.talk.begin_boot()
    assert not one.talk.speaks(one.now_ns)
    assert (one.facts.hostname, one.facts.session, one.facts.users) == ("web", "Unknown", ())
    assert (one.facts.boot_id, one.facts.uptime_s) == ("", 0)


# ---------------------------------------------------------------- events and news


def test_sessions_are_events_and_facts_are_news_once() -> None:
    one = Talk()
    one.beat()
    one.hear("session-logon", user="alice")
    one.hear("host-name", name="web")
    one.hear("host-name", name="web")
    assert one.words == [GUEST_FACTS, "session-logon alice"]
    one.pass_s(1)
    one.hear("host-name", name="web")
    one.beat(uptime=7)
    one.pass_s(1)
    assert one.words == [GUEST_FACTS, "session-logon alice", GUEST_FACTS]
    assert one.facts.session == "UserLoggedOn"


def test_guest_that_changes_its_mind_all_the_time_is_news_now_and_then() -> None:
    one = Talk()
    for number in range(600):
        one.hear("host-name", name=f"web-{number}")
        one.pass_s(0.5)
    count_max = GUEST_NEWS_AT_ONCE_MAX + 300 / GUEST_NEWS_PERIOD_S + 1
    assert GUEST_NEWS_AT_ONCE_MAX < one.words.count(GUEST_FACTS) <= count_max
    one.pass_s(GUEST_NEWS_PERIOD_S)
    told = len(one.words)
    one.pass_s(GUEST_NEWS_PERIOD_S)
    assert len(one.words) == told, "the last of them was told"


def test_guest_that_logs_on_and_off_all_the_time_makes_few_events() -> None:
    one = Talk()
    for _ in range(500):
        one.hear("session-lock")
        one.hear("session-unlock")
        one.pass_s(0.1)
    events = [word for word in one.words if word != GUEST_FACTS]
    assert len(events) <= GUEST_EVENTS_AT_ONCE_MAX + 50 / GUEST_EVENT_PERIOD_S + 1
    assert one.facts.events_dropped == 1000 - len(events)
    assert one.facts.session == "Active"


# ---------------------------------------------------------------- guests that lie


def test_texts_are_cleaned_and_cut_lists_and_numbers_too() -> None:
    one = Talk()
    one.beat()
    one.hear("host-name", name="a\x1b[31m" + "x" * 10_000)
    one.hear("applications", applications=["a"] * 20_000)
    one.hear("number-of-cpus", count=10**9)
    one.hear("os-info", version=7, distribution=None, kernel={"a": 1})
    cards = [{"name": "eth0", "inet": ["1.2.3.4", "no address", 7], "inet6": ["::1%\u2028rm"]}, 5, None]
    one.hear("network-interfaces", interfaces=cards)
    facts = one.facts
    assert "\x1b" not in facts.hostname
    assert len(facts.hostname) == GUEST_TEXT_CHARS_MAX
    assert len(facts.applications) == GUEST_LIST_ITEMS_MAX
    assert (facts.cpu_count, facts.kernel, facts.ips) == (0, "", ("1.2.3.4",))
    assert facts.interfaces[0].inet6 == ()


def test_texts_of_one_message_have_a_bound_together() -> None:
    one = Talk()
    one.hear("applications", applications=["x" * 4000] * 250)
    one.hear("containers", list=[{"id": "c", "command": "x" * 4000, "names": ["y" * 4000]}] * 120)
    texts = [text for one in one.facts.containers for text in (one.command, *one.names)]
    for lengths in (map(len, one.facts.applications), map(len, texts)):
        assert GUEST_LIST_CHARS_MAX - 4000 < sum(lengths) <= GUEST_LIST_CHARS_MAX


@pytest.mark.parametrize(
    ("message", "field", "said"),
    [
        ("network-interfaces", "interfaces", {"interfaces": [{"name": "eth0", "inet": ["192.0.2.7"]}]}),
        ("applications", "applications", {"applications": ["bash"]}),
        ("active-user", "users", {"name": "alice"}),
        ("disks-usage", "filesystems", {"disks": [{"path": "/", "total": 2, "used": 1, "fs": "xfs"}]}),
        ("disks-usage", "disk_mapping", {"mapping": {"s": {"name": "vda"}}}),
        ("containers", "containers", {"list": [{"id": "c1"}]}),
        ("number-of-cpus", "cpu_count", {"count": "4"}),
        ("os-info", "kernel", {"kernel": "6.1"}),
        ("timezone", "timezone_offset_minutes", {"zone": "CET", "offset": -60}),
        ("heartbeat", "memory_total_kib", {"memory-stat": {"mem_total": 1000}}),
    ],
)
def test_fact_that_is_said_wrongly_leaves_what_was_said_before(
    message: str, field: str, said: dict[str, object]
) -> None:
    one = Talk()
    one.hear(message, **said)
    before = getattr(one.facts, field)
    assert before
    for wrong in (None, True, "x", 7.5, -1, 10**30, {}, {"a": 1}):
        one.hear(message, **dict.fromkeys(said, wrong))
        if not isinstance(getattr(one.facts, field), dict):  # an object is a mapping, and may be empty
            assert getattr(one.facts, field), wrong
    one.hear(message)
    one.hear(message, **said)
    assert getattr(one.facts, field) == before


def test_unknown_messages_and_bad_lines_are_counted() -> None:
    one = Talk()
    one.hear("no-such-message")
    one.talk.feed(b"no json\n[1]\n{}\n\n" + b"x" * (g.LINE_BYTES_MAX + 10), one.now_ns)
    one.talk.feed(b"still the same line\n", one.now_ns)
    one.talk.feed(b"[" * 100_000 + b"\n" + b"9" * 100_000 + b"\n", one.now_ns)
    one.beat()
    assert one.facts.messages_unknown == 1
    assert one.facts.lines_discarded == 6


def test_values_that_cannot_be_are_counted_and_those_that_are_not_there_are_not() -> None:
    one = Talk()
    one.hear("host-name", name="web")
    one.hear("os-info", version="12", kernel=None)
    one.hear("number-of-cpus", count="4")
    assert one.facts.values_refused == 0
    one.hear("number-of-cpus", count=10**30)
    one.hear("host-name", name=7)
    one.hear("memory-stats", **{"memory-stat": {"mem_total": -1, "mem_free": 5}})
    one.hear("fqdn", fqdn="x" * 5000)
    one.hear("network-interfaces", interfaces=[{"name": "eth0", "inet": ["10.0.0.1", "not an address"]}, 5])
    one.hear("applications", applications="none")
    one.hear("disks-usage", disks=[{"path": "/", "total": 10, "used": 11, "fs": "ext4"}])
    assert one.facts.values_refused == 8
    assert (one.facts.cpu_count, one.facts.hostname, one.facts.ips) == (4, "web", ("10.0.0.1",))


@pytest.mark.parametrize(
    "flood",
    [g.encode("echo") * (5 * GUEST_LINES_PER_S_MAX), b"\n" * 1000, b"x" * (3 * GUEST_BYTES_PER_S_MAX)],
    ids=["messages", "empty lines", "one line that does not end"],
)
def test_guest_that_floods_is_not_read_for_a_while(flood: bytes) -> None:
    one = Talk()
    assert one.talk.may_read(one.now_ns)
    one.talk.feed(flood, one.now_ns)
    for _ in range(5):
        assert not one.talk.may_read(one.now_ns)
    assert one.talk.delayed == 1, "it was made to wait once"
    assert one.talk.may_read(one.now_ns + 10 * NS_PER_S)


def test_clock_that_goes_back_makes_nothing_last_longer() -> None:
    one = Talk()
    one.now_ns = 10_000 * NS_PER_S
    one.beat()
    results = one.call("thaw")
    assert one.talk.may_read(one.now_ns)
    one.talk.feed(b"\n" * (3 * GUEST_LINES_PER_S_MAX), one.now_ns)
    one.now_ns = 5_000 * NS_PER_S
    assert not one.talk.may_read(one.now_ns)
    one.pass_s(2)
    assert one.talk.may_read(one.now_ns)
    assert code(results) == "guest_silent"
    assert not one.talk.speaks(one.now_ns)
    one.beat()
    assert one.talk.speaks(one.now_ns)
