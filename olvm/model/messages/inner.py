"""What a silo tells its own actors, and what flows to history."""

from __future__ import annotations

from olvm.model.messages.message import Message


class TimerFired(Message, frozen=True):
    name: str


class Recovered(Message, frozen=True):
    """The silo has been started (again); the first message that every actor gets, before any other."""

    first_start: bool = False


class CallEnded(Message, frozen=True):
    """The answer of a port (hypervisor, history) to `turn.call`."""

    tag: str
    ok: bool
    value: bytes = b""
    code: str = ""
    outcome_known: bool = True


class DomainHappened(Message, frozen=True):
    """An event of the hypervisor that nobody asked for."""

    vm_id: str
    epoch: int
    kind: str
    exit_reason: int | None = None
    message: str = ""
    pause_code: str = ""


# ---------------------------------------------------------------- telemetry


class Samples(Message, frozen=True):
    """One encoded columnar batch, see olvm.history.

    With a number it is acknowledged by `SamplesStored`; incarnation and number name it to its sender.
    """

    payload: bytes
    incarnation: int = 0
    number: int = 0


class SamplesStored(Message, frozen=True):
    """These batches are on history's disk, or history refuses them: no need to say them again."""

    incarnation: int
    numbers: list[int]


class GuestFactsTold(Message, frozen=True):
    payload: bytes


class EventsTold(Message, frozen=True):
    """Committed events of a silo, in order: the answer to a `PullEvents` with this `after_seq`."""

    source: str
    payload: bytes
    after_seq: int


class EventTold(Message, frozen=True):
    """An event recorded in another silo; the engine's silo numbers and keeps all of them."""

    row: bytes  # msgpack of EventRecord


class OperationsTold(Message, frozen=True):
    """Committed operations of a silo that have ended, in the order of their ends: the answer to a `PullOperations`
    with this `from_ns`."""

    source: str
    payload: bytes  # msgpack of a list of OperationRecord
    from_ns: int


class PullOperations(Message, frozen=True):
    """The telemetry actor asks the engine's silo for operations that ended at `from_ns` or later."""

    from_ns: int
    row_count_max: int


class PullEvents(Message, frozen=True):
    """The telemetry actor asks the engine's silo for committed events after its cursor."""

    after_seq: int
    row_count_max: int
