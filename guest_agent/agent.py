"""The agent: one loop, one line to the host, facts at their intervals, orders as they come.

Decides when what is said, and which order does what. It reconnects for ever: a host that does not listen costs a look a
second, a host that does not read costs what is said meanwhile. Nothing is kept for later: every fact is said again.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Any

from guest_agent import actions, freezing
from guest_agent import protocol as p
from guest_agent.credentials import Desk
from guest_agent.errands import Errands
from guest_agent.facts import Facts
from guest_agent.sessions import LOCKS

VERSION = "1"
OLVM_PROTOCOL = 1
ERRAND_S = 10.0
REASON_CHARS_MAX = 500
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
SESSION_VERBS = {"lock-screen": "lock-session", "log-off": "terminate-session"}
USER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?")  # it goes to a terminal and to `login`
# Facts that other programs may have to be asked for.
SLOW = ("applications", "containers", "disks-usage")


class Agent:
    """`say(line)` gives a line to the host. Times are monotonic seconds; nothing here waits."""

    def __init__(
        self,
        facts: Facts,
        say: Callable[[bytes], None],
        desk: Desk | None = None,
        clock: Callable[[], float] = time.monotonic,
        freeze_mark: str = freezing.MARK,
    ) -> None:
        self._facts = facts
        self._say = say
        self._desk = desk
        self._clock = clock
        self._freeze_mark = freeze_mark
        self._thaw_at_s: float | None = None  # set while file systems are frozen, or may be
        self.errands = Errands(clock)
        self._due: dict[str, float] = {}
        self.version = p.API_VERSION_UNTOLD
        # The first heartbeat says version 0: an old host must not meet what it does not know.
        self._is_offered = False
        self._sessions = self._look_at_sessions()
        self._order_count = 0
        self._applications: tuple[float, list[str]] = (-1.0, [])  # when their records were written, and they
        self._recover()

    def _recover(self) -> None:
        """What an agent before this one left: frozen file systems, locks whose keepers ended with it."""
        if freezing.is_frozen(self._freeze_mark):
            self._thaw_at_s = self._clock()

        def keep_locks() -> None:
            from guest_agent import text_lock

            text_lock.keep_all()

        if os.path.isdir("/" + LOCKS):
            self.errands.start("locks", keep_locks, lambda _value, _error: None, ERRAND_S)

    # ------------------------------------------------------------------ telling

    def connected(self) -> None:
        """A host listens, perhaps another one than before."""
        self._due = dict.fromkeys(INTERVALS, self._clock())
        self._is_offered = False
        self.version = p.API_VERSION_UNTOLD
        self._tell("session-startup", {})

    def stopping(self) -> None:
        """This agent is told to end: what it froze must not stay so."""
        self.errands.close()
        freezing.thaw(self._freeze_mark)
        self._tell("session-shutdown", {})

    def tick(self) -> float:
        """Say what is due; returns seconds until something is."""
        now_s = self._clock()
        for name, interval_s in INTERVALS.items():
            if self._due.get(name, now_s) <= now_s:
                self._due[name] = now_s + interval_s
                self._tell_fact(name)
        return min(self.look(), max(0.0, min(self._due.values()) - self._clock()))

    def look(self) -> float:
        """What goes on whether a host listens or not: errands, and a thaw that is due; seconds until something is.

        Facts do not count: while nobody listens they are overdue, and not worth a look.
        """
        self.errands.look()
        now_s = self._clock()
        if self._thaw_at_s is not None and self._thaw_at_s <= now_s:
            self._thaw_at_s = now_s + ERRAND_S  # unless it is done by then, it is tried again
            self.errands.start("thaw", lambda: freezing.thaw(self._freeze_mark), self._thawed, ERRAND_S)
        waits = [one for one in (self._thaw_at_s, self.errands.due_s()) if one is not None]
        return max(0.0, min(waits) - self._clock()) if waits else INTERVALS["heartbeat"]

    def _thawed(self, reason: str | None, error: str) -> None:
        if not error and not reason:
            self._thaw_at_s = None

    def _tell(self, name: str, arguments: dict[str, Any]) -> None:
        if p.FROM_GUEST[name] <= self.version or not p.FROM_GUEST[name]:
            self._write(name, arguments)

    def _write(self, name: str, arguments: dict[str, Any]) -> None:
        self._say(p.encode(name, {p.clean(key): p.cleaned(value) for key, value in arguments.items()}))

    def _tell_fact(self, name: str) -> None:
        facts = self._facts
        if p.FROM_GUEST[name] > self.version:
            return
        if name == "heartbeat":
            self._tell_heartbeat()
        elif name == "active-user":
            self._tell_users()
        elif name == "applications" and self._applications[0] == facts.applications_changed_s():
            self._tell(name, {"applications": self._applications[1]})
        elif name in SLOW:
            self.errands.start(
                name,
                lambda: self._slow_fact(name),
                lambda value, error: self._tell_slow(name, value, error),
                ERRAND_S,
            )
        elif name == "os-info":
            self._tell(name, dict(facts.os_info()))
        elif name == "timezone":
            zone, offset = facts.timezone()
            self._tell(name, {"zone": zone, "offset": offset})
        else:
            self._tell(name, self._plain_fact(name))

    def _slow_fact(self, name: str) -> dict[str, Any]:
        if name == "disks-usage":
            return {"disks": self._facts.disks_usage(), "mapping": self._facts.disk_mapping()}
        if name == "applications":
            changed_s = (
                self._facts.applications_changed_s()
            )  # before it is read: what changes meanwhile is read again
            return {"applications": self._facts.applications(), "changed_s": changed_s}
        return {"list": self._facts.containers()}

    def _tell_slow(self, name: str, value: dict[str, Any] | None, error: str) -> None:
        if not error and value is not None:
            if name == "applications":
                self._applications = (value.pop("changed_s"), value["applications"])
            self._tell(name, value)

    def _plain_fact(self, name: str) -> dict[str, Any]:
        facts = self._facts
        if name == "host-name":
            return {"name": facts.host_name()}
        if name == "os-version":
            info = facts.os_info()
            return {"version": ("{} {}".format(info["distribution"], info["version"])).strip()}
        if name == "network-interfaces":
            return {"interfaces": facts.interfaces()}
        if name == "fqdn":
            return {"fqdn": facts.fqdn()}
        assert name == "number-of-cpus", name
        return {"count": facts.cpu_count()}

    def _tell_heartbeat(self) -> None:
        memory = self._facts.memory()
        arguments = {
            "free-ram": str(memory["mem_free"] // 1024),
            "memory-stat": memory,
            "apiVersion": p.API_VERSION_MAX if self._is_offered else p.API_VERSION_UNTOLD,
            "olvm": OLVM_PROTOCOL,
            "agentVersion": VERSION,
            "uptime": int(self._facts.uptime_s()),
            "bootId": self._facts.boot_id(),
        }
        self._is_offered = True
        self._write("heartbeat", arguments)

    def _look_at_sessions(self) -> dict[tuple[str, str, str], bool]:
        """By user, terminal and which of them it is: whether it is locked."""
        return {(one.user, one.line, one.began): one.is_locked for one in self._facts.sessions()}

    def _tell_users(self) -> None:
        """Who is there; and who went, came, locked and unlocked since the last look."""
        before, now = self._sessions, self._look_at_sessions()
        self._sessions = now
        for key in sorted(set(before) - set(now)):
            self._tell_session("session-logoff", key)
        for key in sorted(now):
            if key not in before:
                self._tell_session("session-logon", key)
            if before.get(key, False) != now[key]:
                self._tell_session("session-lock" if now[key] else "session-unlock", key)
        users = sorted({user for user, _, _ in now})
        self._tell("active-user", {"name": self._facts.active_user(), "users": users})

    def _tell_session(self, name: str, key: tuple[str, str, str]) -> None:
        self._tell(name, {"user": key[0], "session": key[1]})

    # ------------------------------------------------------------------ orders

    def on_message(self, name: str, arguments: dict[str, Any]) -> None:
        """An order that is unknown, or whose arguments are wrong, is answered if an answer was asked for."""
        reply_id = arguments.get("reply_id")
        if not isinstance(reply_id, (int, str)):
            reply_id = None  # it goes back as it came: it may not be as large and deep as a line can be

        def answer(reason: object, error: str = "") -> None:
            if name in SESSION_VERBS or name == "login":
                self._due["active-user"] = self._clock()  # its effect is told at once
            if reply_id is not None and name != "echo":
                said = str(error or reason or "")[:REASON_CHARS_MAX]
                self._write("completion", {"reply_id": reply_id, "ok": not said, "reason": said})

        try:
            work = self._slow_order(name, arguments)
            reason = (
                self._obey(name, arguments) if work is None else self._begin(name, arguments, work, answer)
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            work, reason = None, f"{name}: wrong argument: {error}"
        except RecursionError:
            work, reason = None, f"{name}: nested too deeply"
        except OSError as error:
            work, reason = None, f"{name}: {error}"
        if work is None or reason:
            answer(reason)

    def _begin(
        self,
        name: str,
        arguments: dict[str, Any],
        work: Callable[[], str],
        answer: Callable[[object, str], None],
    ) -> str:
        """Orders of one kind are done one at a time, but messages and logons: each is for somebody."""
        if name in ("freeze", "thaw"):
            return self._begin_freezing(name, work, answer)

        def done(reason: str | None, error: str) -> None:
            if name == "login" and self._desk is not None and not reason and not error:
                reason = self._log_on(_user(arguments), _terminal(arguments))
            answer(reason, error)

        self._order_count += 1
        errand = f"{name} {self._order_count}" if name in ("notify", "login") else name
        return self.errands.start(errand, work, done, ERRAND_S)

    def _begin_freezing(
        self, name: str, work: Callable[[], str], answer: Callable[[object, str], None]
    ) -> str:
        """Whatever becomes of a freeze, a thaw follows: at once if it fails, else when it is asked for or late."""

        def done(reason: str | None, error: str) -> None:
            if name == "thaw":
                self._thawed(reason, error)
            elif error or reason:
                self._thaw_at_s = self._clock()
            answer(reason, error)

        if name == "freeze" and self._thaw_at_s is None:
            self._thaw_at_s = self._clock() + freezing.THAW_AFTER_S
        return self.errands.start(name, work, done, ERRAND_S)

    def _slow_order(self, name: str, arguments: dict[str, Any]) -> Callable[[], str] | None:
        """What a child does, if the order is one that other programs carry out."""
        session = _terminal(arguments)
        if name == "shutdown":
            reboot = str(arguments.get("reboot", "False")).lower() == "true"
            message, delay_s = str(arguments.get("message", "")), int(arguments.get("timeout", 0))
            return lambda: actions.shutdown(message, delay_s, reboot)
        if name == "hibernate":
            state = str(arguments.get("state", "disk"))
            return lambda: actions.hibernate(state)
        if name in SESSION_VERBS:
            return lambda: actions.session_command(SESSION_VERBS[name], session)
        if name == "lifecycle-event":
            event, failure = str(arguments["type"]), str(arguments.get("failure", ""))
            if event not in p.LIFECYCLE_EVENTS:
                raise ValueError(f"there is no event {event}")
            return lambda: actions.run_hooks(event, failure)
        if name == "notify":
            message = p.clean(str(arguments["message"]), actions.MESSAGE_CHARS_MAX)
            return lambda: actions.notify(message)
        if name == "freeze":
            paths = [path for path, _ in self._facts.mounts()]
            return lambda: freezing.freeze(paths, self._freeze_mark)
        if name == "thaw":
            return lambda: freezing.thaw(self._freeze_mark)
        if name == "login":
            return self._before_logon(_user(arguments), session)
        return None

    def _before_logon(self, user: str, session: str) -> Callable[[], str] | None:
        """A logon to a session that the same user has locked opens that one again; others are of users there are."""
        for one in self._facts.sessions():
            is_meant = one.line == session or (not session and not one.is_remote)
            if is_meant and one.is_locked and one.user == user:
                return lambda: actions.session_command("unlock-session", one.line)
        return None if self._desk is None else lambda: actions.missing_user(user)

    def _obey(self, name: str, arguments: dict[str, Any]) -> str:
        if name in ("refresh", "api-version"):
            return self._negotiate(name, arguments)
        if name == "echo":
            self._write("echo", arguments)
            return ""
        if name == "login":
            return self._log_on(_user(arguments), _terminal(arguments))
        if name == "set-number-of-cpus":
            reason = actions.set_cpu_count(int(arguments["count"]))
            self._tell_fact("number-of-cpus")
            return reason
        return f"this agent does not know the message {name}"

    def _negotiate(self, name: str, arguments: dict[str, Any]) -> str:
        """Facts that the version before had no message for are due at once."""
        theirs = int(arguments.get("apiVersion", p.API_VERSION_UNTOLD))
        before, self.version = self.version, p.effective_version(p.API_VERSION_MAX, theirs)
        for fact in INTERVALS:
            if name == "refresh" or before < p.FROM_GUEST[fact] <= self.version:
                self._due[fact] = self._clock()
        if name == "refresh":
            self._tell("memory-stats", dict(self._facts.memory()))
        return ""

    def _log_on(self, user: str, session: str) -> str:
        """A password that comes with it, as from VDSM, is not looked at: the host's word is what counts."""
        if self._desk is None:
            return "this guest has no desk for logons"
        there = [
            one
            for one in self._facts.sessions()
            if one.line == session or (not session and not one.is_remote)
        ]
        if session not in self._desk.waiting and there:
            if any(one.user == user for one in there):
                return ""  # an order may come twice
            if session or not self._desk.waiting:
                return self._desk.refuse("locked by another", user, there[0].line)
        return self._desk.log_on(user, session)


def _user(arguments: dict[str, Any]) -> str:
    user = str(arguments["username"]).split("@", 1)[0]
    if not USER_NAME.fullmatch(user):
        raise ValueError("that is not a user's name")
    return user


def _terminal(arguments: dict[str, Any]) -> str:
    session = str(arguments.get("session") or "")
    return session[5:] if session.startswith("/dev/") else session
