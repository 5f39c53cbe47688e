"""What makes a host that answers NonOperational, and its way back.

It decides from the problems that the agent names in its heartbeats (`olvm.model.host_problems` has the words).
Rule: a host leaves NonOperational by itself at most once in `auto_recovery_period_s` after it came there, so that a
problem that comes and goes does not make it flap; an administrator's `activate` does not wait.
"""

from __future__ import annotations

from actors.behaviour import Turn
from actors.host_core import HostCore
from olvm.model import messages as m
from olvm.model.host_problems import problem_text
from olvm.model.host_states import HostStatus, HostTrigger

NEVER_WHOLE = "timeout_recovering_from_crash"


class Requirements:
    def __init__(self, core: HostCore) -> None:
        self._core = core
        self._record = core.record

    # ------------------------------------------------------------------ what the agent says

    def heard(self, problems: list[str], turn: Turn) -> None:
        """In a heartbeat of an agent that is believed."""
        record = self._record
        if record.status is HostStatus.UP and problems:
            self._fail(problems, turn)
        elif record.status is HostStatus.NON_OPERATIONAL and NEVER_WHOLE not in record.problems:
            if problems != record.problems:
                record.problems = list(problems)
                record.status_reason = _text(problems)
                turn.save(record)
            if not problems and "recover" not in record.timers:
                self._pass(turn)

    def begin_service(self, problems: list[str], turn: Turn) -> None:
        """Its capabilities are known; it is Installing, Unassigned or Initializing."""
        if problems:
            self._fail(problems, turn)
        else:
            self._pass(turn)

    def whole_again(self, problems: list[str], turn: Turn) -> None:
        """The agent has started anew under a host that has its status already."""
        record = self._record
        if record.status is HostStatus.NON_OPERATIONAL and record.problems == [NEVER_WHOLE]:
            record.problems = list(problems)
            turn.cancel_timer(record, "recover")
        self.heard(problems, turn)

    def never_whole(self, turn: Turn) -> None:
        self._fail([NEVER_WHOLE], turn, HostTrigger.RECOVERY_TIMED_OUT)

    # ------------------------------------------------------------------ in and out

    def _fail(
        self, problems: list[str], turn: Turn, trigger: HostTrigger = HostTrigger.REQUIREMENTS_FAILED
    ) -> None:
        record = self._record
        turn.sometimes("host_became_non_operational")
        record.problems = list(problems)
        self._core.move(trigger, _text(problems), turn, "error")
        turn.set_timer(record, "recover", turn.config.auto_recovery_period_s)
        self.push(turn)

    def _pass(self, turn: Turn) -> None:
        record = self._record
        was_out = record.status is HostStatus.NON_OPERATIONAL or bool(record.problems)
        record.problems = []
        turn.cancel_timer(record, "recover")
        self._core.move(HostTrigger.CAPABILITIES_OK, "", turn)
        if was_out:
            turn.sometimes("host_became_operational_again")
            turn.send(self._core.cluster, m.StopDrain(record.name))

    def push(self, turn: Turn) -> None:
        """Have the machines moved off. An agent that is not whole cannot migrate: nothing is asked of it."""
        record = self._record
        if record.status is HostStatus.NON_OPERATIONAL and record.problems not in ([], [NEVER_WHOLE]):
            turn.send(self._core.cluster, m.DrainHost(record.name, "host_error"))

    def on_due(self, turn: Turn) -> None:
        record = self._record
        if record.status is HostStatus.NON_OPERATIONAL and not record.problems:
            self._pass(turn)


def _text(problems: list[str]) -> str:
    return "; ".join(problem_text(problem) for problem in problems)
