"""One host that is fenced, told in order: what its flow hears, and when.

Decides no test: `test_host_fencing.py`, `test_host_fence_devices.py` and `test_host_fencing_by_hand.py` do.
"""

from __future__ import annotations

from typing import Any

from actors.behaviour import Turn
from actors.host import Host
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.host_states import HostStatus
from olvm.model.limits import NS_PER_S
from tests.builders import GIB, host, turn

S = HostStatus
BMC1: m.Settings = {"type": "simulated", "address": "bmc-1"}
BMC2: m.Settings = {"type": "simulated", "address": "bmc-2"}
H2, H3 = "agent/H2@host-2", "agent/H3@host-3"
READY_IN_A_NEW_BOOT = m.AgentReady("H1", 3, "boot-2", 8, 16 * GIB)
READY_IN_THE_SAME_BOOT = m.AgentReady("H1", 3, "boot-1", 8, 16 * GIB)


class Story:
    """One host and what happens to it, in order; the time of each turn is the story's."""

    def __init__(self, config: Config | None = None, **fields: Any) -> None:
        base: dict[str, Any] = {"status": S.NON_RESPONSIVE, "fence_devices": [BMC1]}
        self.one = host(**(base | fields))
        self.config = config or Config()
        self.now_s = 200.0

    @property
    def record(self) -> Any:
        return self.one.record

    @property
    def step(self) -> str:
        return str(self.record.fence_step)

    def hear(self, message: m.AnyMessage, after_s: float = 0.0) -> Turn:
        self.now_s += after_s
        done = turn(me="host/H1", at_s=self.now_s, config=self.config)
        done.marks = []
        if isinstance(message, m.TimerFired) and self.record.timers.pop(message.name, None):
            done.save(self.record)
        self.one.handle(message, done)
        return done

    def begin(self, *, allowed: bool = True) -> Turn:
        """The engine has just found that the host is silent for good."""
        done = turn(me="host/H1", at_s=self.now_s, config=self.config)
        self.one.fencing.begin("not_responding", done)
        return self.advise() if allowed else done

    def advise(self, proxies: list[str] | None = None, *, check_lease: bool = True) -> Turn:
        named = [H2, H3] if proxies is None else proxies
        return self.hear(m.FencingAdvice("H1", self.record.fence_seq, True, "", named, check_lease))

    def refuse(self, reason: str) -> Turn:
        return self.hear(m.FencingAdvice("H1", self.record.fence_seq, False, reason, [H2, H3]))

    def due(self, name: str = "fence") -> Turn:
        """The deadline passes."""
        self.now_s = max(self.now_s, self.record.timers[name] / NS_PER_S)
        return self.hear(m.TimerFired(name))

    def device(self, action: str, *, ok: bool = True, power: str = "unknown", reason: str = "") -> Turn:
        seq = self.record.fence_seq
        return self.hear(m.FenceResult("H1", seq, action, ok, power, reason))  # type: ignore[arg-type]

    def restart_engine(self) -> Turn:
        self.one = Host(self.one.record)
        return self.hear(m.Recovered())

    def left_s(self, name: str = "fence") -> float:
        return float(self.record.timers[name] / NS_PER_S - self.now_s)


def at_off(**fields: Any) -> Story:
    """The order to switch off has just been given."""
    story = Story(**fields)
    story.begin()
    story.due()  # the agent was not brought back
    story.advise(check_lease=False)
    story.advise()
    assert story.step == "off"
    return story


def fenced(**fields: Any) -> Story:
    story = at_off(**fields)
    story.device("off")
    story.device("status", power="off")
    assert story.step == "ask_on"
    return story


def codes(done: Turn) -> list[tuple[str, str]]:
    return [(event.code, event.severity) for event in done.events]


def command(story: Story, action: m.HostVerb) -> Turn:
    return story.hear(m.CommandHost("op-1", action))
