"""All guests of one host on one thread: their sockets and buffers. `GuestConversation` decides what is said.

QEMU serves one client of a channel at a time, and its end of it comes and goes with the machine. A guest that floods
gets its share of each round and no more; one that does not read fills a bounded buffer; one whose socket breaks is
connected again, after five failures only each half minute, as VDSM does it.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping

from guest_agent.protocol import LINE_BYTES_MAX
from hypervisor_backends.guest_conversation import Done, GuestConversation
from hypervisor_backends.measurements import GuestFacts
from hypervisor_backends.protocol import CallFailed
from olvm.model.limits import GUEST_OUT_BYTES_MAX, NS_PER_S

READ_BYTES = 64 * 1024  # of one guest in one round
TICK_S = 0.2
FAILURES_QUICK = 5
AGAIN_QUICK_NS = NS_PER_S
AGAIN_SLOW_NS = 30 * NS_PER_S

OnUp = Callable[[str], None]
OnEvent = Callable[[str, str], None]
assert READ_BYTES < LINE_BYTES_MAX


class _Line:
    """One guest's socket and talk."""

    def __init__(self, vm_id: str, path: str, on_event: Callable[[str], None]) -> None:
        self.vm_id = vm_id
        self.path = path
        self.socket: socket.socket | None = None
        self.out = b""
        self.failures = 0
        self.again_ns = 0
        self.was_up = False
        self.talk = GuestConversation(vm_id, self.say, on_event)

    def say(self, data: bytes) -> bool:
        if self.socket is None or len(self.out) + len(data) > GUEST_OUT_BYTES_MAX:
            return False
        self.out += data
        return True


class GuestChannels:
    """`on_up(vm_id)` and `on_event(vm_id, word)` come on the reader's thread, and so does `done` of a call."""

    def __init__(self, host: str, on_up: OnUp, on_event: OnEvent, clock_ns: Callable[[], int]) -> None:
        self._on_up = on_up
        self._on_event = on_event
        self._clock_ns = clock_ns
        self._selector = selectors.DefaultSelector()
        self._lines: dict[str, _Line] = {}
        self._orders: deque[Callable[[], None]] = deque()
        self._facts: dict[str, GuestFacts] = {}
        self._speaking: frozenset[str] = frozenset()
        self._closed = False
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, name=f"guests-{host}", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------ from any thread

    def open(self, vm_id: str, path: str) -> None:
        """Listen to a machine's channel; another path replaces the one that was known."""
        self._order(lambda: self._open(vm_id, path))

    def close_vm(self, vm_id: str) -> None:
        self._order(lambda: self._drop(vm_id))

    def booting(self, vm_id: str) -> None:
        """What it says from now on is said by a new boot."""
        self._order(lambda: self._forget_up(vm_id))

    def call(
        self, vm_id: str, message: str, arguments: Mapping[str, object], timeout_s: float, done: Done
    ) -> None:
        self._order(lambda: self._call(vm_id, message, arguments, timeout_s, done))

    def take(self, vm_id: str, source: str, told: dict[str, object], agent: str) -> None:
        """Facts that another agent of the guest told."""
        self._order(lambda: self._take(vm_id, source, told, agent))

    def facts(self, vm_id: str) -> GuestFacts | None:
        return self._facts.get(vm_id)

    def speaks(self, vm_id: str) -> bool:
        return vm_id in self._speaking

    def close(self) -> None:
        self._closed = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)

    def _order(self, order: Callable[[], None]) -> None:
        self._orders.append(order)
        self._wake()

    def _wake(self) -> None:
        try:
            self._wake_write.send(b"\0")
        except (BlockingIOError, OSError):
            return  # it is awake, or gone

    # ------------------------------------------------------------------ the reader's thread

    def _run(self) -> None:
        while not self._closed:
            for key, events in self._selector.select(TICK_S):
                if key.data is None:
                    self._wake_read.recv(4096)
                else:
                    self._serve(key.data, events)
            while self._orders:
                self._orders.popleft()()
            self._look_after()
        for vm_id in list(self._lines):
            self._drop(vm_id)
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    def _look_after(self) -> None:
        now_ns = self._clock_ns()
        speaking = set()
        for line in self._lines.values():
            line.talk.expire(now_ns)
            if line.socket is None and line.again_ns <= now_ns:
                self._connect(line, now_ns)
            if line.socket is not None:
                self._flush(line, now_ns)
                self._want(line, now_ns)
            if line.talk.speaks(now_ns):
                speaking.add(line.vm_id)
        self._speaking = frozenset(speaking)

    def _open(self, vm_id: str, path: str) -> None:
        before = self._lines.get(vm_id)
        if before is not None and before.path == path:
            return
        if before is not None:
            self._drop(vm_id)
        self._lines[vm_id] = _Line(vm_id, path, lambda word: self._on_word(vm_id, word))

    def _on_word(self, vm_id: str, word: str) -> None:
        line = self._lines.get(vm_id)
        if line is not None:
            self._publish(line)
        self._on_event(vm_id, word)

    def _drop(self, vm_id: str) -> None:
        line = self._lines.pop(vm_id, None)
        self._facts.pop(vm_id, None)
        if line is not None:
            self._disconnect(line, 0)
            line.talk.close()

    def _forget_up(self, vm_id: str) -> None:
        line = self._lines.get(vm_id)
        if line is not None:
            line.was_up = False
            line.talk.heard_ns = 0

    def _call(
        self, vm_id: str, message: str, arguments: Mapping[str, object], timeout_s: float, done: Done
    ) -> None:
        line = self._lines.get(vm_id)
        if line is None:
            done(CallFailed(code="guest_silent", message=f"machine {vm_id} has no channel to its guest"))
        else:
            line.talk.call(message, arguments, self._clock_ns(), timeout_s, done)

    def _take(self, vm_id: str, source: str, told: dict[str, object], agent: str) -> None:
        line = self._lines.get(vm_id)
        if line is not None:
            line.talk.book.name_agent(source, agent)
            is_news = line.talk.book.take(source, told, self._clock_ns())
            self._publish(line)
            if is_news:
                self._on_event(vm_id, "facts")

    # ------------------------------------------------------------------ sockets

    def _connect(self, line: _Line, now_ns: int) -> None:
        try:
            line.socket = _connected(line.path)
        except OSError:
            self._failed(line, now_ns)
            return
        self._selector.register(line.socket, selectors.EVENT_READ, line)
        line.talk.connected()

    def _failed(self, line: _Line, now_ns: int) -> None:
        line.failures += 1
        line.again_ns = now_ns + (AGAIN_QUICK_NS if line.failures < FAILURES_QUICK else AGAIN_SLOW_NS)

    def _disconnect(self, line: _Line, now_ns: int) -> None:
        if line.socket is not None:
            try:
                self._selector.unregister(line.socket)
            except KeyError:
                line.out = b""  # it was not watched: the guest talked too fast
            line.socket.close()
            line.socket = None
        line.out = b""
        self._failed(line, now_ns)

    def _want(self, line: _Line, now_ns: int) -> None:
        """Watch for what can be done now: a guest that talks too fast is not read for a while."""
        assert line.socket is not None
        wanted = (selectors.EVENT_READ if line.talk.may_read(now_ns) else 0) | (
            selectors.EVENT_WRITE if line.out else 0
        )
        known = self._selector.get_map().get(line.socket)
        if wanted and known is None:
            self._selector.register(line.socket, wanted, line)
        elif not wanted and known is not None:
            self._selector.unregister(line.socket)
        elif known is not None and known.events != wanted:
            self._selector.modify(line.socket, wanted, line)

    def _serve(self, line: _Line, events: int) -> None:
        if line.socket is None:
            return
        now_ns = self._clock_ns()
        if events & selectors.EVENT_WRITE:
            self._flush(line, now_ns)
        if events & selectors.EVENT_READ and line.socket is not None:
            self._read(line, now_ns)

    def _read(self, line: _Line, now_ns: int) -> None:
        assert line.socket is not None
        try:
            data = line.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._disconnect(line, now_ns)
            return
        line.failures = 0
        line.talk.feed(data, now_ns)
        self._publish(line)
        if line.talk.heard_ns and not line.was_up:
            line.was_up = True
            self._speaking = self._speaking | {line.vm_id}
            self._on_up(line.vm_id)
        self._flush(line, now_ns)

    def _publish(self, line: _Line) -> None:
        facts = line.talk.facts()
        if facts is not None:
            self._facts[line.vm_id] = facts

    def _flush(self, line: _Line, now_ns: int) -> None:
        try:
            while line.out and line.socket is not None:
                line.out = line.out[line.socket.send(line.out) :]
        except BlockingIOError:
            return
        except OSError:
            self._disconnect(line, now_ns)


def _connected(path: str) -> socket.socket:
    """By way of the directory: libvirt's paths are longer than the 107 bytes that an address has room for."""
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.setblocking(False)
        line.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    except OSError:
        line.close()
        raise
    finally:
        os.close(directory)
    return line
