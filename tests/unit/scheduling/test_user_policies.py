"""Classes of the user's own: what they are asked, what is believed, and that no error of theirs leaves as one."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olvm.model.errors import BadInput, UserPolicyError
from olvm.model.placement_needs import PlacementNeeds
from olvm.scheduling import HostTable, NoPlacement, Placement, explain, place, policy_named
from olvm.scheduling.scheduler import best_of
from olvm.scheduling.user_policies import UserHost, UserHosts, UserVm, load_user_policy

from .tables import GIB, HostFacts, host, hosts_strategy, request, requests_strategy, table_of


class BestFit:
    def score(self, vm: UserVm, host: UserHost) -> float:
        return vm.memory_gib - host.free_memory_gib


class BestFitByColumns:
    def choose(self, vm: UserVm, hosts: UserHosts) -> int | None:
        import numpy as np

        del vm
        fits = hosts.fits
        return int(np.where(fits, hosts.free_memory_gib, np.inf).argmin()) if fits.any() else None


class NotOnOdd:
    def filter(self, vm: UserVm, host: UserHost) -> bool | str:
        del vm
        return True if int(host.name[-1]) % 2 == 0 else "its name is odd"


class FirstHost:
    def choose(self, vm: UserVm, hosts: UserHosts) -> int | None:
        del vm, hosts
        return 0


class Nobody:
    def choose(self, vm: UserVm, hosts: UserHosts) -> int | None:
        del vm, hosts
        return None


class Broken:
    def score(self, vm: UserVm, host: UserHost) -> float:
        return 1 / (host.cpus - 8)


class Wild:
    answer: object = None

    def filter(self, vm: UserVm, host: UserHost) -> object:
        del vm, host
        return self.answer


class Exits:
    def choose(self, vm: UserVm, hosts: UserHosts) -> int | None:
        raise SystemExit(3)


class Mute:
    pass


class NeedsArguments:
    def __init__(self, much: int) -> None:
        self.much = much


@pytest.fixture(autouse=True)
def _named_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user would put on PYTHONPATH."""
    module = ModuleType("my_policies")
    for kind in (BestFit, BestFitByColumns, NotOnOdd, FirstHost, Nobody, Broken, Exits, Mute, NeedsArguments):
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "my_policies", module)


def table() -> HostTable:
    return table_of(
        [
            host("kvm01", memory_bytes=64 * GIB),
            host("kvm02", memory_bytes=8 * GIB),
            host("kvm03", memory_bytes=16 * GIB),
        ]
    )


def outcome(policy: str, **fields: object) -> Placement | NoPlacement:
    return place(table(), request(**fields), policy_named(f"my_policies:{policy}"))


@pytest.mark.parametrize(
    ("policy", "fields", "expected"),
    [
        ("BestFit", {}, "kvm02"),
        ("BestFit", {"memory_bytes": 10 * GIB}, "kvm03"),
        ("BestFit", {"pinned_hosts": ("kvm01", "kvm03")}, "kvm03"),
        ("BestFitByColumns", {}, "kvm02"),
        ("BestFitByColumns", {"memory_bytes": 10 * GIB}, "kvm03"),
        ("BestFitByColumns", {"pinned_hosts": ("kvm01", "kvm03")}, "kvm03"),
        ("BestFitByColumns", {"excluded_hosts": ("kvm02",)}, "kvm03"),
        ("NotOnOdd", {}, "kvm02"),
        ("FirstHost", {}, "kvm01"),
    ],
)
def test_class_of_the_users_chooses_among_hosts_that_may_take_the_vm(
    policy: str, fields: dict[str, object], expected: str
) -> None:
    chosen = outcome(policy, **fields)
    assert isinstance(chosen, Placement)
    assert chosen.host == expected
    assert 1 <= chosen.candidate_count <= 3


@pytest.mark.parametrize(
    ("policy", "fields", "sentence"),
    [
        ("Broken", {}, "policy my_policies:Broken failed in score for VM web-1, host kvm01: "),
        ("Broken", {}, "ZeroDivisionError: float division by zero"),
        (
            "FirstHost",
            {"memory_bytes": 64 * GIB},
            "policy my_policies:FirstHost failed in choose for VM web-1, host kvm01: chose a host that cannot have "
            "it: Memory: needs 64.2 GiB, 63.7 GiB free of 64 GiB",
        ),
        ("Nobody", {}, "policy my_policies:Nobody wants none of 3 that could take it (it chose none)"),
        (
            "NotOnOdd",
            {"pinned_hosts": ("kvm01",)},
            "my_policies:NotOnOdd wants none of 1 that could take it (its",
        ),
        ("Exits", {}, "my_policies:Exits failed in choose for VM web-1: "),
        ("Missing", {}, "module my_policies has no class Missing"),
    ],
)
def test_what_goes_wrong_in_it_is_told_with_vm_and_host_and_places_nobody(
    policy: str, fields: dict[str, object], sentence: str
) -> None:
    refused = outcome(policy, **fields)
    assert isinstance(refused, NoPlacement)
    assert sentence in refused.reason


@pytest.mark.parametrize("answer", [None, 0, 1, "", [], b"no", object()])
def test_answer_of_a_filter_is_true_false_or_a_sentence(answer: object) -> None:
    Wild.answer = answer
    loaded = load_user_policy(Wild)
    vm, one = UserVm(id="web-1", vcpus=1, memory_gib=1), _a_host()
    if isinstance(answer, str):
        assert loaded.why_not(vm, one) == answer
        return
    with pytest.raises(
        UserPolicyError, match=r"Wild failed in filter for VM web-1, host kvm01: answered .*, not True"
    ):
        loaded.why_not(vm, one)


@pytest.mark.parametrize("answer", [-1, 3, 1.5, "kvm01", True])
def test_index_that_is_none_is_refused(answer: object) -> None:
    class Points:
        def choose(self, vm: UserVm, hosts: UserHosts) -> object:
            return answer

    loaded = load_user_policy(Points())
    columns = type("Three", (), {"__len__": lambda self: 3})()
    vm = UserVm(id="web-1", vcpus=1, memory_gib=1)
    if answer is True:  # Python's own idea of an index
        assert loaded.choose(vm, columns) == 1
        return
    with pytest.raises(UserPolicyError, match=r"failed in choose for VM web-1: answered"):
        loaded.choose(vm, columns)


@pytest.mark.parametrize("score", [float("nan"), "much", None])
def test_score_that_is_no_number_is_refused(score: object) -> None:
    class Scores:
        def score(self, vm: UserVm, host: UserHost) -> object:
            return score

    with pytest.raises(
        UserPolicyError, match=r"failed in score for VM web-1, host kvm01: answered .*, not a number"
    ):
        load_user_policy(Scores()).score(UserVm(id="web-1", vcpus=1, memory_gib=1), _a_host())


def _a_host() -> UserHost:
    return UserHost(name="kvm01", cpus=8, memory_gib=64, free_vcpus=8, free_memory_gib=63.75, vm_count=0)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("my_policies:", "write module:Class"),
        (
            "no_such_module_at_all:Best",
            "module no_such_module_at_all cannot be imported here: ModuleNotFoundError",
        ),
        ("my_policies:Best", "module my_policies has no class Best"),
        ("my_policies:Mute", "has none of the methods filter, score, choose"),
        ("my_policies:NeedsArguments", r"NeedsArguments\(\) failed: TypeError"),
    ],
)
def test_name_that_is_no_policy_is_refused_with_the_reason(name: str, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        load_user_policy(name)


def test_explanation_shows_the_classs_own_scores_and_reasons() -> None:
    scored = explain(table(), request(memory_bytes=10 * GIB), policy_named("my_policies:BestFit"))
    assert [verdict.rejected_by for verdict in scored.hosts] == [None, "Memory", None]
    assert [verdict.score for verdict in scored.hosts] == [-53.75, 0, -5.75]
    assert [verdict.chosen for verdict in scored.hosts] == [False, False, True]
    filtered = explain(table(), request(), policy_named("my_policies:NotOnOdd")).hosts
    assert filtered[0].reason == "kvm01: my_policies:NotOnOdd: its name is odd"


def test_among_named_candidates_a_class_that_fails_leaves_the_choice_to_their_order() -> None:
    broken = policy_named("my_policies:Broken")
    assert best_of(table(), request(), broken, ["kvm02", "kvm03"]) == "kvm02"
    assert best_of(table(), request(), policy_named("my_policies:BestFit"), ["kvm01", "kvm03"]) == "kvm03"


def test_columns_show_what_was_booked_since_and_cannot_be_written() -> None:
    class Looks:
        seen: list[tuple[list[float], list[float], list[int]]] = []

        def choose(self, vm: UserVm, hosts: UserHosts) -> int | None:
            assert not hosts.free_vcpus.flags.writeable
            columns = (hosts.free_vcpus, hosts.cpus, hosts.vm_count)
            self.seen.append(tuple(column.tolist() for column in columns))
            return 0

    sys.modules["my_policies"].Looks = Looks
    made, policy = table(), policy_named("my_policies:Looks")
    place(made, request(), policy)
    made.reserve("a", "kvm02", 3, GIB)
    place(made, request(), policy)
    made.update_host("kvm01", usable=False)
    made.release("a")
    place(made, request(needs=PlacementNeeds(tenant="acme")), policy)
    assert Looks.seen == [
        ([8, 8, 8], [8, 8, 8], [0, 0, 0]),
        ([8, 5, 8], [8, 8, 8], [0, 1, 0]),
        ([8, 8], [8, 8], [0, 0]),
    ]


@pytest.mark.parametrize("has_filter", [False, True])
def test_what_fits_is_what_the_filters_of_room_say(has_filter: bool) -> None:
    class Looks:
        def choose(self, vm: UserVm, hosts: UserHosts) -> int | None:
            del vm
            seen.append(dict(zip(hosts.name, hosts.fits.tolist(), strict=True)))
            return None

    class Filters(Looks):
        def filter(self, vm: UserVm, host: UserHost) -> bool | str:
            del vm, host
            return True

    seen: list[dict[str, bool]] = []
    name = "Filters" if has_filter else "Fits"  # a class is loaded once in a process
    setattr(sys.modules["my_policies"], name, Filters if has_filter else Looks)
    made, policy = table(), policy_named(f"my_policies:{name}")
    # 16 GiB of a host with 16 GiB: what QEMU takes beside it does not fit any more.
    for memory_gib in (4, 8, 16):
        place(made, request(memory_bytes=memory_gib * GIB), policy)
    made.reserve("a", "kvm03", 8, GIB)
    place(made, request(memory_bytes=4 * GIB), policy)
    fitting = [[name for name, fits in row.items() if fits] for row in seen]
    assert fitting[:3] == [["kvm01", "kvm02", "kvm03"], ["kvm01", "kvm03"], ["kvm01"]]
    assert fitting[3] == ["kvm01", "kvm02", "kvm03"], "no limit on promised CPUs"
    if has_filter:
        assert [len(row) for row in seen] == [3, 2, 1, 3]
    else:
        assert [len(row) for row in seen] == [3, 3, 3, 3]


@settings(max_examples=200, deadline=None)
@given(hosts_strategy(), st.lists(requests_strategy(), min_size=1, max_size=6))
def test_best_fit_by_columns_and_host_by_host_agree_while_vms_come(
    hosts: list[HostFacts], wanted: list[object]
) -> None:
    made = table_of(hosts)
    by_columns, by_host = policy_named("my_policies:BestFitByColumns"), policy_named("my_policies:BestFit")
    for number, asked in enumerate(wanted):
        first, second = place(made, asked, by_columns), place(made, asked, by_host)
        assert getattr(first, "host", None) == getattr(second, "host", None)
        if isinstance(first, Placement):
            vcpus, memory_bytes = asked.vcpus, asked.memory_bytes
            made.reserve(f"new{number}", first.host, vcpus, memory_bytes)
