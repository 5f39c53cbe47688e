"""All guests of one host on one thread. Decides who is served when; `GuestConversation` decides what is said.

QEMU serves one client of a channel at a time, and its end of it comes and goes with the machine. A guest that floods
gets its share of each round and no more; one that does not read fills a bounded buffer; one whose socket breaks is
connected again, after five failures only each half minute, as VDSM does it. Nothing here waits for a guest, and the
work of a round is that of those who spoke: the others are looked after once a second.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping

from guest_agent.protocol import LIFECYCLE_EVENTS
from hypervisor_backends.guest_conversation import Done
from hypervisor_backends.guest_line import GuestLine
from hypervisor_backends.guest_time import is_over
from hypervisor_backends.guest_values import Told
from hypervisor_backends.measurements import GuestFacts
from hypervisor_backends.protocol import CallFailed

TICK_S = 1.0
TICK_RESTLESS_S = 0.2  # while a guest is made to wait, owes an answer, or does not read
CLOSE_S_MAX = 5.0

OnUp = Callable[[str], None]
OnEvent = Callable[[str, str], None]


class GuestChannels:
    """`on_up(vm_id)` and `on_event(vm_id, word)` come on the reader's thread, and so does `done` of a call.

    They must not raise and not wait; whatever they call here is done later.
    """

    def __init__(self, host: str, on_up: OnUp, on_event: OnEvent, clock_ns: Callable[[], int]) -> None:
        self._on_up = on_up
        self._on_event = on_event
        self._clock_ns = clock_ns
        self._selector = selectors.DefaultSelector()
        # Of the reader's thread alone:
        self._lines: dict[str, GuestLine] = {}
        self._restless: dict[str, GuestLine] = {}  # a part of `_lines`
        self._looked_ns = 0
        # Written by the reader's thread, looked into by any; each access is one step.
        self._facts: dict[str, GuestFacts] = {}
        self._speaking: set[str] = set()
        # Of all threads:
        self._orders: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()  # nothing is ordered once it is closed
        self._closed = False
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, name=f"guests-{host}", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------ from any thread

    def open(self, vm_id: str, path: str) -> None:
        """Listen to a machine's channel; another path replaces the one that was known."""
        self._order(lambda: self._open(vm_id, path))

    def close_vm(self, vm_id: str) -> None:
        """Calls to it that are open are answered: their outcome is not known."""
        self._order(lambda: self._drop(vm_id))

    def booting(self, vm_id: str) -> None:
        """What it says from now on is said by a new boot."""
        self._order(lambda: self._begin_boot(vm_id))

    def call(
        self, vm_id: str, message: str, arguments: Mapping[str, object], timeout_s: float, done: Done
    ) -> None:
        """Say something; `done` is called once, on the reader's thread, or on this one if all is closed."""
        if not self._order(lambda: self._call(vm_id, message, arguments, timeout_s, done)):
            done(
                CallFailed(code="closed", message=f"nobody listens to the guest of machine {vm_id} any more")
            )

    def notify_lifecycle(
        self, vm_id: str, event: str, timeout_s: float, done: Done, *, failure: bool = False
    ) -> None:
        """Let the guest run its hooks. A guest that cannot is no hindrance: the answer says why, and life goes on."""
        assert event in LIFECYCLE_EVENTS, event
        said: dict[str, object] = {"type": event}
        if failure:
            said["failure"] = True
        self.call(vm_id, "lifecycle-event", said, timeout_s, done)

    def take(self, vm_id: str, source: str, told: Told, agent: str, refused: int) -> None:
        """Facts that another agent of the guest told; as `GuestConversation.take_told`."""
        self._order(lambda: self._take(vm_id, source, told, agent, refused))

    def facts(self, vm_id: str) -> GuestFacts | None:
        """None: nothing was told since its channel was opened."""
        return self._facts.get(vm_id)

    def speaks(self, vm_id: str) -> bool:
        """Whether the channel's agent was heard lately, and in this boot."""
        return vm_id in self._speaking

    def close(self) -> None:
        """Calls under way are answered. Idempotent."""
        with self._lock:
            self._closed = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=CLOSE_S_MAX)

    def _order(self, order: Callable[[], None]) -> bool:
        with self._lock:
            if self._closed:
                return False
            self._orders.append(order)
        self._wake()
        return True

    def _wake(self) -> None:
        try:
            self._wake_write.send(b"\0")
        except OSError:
            return  # full: it will wake; or closed: it has ended

    # ------------------------------------------------------------------ the reader's thread

    def _run(self) -> None:
        while not self._closed:
            for key, events in self._selector.select(TICK_RESTLESS_S if self._restless else TICK_S):
                if key.data is None:
                    self._wake_read.recv(4096)
                else:
                    self._serve(key.data, events)
            self._obey()
            self._look_after()
        self._obey()  # nothing is ordered any more
        for vm_id in list(self._lines):
            self._drop(vm_id)
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    def _obey(self) -> None:
        for _ in range(len(self._orders)):  # not those that they order
            self._orders.popleft()()

    def _serve(self, line: GuestLine, events: int) -> None:
        if not line.is_connected or self._lines.get(line.vm_id) is not line:
            return
        now_ns = self._clock_ns()
        if events & selectors.EVENT_READ and line.read(now_ns):
            self._publish(line)
            self._see_speaking(line, now_ns)
        self._settle(line, now_ns)

    def _look_after(self) -> None:
        now_ns = self._clock_ns()
        everyone = is_over(self._looked_ns, TICK_S, now_ns)
        if everyone:
            self._looked_ns = now_ns
        for line in list((self._lines if everyone else self._restless).values()):
            line.talk.expire(now_ns)
            line.connect(now_ns)
            self._settle(line, now_ns)
            self._see_speaking(line, now_ns)

    def _settle(self, line: GuestLine, now_ns: int) -> None:
        line.settle(now_ns)
        if line.is_restless:
            self._restless[line.vm_id] = line
        else:
            self._restless.pop(line.vm_id, None)

    def _see_speaking(self, line: GuestLine, now_ns: int) -> None:
        if not line.talk.speaks(now_ns):
            self._speaking.discard(line.vm_id)
            return
        self._speaking.add(line.vm_id)
        if not line.is_up:
            line.is_up = True
            self._on_up(line.vm_id)

    def _publish(self, line: GuestLine) -> None:
        facts = line.talk.facts()
        if facts is None:
            self._facts.pop(line.vm_id, None)
        else:
            self._facts[line.vm_id] = facts

    # ------------------------------------------------------------------ orders

    def _open(self, vm_id: str, path: str) -> None:
        before = self._lines.get(vm_id)
        if before is not None and before.path == path:
            return
        self._drop(vm_id)
        line = GuestLine(vm_id, path, self._selector, lambda word: self._on_word(vm_id, word))
        self._lines[vm_id] = line
        now_ns = self._clock_ns()
        line.connect(now_ns)
        self._settle(line, now_ns)

    def _drop(self, vm_id: str) -> None:
        line = self._lines.pop(vm_id, None)
        self._restless.pop(vm_id, None)
        self._facts.pop(vm_id, None)
        self._speaking.discard(vm_id)
        if line is not None:
            line.disconnect(self._clock_ns())
            line.talk.close()

    def _begin_boot(self, vm_id: str) -> None:
        line = self._lines.get(vm_id)
        if line is not None:
            line.is_up = False
            line.talk.begin_boot()
            self._speaking.discard(vm_id)
            self._publish(line)

    def _call(
        self, vm_id: str, message: str, arguments: Mapping[str, object], timeout_s: float, done: Done
    ) -> None:
        line = self._lines.get(vm_id)
        if line is None:
            done(CallFailed(code="guest_silent", message=f"machine {vm_id} has no channel to its guest"))
            return
        now_ns = self._clock_ns()
        line.talk.call(message, arguments, now_ns, timeout_s, done)
        self._settle(line, now_ns)

    def _take(self, vm_id: str, source: str, told: Told, agent: str, refused: int) -> None:
        line = self._lines.get(vm_id)
        if line is None:
            return
        now_ns = self._clock_ns()
        line.talk.take_told(source, told, now_ns, agent, refused)
        self._publish(line)
        line.talk.expire(now_ns)
        self._settle(line, now_ns)

    def _on_word(self, vm_id: str, word: str) -> None:
        line = self._lines.get(vm_id)
        if line is not None:
            self._publish(line)
        self._on_event(vm_id, word)
