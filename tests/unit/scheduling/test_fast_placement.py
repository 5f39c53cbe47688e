"""The index decides exactly as looking at every host does, whatever happened to the table before."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from olvm.model.errors import Conflict, NoCapacity
from olvm.model.host_profile import HostProfile
from olvm.model.placement_needs import PlacementNeeds
from olvm.scheduling import HostTable, Placement, Policy, VmRequest, fast_placement, place, policy_named
from olvm.scheduling.affinity import Affinity
from olvm.scheduling.fast_placement import fast_choice, limits_for
from olvm.scheduling.host_index import HostIndex, index_watched
from olvm.scheduling.policy import units_of

from .tables import GIB, MIB, request

NAMES = [f"kvm{number:02}" for number in range(16)]
EVEN = policy_named("evenly_distributed")
POLICIES = (
    EVEN,
    policy_named("none", {"HighUtilization": 60, "MaximumAllowedSwapUsage": 50}),
    policy_named("cluster_maintenance"),
    Policy(
        name="odd", weights=(("OptimalForMemoryEvenDistribution", 3), ("OptimalForCpuEvenDistribution", 1))
    ),
)
FEATURES = (("migration", "watchdog"), ("migration",), ())
PROFILES = (HostProfile(), HostProfile(networks=("lan",)), HostProfile(networks=("dmz",), labels=("gold",)))
NEEDS = (
    None,
    None,
    PlacementNeeds(networks=("lan",)),
    PlacementNeeds(labels=("gold",)),
    PlacementNeeds(cpu_load_percent=90),
    PlacementNeeds(video_bytes=256 * MIB, preferred_hosts=("kvm03",)),
    PlacementNeeds(cpu_pinning="dedicated"),
)

names = st.sampled_from(NAMES)
few_names = st.lists(names, max_size=4, unique=True).map(tuple)
no_names = st.just(())
memory_bytes = st.one_of(
    st.integers(1, 24).map(lambda n: n * 512 * MIB), st.integers(GIB, GIB + 40 * MIB), st.just(256 * MIB)
)


@st.composite
def affinities(draw: st.DrawFn) -> Affinity:
    made = Affinity()
    kind = draw(st.sampled_from(["apart", "apart", "together", "required", "forbidden", "soft"]))
    hosts = draw(few_names)
    if kind == "apart":
        made.apart.append(("group", dict.fromkeys(hosts, "other")))
    elif kind == "together":
        made.together.append(("group", dict.fromkeys(hosts, "other")))
    elif kind == "soft":
        for host in hosts:
            made.vms_weight.add(host, 1000)
    else:
        getattr(made, kind).append(("group", hosts))
    return made


@st.composite
def requests(draw: st.DrawFn) -> VmRequest:
    plain = draw(st.booleans())
    return VmRequest(
        vm_id="web-1",
        vcpus=draw(st.integers(1, 6)),
        memory_bytes=draw(memory_bytes),
        high_availability=draw(st.booleans()),
        pinned_hosts=() if plain else draw(st.one_of(no_names, no_names, few_names)),
        excluded_hosts=() if plain else draw(few_names),
        current_host=None if plain else draw(st.one_of(st.none(), names)),
        held_hosts=() if plain else draw(st.one_of(no_names, few_names)),
        live=not plain and draw(st.booleans()),
        cpu_model="" if plain else draw(st.sampled_from(["", "", "A", "B"])),
        leased=not plain and draw(st.booleans()),
        affinity=None if plain else draw(st.one_of(st.none(), affinities())),
        needs=None if plain else draw(st.sampled_from(NEEDS)),
    )


def slowly(table: HostTable, asked: VmRequest, policy: Policy) -> object:
    before = fast_placement.INDEXED_HOSTS_MIN
    fast_placement.INDEXED_HOSTS_MIN = 10**9
    try:
        return place(table, asked, policy)
    finally:
        fast_placement.INDEXED_HOSTS_MIN = before


@pytest.fixture(autouse=True)
def _index_every_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_placement, "INDEXED_HOSTS_MIN", 0)


def check_index(table: HostTable, index: HostIndex) -> None:
    """The invariants of `host_index`, by building it again."""
    seen: dict[str, tuple[int, int, int, int]] = {}
    rows = []
    for cpus, lane in index.lanes.items():
        assert lane.rows
        assert lane.loads == sorted(row.load for row in lane.rows) == [row.load for row in lane.rows]
        rows += lane.rows
        for row in lane.rows:
            assert row.key == (cpus, row.load, row.group.facts, row.group.room)
            assert (row.facts, row.room, cpus) == (row.group.facts, row.group.room, row.group.cpus)
            assert row.hosts == sorted(row.hosts)
            assert (row.lowest, row.highest) == (row.hosts[0][0], row.hosts[-1][0])
            seen |= {name: (cpus, row.load, row.room, free) for free, name in row.hosts}
    assert len({row.key for row in rows}) == len(rows)
    assert index.rooms == [group.room for group in index.groups_by_room] == sorted(index.rooms)
    of_groups = [row.key for group in index.groups_by_room for row in group.rows]
    assert sorted(of_groups) == sorted(row.key for row in rows)
    expected = {}
    for slot in table.usable_slots:
        if not any(unit.drops_row(table, slot) for unit in index._row_filters):
            expected[table.name[slot]] = (
                table.shared_cpus[slot],
                table.thread_load_percent[slot],
                table.vcpus_max[slot],
                table.memory_free_bytes[slot],
            )
    assert seen == expected
    assert list(index.frees) == sorted(free for _, _, _, free in expected.values())
    assert len(index) == len(expected)


class Tables(RuleBasedStateMachine):
    """Hosts come, change and go, VMs too; after each step a VM is placed both ways."""

    @initialize(
        overcommit=st.sampled_from([(100, 0), (150, 100), (100, 300)]),
        hosts=st.lists(names, min_size=1, max_size=12, unique=True),
        cpus=st.sampled_from([(8,), (8,), (4, 8, 12)]),
    )
    def begin(self, overcommit: tuple[int, int], hosts: list[str], cpus: tuple[int, ...]) -> None:
        self.table = HostTable(memory_overcommit_percent=overcommit[0], cpu_overcommit_percent=overcommit[1])
        self.count = 0
        self.sizes = cpus
        for number, name in enumerate(hosts):
            self.add(name, number % 6, number % 6)

    @rule(name=names, size=st.integers(0, 5), kind=st.integers(0, 5))
    def add(self, name: str, size: int, kind: int) -> None:
        if name not in self.table:
            self.table.add_host(
                name,
                cpus=self.sizes[size % len(self.sizes)],
                memory_bytes=(8 + 8 * (size % 2)) * GIB,
                cpu_model="AB"[kind % 2] if kind > 3 else "A",
                features=FEATURES[max(0, kind - 3)],
                profile=PROFILES[max(0, kind - 3)],
            )

    @rule(name=names)
    def remove(self, name: str) -> None:
        if name in self.table and not self.table.row(name).vm_count:
            self.table.remove_host(name)

    @rule(
        name=names,
        load=st.sampled_from([0, 0, 10, 55, 61, 90, 100]),
        over_s=st.sampled_from([0.0, 0.0, 300.0]),
        swap=st.sampled_from([0, 0, 51]),
        usable=st.sampled_from([None, None, True, False]),
    )
    def update(self, name: str, load: int, over_s: float, swap: int, usable: bool | None) -> None:
        if name in self.table:
            self.table.update_host(
                name, cpu_load_percent=load, over_utilized_s=over_s, swap_used_percent=swap, usable=usable
            )

    @rule(name=names, kind=st.integers(0, 2), measured=st.sampled_from([-1, -1, 2 * GIB]))
    def tell(self, name: str, kind: int, measured: int) -> None:
        if name in self.table:
            self.table.update_host(
                name, profile=PROFILES[kind], features=FEATURES[kind], measured_free_bytes=measured
            )

    @rule(name=names, vcpus=st.integers(1, 3), size=memory_bytes, ha=st.booleans())
    def reserve(self, name: str, vcpus: int, size: int, ha: bool) -> None:
        if name in self.table:
            self.count += 1
            try:
                self.table.reserve(f"vm{self.count}", name, vcpus, size, high_availability=ha)
            except (NoCapacity, Conflict):
                return

    @rule(number=st.integers(1, 40), settle=st.booleans())
    def release(self, number: int, settle: bool) -> None:
        if settle:
            self.table.settle(f"vm{number}")
        else:
            self.table.release(f"vm{number}")

    @rule(asked=requests(), policy=st.sampled_from(POLICIES), ha_reservation=st.booleans())
    def place(self, asked: VmRequest, policy: Policy, ha_reservation: bool) -> None:
        self.table.ha_reservation = ha_reservation
        outcome = place(self.table, asked, policy)
        assert outcome == slowly(self.table, asked, policy)
        if isinstance(outcome, Placement) and self.count < 40:
            self.count += 1
            self.table.reserve(
                f"vm{self.count}", outcome.host, asked.vcpus, asked.memory_bytes, needs=asked.needs
            )

    @invariant()
    def index_holds(self) -> None:
        if hasattr(self, "table"):
            for policy in POLICIES[:2]:
                check_index(self.table, index_watched(self.table, units_of(policy).row_filters))


TestTables = pytest.mark.slow(Tables.TestCase)
Tables.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([4, 8, 8, 8]),
            st.integers(0, 100),
            st.lists(st.tuples(st.integers(1, 3), memory_bytes), max_size=3),
        ),
        min_size=2,
        max_size=14,
    ),
    st.lists(requests(), min_size=1, max_size=4),
    st.sampled_from(POLICIES),
    st.sampled_from([0, 100, 300]),
)
def test_index_places_on_any_table_as_looking_at_every_host_does(
    hosts: list[tuple[int, int, list[tuple[int, int]]]],
    wanted: list[VmRequest],
    policy: Policy,
    cpu_overcommit_percent: int,
) -> None:
    table = HostTable(cpu_overcommit_percent=cpu_overcommit_percent)
    for number, (cpus, load, vms) in enumerate(hosts):
        name = NAMES[(7 * number) % 16]
        table.add_host(
            name, cpus=cpus, memory_bytes=16 * GIB, cpu_load_percent=load, features=FEATURES[0], cpu_model="A"
        )
        for at, (vcpus, size) in enumerate(vms):
            if table.fits(name, vcpus=vcpus, memory_bytes=size):
                table.reserve(f"{name}/{at}", name, vcpus, size)
    for number, asked in enumerate(wanted):
        outcome = place(table, asked, policy)
        event("placed" if isinstance(outcome, Placement) else "no host")
        assert outcome == slowly(table, asked, policy)
        if isinstance(outcome, Placement):
            table.reserve(f"new{number}", outcome.host, asked.vcpus, asked.memory_bytes, needs=asked.needs)


@pytest.mark.parametrize(
    ("asked", "is_fast"),
    [
        (request(), True),
        (request(excluded_hosts=("kvm00",)), True),
        (request(leased=True), True),
        (request(live=True, current_host="kvm01", cpu_model="A"), True),
        (request(needs=PlacementNeeds(networks=("lan",), hooks=("qos",))), True),
        (request(needs=PlacementNeeds(preferred_hosts=("kvm01",))), False),
        (request(needs=PlacementNeeds(host_devices=("pci_1",))), False),
        (request(excluded_hosts=tuple(f"h{number}" for number in range(200))), False),
    ],
)
def test_which_requests_the_index_decides(asked: VmRequest, is_fast: bool) -> None:
    table = HostTable()
    for name in NAMES:
        table.add_host(name, cpus=8, memory_bytes=16 * GIB, cpu_model="A", features=FEATURES[0])
    plan = units_of(EVEN).fast
    assert plan is not None
    limits = limits_for(table, asked, plan)
    assert (limits is not None) is is_fast
    assert limits is None or fast_choice(table, asked, plan, limits) is not None


@pytest.mark.parametrize(
    ("policy", "is_fast"),
    [
        (policy_named("none"), True),
        (EVEN, True),
        (policy_named("cluster_maintenance"), True),
        (policy_named("evenly_distributed", {"VCpuToPhysicalCpuRatio": 2}), False),
        (policy_named("power_saving"), False),
        (policy_named("vm_evenly_distributed"), False),
        (msgspec.structs.replace(EVEN, selector="BasicWeighting"), False),
        (policy_named("my:Policy"), False),
    ],
)
def test_which_policies_the_index_knows(policy: Policy, is_fast: bool) -> None:
    assert (units_of(policy).fast is not None) is is_fast


def test_loads_too_far_apart_for_the_cpu_weight_are_left_to_the_slow_way() -> None:
    table = HostTable(memory_overcommit_percent=1000)
    for name in NAMES[:4]:
        table.add_host(name, cpus=4, memory_bytes=64 * GIB)
    for number in range(101):
        table.reserve(f"a{number}", "kvm00", 4, 256 * MIB)
    plan = units_of(EVEN).fast
    assert plan is not None
    limits = limits_for(table, request(), plan)
    assert limits is not None
    assert fast_choice(table, request(), plan, limits) is None
    assert place(table, request(), EVEN) == slowly(table, request(), EVEN)
