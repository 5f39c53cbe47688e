"""The host's side of the talk with one guest's agent: versions, facts, events, answers. No I/O, no clock of its own.

Rules, as VDSM keeps them where it has them:
1. On a new line the host says `refresh` with the highest version it speaks. A heartbeat tells the guest's; what both
   speak is the lower, and a change is said by `api-version`. A heartbeat without a version is version 0, which is not
   said: such an agent knows no versions.
2. Any message counts as heard; an agent that was not heard for `SILENT_S` does not speak.
3. More than `GUEST_LINES_PER_S_MAX` lines or `GUEST_BYTES_PER_S_MAX` a second wait in the guest: its line is not read
   meanwhile. Likewise for what it causes elsewhere: events of sessions beyond their allowance are dropped and counted,
   news is told later.
4. An answer with a `reply_id` ends the call that it belongs to. An agent that knows no such answer to a message is
   taken to have done what it was told when it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from guest_agent import protocol as g
from hypervisor_backends.guest_facts import STALE_S, Counters, FactsBook
from hypervisor_backends.guest_messages import FACTS_OF, SESSION_BY_EVENT
from hypervisor_backends.guest_time import Allowance, is_over
from hypervisor_backends.guest_values import Told, Values
from hypervisor_backends.measurements import GuestFacts
from hypervisor_backends.protocol import GUEST_FACTS, CallFailed, CallResult, CallSucceeded, GuestAnswer
from olvm.model.limits import (
    GUEST_BYTES_PER_S_MAX,
    GUEST_CALLS_MAX,
    GUEST_EVENT_PERIOD_S,
    GUEST_EVENTS_AT_ONCE_MAX,
    GUEST_LINE_BYTES_MAX,
    GUEST_LINES_PER_S_MAX,
    GUEST_NEWS_AT_ONCE_MAX,
    GUEST_NEWS_PERIOD_S,
)

SILENT_S = STALE_S
NEWS_GAP_S = 0.5  # an agent that begins says a dozen facts, a line each
USER_CHARS_MAX = 64
REASON_CHARS_MAX = 300
VERSION_MAX = 2**31
REPLY_ID_MAX = 2**31
# To which there is no answer, whoever hears it.
UNANSWERED = frozenset({"refresh", "api-version", "echo"})

Done = Callable[[CallResult], None]
assert GUEST_LINE_BYTES_MAX == g.LINE_BYTES_MAX


class _Asked(NamedTuple):
    """A call that waits for its completion."""

    done: Done
    at_ns: int
    timeout_s: float


class GuestConversation:
    """`say(line)` writes to the guest; `on_event(word)` tells of its sessions, or GUEST_FACTS when facts are news."""

    def __init__(self, vm_id: str, say: Callable[[bytes], bool], on_event: Callable[[str], None]) -> None:
        self._vm_id = vm_id
        self._say = say
        self._on_event = on_event
        self.book = FactsBook()
        self.decoder = g.LineDecoder()
        self.version = g.API_VERSION_UNTOLD
        self.heard_ns = 0  # 0: not since its machine began to boot
        self.unknown = self.delayed = self.dropped = self.refused = 0
        self._is_ours = False
        self._has_os_info = False
        self._is_version_told = True
        self._calls: dict[int, _Asked] = {}  # by reply id
        self._call_count = 0
        self._may_read = True
        self._lines = Allowance(GUEST_LINES_PER_S_MAX, GUEST_LINES_PER_S_MAX * 2)
        self._bytes = Allowance(GUEST_BYTES_PER_S_MAX, GUEST_LINE_BYTES_MAX * 2)
        self._events = Allowance(1 / GUEST_EVENT_PERIOD_S, GUEST_EVENTS_AT_ONCE_MAX)
        self._news = Allowance(1 / GUEST_NEWS_PERIOD_S, GUEST_NEWS_AT_ONCE_MAX)
        self._news_told_ns = 0
        self._has_news = False

    @property
    def source(self) -> str:
        return "olvm" if self._is_ours else "ovirt"

    @property
    def waits(self) -> bool:
        """Whether `expire` has something to look after."""
        return bool(self._calls) or self._has_news or not self._may_read

    def connected(self) -> None:
        """The line is new, and perhaps the agent at its other end."""
        self.decoder.reset()
        self.version = g.API_VERSION_UNTOLD
        self._is_version_told = True
        self._has_os_info = False
        self._say(g.encode("refresh", {"apiVersion": g.API_VERSION_MAX}))

    def begin_boot(self) -> None:
        """What was heard before was said by another boot."""
        self.heard_ns = 0
        self.book.begin_boot()

    def speaks(self, now_ns: int) -> bool:
        return self.heard_ns > 0 and not is_over(self.heard_ns, SILENT_S, now_ns)

    # ------------------------------------------------------------------ in

    def may_read(self, now_ns: int) -> bool:
        """Whether the guest has not talked too fast."""
        may = self._lines.has(now_ns) and self._bytes.has(now_ns)
        if self._may_read and not may:
            self.delayed += 1
        self._may_read = may
        return may

    def feed(self, data: bytes, now_ns: int) -> None:
        self._bytes.spend(len(data))
        self._lines.spend(data.count(b"\n"))  # an empty line is a line
        for name, arguments in self.decoder.feed(data):
            self.heard_ns = now_ns
            self._take(name, arguments, now_ns)
        self._tell_news(now_ns)

    def _take(self, name: str, arguments: Mapping[str, object], now_ns: int) -> None:
        values = Values()
        if name == "heartbeat":
            self._negotiate(arguments, values)
        if name in FACTS_OF:
            self._take_facts(name, arguments, values, now_ns)
        elif name in SESSION_BY_EVENT:
            self._on_session(name, arguments, values, now_ns)
        elif name == "completion":
            self._complete(arguments, values)
        elif name == "uninstalled":
            self.book.forget(self.source)
            self.heard_ns = 0
        elif name not in g.FROM_GUEST:
            self.unknown += 1
        self.refused += values.refused_count

    def _take_facts(self, name: str, arguments: Mapping[str, object], values: Values, now_ns: int) -> None:
        if name == "os-version" and self._has_os_info:
            return  # the same in the words of old, said beside it for old hosts
        self._has_os_info |= name == "os-info"
        self.take_told(self.source, FACTS_OF[name](arguments, values), now_ns)

    def take_told(self, source: str, told: Told, now_ns: int, agent: str = "", refused: int = 0) -> None:
        """Facts of whichever agent; `agent` is its name and version, empty if that is no news.

        `refused`: values beside them that could not be taken as they were.
        """
        self.refused += refused
        self._has_news |= self.book.name_agent(source, agent)
        self._has_news |= self.book.take(source, told, now_ns)

    def _negotiate(self, arguments: Mapping[str, object], values: Values) -> None:
        self._recognize(is_ours=values.number(arguments.get("olvm"), VERSION_MAX) is not None)
        theirs = values.number(arguments.get("apiVersion"), VERSION_MAX)
        version = g.effective_version(
            g.API_VERSION_MAX, theirs if theirs is not None else g.API_VERSION_UNTOLD
        )
        if version != self.version:
            self.version = version
            self._is_version_told = version == g.API_VERSION_UNTOLD
        if not self._is_version_told:
            self._is_version_told = self._say(g.encode("api-version", {"apiVersion": version}))
            if (
                not self._is_ours
            ):  # ours says by itself what this version has; an original would in two minutes
                self._say(g.encode("refresh", {"apiVersion": g.API_VERSION_MAX}))
        self._has_news |= self.book.name_agent(self.source, f"{self.source} {version}")

    def _recognize(self, *, is_ours: bool) -> None:
        before = self.source
        self._is_ours = is_ours
        if self.source != before:
            self.book.rename(before, self.source)

    def _on_session(self, name: str, arguments: Mapping[str, object], values: Values, now_ns: int) -> None:
        self.take_told(self.source, {"session": SESSION_BY_EVENT[name]}, now_ns)
        if not self._events.has(now_ns):
            self.dropped += 1
            return
        self._events.spend(1)
        user = values.text(arguments.get("user")) or ""
        self._on_event(f"{name} {user[:USER_CHARS_MAX]}".strip())

    def _tell_news(self, now_ns: int) -> None:
        if self._has_news and is_over(self._news_told_ns, NEWS_GAP_S, now_ns) and self._news.has(now_ns):
            self._has_news = False
            self._news.spend(1)
            self._news_told_ns = now_ns
            self._on_event(GUEST_FACTS)

    # ------------------------------------------------------------------ out

    def call(
        self, message: str, arguments: Mapping[str, object], now_ns: int, timeout_s: float, done: Done
    ) -> None:
        refusal = self._refusal(message, arguments, now_ns)
        if refusal is not None:
            done(refusal)
            return
        said = dict(arguments)
        waits = message not in UNANSWERED and (self._is_ours or message == "lifecycle-event")
        if waits:
            self._call_count += 1
            said["reply_id"] = self._call_count
        if message == "refresh":
            said["apiVersion"] = g.API_VERSION_MAX
        if not self._say(g.encode(message, said)):
            done(self._silent(message, "it does not read what it is told"))
        elif waits:
            self._calls[self._call_count] = _Asked(done, now_ns, timeout_s)
        else:
            done(CallSucceeded(value=GuestAnswer()))

    def _refusal(self, message: str, arguments: Mapping[str, object], now_ns: int) -> CallFailed | None:
        if not self.speaks(now_ns):
            return self._silent(
                message, "no agent of it was heard lately; install one, or wait until it has booted"
            )
        why = self._unsupported(message, arguments)
        if why:
            words = f"the agent in the guest of machine {self._vm_id} {why}"
            return CallFailed(code="not_supported", message=words)
        if len(self._calls) >= GUEST_CALLS_MAX:
            return self._silent(message, f"{len(self._calls)} questions to it are open")
        return None

    def _unsupported(self, message: str, arguments: Mapping[str, object]) -> str:
        if message in g.TO_OLVM_GUEST:
            return "" if self._is_ours else f"knows no {message}; install olvm's own"
        if g.TO_GUEST.get(message, g.API_VERSION_MAX + 1) > self.version:
            return f"speaks version {self.version}, which has no {message}"
        if message == "login" and not self._is_ours and "password" not in arguments:
            return "logs nobody on without a password, which the engine does not keep; install olvm's own"
        return ""

    def _silent(self, message: str, why: str) -> CallFailed:
        return CallFailed(
            code="guest_silent", message=f"cannot say {message} to the guest of machine {self._vm_id}: {why}"
        )

    def _complete(self, arguments: Mapping[str, object], values: Values) -> None:
        reply_id = values.number(arguments.get("reply_id"), REPLY_ID_MAX)
        asked = self._calls.pop(-1 if reply_id is None else reply_id, None)
        if asked is None:
            return
        if arguments.get("ok", True) is True:  # an original says no more than that it is done
            asked.done(CallSucceeded(value=GuestAnswer()))
        else:
            reason = values.text(arguments.get("reason")) or "it gave no reason"
            words = f"the guest of machine {self._vm_id} refused: {reason[:REASON_CHARS_MAX]}"
            asked.done(CallFailed(code="guest_refused", message=words))

    # ------------------------------------------------------------------ now and then

    def expire(self, now_ns: int) -> None:
        """Calls whose time is over, and news that had to wait."""
        late = [one for one, asked in self._calls.items() if is_over(asked.at_ns, asked.timeout_s, now_ns)]
        for asked in [self._calls.pop(reply_id) for reply_id in late]:
            words = f"the guest of machine {self._vm_id} did not say in time what became of it"
            asked.done(CallFailed(code="guest_silent", message=words, outcome_known=False))
        self._tell_news(now_ns)

    def facts(self) -> GuestFacts | None:
        counters = Counters(self.decoder.discarded, self.unknown, self.delayed, self.dropped, self.refused)
        return self.book.facts(version=self.version, counters=counters)

    def close(self) -> None:
        """The line is gone for good."""
        calls, self._calls = self._calls, {}
        for asked in calls.values():
            words = f"machine {self._vm_id} ended or moved before its guest answered"
            asked.done(CallFailed(code="guest_silent", message=words, outcome_known=False))
