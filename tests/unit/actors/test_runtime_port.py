"""The engine's way to its runtime, through a real silo."""

from __future__ import annotations

import pytest

from actors.runtime_port import RestartHostAgent, RuntimePort
from actors.silo import Silo
from actors.wire import Envelope
from olvm.journal.memory_journal import MemoryJournal
from olvm.model.config import Config
from olvm.model.messages import AnyMessage, CallEnded


@pytest.mark.parametrize("restarted", [True, False])
def test_runtime_port_answers_whether_the_restart_could_be_ordered(restarted: bool) -> None:
    asked: list[tuple[str, str]] = []
    heard: list[AnyMessage] = []
    silo = Silo(
        "engine",
        MemoryJournal((), journal_id="j"),
        lambda _: [],
        Config(),
        clock_ns=lambda: 0,
        transmit=lambda _name, _frame: None,
    )

    def hear(envelope: Envelope) -> None:
        heard.append(envelope.message)

    def restart(host: str, name: str) -> bool:
        asked.append((host, name))
        return restarted

    silo.services["host/H1"] = hear
    RuntimePort(silo, restart).submit("host/H1", RestartHostAgent("H1", "host-1"), "soft/4")
    silo.run_batch()
    assert asked == [("H1", "host-1")]
    assert heard == [CallEnded("soft/4", restarted)]


def test_runtime_port_asked_for_something_else_is_a_fault_of_the_programmer() -> None:
    silo = Silo(
        "engine",
        MemoryJournal((), journal_id="j"),
        lambda _: [],
        Config(),
        clock_ns=lambda: 0,
        transmit=lambda _name, _frame: None,
    )
    with pytest.raises(AssertionError, match="cannot carry out"):
        RuntimePort(silo, lambda _host, _silo: True).submit("host/H1", "reboot", "tag")
