"""What is done to the fleet after the replay: a live migration, a host emptied, a rack without power; one by one.

A thread of its own beside the replay, whose tenants go on looking after their machines. A step that fails ends the
trials, and says which it was and why.
"""

from __future__ import annotations

import threading
import time
from collections import deque

import msgspec

from olvm.api.data_center import DataCenter
from olvm.api.operation import Operation
from olvm.demo.plan import Plan, RuntimeName
from olvm.demo.rack import Comeback, RackLoss
from olvm.model.errors import OlvmError, WaitTimeout

POLL_S = 0.1
MOVE_WITHIN_S = 60.0
DRAIN_WITHIN_S = 60.0
DRAINED_VMS = 24  # the host whose machines are nearest to this number is emptied
CANDIDATES_MAX = 4  # the largest machines of the cluster with room: one may fit nowhere else

LARGEST_QUERY = """
    select name, host, memory_bytes from vms
    where status = 'up' and copy_phase = '' and operation_id is null
    order by cluster = 'even' desc, memory_bytes desc, name limit ?
"""
MOVED_QUERY = (
    "select details from events where code = 'vm_migrated' and vm_name = ? order by seq desc limit 1"
)
DRAINABLE_QUERY = """
    select h.name, count(*) as machines from hosts h join reservations r on r.host = h.name
    where h.status = 'up' and h.silo <> 'host-rack' and not ends_with(h.silo, '-own')
    group by h.name order by abs(count(*) - ?), h.name limit 1
"""


class Move(msgspec.Struct, kw_only=True):
    vm: str
    memory_bytes: int
    from_host: str
    to_host: str
    seconds: float  # request to end, by the journal
    downtime_allowed_ms: int  # of the guest's own, accelerated time; 0: it was over before anybody told


class Drain(msgspec.Struct, kw_only=True):
    host: str
    machines: int
    seconds: float


class Stopped(Exception):
    """The demo ends before its trials do."""


class Trials:
    """Start it with `with` when the replay is over; `news` is for whoever shows it."""

    def __init__(self, dc: DataCenter, plan: Plan, runtime: RuntimeName) -> None:
        self._dc = dc
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-trials", daemon=True)
        self._loss = RackLoss(dc, plan, runtime, self._say, self._pause)
        self.news: deque[str] = deque()
        self.operations: list[Operation] = []
        self.doing = ""
        self.failed = ""  # which step, and why
        self.is_over = False
        self.move: Move | None = None
        self.drain: Drain | None = None

    @property
    def loss(self) -> RackLoss:
        return self._loss

    @property
    def comebacks(self) -> list[Comeback]:
        return self._loss.comebacks

    def __enter__(self) -> Trials:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(timeout=MOVE_WITHIN_S)

    def join(self) -> None:
        """Wait for their end; each step has its own time."""
        self._thread.join()

    def _run(self) -> None:
        steps = (
            ("live migration", self._migrate),
            ("maintenance of a host", self._empty_a_host),
            ("loss of a rack", self._loss.go_through),
        )
        try:
            for self.doing, step in steps:
                self.failed = f"{self.doing}: it did not end; the traceback says why"
                step()
            self.failed = ""
        except OlvmError as error:
            self.failed = f"{self.doing}: {error.message}"
        except OSError as error:
            self.failed = f"{self.doing}: {error}"
        except Stopped:
            self.failed = f"{self.doing}: interrupted"
        finally:
            self.is_over = True

    def _say(self, text: str) -> None:
        self.news.append(text)

    def _pause(self) -> None:
        if self._stopping.wait(POLL_S):
            raise Stopped

    def _ended(self, operation: Operation, within_s: float, look: str = "") -> float:
        """Wait for it, telling its progress; seconds from request to end, by the journal."""
        self.operations.append(operation.accepted())
        deadline_s, told = time.monotonic() + within_s, 0
        while not operation.done:
            if time.monotonic() > deadline_s:
                raise WaitTimeout(f"{operation!r} goes on after {within_s:g} s; {operation.reason}")
            self._pause()
            percent = operation.refresh().progress_percent
            if percent > told and look:
                told = percent
                self._say(f"     {look}: {percent} %")
        # An answer that left before the end may have come after it: ask once more.
        view = operation.refresh()
        operation.wait(0)  # raises its reason
        assert view.finished_ns is not None, f"{operation!r} has ended and has no end"
        return (view.finished_ns - view.created_ns) / 1e9

    # ------------------------------------------------------------------ the steps

    def _migrate(self) -> None:
        """The largest machine that fits anywhere else."""
        refusal: OlvmError | None = None
        for name, from_host, memory_bytes in self._dc.sql(LARGEST_QUERY, [CANDIDATES_MAX]):
            self._say(
                f"  1. live migration: {name} ({memory_bytes / 2**30:.0f} GiB) leaves {from_host} while it runs"
            )
            try:
                seconds = self._ended(self._dc.vms[name].migrate(), MOVE_WITHIN_S, "copied and handed over")
            except OlvmError as error:
                refusal = error
                self._say(f"     refused, the next one is tried: {error.message}")
                continue
            self.move = self._move(name, memory_bytes, seconds)
            return
        if refusal is not None:
            raise refusal
        self._say("  1. live migration: left out, as no machine is up")

    def _move(self, name: str, memory_bytes: int, seconds: float) -> Move:
        details = msgspec.json.decode(self._dc.sql(MOVED_QUERY, [name]).one())
        move = Move(
            vm=name,
            memory_bytes=memory_bytes,
            from_host=details["from"],
            to_host=details["to"],
            seconds=seconds,
            downtime_allowed_ms=details["downtime_ms"],
        )
        allowed = f", a downtime of {move.downtime_allowed_ms} ms allowed" if move.downtime_allowed_ms else ""
        self._say(f"     it runs on {move.to_host} after {seconds:.2f} s{allowed}")
        return move

    def _empty_a_host(self) -> None:
        rows = self._dc.sql(DRAINABLE_QUERY, [DRAINED_VMS]).rows()
        if not rows:
            self._say("  2. maintenance: left out, as no host outside the rack has machines")
            return
        name, machines = rows[0]
        self._say(
            f"  2. maintenance: {name} is emptied; watch its {machines} machines leave, all of them running"
        )
        host = self._dc.hosts.get(name)
        seconds = self._ended(host.maintenance(timeout=DRAIN_WITHIN_S), DRAIN_WITHIN_S + 10)
        self.drain = Drain(host=name, machines=machines, seconds=seconds)
        self._say(f"     {name} is in maintenance after {seconds:.1f} s; it is put into service again")
        self._ended(host.activate(), DRAIN_WITHIN_S)
