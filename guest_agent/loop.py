"""The process: the port to the host, the desk for logons, and one wait for all of them.

A host that does not listen costs a look a second; what a host does not read is dropped. Decides nothing about messages.
"""

from __future__ import annotations

import os
import select
import signal
import syslog
import time
from typing import NoReturn

from guest_agent import protocol as p
from guest_agent.agent import Agent
from guest_agent.credentials import SOCKET, Desk, Tokens
from guest_agent.facts import Facts
from guest_agent.sessions import owner_of

READ_BYTES = 4096
OUT_BYTES_MAX = 256 * 1024
ABSENT_S = 1.0
WAIT_S_MAX = 60.0


class Line:
    """The virtio-serial port: never blocks, drops what nobody reads."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY)
        self._out = b""
        self.decoder = p.LineDecoder()

    def say(self, line: bytes) -> None:
        """Whole lines are dropped, never half of one: what waits was begun and will be ended."""
        if not self._out or len(self._out) + len(line) <= OUT_BYTES_MAX:
            self._out += line
            self.flush()

    def flush(self) -> None:
        try:
            while self._out:
                self._out = self._out[os.write(self.fd, self._out) :]
        except BlockingIOError:
            return
        except OSError:
            self._out = b""

    @property
    def has_more(self) -> bool:
        return bool(self._out)

    def read(self) -> bytes:
        """Raises OSError when the port itself has gone."""
        try:
            return os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return b""

    def forget(self) -> None:
        """The other end is gone: half a line must not meet the next one."""
        self._out = b""
        self.decoder.reset()


class _Ending(Exception):
    """SIGTERM has come."""


def _end(_number: int, _frame: object) -> None:
    raise _Ending


def port_path() -> str:
    legacy = "/dev/virtio-ports/" + p.PORT_LEGACY
    return legacy if os.path.exists(legacy) else "/dev/virtio-ports/" + p.PORT


def main(path: str = "", socket_path: str = SOCKET) -> int:
    signal.signal(signal.SIGTERM, _end)
    desk = _open_desk(socket_path)
    said = ""
    try:
        while True:
            reason = _one_port(path or port_path(), desk)
            if reason != said:
                syslog.syslog(syslog.LOG_WARNING, reason)
                said = reason
            time.sleep(ABSENT_S)  # no port, or it broke: it may be plugged in again
    except (_Ending, KeyboardInterrupt):
        return 0
    finally:
        if desk is not None:
            desk.close()


def _open_desk(socket_path: str) -> Desk | None:
    """Without it there are facts and orders all the same."""
    if os.geteuid() != 0:
        return None
    try:
        return Desk(Tokens(owner_of), socket_path)
    except OSError as error:
        syslog.syslog(syslog.LOG_ERR, f"there are no logons from outside: {socket_path}: {error}")
        return None


def _one_port(path: str, desk: Desk | None) -> str:
    """Speak at a port until it breaks; why it did."""
    try:
        line = Line(path)
    except OSError as error:
        return f"the port to the host cannot be opened: {error}"
    agent = Agent(Facts(), line.say, desk)
    try:
        talk(line, agent, desk)
    except (_Ending, KeyboardInterrupt):
        agent.stopping()
        raise
    except OSError as error:
        return f"the port to the host broke: {path}: {error}"
    finally:
        agent.errands.close()
        os.close(line.fd)


def talk(line: Line, agent: Agent, desk: Desk | None) -> NoReturn:
    """Until the port breaks, which is an OSError."""
    is_connected = False
    look_at_s = 0.0  # while nobody listens the port is always "ready": it is looked at once a second
    while True:
        now_s = time.monotonic()
        wait_s = agent.tick() if is_connected else min(agent.look(), max(0.0, look_at_s - now_s))
        poll = select.poll()
        if is_connected or look_at_s <= now_s:
            poll.register(line.fd, select.POLLIN | (select.POLLOUT if line.has_more else 0))
        others = [] if desk is None else [desk.socket.fileno(), *(one.fileno() for one in desk.callers)]
        for one in [*agent.errands.pipes(), *others]:
            poll.register(one, select.POLLIN)
        ready = dict(poll.poll(min(wait_s, WAIT_S_MAX) * 1000))
        events = ready.get(line.fd, 0)
        if events & select.POLLOUT:
            line.flush()
        # A port that was unplugged hangs up for ever, as one does that nobody listens to: reading tells them apart.
        data = line.read() if events & (select.POLLIN | select.POLLHUP) else b""
        if events & select.POLLHUP and not data:  # nobody listens at the other end
            is_connected, look_at_s = False, now_s + ABSENT_S
            line.forget()
        elif not is_connected and look_at_s <= now_s:
            is_connected = True
            agent.connected()
        if desk is not None:  # before the host's word: a greeter that waits is to be known by then
            _serve(desk, ready)
        for name, arguments in line.decoder.feed(data):
            agent.on_message(name, arguments)


def _serve(desk: Desk, ready: dict[int, int]) -> None:
    if desk.socket.fileno() in ready:
        desk.accept()
    for caller in list(desk.callers):
        desk.serve(caller)


def say_uninstalled(path: str = "") -> int:
    """The last word of an agent that is taken away. The host need not listen."""
    try:
        line = Line(path or port_path())
    except OSError:
        return 0
    line.say(p.encode("uninstalled"))
    os.close(line.fd)
    return 0
