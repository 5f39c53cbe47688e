"""What each tenant does with its machine: the driver's side of a machine's life, and what it expects at the end.

Decides the next request after each answer; sends nothing itself. A tenant is stubborn: what was refused because the
world was in disorder (a host that died, a machine of unknown state) it asks again.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from olvm.demo.plan import PlannedVm

Verb = Literal["create", "start", "stop", "remove"]
State = Literal[
    "waiting", "creating", "starting", "running", "stopping", "stopped", "removing", "gone", "refused"
]

RETRY_AFTER_S = 0.5
ATTEMPTS_MAX = 40
STATE_DURING: dict[Verb, State] = {
    "create": "creating",
    "start": "starting",
    "stop": "stopping",
    "remove": "removing",
}


class Next(msgspec.Struct, frozen=True):
    """Ask `verb` at `at_s` of the replay's clock."""

    verb: Verb
    at_s: float


class Tenant(msgspec.Struct, kw_only=True):
    vm: PlannedVm
    state: State = "waiting"
    reported_up: bool = False  # by the newest event of the data center
    exists: bool = False
    attempts: int = 0  # since the last success
    restarts: int = 0  # starts after its host died under it

    def answered(self, verb: Verb, code: str, now_s: float) -> Next | None:
        """What to do after an answer; `code` is empty for a success."""
        if not code:
            self.attempts = 0
            return self._after_success(verb, now_s)
        if verb == "start" and code == "conflict" and self.reported_up:
            return self._running(now_s)  # it came up by itself, being highly available
        if verb == "stop" and code == "conflict" and not self.reported_up:
            return self._stopped(now_s)  # it went down by itself
        self.attempts += 1
        if verb == "create" or self.attempts >= ATTEMPTS_MAX:
            self.state = "refused"
            return None
        if verb == "stop" or (verb == "remove" and self.reported_up):  # it came up between stop and remove
            self.state = "running"
            return Next("stop", now_s + RETRY_AFTER_S)
        return Next(verb, now_s + RETRY_AFTER_S)

    def may_ask(self, verb: Verb) -> bool:
        """Whether a request planned earlier still makes sense."""
        match verb:
            case "stop":
                return self.state == "running"  # else it is starting again, and plans its stop when it runs
            case "start":
                return self.state in ("creating", "starting")
            case "create" | "remove":
                return True

    def _after_success(self, verb: Verb, now_s: float) -> Next | None:
        match verb:
            case "create":
                self.exists = True
                return Next("start", now_s)
            case "start":
                return self._running(now_s)
            case "stop":
                return self._stopped(now_s)
            case "remove":
                self.state = "gone"
                self.exists = False
                return None

    def _running(self, now_s: float) -> Next | None:
        self.state = "running"
        return None if self.vm.leave_s is None else Next("stop", max(now_s, self.vm.leave_s))

    def _stopped(self, now_s: float) -> Next | None:
        self.state = "stopped"
        return None if self.vm.kept else Next("remove", now_s)

    def heard(self, event: str, now_s: float) -> Next | None:
        """What to do when the data center tells of the machine."""
        if event in ("vm_up", "vm_known_again"):
            self.reported_up = True
        elif event in ("vm_down", "vm_crashed"):
            self.reported_up = False
        if event == "vm_crashed" and self.state == "running" and not self.vm.high_availability:
            self.restarts += 1
            self.state = "starting"
            return Next("start", now_s)
        return None

    @property
    def expected_status(self) -> str | None:
        """What the data center must say of the machine when all is quiet; None: it knows no such machine."""
        if not self.exists:
            return None
        return {"running": "up", "stopped": "down", "refused": "down"}.get(self.state, self.state)
