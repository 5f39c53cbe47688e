"""The host's side of the talk with one guest's agent: versions, facts, events, answers. No I/O, no clock of its own.

Rules, as VDSM keeps them where it has them:
1. On a new line the host says `refresh` with the highest version it speaks. A heartbeat tells the guest's; what both
   speak is the lower, and a change is said by `api-version`. A heartbeat without a version is version 0.
2. Any message counts as heard; an agent that was not heard for `SILENT_S` does not speak.
3. More than `GUEST_LINES_PER_S_MAX` lines a second wait in the guest: the line is not read meanwhile.
4. An answer with a `reply_id` ends the call that it belongs to. An agent that knows no such answers is taken to have
   done what it was told when it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from guest_agent import protocol as g
from hypervisor_backends.guest_facts import FACTS_OF, SESSION_BY_EVENT, FactsBook, number, text
from hypervisor_backends.measurements import GuestFacts
from hypervisor_backends.protocol import GUEST_FACTS, CallFailed, CallResult, CallSucceeded, GuestAnswer
from olvm.model.limits import GUEST_CALLS_MAX, GUEST_LINES_PER_S_MAX, NS_PER_S

SILENT_S = 120.0
Done = Callable[[CallResult], None]


class GuestConversation:
    """`say(line)` writes to the guest; `on_event(word)` tells of its sessions, or GUEST_FACTS when facts are news."""

    def __init__(self, vm_id: str, say: Callable[[bytes], bool], on_event: Callable[[str], None]) -> None:
        self._vm_id = vm_id
        self._say = say
        self._on_event = on_event
        self.book = FactsBook()
        self.decoder = g.LineDecoder()
        self.version = g.API_VERSION_UNTOLD
        self.heard_ns = 0
        self.unknown = 0
        self.delayed = 0
        self._is_ours = False
        self._calls: dict[int, tuple[Done, int]] = {}  # by reply id: whose, and until when
        self._call_count = 0
        self._allowance = float(GUEST_LINES_PER_S_MAX)
        self._counted_ns = 0

    @property
    def source(self) -> str:
        return "olvm" if self._is_ours else "ovirt"

    def connected(self) -> None:
        self.decoder.reset()
        self.version = g.API_VERSION_UNTOLD
        self._say(g.encode("refresh", {"apiVersion": g.API_VERSION_MAX}))

    def speaks(self, now_ns: int) -> bool:
        return self.heard_ns > 0 and now_ns - self.heard_ns < SILENT_S * NS_PER_S

    # ------------------------------------------------------------------ in

    def may_read(self, now_ns: int) -> bool:
        """Whether the guest has not talked too fast."""
        passed_s = (now_ns - self._counted_ns) / NS_PER_S if self._counted_ns else 1.0
        self._counted_ns = now_ns
        self._allowance = min(GUEST_LINES_PER_S_MAX * 2.0, self._allowance + passed_s * GUEST_LINES_PER_S_MAX)
        if self._allowance >= 1:
            return True
        self.delayed += 1
        return False

    def feed(self, data: bytes, now_ns: int) -> None:
        before = self.decoder.discarded
        for name, arguments in self.decoder.feed(data):
            self._allowance -= 1
            self.heard_ns = now_ns
            self._take(name, arguments, now_ns)
        self._allowance -= self.decoder.discarded - before

    def _take(self, name: str, arguments: Mapping[str, object], now_ns: int) -> None:
        if name == "heartbeat":
            self._negotiate(arguments)
        if name in FACTS_OF:
            if self.book.take(self.source, FACTS_OF[name](arguments), now_ns):
                self._on_event(GUEST_FACTS)
        elif name in SESSION_BY_EVENT:
            self._on_session(name, arguments, now_ns)
        elif name == "completion":
            self._complete(arguments)
        elif name == "uninstalled":
            self.book.forget(self.source)
            self.heard_ns = 0
        elif name not in g.FROM_GUEST:
            self.unknown += 1

    def _negotiate(self, arguments: Mapping[str, object]) -> None:
        self._is_ours = number(arguments.get("olvm"), 1_000) is not None
        theirs = number(arguments.get("apiVersion"), 1_000)
        version = g.effective_version(
            g.API_VERSION_MAX, theirs if theirs is not None else g.API_VERSION_UNTOLD
        )
        if version != self.version:
            self.version = version
            self._say(g.encode("api-version", {"apiVersion": version}))
            self._say(g.encode("refresh", {"apiVersion": version}))
        self.book.name_agent(self.source, f"{self.source} {version}")

    def _on_session(self, name: str, arguments: Mapping[str, object], now_ns: int) -> None:
        self.book.take(self.source, {"session": SESSION_BY_EVENT[name]}, now_ns)
        user = text(arguments.get("user")) or ""
        self._on_event(f"{name} {user[:64]}".strip())

    # ------------------------------------------------------------------ out

    def call(
        self, message: str, arguments: Mapping[str, object], now_ns: int, timeout_s: float, done: Done
    ) -> None:
        refusal = self._refusal(message, now_ns)
        if refusal is not None:
            done(refusal)
            return
        said = dict(arguments)
        waits = self._is_ours and message not in ("refresh", "api-version", "echo")
        if waits:
            self._call_count += 1
            said["reply_id"] = self._call_count
        if message == "login":
            said.setdefault("password", "")  # the original agent wants one; ours asks the engine's word alone
        if message == "refresh":
            said["apiVersion"] = self.version
        if not self._say(g.encode(message, said)):
            done(self._silent(message, "it does not read what it is told"))
        elif waits:
            self._calls[self._call_count] = (done, now_ns + int(timeout_s * NS_PER_S))
        else:
            done(CallSucceeded(value=GuestAnswer()))

    def _refusal(self, message: str, now_ns: int) -> CallFailed | None:
        if not self.speaks(now_ns):
            return self._silent(
                message, "no agent of it was heard lately; install one, or wait until it has booted"
            )
        if message in g.TO_OLVM_GUEST and not self._is_ours:
            words = f"the guest of machine {self._vm_id} has an agent that knows no {message}; it takes olvm's own"
            return CallFailed(code="not_supported", message=words)
        if message not in g.TO_OLVM_GUEST and g.TO_GUEST.get(message, g.API_VERSION_MAX + 1) > self.version:
            words = (
                f"the agent of machine {self._vm_id} speaks version {self.version}, which has no {message}"
            )
            return CallFailed(code="not_supported", message=words)
        if len(self._calls) >= GUEST_CALLS_MAX:
            return self._silent(message, f"{len(self._calls)} questions to it are open")
        return None

    def _silent(self, message: str, why: str) -> CallFailed:
        return CallFailed(
            code="guest_silent", message=f"cannot say {message} to the guest of machine {self._vm_id}: {why}"
        )

    def _complete(self, arguments: Mapping[str, object]) -> None:
        reply_id = number(arguments.get("reply_id"), 2**31)
        asked = self._calls.pop(-1 if reply_id is None else reply_id, None)
        if asked is None:
            return
        if arguments.get("ok", True) is True:
            asked[0](CallSucceeded(value=GuestAnswer()))
        else:
            reason = text(arguments.get("reason")) or "it gave no reason"
            words = f"the guest of machine {self._vm_id} refused: {reason[:300]}"
            asked[0](CallFailed(code="guest_refused", message=words))

    def expire(self, now_ns: int) -> None:
        """Calls whose time is over."""
        for reply_id in [one for one, (_, until_ns) in self._calls.items() if until_ns <= now_ns]:
            done, _ = self._calls.pop(reply_id)
            words = f"the guest of machine {self._vm_id} did not say in time what became of it"
            done(CallFailed(code="guest_silent", message=words, outcome_known=False))

    def facts(self) -> GuestFacts | None:
        return self.book.facts(
            version=self.version, discarded=self.decoder.discarded, unknown=self.unknown, delayed=self.delayed
        )

    def close(self) -> None:
        """The line is gone for good."""
        calls, self._calls = self._calls, {}
        for done, _ in calls.values():
            words = f"machine {self._vm_id} ended or moved before its guest answered"
            done(CallFailed(code="guest_silent", message=words, outcome_known=False))
