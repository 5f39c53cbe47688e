"""The engine silo's way to the runtime that carries it: restarting the agent of a host (the soft fence).

It holds no truth. `restart(host, silo)` is the runtime's: it says whether it could order the restart, not whether
the agent came back; that is seen when it is heard again.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from actors.silo import Silo, deliver_result
from actors.wire import Envelope, at_silo
from olvm.model.messages import CallEnded, RestartAgent


class RestartHostAgent(msgspec.Struct, frozen=True):
    host: str
    silo: str


def restart_order(host: str, silo: str) -> Envelope:
    """What has the agent of a host, alone of its silo, forget what it holds in memory and begin again."""
    return Envelope(at_silo("agents", silo), "runtime", f"restart-{host}", "", RestartAgent(host))


class RuntimePort:
    """Runs in the silo's thread; `restart` must not block for long."""

    def __init__(self, silo: Silo, restart: Callable[[str, str], bool]) -> None:
        self._silo = silo
        self._restart = restart

    def submit(self, caller: str, request: object, tag: str) -> None:
        assert isinstance(request, RestartHostAgent), f"the runtime cannot carry out {request!r}"
        ok = self._restart(request.host, request.silo)
        deliver_result(self._silo, caller, CallEnded(tag, ok), "runtime")
