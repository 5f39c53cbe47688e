"""One reader for the guests of a host, over real sockets: as QEMU's end of a channel behaves."""

from __future__ import annotations

import queue
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guest_agent import protocol as g
from hypervisor_backends.guest_channels import GuestChannels
from hypervisor_backends.protocol import CallFailed, CallResult, CallSucceeded
from olvm.model.limits import GUEST_OUT_BYTES_MAX
from tests.unit.hypervisor_backends.guest_sockets import WITHIN_S, Guest


class Host:
    def __init__(self) -> None:
        self.ups: queue.Queue[str] = queue.Queue()
        self.words: queue.Queue[tuple[str, str]] = queue.Queue()
        self.channels = GuestChannels(
            "kvm00", self.ups.put, lambda vm_id, word: self.words.put((vm_id, word)), time.time_ns
        )

    def until(self, holds: Callable[[], object]) -> None:
        deadline_s = time.monotonic() + WITHIN_S
        while not holds():
            assert time.monotonic() < deadline_s


@pytest.fixture
def host() -> Iterator[Host]:
    one = Host()
    yield one
    one.channels.close()


@pytest.fixture
def guests(tmp_path: Path) -> Iterator[Callable[[str], Guest]]:
    made: list[Guest] = []

    def make(name: str) -> Guest:
        made.append(Guest(tmp_path, name))
        return made[-1]

    yield make
    for guest in made:
        guest.close()


def test_guest_behind_a_long_path_is_heard_up_and_its_facts_are_there(
    host: Host, guests: Callable[[str], Guest]
) -> None:
    guest = guests("v1")
    host.channels.open("v1", guest.path)
    assert guest.accept().hear() == "refresh"
    guest.say("heartbeat", apiVersion=3, olvm=1)
    assert host.ups.get(timeout=WITHIN_S) == "v1"
    assert host.words.get(timeout=WITHIN_S) == ("v1", "facts")
    guest.say("host-name", name="web")
    assert host.words.get(timeout=WITHIN_S) == ("v1", "facts")
    facts = host.channels.facts("v1")
    assert facts is not None
    assert facts.hostname == "web"
    assert host.channels.speaks("v1")


def test_broken_line_is_connected_again_and_asked_anew(host: Host, guests: Callable[[str], Guest]) -> None:
    guest = guests("v1")
    host.channels.open("v1", guest.path)
    assert guest.accept().hear() == "refresh"
    assert guest.accept().hear() == "refresh"


def test_guest_that_floods_starves_nobody(host: Host, guests: Callable[[str], Guest]) -> None:
    loud, quiet = guests("loud"), guests("quiet")
    host.channels.open("loud", loud.path)
    host.channels.open("quiet", quiet.path)
    loud.accept()
    quiet.accept()
    assert loud.line is not None
    loud.line.settimeout(0.2)
    with pytest.raises(TimeoutError):
        flood(loud.line)
    quiet.say("heartbeat", apiVersion=3)
    host.until(lambda: host.channels.speaks("quiet"))


def flood(line: socket.socket) -> None:
    """Until nobody takes more: the host has stopped reading it."""
    while True:
        line.sendall(g.encode("echo", {"x": "y" * 1000}) * 100)


def test_call_is_answered_and_one_to_nobody_refused(host: Host, guests: Callable[[str], Guest]) -> None:
    guest = guests("v1")
    host.channels.open("v1", guest.path)
    guest.accept().hear()
    guest.say("heartbeat", apiVersion=0)
    host.until(lambda: host.channels.speaks("v1"))
    results: queue.Queue[CallResult] = queue.Queue()
    host.channels.call("v1", "lock-screen", {}, 5.0, results.put)
    assert isinstance(results.get(timeout=WITHIN_S), CallSucceeded)
    host.channels.call("v9", "lock-screen", {}, 5.0, results.put)
    assert not isinstance(results.get(timeout=WITHIN_S), CallSucceeded)


def test_machine_that_moved_away_is_forgotten(host: Host, guests: Callable[[str], Guest]) -> None:
    guest = guests("v1")
    host.channels.open("v1", guest.path)
    guest.accept().hear()
    guest.say("heartbeat", apiVersion=3)
    host.until(lambda: host.channels.facts("v1") is not None)
    host.channels.close_vm("v1")
    host.until(lambda: host.channels.facts("v1") is None)
    assert guest.line is not None
    while guest.line.recv(4096):
        pass


def test_path_that_is_not_there_yet_is_tried_again(
    host: Host, tmp_path: Path, guests: Callable[[str], Guest]
) -> None:
    host.channels.open("v1", str(tmp_path / ("d" * 60) / ("e" * 60) / "v1"))
    assert guests("v1").accept().hear() == "refresh"


def test_guest_that_does_not_read_hinders_nobody(host: Host, guests: Callable[[str], Guest]) -> None:
    deaf, other = guests("deaf"), guests("other")
    for guest in (deaf, other):
        host.channels.open(guest.path.rsplit("/", 1)[1], guest.path)
        guest.accept().hear()
        guest.say("heartbeat", apiVersion=3, olvm=1)
    host.until(lambda: host.channels.speaks("deaf") and host.channels.speaks("other"))
    results: queue.Queue[CallResult] = queue.Queue()
    text = "x" * 60_000
    for _ in range(2 * GUEST_OUT_BYTES_MAX // len(text) + 20):  # its socket takes some too
        host.channels.call("deaf", "notify", {"message": text}, 60.0, results.put)
    refused = results.get(timeout=WITHIN_S)
    assert isinstance(refused, CallFailed)
    assert "does not read" in refused.message
    host.channels.call("other", "lifecycle-event", {"type": "after_migration"}, 60.0, results.put)
    assert other.hear() == "api-version"
    assert other.hear() == "lifecycle-event"


def test_call_from_a_callback_and_orders_from_many_threads_do_not_block(
    guests: Callable[[str], Guest],
) -> None:
    results: queue.Queue[CallResult] = queue.Queue()
    channels: list[GuestChannels] = []

    def on_up(vm_id: str) -> None:
        for _ in range(2_000):  # far more than the wake-up's socket has room for
            channels[0].call("nobody", "echo", {}, 1.0, results.put)
        channels[0].call(vm_id, "lock-screen", {}, 5.0, results.put)

    channels.append(GuestChannels("kvm00", on_up, lambda *_: None, time.time_ns))
    try:
        guest = guests("v1")
        channels[0].open("v1", guest.path)
        guest.accept().hear()
        guest.say("heartbeat")
        found = [results.get(timeout=WITHIN_S) for _ in range(2_001)]
        assert isinstance(found[-1], CallSucceeded)
        assert guest.hear() == "lock-screen"
    finally:
        channels[0].close()


def test_lifecycle_event_is_answered_by_the_guests_completion(
    host: Host, guests: Callable[[str], Guest]
) -> None:
    guest = guests("v1")
    host.channels.open("v1", guest.path)
    guest.accept().hear()
    guest.say("heartbeat", apiVersion=3)
    host.until(lambda: host.channels.speaks("v1"))
    results: queue.Queue[CallResult] = queue.Queue()
    host.channels.notify_lifecycle("v1", "before_migration", 10.0, results.put)
    while guest.hear() != "lifecycle-event":
        continue
    guest.say("completion", reply_id=1)
    assert isinstance(results.get(timeout=WITHIN_S), CallSucceeded)


def test_calls_are_answered_when_all_is_closed_and_after(host: Host, guests: Callable[[str], Guest]) -> None:
    guest = guests("v1")
    host.channels.open("v1", guest.path)
    guest.accept().hear()
    guest.say("heartbeat", apiVersion=3, olvm=1)
    host.until(lambda: host.channels.speaks("v1"))
    results: queue.Queue[CallResult] = queue.Queue()
    host.channels.call("v1", "thaw", {}, 60.0, results.put)
    host.channels.close()
    open_one = results.get(timeout=WITHIN_S)
    assert isinstance(open_one, CallFailed)
    assert not open_one.outcome_known
    host.channels.call("v1", "thaw", {}, 60.0, results.put)
    late = results.get(timeout=WITHIN_S)
    assert isinstance(late, CallFailed)
    assert late.code == "closed"
    host.channels.close()


def test_guest_that_boots_anew_is_up_again_when_it_is_heard_again(
    host: Host, guests: Callable[[str], Guest]
) -> None:
    guest = guests("v1")
    host.channels.open("v1", guest.path)
    guest.accept().hear()
    guest.say("heartbeat", apiVersion=3)
    assert host.ups.get(timeout=WITHIN_S) == "v1"
    host.channels.booting("v1")
    host.until(lambda: not host.channels.speaks("v1"))
    assert host.ups.empty()
    guest.say("heartbeat", apiVersion=3)
    assert host.ups.get(timeout=WITHIN_S) == "v1"
