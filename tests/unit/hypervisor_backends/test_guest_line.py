"""One guest's socket, with time by hand: when it is connected again, and what is read of it."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest_agent import protocol as g
from hypervisor_backends.guest_line import AGAIN_QUICK_S, AGAIN_SLOW_S, FAILURES_QUICK, READ_BYTES, GuestLine
from olvm.model.limits import NS_PER_S


class Bench:
    def __init__(self, directory: Path) -> None:
        self.path = directory / "channel"
        self.selector = selectors.DefaultSelector()
        self.words: list[str] = []
        self.line = GuestLine("v1", str(self.path), self.selector, self.words.append)
        self.now_ns = 1_000 * NS_PER_S
        self.listening: socket.socket | None = None
        self.guest: socket.socket | None = None

    def listen(self) -> None:
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.path))
        self.listening.listen()

    def connect(self) -> None:
        self.line.connect(self.now_ns)
        assert self.line.is_connected
        assert self.listening is not None
        self.guest, _ = self.listening.accept()

    def tries_after(self, seconds: float) -> bool:
        """Whether it is connected when somebody listens."""
        self.now_ns += int(seconds * NS_PER_S)
        self.line.connect(self.now_ns)
        return self.line.is_connected

    def watched(self) -> int:
        keys = list(self.selector.get_map().values())
        return keys[0].events if keys else 0

    def close(self) -> None:
        self.line.disconnect(self.now_ns)
        for one in (self.listening, self.guest, self.selector):
            if one is not None:
                one.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    one = Bench(tmp_path)
    yield one
    one.close()


def test_line_that_fails_often_is_tried_seldom_until_it_is_heard(bench: Bench) -> None:
    for _ in range(FAILURES_QUICK):
        assert not bench.tries_after(AGAIN_QUICK_S)
    bench.listen()
    assert not bench.tries_after(AGAIN_QUICK_S)
    assert not bench.tries_after(AGAIN_SLOW_S - AGAIN_QUICK_S - 1)
    assert bench.tries_after(1)
    bench.line.disconnect(bench.now_ns)
    assert not bench.tries_after(AGAIN_QUICK_S), "a line that says nothing is no better than none"
    bench.now_ns += int(AGAIN_SLOW_S * NS_PER_S)
    assert bench.listening is not None
    bench.listening.accept()[0].close()
    bench.connect()
    assert bench.guest is not None
    bench.guest.sendall(g.encode("heartbeat"))
    assert bench.line.read(bench.now_ns)
    bench.line.disconnect(bench.now_ns)
    assert bench.tries_after(AGAIN_QUICK_S)


def test_clock_that_goes_back_does_not_put_off_the_next_try(bench: Bench) -> None:
    assert not bench.tries_after(0)
    bench.listen()
    assert bench.tries_after(-500)


def test_guest_that_talks_too_fast_is_not_watched_for_a_while(bench: Bench) -> None:
    bench.listen()
    bench.connect()
    assert bench.guest is not None
    assert bench.watched() == selectors.EVENT_READ
    bench.guest.sendall(b"\n" * 2 * READ_BYTES)
    assert bench.line.read(bench.now_ns)
    bench.line.settle(bench.now_ns)
    assert bench.watched() == 0
    assert bench.line.is_restless
    bench.line.settle(bench.now_ns + 3600 * NS_PER_S)
    assert bench.watched() == selectors.EVENT_READ


def test_guest_that_hangs_up_while_it_is_not_watched_is_found_out(bench: Bench) -> None:
    bench.listen()
    bench.connect()
    assert bench.guest is not None
    bench.guest.sendall(b"\n" * READ_BYTES)
    bench.line.read(bench.now_ns)
    bench.line.settle(bench.now_ns)
    bench.guest.close()
    bench.now_ns += 3600 * NS_PER_S
    bench.line.settle(bench.now_ns)
    assert not bench.line.read(bench.now_ns)
    assert not bench.line.is_connected
    assert not bench.selector.get_map()
