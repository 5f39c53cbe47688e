"""What the two sides of a simulated live migration remember of it, and the messages between them.

Decides the vocabulary only. The order of messages, S the source and T the target:

    S Begin -> T Accepted      T is bound to this attempt; nothing of another attempt is taken any more
    S Alive -> T Accepted      at times while memory is copied; also tells T's share of bandwidth
    S Last -> T Got            the vCPUs stand at S and all memory was sent: S may still go back
    S Finish -> T Confirm      T runs. Once it sent Finish, S never goes back by itself
              | T Refused      T will never run this attempt: S goes back

With post-copy, Finish comes before the memory and Last after it. T says Gone about an attempt that it does not know
and that it therefore will never run; after Finish that word counts for nothing, because T may have run, and ended,
and forgotten. S says Abandon when it gives up. Each message but Accepted, Gone and Abandon is repeated until it is
answered; each is harmless when it is late or comes twice, because it names its attempt, and attempts are unique.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from hypervisor_backends.protocol import Cancel, DomainStatus, Done, PauseCode
from hypervisor_backends.simulated_copying import Copying

StepName = Literal["launched", "restored", "guest_up", "shut_down", "reset", "saved"]


class GuestState(msgspec.Struct, frozen=True, kw_only=True):
    """What goes over with the guest besides its memory."""

    status: DomainStatus
    pause_code: PauseCode
    paused_from: DomainStatus
    step: StepName | None
    remaining_ns: int
    guest_heard: bool
    ignores_shutdown: bool
    vcpus: int
    memory_bytes: int  # what it was started with, beside what was plugged
    powered_on_ns: int
    plugged: dict[str, tuple[int, int]] = {}


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    """`attempt` is unique among all of all hosts and boots; `vm_id` says which domain it is about."""

    attempt: str
    vm_id: str


class Begin(Message, frozen=True, kw_only=True):
    """`uri` is the very one that T gave out: it names one `PrepareIncoming`."""

    uri: str
    to_epoch: int


class Alive(Message, frozen=True, kw_only=True): ...


class Last(Message, frozen=True, kw_only=True): ...


class Finish(Message, frozen=True, kw_only=True):
    state: GuestState
    post_copy: bool


class Abandon(Message, frozen=True, kw_only=True):
    reason: str


class Accepted(Message, frozen=True, kw_only=True):
    share_bytes_per_s: float


class Got(Message, frozen=True, kw_only=True): ...


class Confirm(Message, frozen=True, kw_only=True): ...


class Refused(Message, frozen=True, kw_only=True):
    reason: str


class Gone(Message, frozen=True, kw_only=True):
    reason: str


ToTarget: TypeAlias = Begin | Alive | Last | Finish | Abandon
ToSource: TypeAlias = Accepted | Got | Confirm | Refused | Gone

# connecting: Begin is out · copying: iterations · stopping: the vCPUs stand, the rest is sent · sending: Last is out
# finishing: Finish is out · draining: post-copy, the target runs and memory follows · drained: all of it is on the
# wire, and a sign of life is awaited before Last, after which nobody could tell any more what the target has.
SourcePhase = Literal["connecting", "copying", "stopping", "sending", "finishing", "draining", "drained"]


class Outgoing:
    """The source's side, while a migration is under way. `pending` is repeated until it is answered."""

    __slots__ = (
        "asked_ns",
        "attempt",
        "cap_bytes_per_s",
        "confirm_is_lost",
        "copying",
        "fails_ns",
        "heard_ns",
        "may_post_copy",
        "pending",
        "phase",
        "phase_ns",
        "post_copy",
        "silence_ns",
        "state",
        "stopped_ns",
        "target",
        "target_share",
        "timer",
        "to_epoch",
        "waiters",
    )

    def __init__(self, *, attempt: str, target: str, to_epoch: int, copying: Copying, now_ns: int) -> None:
        self.attempt = attempt
        self.target = target
        self.to_epoch = to_epoch
        self.copying = copying
        self.cap_bytes_per_s = 0.0
        self.may_post_copy = False
        self.target_share = 0.0
        self.phase: SourcePhase = "connecting"
        self.phase_ns = now_ns
        self.heard_ns = now_ns
        self.asked_ns = now_ns
        self.silence_ns = 0
        self.pending: ToTarget | None = None
        self.post_copy = False  # from StartPostCopy on
        self.state: GuestState | None = None  # set exactly from the switch-over on
        self.stopped_ns = now_ns  # when the vCPUs were stopped for the switch-over
        self.fails_ns: int | None = None  # a planted failure
        self.confirm_is_lost = False  # a planted failure that has struck
        self.timer: Cancel | None = None
        self.waiters: list[Done] = []

    @property
    def is_past_switch_over(self) -> bool:
        return self.state is not None


class Incoming:
    """The target's side, until the machine has arrived whole."""

    __slots__ = ("attempt", "condemned", "confirm_is_lost", "heard_ns", "runs", "source", "timer", "uri")

    def __init__(self, uri: str, now_ns: int) -> None:
        self.uri = uri
        self.attempt = ""  # empty until a source is bound to it
        self.source = ""
        self.heard_ns = now_ns
        self.runs = False  # post-copy: the machine runs here and its memory still comes
        self.condemned = False  # the watchdog ends it when it appears, even if it is armed again by then
        self.confirm_is_lost = False
        self.timer: Cancel | None = None
