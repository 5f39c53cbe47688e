"""Balancers: what they move, that they never make it worse, and that they end."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import event, given, settings
from hypothesis import strategies as st

from olvm.scheduling import HostTable, policy_named, request
from olvm.scheduling.balancing import balance, potential
from olvm.scheduling.ha_reservation import Shortfall, ha_shortfalls
from olvm.scheduling.moves import Budget, FleetView, Machine, Move
from olvm.scheduling.policy import Policy

from .tables import GIB

POLICIES = [
    policy_named("evenly_distributed"),
    policy_named("evenly_distributed", {"MaxFreeMemoryForOverUtilized": 8192, "HighUtilization": 60}),
    policy_named("power_saving"),
    policy_named("power_saving", {"MaxFreeMemoryForOverUtilized": 4096, "LowUtilization": 49}),
    policy_named("vm_evenly_distributed", {"HighVmCount": 2, "MigrationThreshold": 2}),
    policy_named("vm_evenly_distributed", {"HighVmCount": 4, "MigrationThreshold": 3}),
]


class Fleet:
    """Hosts of 4 threads and 32 GiB, and VMs whose loads are known exactly."""

    def __init__(self, loads_by_host: Mapping[str, list[int]], memory_gib: int = 3) -> None:
        self.table = HostTable()
        self.machines: dict[str, Machine] = {}
        for name in sorted(loads_by_host):
            self.table.add_host(name, cpus=4, memory_bytes=32 * GIB)
            for number, load in enumerate(loads_by_host[name]):
                vm_id = f"{name}-{number}"
                if self.table.fits(name, vcpus=1, memory_bytes=memory_gib * GIB):
                    held = self.table.reserve(vm_id, name, 1, memory_gib * GIB, already_running=True)
                    self.machines[vm_id] = Machine(
                        vm_id=vm_id,
                        name=vm_id,
                        host=name,
                        vcpus=1,
                        memory_need_bytes=held.memory_need_bytes,
                        load=load,
                    )
        self._set_loads()

    def _set_loads(self) -> None:
        # Loads are multiples of the number of threads, so that a host's whole percent is exact.
        for row in self.table.rows():
            load = sum(one.load for one in self.machines.values() if one.host == row.name)
            self.table.update_host(row.name, cpu_load_percent=load // 4)

    def view(self, policy: Policy, moves_max: int = 8, slots: int = 2, **facts: object) -> FleetView:
        by_host: dict[str, list[Machine]] = {}
        for machine in self.machines.values():
            by_host.setdefault(machine.host, []).append(machine)
        over = {row.name: 1e9 for row in self.table.rows()}
        base: dict[str, object] = {"over_s": over, "accepts": self._accepts}
        return FleetView(
            table=self.table,
            policy=policy,
            machines_by_host=by_host,
            budget=Budget(moves_max, outgoing_max=slots, incoming_max=slots),
            **(base | facts),  # type: ignore[arg-type]
        )

    def _accepts(self, vm_id: str, host: str) -> bool:
        machine = self.machines[vm_id]
        return self.table.fits(host, vcpus=machine.vcpus, memory_bytes=3 * GIB)

    def apply(self, move: Move) -> None:
        machine = self.machines[move.vm_id]
        assert machine.host == move.from_host != move.to_host
        self.table.release(move.vm_id, move.from_host)
        self.table.reserve(move.vm_id, move.to_host, 1, 3 * GIB)
        self.table.settle(move.vm_id)
        self.machines[move.vm_id] = Machine(
            vm_id=machine.vm_id,
            name=machine.name,
            host=move.to_host,
            vcpus=1,
            memory_need_bytes=machine.memory_need_bytes,
            load=machine.load,
        )
        self._set_loads()


LOADS = st.lists(st.integers(0, 45).map(lambda quarter: 4 * quarter), max_size=9)
FLEETS = st.lists(LOADS, min_size=2, max_size=6).map(
    lambda hosts: {f"H{number}": loads for number, loads in enumerate(hosts)}
)


@settings(max_examples=400, deadline=None)
@given(FLEETS, st.sampled_from(POLICIES), st.integers(1, 8), st.integers(1, 3))
def test_balancing_repeated_improves_with_every_cycle_and_reaches_a_fixed_point(
    loads: dict[str, list[int]], policy: Policy, moves_max: int, slots: int
) -> None:
    fleet = Fleet(loads)
    for cycle in range(200):
        before = potential(fleet.view(policy))
        moves = balance(fleet.view(policy, moves_max, slots))
        assert len(moves) <= moves_max
        if not moves:
            event(f"{policy.balancer}: {min(cycle, 4)} cycles")
            return
        assert len({move.vm_id for move in moves}) == len(moves)
        assert not {move.from_host for move in moves} & {move.to_host for move in moves}
        for move in moves:
            fleet.apply(move)
        assert potential(fleet.view(policy)) < before
    raise AssertionError(f"{policy.balancer} does not end")


@settings(max_examples=200, deadline=None)
@given(FLEETS, st.sampled_from(POLICIES[:4]))
def test_balancing_leaves_no_destination_over_its_limits(loads: dict[str, list[int]], policy: Policy) -> None:
    fleet = Fleet(loads)
    targets = []
    for move in balance(fleet.view(policy)):
        fleet.apply(move)
        targets.append(move.to_host)
    high = dict(policy.parameters)["HighUtilization"]
    low_bytes = dict(policy.parameters).get("MaxFreeMemoryForOverUtilized", 0) * 2**20
    for name in targets:
        row = fleet.table.row(name)
        assert row.cpu_load_percent <= high
        assert row.memory_free_bytes >= low_bytes


def moved(fleet: Fleet, name: str, **facts: object) -> list[tuple[str, str]]:
    return [(move.vm_id, move.to_host) for move in balance(fleet.view(policy_named(name), **facts))]  # type: ignore[arg-type]


def test_even_distribution_moves_the_lightest_that_is_enough_to_the_emptiest_host() -> None:
    fleet = Fleet({"H1": [40, 120, 200], "H2": [100], "H3": [80]})  # 90 %, 25 %, 20 %
    assert moved(fleet, "evenly_distributed") == [("H1-0", "H3")]


def test_even_distribution_waits_for_the_duration_and_for_migrations_under_way() -> None:
    fleet = Fleet({"H1": [200, 160], "H2": []})
    assert moved(fleet, "evenly_distributed", over_s={"H1": 119.0}) == []
    assert moved(fleet, "evenly_distributed", over_s={"H1": 120.0}) == [("H1-1", "H2")]
    assert moved(fleet, "evenly_distributed", busy_hosts=frozenset({"H1"})) == []
    assert moved(fleet, "evenly_distributed", busy_hosts=frozenset({"H2"})) == []


def test_even_distribution_moves_as_many_as_slots_let_and_not_one_a_minute() -> None:
    fleet = Fleet({"H1": [100, 100, 80, 80], "H2": [100, 100, 80, 80], "H3": [], "H4": []})
    assert len(moved(fleet, "evenly_distributed")) == 2
    crowded = Fleet({"H1": [40] * 9, "H2": [], "H3": []})
    assert len(moved(crowded, "evenly_distributed")) == 1
    assert moved(crowded, "evenly_distributed", moves_max=0) == []


def test_host_that_gave_a_vm_away_gets_none_in_the_same_plan() -> None:
    fleet = Fleet({"H1": [180, 160], "H2": [300, 40], "H3": []})
    moves = balance(fleet.view(policy_named("evenly_distributed"), slots=1))
    assert [(move.vm_id, move.to_host) for move in moves] == [("H1-1", "H3")]


def test_memory_short_host_gives_a_vm_away_once_the_parameter_is_set() -> None:
    fleet = Fleet({"H1": [0] * 9, "H2": []})
    assert moved(fleet, "evenly_distributed") == []
    policy = policy_named("evenly_distributed", {"MaxFreeMemoryForOverUtilized": 6144})
    moves = balance(fleet.view(policy))
    assert [(move.vm_id, move.to_host) for move in moves] == [("H1-0", "H2")]
    assert moves[0].why == "host H1 has less free memory than 6144 MiB"


def test_guests_are_evened_out_from_the_fullest_host_when_the_spread_is_large_enough() -> None:
    policy = policy_named("vm_evenly_distributed", {"HighVmCount": 5, "MigrationThreshold": 3})
    fleet = Fleet({"H1": [0] * 6, "H2": [0] * 4, "H3": [0] * 3})
    assert [(m.vm_id, m.to_host) for m in balance(fleet.view(policy))] == [("H1-0", "H3")]
    even = Fleet({"H1": [0] * 6, "H2": [0] * 4})
    assert balance(even.view(policy)) == []
    few = Fleet({"H1": [0] * 4, "H2": []})
    assert balance(few.view(policy)) == []


def test_power_saving_empties_a_hardly_used_host_onto_the_fullest_that_takes_all() -> None:
    fleet = Fleet({"H1": [20, 20], "H2": [100, 100], "H3": [160, 100]})  # 10 %, 50 %, 65 %
    assert moved(fleet, "power_saving") == [("H1-0", "H3"), ("H1-1", "H3")]


def test_power_saving_leaves_a_host_alone_that_cannot_be_emptied_whole() -> None:
    fleet = Fleet({"H1": [20, 20], "H2": [100, 100]})
    machine = fleet.machines["H1-1"]
    fleet.machines["H1-1"] = Machine(
        vm_id=machine.vm_id,
        name=machine.name,
        host="H1",
        vcpus=1,
        memory_need_bytes=machine.memory_need_bytes,
        load=20,
        movable=False,
    )
    assert moved(fleet, "power_saving") == []
    full = Fleet({"H1": [20, 20], "H2": [100, 100, 112]})  # one more of 20 is 83 %
    assert moved(full, "power_saving") == []


def test_power_saving_empties_a_host_over_several_cycles_when_slots_are_few() -> None:
    fleet = Fleet({"H1": [8, 8, 8], "H2": [100]})
    policy = policy_named("power_saving")
    first = balance(fleet.view(policy, slots=1))
    assert len(first) == 1
    for _ in range(3):
        for move in balance(fleet.view(policy, slots=1)):
            fleet.apply(move)
    assert fleet.table.row("H1").vm_count == 0


def test_ha_reservation_names_the_machines_that_would_find_no_room() -> None:
    fleet = Fleet({"H1": [0] * 6, "H2": [0] * 5, "H3": [0] * 9})
    by_host: dict[str, list[Machine]] = {}
    for machine in fleet.machines.values():
        by_host.setdefault(machine.host, []).append(machine)
    # 10 fit on a host: lost H1, there is room for 5 on H2 and 1 on H3; lost H3, for 4 on H1 and 5 on H2.
    assert ha_shortfalls(fleet.table, {"H1": by_host["H1"]}) == []
    assert ha_shortfalls(fleet.table, by_host) == []
    fleet.table.update_host("H2", usable=False)
    assert ha_shortfalls(fleet.table, by_host) == [
        Shortfall(host="H1", machines=("H1-1", "H1-2", "H1-3", "H1-4", "H1-5")),
        Shortfall(host="H3", machines=("H3-4", "H3-5", "H3-6", "H3-7", "H3-8")),
    ]


def test_ha_reservation_counts_load_as_well_as_memory() -> None:
    fleet = Fleet({"H1": [160], "H2": [300]})
    homeless = ha_shortfalls(fleet.table, {"H1": [fleet.machines["H1-0"]]})
    assert homeless == [Shortfall(host="H1", machines=("H1-0",))]
    assert request.memory_need_of(vcpus=1, memory_bytes=3 * GIB) < fleet.table.row("H2").memory_free_bytes
