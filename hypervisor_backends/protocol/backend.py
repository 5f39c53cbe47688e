"""The two protocols of the port: a hypervisor, and the time that it is given.

Decides when and on which thread answers and events come, and what a caller may rely on. Must not know actors, journals,
which implementation answers, or what a single request means.

Rules that every implementation keeps, and that `tests/contracts/test_hypervisor_*.py` check:

1. `done` is called at most once per request. An implementation that cannot know the end says so in time with
   `CallFailed(outcome_known=False)`; only a lost host or a planted fault leaves a call without any answer.
2. `done` and the listener may be called before `submit` returns, and may themselves submit.
3. A domain is known by `vm_id`; `epoch` names one life of it. A start of the same pair is repeated without
   harm; the same `vm_id` with another epoch is refused while the first one exists.
4. Each life that had a `started` event ends with exactly one of `shut_down`, `stopped` and `crashed`, unless
   the host itself is lost: then nobody is told, and `boot_id` differs afterwards.
5. What a backend cannot do is missing from `Capabilities.features`; asking for it gives `not_supported`.
6. A request that already holds (pausing a paused domain) succeeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from hypervisor_backends.measurements import DomainStatistics, HostStatistics
from hypervisor_backends.protocol.answers import CallResult
from hypervisor_backends.protocol.catalogue import HypervisorRequest
from hypervisor_backends.protocol.domains import DomainEvent, DomainState
from hypervisor_backends.protocol.host import Capabilities

Done: TypeAlias = Callable[[CallResult], None]
Listener: TypeAlias = Callable[[DomainEvent], None]
Cancel: TypeAlias = Callable[[], None]


class Scheduler(Protocol):
    """Time, as a backend sees it: virtual in the simulator, real (perhaps scaled) elsewhere."""

    def now_ns(self) -> int:
        """Never goes back."""

    def call_at(self, due_ns: int, fn: Callable[[], None]) -> Cancel:
        """Call `fn` once when it is `due_ns`, never from inside `call_at`.

        The returned function takes the call back; after it returned, `fn` is not called. It may be called
        again, and after `fn` ran, without effect.
        """


class HypervisorBackend(Protocol):
    """One host's hypervisor. Called from one thread; calls back on that thread."""

    @property
    def capabilities(self) -> Capabilities:
        """What the host has and can do now; cheap."""

    def submit(self, request: HypervisorRequest, done: Done) -> None:
        """Begin `request`; see the module's rules on `done`. Does not block and does not raise."""

    def set_listener(self, listener: Listener | None) -> None:
        """Replace the receiver of domain events. What happens without one is not kept: list and compare."""

    def statistics(self) -> tuple[HostStatistics, list[DomainStatistics]]:
        """One sample of the host and of every domain whose process runs, in `vm_id` order.

        Bounded: a domain that does not answer is reported with `monitor_response=-1`, not waited for.
        """

    def domains(self) -> list[DomainState]:
        """Every domain on this host, launching ones included, in `vm_id` order."""

    def close(self) -> None:
        """Let go of timers and connections; domains of a real hypervisor go on. Idempotent.

        Calls under way are not answered, later ones get `closed`.
        """
