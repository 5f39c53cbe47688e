"""Kills one host and then the engine, and measures what each crash cost.

On Ray these are SIGKILLs of processes, told apart by the process ids in the data center's status; nobody helps them
back. The local runtime has no processes of its own: there the host's silo is dropped and opened again.
"""

from __future__ import annotations

import threading
import time

import msgspec

from actors.wire import ENGINE_SILO
from olvm.api.data_center import DataCenter
from olvm.demo.plan import ENGINE_CRASH_AT, HOST_CRASH_AT, Plan, RuntimeName
from olvm.demo.power import kill_silo, running_silo
from olvm.model.errors import OlvmError

BACK_WITHIN_S = 20.0
POLL_S = 0.05
ANSWERING = ("up", "error")  # error: it is back, and gets no machines for a while since starts on it failed
HIT_QUERY = """
    select count(*), count(*) filter (v.high_availability)
    from reservations r join vms v on v.id = r.vm_id where r.host = ? and v.status = 'up'
"""


class CrashCost(msgspec.Struct, kw_only=True):
    """Times in seconds since the kill; None: not seen within `BACK_WITHIN_S`."""

    what: str
    pid: int = 0
    at_ns: int = 0
    vms_hit: int = 0  # machines that were up there
    vms_hit_ha: int = 0
    serving_again_s: float | None = None
    note: str = ""


class Drills:
    """Start it with `with` when the replay begins."""

    def __init__(self, dc: DataCenter, plan: Plan, runtime: RuntimeName) -> None:
        self._dc = dc
        self._plan = plan
        self._runtime = runtime
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-drills", daemon=True)
        self.host = CrashCost(what=f"host {plan.host_to_kill.shape.name}")
        self.engine = CrashCost(what="engine")
        self.news = ""
        self.is_over = False

    def __enter__(self) -> Drills:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(timeout=BACK_WITHIN_S)

    def _run(self) -> None:
        began_s = time.monotonic()
        try:
            for share, crash, cost in (
                (HOST_CRASH_AT, self._crash_host, self.host),
                (ENGINE_CRASH_AT, self._crash_engine, self.engine),
            ):
                if self._stopping.wait(max(0.0, began_s + share * self._plan.seconds - time.monotonic())):
                    return
                try:
                    crash(cost)
                except OlvmError as error:
                    cost.note = error.message
        finally:
            self.is_over = True

    # ------------------------------------------------------------------ the two crashes

    def _crash_host(self, cost: CrashCost) -> None:
        name = self._plan.host_to_kill.shape.name
        before = self._dc.hosts.row(name)
        cost.vms_hit, cost.vms_hit_ha = self._dc.sql(HIT_QUERY, [name]).rows()[0]
        silo = running_silo(self._dc, before.silo)
        began_s = self._strike(cost, silo.pid)
        kill_silo(self._dc, self._runtime, silo)
        if self._runtime == "local":
            cost.note = (
                "the host's silo was dropped and opened again: the local runtime has no process to kill"
            )
        while time.monotonic() - began_s < BACK_WITHIN_S and not self._stopping.is_set():
            now = self._dc.hosts.row(name)
            if now.boot_id != before.boot_id and now.status in ANSWERING:
                cost.serving_again_s = time.monotonic() - began_s
                self.news = f"{cost.what} is up again after {cost.serving_again_s:.1f} s"
                return
            time.sleep(POLL_S)

    def _crash_engine(self, cost: CrashCost) -> None:
        if self._runtime == "local":
            cost.note = "not killed: in the local runtime the engine lives in this process"
            return
        epoch = self._dc.status().engine_epoch
        silo = running_silo(self._dc, ENGINE_SILO)
        began_s = self._strike(cost, silo.pid)
        kill_silo(self._dc, self._runtime, silo)
        while time.monotonic() - began_s < BACK_WITHIN_S and not self._stopping.is_set():
            rows = self._dc.sql("select epoch from engine").rows()  # waits while the link connects again
            if rows and rows[0][0] > epoch:
                cost.serving_again_s = time.monotonic() - began_s
                self.news = f"the engine answers again after {cost.serving_again_s:.1f} s"
                return
            time.sleep(POLL_S)

    def _strike(self, cost: CrashCost, pid: int) -> float:
        cost.pid, cost.at_ns = pid, time.time_ns()
        self.news = f"{cost.what} was killed (process {pid})"
        return time.monotonic()
