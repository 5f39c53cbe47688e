"""What a policy is made of: filter units, weight units, their parameters, and the registry that names them.

A unit answers for a whole list of slots at once, so that the live path makes no object per host. A filter
keeps or drops; a weight gives one whole number per slot, lower is better. Units are pure: they read the
table and the request, know no clock and no other unit, and give a slot the same verdict in whatever company
it stands (a weight may scale by its company, as oVirt's do). Slots arrive in order of host name and must
stay so.

To add one: write the class, decorate it with `filter_unit` or `weight_unit`, and name it in a policy.
"""

# A base class gives the signature, and few units need all of it.
# ruff: noqa: ARG002

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import ClassVar, Literal, Protocol, TypeVar

import msgspec

from olvm.model.errors import BadInput
from olvm.scheduling.host_table import HostTable
from olvm.scheduling.request import VmRequest

WEIGHT_MAX = 1000  # oVirt MaxSchedulerWeight


# What a filter's verdict on a host depends on, which is what `olvm.scheduling.fast_placement` needs to know:
#   names  the host's name alone: `only` and `never` say which
#   group  the facts that hosts share in groups (`host_groups`), and the names that `never` gives
#   row    the host's row, whatever is asked for
#   room   free memory and CPUs
#   whole  anything: where it applies, every host is looked at
Reads = Literal["names", "group", "row", "room", "whole"]


class Filter:
    """Keeps the hosts that may take the VM and can say why it drops the others.

    A base: write `why_not`, which looks at one host, and `lacking`, what the summary calls it; `keep` where all at
    once is cheaper.
    """

    READS: ClassVar[Reads] = "whole"
    # It may drop hosts for a VM that asks for CPUs and memory alone.
    UNASKED: ClassVar[bool] = False

    def __init__(self, parameters: Mapping[str, float] = {}) -> None:
        self.parameters = parameters

    def applies(self, table: HostTable, request: VmRequest) -> bool:
        """False: it keeps every host of this table."""
        return True

    def why_not(self, table: HostTable, request: VmRequest, slot: int) -> str | None:
        raise NotImplementedError

    def lacking(self, request: VmRequest) -> str:
        """What the dropped hosts lack: "the network lan"."""
        raise NotImplementedError

    @property
    def may_drop_rows(self) -> bool:
        """Of a filter that reads rows: with these parameters it can drop a host at all."""
        return True

    def drops_row(self, table: HostTable, slot: int) -> bool:
        """Of a filter that reads rows: whether it drops this host, whatever is asked for."""
        raise NotImplementedError

    def only(self, request: VmRequest) -> list[Collection[str]]:
        """The host must be in each of these."""
        return []

    def never(self, request: VmRequest) -> Iterable[str]:
        return ()

    def keep(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        if not self.applies(table, request):
            return slots
        return [slot for slot in slots if self.why_not(table, request, slot) is None]

    def reason(self, table: HostTable, request: VmRequest, slot: int) -> str:
        """Why this one dropped slot may not take the VM: "needs 8.2 GiB, 3.1 GiB free of 62 GiB"."""
        why = self.why_not(table, request, slot)
        assert why is not None, f"host {table.name[slot]} was dropped without a reason"
        return why

    def summary(self, table: HostTable, request: VmRequest, slots: list[int]) -> str:
        """All the dropped slots in one clause: "6 lack memory (largest free 3.1 GiB, needs 8.2 GiB)"."""
        return f"{len(slots)} {'lacks' if len(slots) == 1 else 'lack'} {self.lacking(request)}"


class Weight(Protocol):
    """Orders the hosts that may take the VM: one whole number per slot, in the order of `slots`.

    An empty answer says that all are alike to it.
    """

    def weigh(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]: ...


class SparseWeight:
    """Base of weights that are alike for most requests: where `differs` is False, `weigh` answers nothing."""

    # It may see a difference for a VM that asks for CPUs and memory alone.
    UNASKED: ClassVar[bool] = False

    def __init__(self, parameters: Mapping[str, float]) -> None:
        self.parameters = parameters

    def differs(self, table: HostTable, request: VmRequest) -> bool:
        """False: all hosts are alike to it."""
        raise NotImplementedError

    def weigh(self, table: HostTable, request: VmRequest, slots: list[int]) -> list[int]:
        raise NotImplementedError


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A named setting with the range that oVirt's PolicyUnitParameter accepts; `maximum` None is unbounded.

    `below` set means that `maximum` itself is not allowed; `whole` refuses fractions.
    """

    name: str
    minimum: float
    maximum: float | None = None
    below: bool = False
    whole: bool = True

    def check(self, value: object) -> float:
        """The value if allowed, whole ones as int; raises BadInput naming the range."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self._in_range(value):
            raise BadInput(f"policy parameter {self.name} cannot be {value!r}: give {self.range_text}")
        return int(value) if self.whole else float(value)

    def _in_range(self, value: float) -> bool:
        if self.maximum is not None and (value > self.maximum or (self.below and value == self.maximum)):
            return False
        # Not-a-number fails the first comparison; infinity is not whole.
        return value >= self.minimum and (not self.whole or (abs(value) < 2**63 and value == int(value)))

    @property
    def range_text(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.maximum is None:
            return f"{kind} of at least {self.minimum:g}"
        return f"{kind} from {self.minimum:g} {'to below' if self.below else 'to'} {self.maximum:g}"


HIGH_UTILIZATION = Parameter(name="HighUtilization", minimum=50, maximum=99)
LOW_UTILIZATION = Parameter(name="LowUtilization", minimum=0, maximum=49)
CPU_OVERCOMMIT_DURATION = Parameter(name="CpuOverCommitDurationMinutes", minimum=1)
VCPU_TO_PHYSICAL_CPU_RATIO = Parameter(
    name="VCpuToPhysicalCpuRatio", minimum=0, maximum=3, below=True, whole=False
)
HE_SPARES_COUNT = Parameter(name="HeSparesCount", minimum=0)
HIGH_VM_COUNT = Parameter(name="HighVmCount", minimum=0)
MIGRATION_THRESHOLD = Parameter(name="MigrationThreshold", minimum=2)
SPM_VM_GRACE = Parameter(name="SpmVmGrace", minimum=0)
MAX_FREE_MEMORY_FOR_OVER_UTILIZED = Parameter(name="MaxFreeMemoryForOverUtilized", minimum=1)  # MiB
MIN_FREE_MEMORY_FOR_UNDER_UTILIZED = Parameter(name="MinFreeMemoryForUnderUtilized", minimum=1)  # MiB


class FilterKind(msgspec.Struct, frozen=True, kw_only=True):
    """A registered filter: how to make one from a policy's parameters, and which of them it reads."""

    name: str
    make: Callable[[Mapping[str, float]], Filter]
    parameters: tuple[Parameter, ...]


class WeightKind(msgspec.Struct, frozen=True, kw_only=True):
    """A registered weight: how to make one from a policy's parameters, and which of them it reads."""

    name: str
    make: Callable[[Mapping[str, float]], Weight]
    parameters: tuple[Parameter, ...]


# What a unit goes by where the policy does not say.
HIGH_UTILIZATION_FOR_SCHEDULING = 90
CPU_OVERCOMMIT_DURATION_MINUTES = 2


FILTER_BY_NAME: dict[str, FilterKind] = {}
WEIGHT_BY_NAME: dict[str, WeightKind] = {}


_FilterClass = TypeVar("_FilterClass", bound=Callable[[Mapping[str, float]], Filter])
_WeightClass = TypeVar("_WeightClass", bound=Callable[[Mapping[str, float]], Weight])


MAXIMUM_ALLOWED_SWAP_USAGE = Parameter(name="MaximumAllowedSwapUsage", minimum=0, maximum=199)
SCALE_DOWN = Parameter(name="ScaleDown", minimum=1)


def filter_unit(name: str, *parameters: Parameter) -> Callable[[_FilterClass], _FilterClass]:
    """Register a filter class, made with the policy's parameters, under oVirt's name for it."""

    def register(unit: _FilterClass) -> _FilterClass:
        assert name not in FILTER_BY_NAME, f"two filters are called {name}"
        FILTER_BY_NAME[name] = FilterKind(name=name, make=unit, parameters=parameters)
        return unit

    return register


def weight_unit(name: str, *parameters: Parameter) -> Callable[[_WeightClass], _WeightClass]:
    """Register a weight class, made with the policy's parameters, under oVirt's name for it."""

    def register(unit: _WeightClass) -> _WeightClass:
        assert name not in WEIGHT_BY_NAME, f"two weights are called {name}"
        WEIGHT_BY_NAME[name] = WeightKind(name=name, make=unit, parameters=parameters)
        return unit

    return register
