"""QEMU's own agent: what its answers tell, hostile ones too, and when it is asked."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor_backends.guest_values import Values
from hypervisor_backends.measurements import GuestFilesystem, GuestNic
from hypervisor_backends.qemu_guest_agent import (
    PERIOD_S,
    THROTTLE_S,
    THROTTLE_YOUNG_S,
    YOUNG_PERIOD_S,
    YOUNG_S,
    QemuGuestAgentPoller,
    facts_of,
    supported_of,
)
from olvm.model.limits import GUEST_LINE_BYTES_MAX, NS_PER_S
from tests.unit.hypervisor_backends.guest_words import JSON

OLD_NS = int((YOUNG_S + 1) * NS_PER_S)


def told(command: str, returned: object) -> dict[str, object]:
    return facts_of(command, json.dumps({"return": returned}), Values())[0]


def s(seconds: float) -> int:
    return int(seconds * NS_PER_S)


# ---------------------------------------------------------------- answers


def test_answers_of_a_real_agent_become_facts() -> None:
    """As QEMU 7.2's agent gives them in a Debian."""
    assert facts_of(
        "guest-info", '{"return": {"version": "7.2.22", "supported_commands": []}}', Values()
    ) == (
        {},
        "7.2.22",
    )
    osinfo = {"name": "Debian GNU/Linux", "kernel-release": "6.1.0", "version-id": "12", "machine": "x86_64"}
    assert told("guest-get-osinfo", osinfo) == {
        "os_name": "Debian GNU/Linux",
        "os_version": "12",
        "kernel": "6.1.0",
        "os_arch": "x86_64",
    }
    assert told("guest-get-timezone", {"zone": "CET", "offset": -3600}) == {
        "timezone": "CET",
        "timezone_offset_minutes": -60,
    }
    assert told("guest-get-vcpus", [{"online": True, "logical-id": 0}, {"online": False}]) == {"cpu_count": 1}
    users = [{"user": "alice", "login-time": 1.5}, {"user": "alice"}, {"user": "bob"}]
    assert told("guest-get-users", users) == {"users": ("alice", "bob")}


def test_interfaces_and_disks_of_a_real_agent_become_facts() -> None:
    cards = [
        {"name": "lo", "ip-addresses": [{"ip-address": "127.0.0.1", "ip-address-type": "ipv4", "prefix": 8}]},
        {
            "name": "eth0",
            "hardware-address": "52:54:00:00:00:01",
            "ip-addresses": [{"ip-address": "192.0.2.7"}, {"ip-address": "fe80::1"}, {"ip-address": "x"}, 7],
        },
    ]
    card = GuestNic(name="eth0", mac="52:54:00:00:00:01", inet=("192.0.2.7",), inet6=("fe80::1",))
    assert told("guest-network-get-interfaces", cards) == {"interfaces": (card,), "ips": ("192.0.2.7",)}
    mounts = [
        {"name": "vda1", "mountpoint": "/", "type": "ext4", "total-bytes": 100, "used-bytes": 40, "disk": []},
        {"name": "old", "mountpoint": "/old", "type": "ext4", "disk": []},
    ]
    assert told("guest-get-fsinfo", mounts) == {
        "filesystems": (GuestFilesystem(path="/", type="ext4", total_bytes=100, used_bytes=40),)
    }
    disks = [
        {"name": "/dev/vda", "partition": False, "address": {"serial": "s1", "dev": "/dev/vda"}},
        {"name": "/dev/vda1", "partition": True, "address": {"serial": "s1"}},
        {"name": "/dev/sr0", "partition": False},
    ]
    assert told("guest-get-disks", disks) == {"disk_mapping": {"s1": "/dev/vda"}}


def test_commands_that_an_agent_has_are_those_it_calls_enabled() -> None:
    listed = [{"name": "guest-info", "enabled": True}, {"name": "guest-exec", "enabled": False}, 7, {}]
    answer = json.dumps({"return": {"supported_commands": listed}})
    assert supported_of(answer) == {"guest-info"}
    assert supported_of("{") == frozenset()


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "{",
        "[]",
        '{"return": null}',
        '{"return": {"name": "\\ud800"}}',
        "[" * 200_000,
        '{"return": ' + "9" * 10_000 + "}",
        "x" * (2 * GUEST_LINE_BYTES_MAX),
    ],
    ids=["empty", "half", "list", "null", "surrogate", "deep", "number", "long"],
)
def test_answer_that_is_none_tells_nothing(answer: str) -> None:
    for command in PERIOD_S:
        values = Values()
        assert facts_of(command, answer, values) == ({}, "")
        assert values.refused_count == 1
    assert supported_of(answer) == frozenset()


def test_values_of_an_answer_that_cannot_be_are_counted() -> None:
    mounts = [
        {"mountpoint": "/", "total-bytes": 10, "used-bytes": 20, "type": "ext4"},
        {"mountpoint": "/old", "type": "ext4"},
        {"mountpoint": "/far", "total-bytes": 2**63, "used-bytes": 1},
        "no object",
    ]
    values = Values()
    told, _ = facts_of("guest-get-fsinfo", json.dumps({"return": mounts}), values)
    assert [(one.path, one.used_bytes) for one in told["filesystems"]] == [("/", 10)]
    assert values.refused_count == 3


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(PERIOD_S)), JSON | st.fixed_dictionaries({"return": JSON}))
def test_answer_of_qemus_agent_may_be_anything(command: str, answer: object) -> None:
    found, version = facts_of(command, json.dumps(answer), Values())
    assert isinstance(found, dict)
    assert len(version) <= 32
    supported_of(json.dumps(answer))


# ---------------------------------------------------------------- when it is asked


def test_young_machine_is_asked_everything_often_and_an_old_one_each_at_its_period() -> None:
    poller = QemuGuestAgentPoller()
    poller.begin("v1", 0)
    assert poller.due("v1", 0) == list(PERIOD_S)
    assert poller.due("v1", s(YOUNG_PERIOD_S - 1)) == []
    assert poller.due("v1", s(YOUNG_PERIOD_S)) == list(PERIOD_S)
    assert poller.due("v1", s(YOUNG_S)) == ["guest-get-users", "guest-get-vcpus"]
    assert poller.due("v1", s(YOUNG_PERIOD_S + 300)) == list(PERIOD_S)
    assert poller.due("v1", s(YOUNG_PERIOD_S + 311)) == ["guest-get-users"]


def test_agent_that_fails_is_left_alone_for_a_while_and_no_other() -> None:
    poller = QemuGuestAgentPoller()
    poller.begin("v1", 0)
    poller.begin("v2", 0)
    poller.failed("v1", 0)
    assert poller.due("v1", s(THROTTLE_YOUNG_S - 1)) == []
    assert poller.due("v2", s(THROTTLE_YOUNG_S - 1)) == list(PERIOD_S)
    assert poller.due("v1", s(THROTTLE_YOUNG_S)) == list(PERIOD_S)
    poller.failed("v1", OLD_NS)
    assert poller.due("v1", OLD_NS + s(THROTTLE_S - 1)) == []
    assert poller.due("v1", OLD_NS + s(THROTTLE_S)) == list(PERIOD_S)


def test_agent_that_connects_is_asked_everything_at_once() -> None:
    poller = QemuGuestAgentPoller()
    poller.begin("v1", 0)
    poller.supports("v1", frozenset({"guest-info", "guest-exec"}))
    assert poller.due("v1", 0) == ["guest-info"]
    poller.connected("v1", 1)
    assert poller.due("v1", 1) == list(PERIOD_S), "it may be another agent"
    again_ns = 1 + s(THROTTLE_YOUNG_S)
    poller.failed("v1", again_ns - 1)
    poller.connected("v1", again_ns)
    assert poller.due("v1", again_ns) == list(PERIOD_S)
    poller.connected("v2", again_ns)
    assert poller.due("v2", again_ns) == [], "a machine that is not known stays so"


def test_agent_that_connects_on_and_on_is_not_asked_more_often_for_it() -> None:
    poller = QemuGuestAgentPoller()
    poller.begin("v1", 0)
    asked = []
    for tenth in range(int(10 * YOUNG_PERIOD_S)):
        poller.connected("v1", s(tenth / 10))
        asked += [tenth / 10] if poller.due("v1", s(tenth / 10)) else []
    assert asked == [0.0, THROTTLE_YOUNG_S]


def test_agent_is_asked_what_it_knows() -> None:
    poller = QemuGuestAgentPoller()
    poller.begin("v1", 0)
    poller.supports("v1", frozenset({"guest-info", "guest-get-users", "guest-exec"}))
    assert poller.due("v1", 0) == ["guest-info", "guest-get-users"]
    poller.failed("v1", OLD_NS)
    assert poller.due("v1", 2 * OLD_NS) == list(PERIOD_S), "it may be another agent by now"
    poller.supports("v1", frozenset())
    assert poller.due("v1", 10 * OLD_NS) == list(PERIOD_S), "an agent that knows nothing has not said so"


def test_machine_that_ended_is_not_asked_and_one_that_boots_is_young_again() -> None:
    poller = QemuGuestAgentPoller()
    poller.begin("v1", 0)
    poller.end("v1")
    poller.end("v1")
    poller.failed("v1", 0)
    poller.supports("v1", frozenset({"guest-info"}))
    assert poller.due("v1", 0) == []
    poller.begin("v1", OLD_NS)
    poller.due("v1", OLD_NS)
    assert poller.due("v1", OLD_NS + s(YOUNG_PERIOD_S)) == list(PERIOD_S)


def test_clock_that_goes_back_asks_at_once_and_not_an_hour_later() -> None:
    poller = QemuGuestAgentPoller()
    poller.begin("v1", s(3600))
    poller.failed("v1", s(3600))
    assert poller.due("v1", 0) == list(PERIOD_S)
