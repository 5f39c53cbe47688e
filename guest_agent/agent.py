"""The agent: one loop, one line to the host, facts at their intervals, orders as they come.

Decides when what is said, and which order does what. It reconnects for ever: a host that does not listen costs a look a
second, a host that does not read costs what is said meanwhile. Nothing is kept for later: every fact is said again.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import Any

from guest_agent import actions
from guest_agent import protocol as p
from guest_agent.credentials import SOCKET, Desk, Tokens
from guest_agent.facts import Facts

VERSION = "1"
OLVM_PROTOCOL = 1
READ_BYTES = 4096
OUT_BYTES_MAX = 256 * 1024
ABSENT_S = 1.0
# Seconds between two tellings of a fact, and the least API version that has it.
INTERVALS = {
    "heartbeat": 5.0,
    "active-user": 10.0,
    "number-of-cpus": 60.0,
    "host-name": 120.0,
    "os-version": 120.0,
    "os-info": 120.0,
    "network-interfaces": 120.0,
    "applications": 120.0,
    "fqdn": 120.0,
    "timezone": 120.0,
    "containers": 120.0,
    "disks-usage": 300.0,
}
SPARING = ("ALL", "NONE")


class Agent:
    """`say(line)` gives a line to the host. Times are monotonic seconds; nothing here waits."""

    def __init__(
        self,
        facts: Facts,
        say: Callable[[bytes], None],
        desk: Desk | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._facts = facts
        self._say = say
        self._desk = desk
        self._clock = clock
        self._freezer = actions.Freezer(facts.mounts, clock)
        self._due: dict[str, float] = {}
        self._told: dict[str, object] = {}
        self.version = p.API_VERSION_UNTOLD
        self._offered = (
            False  # the first heartbeat says version 0: an old host must not meet what it does not know
        )
        self._sessions = set(facts.sessions())
        self._user = ""

    # ------------------------------------------------------------------ telling

    def connected(self) -> None:
        """A host listens, perhaps another one than before."""
        self._due = {name: self._clock() for name in INTERVALS}
        self._offered = False
        self._tell("session-startup", {})

    def tick(self) -> float:
        """Say what is due; returns seconds until something is."""
        now_s = self._clock()
        for name, interval_s in INTERVALS.items():
            if self._due.get(name, now_s) <= now_s:
                self._due[name] = now_s + interval_s
                self._tell_fact(name)
        if self._freezer.thaw_at_s is not None and self._freezer.thaw_at_s <= now_s:
            self._freezer.thaw()
        waits = list(self._due.values())
        if self._freezer.thaw_at_s is not None:
            waits.append(self._freezer.thaw_at_s)
        return max(0.0, min(waits) - self._clock())

    def _tell(self, name: str, arguments: dict[str, Any]) -> None:
        if p.FROM_GUEST[name] <= self.version or not p.FROM_GUEST[name]:
            self._say(p.encode(name, arguments))

    def _tell_fact(self, name: str) -> None:
        facts = self._facts
        if p.FROM_GUEST[name] > self.version:
            return
        if name == "heartbeat":
            self._tell_heartbeat()
        elif name == "active-user":
            self._tell_users()
        elif name == "disks-usage":
            self._tell(name, {"disks": facts.disks_usage(), "mapping": facts.disk_mapping()})
        elif name == "os-info":
            self._tell(name, dict(facts.os_info()))
        elif name == "timezone":
            zone, offset = facts.timezone()
            self._tell(name, {"zone": zone, "offset": offset})
        else:
            self._tell(name, self._plain_fact(name))

    def _plain_fact(self, name: str) -> dict[str, Any]:
        facts = self._facts
        if name == "host-name":
            return {"name": facts.host_name()}
        if name == "os-version":
            info = facts.os_info()
            return {"version": ("{} {}".format(info["distribution"], info["version"])).strip()}
        if name == "network-interfaces":
            return {"interfaces": facts.interfaces()}
        if name == "applications":
            return {"applications": facts.applications()}
        if name == "fqdn":
            return {"fqdn": facts.fqdn()}
        if name == "number-of-cpus":
            return {"count": facts.cpu_count()}
        return {"list": facts.containers()}

    def _tell_heartbeat(self) -> None:
        memory = self._facts.memory()
        arguments = {
            "free-ram": str(memory["mem_free"] // 1024),
            "memory-stat": memory,
            "apiVersion": p.API_VERSION_MAX if self._offered else p.API_VERSION_UNTOLD,
            "olvm": OLVM_PROTOCOL,
            "agentVersion": VERSION,
            "uptime": int(self._facts.uptime_s()),
            "bootId": self._facts.boot_id(),
        }
        self._offered = True
        self._say(p.encode("heartbeat", arguments))

    def _tell_users(self) -> None:
        """Who is there; and who came and went since the last look."""
        sessions = set(self._facts.sessions())
        for user, line in sorted(sessions - self._sessions):
            self._tell("session-logon", {"user": user, "session": line})
        for user, line in sorted(self._sessions - sessions):
            self._tell("session-logoff", {"user": user, "session": line})
        self._sessions = sessions
        users = sorted({user for user, _ in sessions})
        self._tell("active-user", {"name": self._facts.active_user(), "users": users})

    # ------------------------------------------------------------------ orders

    def on_message(self, name: str, arguments: dict[str, Any]) -> None:
        """An order that is unknown, or whose arguments are wrong, is answered if an answer was asked for."""
        try:
            reason = self._obey(name, arguments)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{name}: wrong argument {error}"
        reply_id = arguments.get("reply_id")
        if reply_id is not None and name != "echo":
            said = {"reply_id": reply_id, "ok": not reason, "reason": reason}
            self._say(p.encode("completion", said))

    def _obey(self, name: str, arguments: dict[str, Any]) -> str:
        session = str(arguments.get("session", ""))
        if name in ("refresh", "api-version"):
            return self._negotiate(name, arguments)
        if name == "echo":
            self._say(p.encode("echo", arguments))
            return ""
        if name == "shutdown":
            reboot = str(arguments.get("reboot", "False")).lower() == "true"
            return actions.shutdown(
                str(arguments.get("message", "")), int(arguments.get("timeout", 0)), reboot
            )
        if name == "hibernate":
            return actions.hibernate(str(arguments.get("state", "disk")))
        if name == "login":
            return self._log_on(str(arguments["username"]), session)
        if name == "lock-screen":
            reason = actions.session_command("lock-session", session)
            if not reason:
                self._tell("session-lock", {"session": session})
            return reason
        if name == "log-off":
            return actions.session_command("terminate-session", session)
        return self._obey_more(name, arguments)

    def _obey_more(self, name: str, arguments: dict[str, Any]) -> str:
        if name == "set-number-of-cpus":
            reason = actions.set_cpu_count(int(arguments["count"]))
            self._tell_fact("number-of-cpus")
            return reason
        if name == "lifecycle-event":
            event = str(arguments["type"])
            if event not in p.LIFECYCLE_EVENTS:
                return f"unknown event {event}"
            return actions.run_hooks(event, str(arguments.get("failure", "")))
        if name == "notify":
            return actions.notify(p.clean(str(arguments["message"]), 1000))
        if name == "freeze":
            return self._freezer.freeze()
        if name == "thaw":
            return self._freezer.thaw()
        return f"unknown message {name}"

    def _negotiate(self, name: str, arguments: dict[str, Any]) -> str:
        theirs = int(arguments.get("apiVersion", p.API_VERSION_UNTOLD))
        self.version = p.effective_version(p.API_VERSION_MAX, theirs)
        if name == "refresh":
            now_s = self._clock()
            self._due = dict.fromkeys(INTERVALS, now_s)
        return ""

    def _log_on(self, username: str, session: str) -> str:
        """A password that comes with it, as from VDSM, is not looked at: the host's word is what counts."""
        user = username.split("@", 1)[0]
        if self._desk is None:
            return "this guest has no desk for logons"
        return self._desk.log_on(user, session)


class Line:
    """The virtio-serial port: never blocks, drops what nobody reads."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._out = b""
        self.decoder = p.LineDecoder()

    def say(self, line: bytes) -> None:
        if len(self._out) + len(line) > OUT_BYTES_MAX:
            return
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

    def forget(self) -> None:
        self._out = b""
        self.decoder.reset()


def port_path() -> str:
    legacy = "/dev/virtio-ports/" + p.PORT_LEGACY
    return legacy if os.path.exists(legacy) else "/dev/virtio-ports/" + p.PORT


def owner_of(session: str) -> str:
    """Who is logged on at a terminal."""
    return next((user for user, line in Facts().sessions() if line == session), "")


def main(path: str = "", socket_path: str = SOCKET) -> int:
    desk = Desk(Tokens(owner_of), socket_path) if os.geteuid() == 0 else None
    while True:
        try:
            line = Line(path or port_path())
        except OSError:
            time.sleep(ABSENT_S)  # no port: it may be plugged in
            continue
        try:
            talk(line, Agent(Facts(), line.say, desk), desk)
        except OSError:
            time.sleep(ABSENT_S)
        finally:
            os.close(line.fd)


def talk(line: Line, agent: Agent, desk: Desk | None) -> None:
    """Until the port breaks."""
    is_connected = False
    while True:
        wait_s = agent.tick() if is_connected else ABSENT_S
        poll = select.poll()
        poll.register(line.fd, select.POLLIN | (select.POLLOUT if line.has_more else 0))
        others = [] if desk is None else [desk.socket, *desk.callers]
        for one in others:
            poll.register(one, select.POLLIN)
        ready = dict(poll.poll(min(wait_s, 60.0) * 1000))
        events = ready.get(line.fd, 0)
        if events & select.POLLHUP:  # nobody listens at the other end
            is_connected = False
            line.forget()
            if not (set(ready) - {line.fd}):
                time.sleep(ABSENT_S)
        elif not is_connected:
            is_connected = True
            agent.connected()
        if events & select.POLLOUT:
            line.flush()
        if events & select.POLLIN:
            for name, arguments in line.decoder.feed(os.read(line.fd, READ_BYTES)):
                agent.on_message(name, arguments)
        if desk is not None:
            _serve(desk, ready)


def _serve(desk: Desk, ready: dict[int, int]) -> None:
    for caller in list(desk.callers):
        if caller.fileno() in ready:
            desk.serve(caller)
    if desk.socket.fileno() in ready:
        desk.accept()
