"""Who may open which session of this guest without a password: tokens of one use, and where they are asked for.

The host has said that the engine knows a user. A token for that user and one session is made, and its life begins.
The greeter of the session is told; PAM asks, before it lets the user in. Rules:
1. A token is bound to one user and one session, good once, for `LIFE_S`, and there is one for a session at most.
2. Only root is answered: the kernel says who asks.
3. A session that another user has or has locked is not opened.
4. What is refused is counted by its reason; no token is ever written anywhere.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import syslog
import time
from _operator import _compare_digest as compare_digest  # hmac's own; hmac itself loads 4 MB of OpenSSL
from collections.abc import Callable

LIFE_S = 5.0
SOCKET = "/run/olvm-guest-agent.sock"
REQUEST_BYTES_MAX = 4096
REASONS = (
    "no token",
    "replayed",
    "other user",
    "other session",
    "late",
    "wrong peer",
    "locked by another",
    "malformed",
)


class Tokens:
    """`owner_of(session)` says who has the session now, or has locked it; empty: nobody. Times are monotonic."""

    def __init__(
        self,
        owner_of: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
        life_s: float = LIFE_S,
    ) -> None:
        self._owner_of = owner_of
        self._clock = clock
        self._life_s = life_s
        self._live: dict[str, tuple[str, str, float]] = {}  # by session: token, user, made at
        self._used: dict[str, str] = {}  # by session: the last token that was good once
        self.refused = dict.fromkeys(REASONS, 0)

    def make(self, user: str, session: str) -> str:
        """A new token in place of the one that the session may have."""
        token = os.urandom(24).hex()
        self._live[session] = (token, user, self._clock())
        return token

    def check(self, token: str, user: str, session: str) -> str:
        """Empty: the session is the user's, and the token is used up. Else why not."""
        reason = self._why_not(token, user, session)
        if reason:
            self.refused[reason] += 1
        else:
            self._used[session] = self._live.pop(session)[0]
        return reason

    def _why_not(self, token: str, user: str, session: str) -> str:
        if any(_same(used, token) for used in self._used.values()):
            return "replayed"
        expected, owner, made_s = self._live.get(session, ("", "", 0.0))
        if not _same(expected, token):
            known = any(_same(one, token) for one, _, _ in self._live.values())
            return "other session" if known else "no token"
        if self._clock() - made_s > self._life_s:
            del self._live[session]
            return "late"
        if owner != user:
            del self._live[session]  # somebody tries: it is not tried again
            return "other user"
        if self._owner_of(session) not in ("", user):
            return "locked by another"
        return ""


def _same(one: str, other: str) -> bool:
    return bool(one) and compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


class Desk:
    """The socket where greeters wait and PAM asks. Its owner calls `accept` and `serve` when they are due."""

    def __init__(self, tokens: Tokens, path: str = SOCKET, uid: int = 0) -> None:
        self._tokens = tokens
        self._uid = uid
        self._path = path
        self.waiting: dict[str, socket.socket] = {}  # greeters, by session
        self.callers: list[socket.socket] = []
        if os.path.exists(path):
            os.unlink(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            self.socket.bind(path)
        finally:
            os.umask(before)
        self.socket.listen(8)
        self.socket.setblocking(False)

    def accept(self) -> None:
        try:
            caller, _ = self.socket.accept()
        except OSError:
            return
        caller.setblocking(False)
        if _peer_uid(caller) != self._uid:
            self._tokens.refused["wrong peer"] += 1
            syslog.syslog(syslog.LOG_WARNING, f"logon refused: wrong peer, uid {_peer_uid(caller)}")
            _answer(caller, {"ok": False, "reason": "wrong peer"})
            caller.close()
        elif len(self.callers) >= 64:
            caller.close()
        else:
            self.callers.append(caller)

    def serve(self, caller: socket.socket) -> None:
        """A caller has said something, or has gone."""
        try:
            data = caller.recv(REQUEST_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(caller)
            return
        try:
            request = json.loads(data.decode("utf-8"))
            verb, session = str(request["verb"]), str(request["session"])
        except (ValueError, KeyError, TypeError, RecursionError):
            self._tokens.refused["malformed"] += 1
            self._drop(caller)
            return
        if verb == "wait":
            before = self.waiting.get(session)
            if before is not None:
                self._drop(before)
            self.waiting[session] = caller
        elif verb == "refused":
            _answer(caller, dict(self._tokens.refused))
            self._drop(caller)
        else:
            user = str(request.get("user", ""))
            reason = self._tokens.check(str(request.get("token", "")), user, session)
            said = f"refused: {reason}" if reason else "granted"
            syslog.syslog(
                syslog.LOG_WARNING if reason else syslog.LOG_INFO, f"logon of {user!r} on {session!r} {said}"
            )
            _answer(caller, {"ok": not reason, "reason": reason})
            self._drop(caller)

    def log_on(self, user: str, session: str) -> str:
        """Give the greeter of a session (or of the only one) a token. Empty: it was told; else why not."""
        if not session:
            session = next(iter(sorted(self.waiting)), "")
        greeter = self.waiting.get(session)
        if greeter is None:
            where = session or "any console"
            return f"nobody waits for a logon on {where}: its greeter has yet to begin, or none is installed there"
        token = self._tokens.make(user, session)
        told = _answer(greeter, {"user": user, "token": token})
        self._drop(greeter)
        return "" if told else f"the greeter of {session} is gone"

    def refuse(self, reason: str, user: str, session: str) -> str:
        """A logon for which no token is made. Returns what the host is told."""
        self._tokens.refused[reason] += 1
        syslog.syslog(syslog.LOG_WARNING, f"logon of {user!r} on {session!r} refused: {reason}")
        return f"{reason}: {session} has somebody else logged on"

    def _drop(self, caller: socket.socket) -> None:
        if caller in self.callers:
            self.callers.remove(caller)
        for session in [one for one, other in self.waiting.items() if other is caller]:
            del self.waiting[session]
        caller.close()

    def close(self) -> None:
        for caller in list(self.callers):
            self._drop(caller)
        self.socket.close()
        if os.path.exists(self._path):
            os.unlink(self._path)


def _peer_uid(caller: socket.socket) -> int:
    data = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", data)[1])


def _answer(caller: socket.socket, said: dict[str, object]) -> bool:
    try:
        caller.sendall(json.dumps(said).encode() + b"\n")
    except OSError:
        return False
    return True


def ask(path: str, said: dict[str, object], timeout_s: float) -> dict[str, object]:
    """A caller's side. Raises OSError when nobody answers, ValueError when it is no answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(timeout_s)
        line.connect(path)
        line.sendall(json.dumps(said).encode())
        data = b""
        while not data.endswith(b"\n"):
            more = line.recv(REQUEST_BYTES_MAX)
            if not more:
                raise ValueError("the agent gave no answer")
            data += more
    answer = json.loads(data.decode())
    if not isinstance(answer, dict):
        raise ValueError("the agent gave no answer")
    return answer
