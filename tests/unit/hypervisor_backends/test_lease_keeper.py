"""One keeper at a time: what each operation answers, when, and what it leaves in the storage."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hypervisor_backends.lease_keeper import LeaseKeeper, LeaseOutcome, wait_of
from hypervisor_backends.leases import Holder, RenewHostLease, VmLease
from hypervisor_backends.memory_leases import Fate, MemoryLeases, StorageFaults
from olvm.model.errors import BadInput
from olvm.model.limits import NS_PER_S
from tests.unit.hypervisor_backends.bench import VirtualScheduler

EXPIRY_S = 30.0
WAIT_S = 30 * 1.01 / 0.99


class Site:
    """Hosts whose clocks agree, on one storage. Nobody renews by himself here."""

    def __init__(self) -> None:
        self.scheduler = VirtualScheduler()
        self.faults = StorageFaults()
        self.leases = MemoryLeases(self.scheduler, self.faults)
        self.armed: dict[str, list[float]] = {}
        self._begun_ns = self.scheduler.now_ns()

    def keeper(self, host: str, boot_id: str = "") -> LeaseKeeper:
        boot_id = boot_id or f"{host}-boot1"
        armed = self.armed.setdefault(boot_id, [])
        return LeaseKeeper(
            host,
            boot_id,
            self.leases.store(host),
            self.scheduler,
            lambda deadline_ns: armed.append(round((deadline_ns - self._begun_ns) / NS_PER_S, 3)),
            expiry_s=EXPIRY_S,
            drift_percent=1.0,
        )

    @property
    def now_s(self) -> float:
        return round((self.scheduler.now_ns() - self._begun_ns) / NS_PER_S, 3)

    def holders(self, vm_id: str = "v1") -> tuple[Holder, ...]:
        lease = self.leases.vm_lease(vm_id)
        return () if lease is None else lease.holders

    def run(self, seconds: float, *renewing: LeaseKeeper) -> None:
        """`renewing` hosts renew each 5 s meanwhile."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            for keeper in renewing:
                keeper.renew(lambda worked, message: None)
            self.scheduler.advance(min(5.0, end_s - self.now_s))


class Answers:
    """What an operation answered, and when."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.heard: list[tuple[float, str, str]] = []

    def __call__(self, outcome: LeaseOutcome) -> None:
        self.heard.append((self._site.now_s, outcome.kind, outcome.holder))

    @property
    def kinds(self) -> list[str]:
        return [kind for _, kind, _ in self.heard]


@pytest.fixture
def site() -> Site:
    return Site()


def asked(site: Site, ask: Callable[[Answers], None]) -> Answers:
    answers = Answers(site)
    ask(answers)
    return answers


def renewed(site: Site, keeper: LeaseKeeper) -> list[tuple[float, bool, str]]:
    heard: list[tuple[float, bool, str]] = []
    keeper.renew(lambda worked, message: heard.append((site.now_s, worked, message)))
    return heard


def taken(site: Site, host: str, epoch: int = 1, boot_id: str = "") -> LeaseKeeper:
    keeper = site.keeper(host, boot_id)
    assert asked(site, lambda done: keeper.take("v1", epoch, done)).kinds == ["taken"]
    return keeper


# ---------------------------------------------------------------- the host's own lease


def test_renewal_answered_late_arms_from_before_the_question(site: Site) -> None:
    keeper = site.keeper("a")
    site.faults.slow("a", 4.0)
    heard = renewed(site, keeper)
    site.run(10)

    assert heard == [(4.0, True, "")]
    assert site.armed["a-boot1"] == [30.0]


def test_renewal_without_answer_fails_at_the_time_out_and_its_late_answer_arms_nothing(site: Site) -> None:
    keeper = site.keeper("a")
    site.faults.befall_next("a", Fate(effect_after_s=8, answer_after_s=8))
    heard = renewed(site, keeper)
    site.run(20)

    assert [(at_s, worked) for at_s, worked, _ in heard] == [(5.0, False)]
    assert "host a did not answer within 5 s" in heard[0][2]
    assert site.armed["a-boot1"] == []
    assert site.leases.host_lease("a") is not None


def test_new_boot_takes_the_host_lease_over_and_the_old_one_cannot_come_back(site: Site) -> None:
    old, new = site.keeper("a", "boot1"), site.keeper("a", "boot2")
    assert renewed(site, old)[0][1]
    assert renewed(site, new)[0][1]
    late = renewed(site, old)

    assert [worked for _, worked, _ in late] == [False]
    assert "as boot boot2, not boot1" in late[0][2]
    lease = site.leases.host_lease("a")
    assert lease is not None
    assert (lease.boot_id, lease.counter) == ("boot2", 2)


def test_agent_that_restarts_in_the_same_boot_goes_on_renewing(site: Site) -> None:
    assert renewed(site, site.keeper("a"))[0][1]
    assert renewed(site, site.keeper("a"))[0][1]


# ---------------------------------------------------------------- take


def test_free_lease_is_taken_at_once_and_the_host_renews_first(site: Site) -> None:
    keeper = taken(site, "a")

    assert keeper.holds("v1", 1)
    assert site.now_s == 0
    assert site.holders() == (Holder("a", "a-boot1", 1),)
    assert site.armed["a-boot1"] == [30.0]


def test_take_again_is_taken_without_a_write(site: Site) -> None:
    keeper = taken(site, "a")
    again = asked(site, lambda done: keeper.take("v1", 1, done))

    assert again.kinds == ["taken"]
    assert site.leases.vm_lease("v1") == VmLease(
        vm_id="v1", version=1, epoch=1, holders=(Holder("a", "a-boot1", 1),)
    )


def test_take_again_after_a_lapse_writes_again(site: Site) -> None:
    keeper = taken(site, "a")
    site.run(40)
    assert renewed(site, keeper)[0][1]
    assert not keeper.holds("v1", 1)
    assert asked(site, lambda done: keeper.take("v1", 1, done)).kinds == ["taken"]

    assert keeper.holds("v1", 1)
    lease = site.leases.vm_lease("v1")
    assert lease is not None
    assert lease.version == 2


def test_take_below_the_lease_epoch_is_stale(site: Site) -> None:
    taken(site, "a", epoch=5)
    other = site.keeper("b")
    assert asked(site, lambda done: other.take("v1", 4, done)).kinds == ["stale"]
    assert site.holders() == (Holder("a", "a-boot1", 5),)


def test_take_from_a_host_that_renews_is_held_at_the_first_poll_that_shows_it(site: Site) -> None:
    first = taken(site, "a")
    other = site.keeper("b")
    answers = asked(site, lambda done: other.take("v1", 2, done))
    site.run(60, first, other)

    assert answers.heard == [(5.0, "held", "a")]


def test_take_from_a_silent_host_waits_for_the_whole_bound(site: Site) -> None:
    taken(site, "a")
    other = site.keeper("b")
    answers = asked(site, lambda done: other.take("v1", 2, done))
    site.run(WAIT_S - 0.001, other)
    assert answers.kinds == []
    site.run(1, other)

    assert answers.heard == [(pytest.approx(WAIT_S, abs=0.002), "taken", "")]
    assert site.holders() == (Holder("b", "b-boot1", 2),)
    assert wait_of(30 * NS_PER_S, 1.0) == pytest.approx(WAIT_S * NS_PER_S, abs=1.1e6)


def test_take_counts_from_the_answer_of_a_slow_first_reading(site: Site) -> None:
    taken(site, "a")
    other = site.keeper("b")
    assert renewed(site, other)[0][1]
    site.faults.befall_next("b", Fate(effect_after_s=4, answer_after_s=4))
    answers = asked(site, lambda done: other.take("v1", 2, done))
    site.scheduler.advance(1)
    site.run(60, other)

    assert answers.heard[0][0] == pytest.approx(4 + WAIT_S, abs=0.002)


def test_take_from_a_rebooted_host_needs_no_wait(site: Site) -> None:
    taken(site, "a")
    assert renewed(site, site.keeper("a", "a-boot2"))[0][1]
    other = site.keeper("b")

    assert asked(site, lambda done: other.take("v1", 2, done)).kinds == ["taken"]
    assert site.now_s == 0


def test_take_after_own_reboot_needs_no_wait(site: Site) -> None:
    taken(site, "a")
    taken(site, "a", epoch=2, boot_id="a-boot2")
    assert site.now_s == 0
    assert site.holders() == (Holder("a", "a-boot2", 2),)


def test_two_takers_of_a_dead_hosts_lease_only_one_gets_it(site: Site) -> None:
    taken(site, "a")
    b, c = site.keeper("b"), site.keeper("c")
    of_b = asked(site, lambda done: b.take("v1", 2, done))
    of_c = asked(site, lambda done: c.take("v1", 3, done))
    site.run(60, b, c)

    assert sorted(of_b.kinds + of_c.kinds) == ["held", "taken"]


def test_take_survives_a_short_outage_of_the_storage(site: Site) -> None:
    taken(site, "a")
    other = site.keeper("b")
    answers = asked(site, lambda done: other.take("v1", 2, done))
    site.run(4, other)
    site.faults.cut("b")
    site.run(12, other)
    site.faults.heal("b")
    site.run(40, other)

    assert answers.kinds == ["taken"]


def test_take_from_a_storage_that_never_answers_is_unreachable_in_bounded_time(site: Site) -> None:
    keeper = site.keeper("a")
    assert renewed(site, keeper)[0][1]
    site.faults.cut("a")
    answers = asked(site, lambda done: keeper.take("v1", 1, done))
    site.run(60)

    assert answers.heard == [(25.0, "unreachable", "")]  # three calls of 5 s, and twice 5 s between them


def test_take_whose_answer_was_lost_finds_its_own_write(site: Site) -> None:
    keeper = site.keeper("a")
    assert renewed(site, keeper)[0][1]
    site.faults.befall_next("a", Fate())  # the reading
    site.faults.lose_next_answer("a")  # the write
    answers = asked(site, lambda done: keeper.take("v1", 1, done))
    site.run(20, keeper)

    assert answers.kinds == ["taken"]
    assert keeper.holds("v1", 1)


def test_take_answered_after_a_lapse_does_not_count(site: Site) -> None:
    """The write worked in an earlier spell: another host may have judged this one dead since."""
    keeper = site.keeper("a")
    assert renewed(site, keeper)[0][1]
    site.run(26)
    site.faults.befall_next("a", Fate())
    site.faults.befall_next("a", Fate(answer_after_s=4.9))
    answers = asked(site, lambda done: keeper.take("v1", 1, done))
    site.run(4.5)
    assert renewed(site, keeper)[0][1]
    site.run(1, keeper)

    lease = site.leases.vm_lease("v1")
    assert lease is not None
    assert (answers.kinds, lease.version) == (["taken"], 2)


def test_newer_take_on_the_same_host_ends_the_older_one(site: Site) -> None:
    taken(site, "a")
    other = site.keeper("b")
    older = asked(site, lambda done: other.take("v1", 2, done))
    repeated = asked(site, lambda done: other.take("v1", 2, done))
    newer = asked(site, lambda done: other.take("v1", 3, done))
    too_old = asked(site, lambda done: other.take("v1", 2, done))
    site.run(60, other)

    assert (older.kinds, repeated.kinds, too_old.kinds) == (["stale"], ["stale"], ["stale"])
    assert newer.kinds == ["taken"]


# ---------------------------------------------------------------- join and leave


def test_join_stands_beside_the_living_source_and_leave_of_the_source_keeps_it(site: Site) -> None:
    source, target = taken(site, "a"), site.keeper("b")
    assert asked(site, lambda done: target.join("v1", 2, "a", done)).kinds == ["taken"]
    assert site.holders() == (Holder("a", "a-boot1", 1), Holder("b", "b-boot1", 2))
    assert target.holds("v1", 2)

    assert asked(site, lambda done: source.leave("v1", 1, done)).kinds == ["taken"]
    assert site.holders() == (Holder("b", "b-boot1", 2),)
    assert not source.holds("v1", 1)


def test_join_without_the_source_in_the_lease_is_stale(site: Site) -> None:
    source, target = taken(site, "a"), site.keeper("b")
    source.leave("v1", 1, Answers(site))
    assert asked(site, lambda done: target.join("v1", 2, "a", done)).kinds == ["stale"]
    assert site.holders() == ()


def test_join_waits_for_the_dead_target_of_an_earlier_migration(site: Site) -> None:
    source, first, second = taken(site, "a"), site.keeper("b"), site.keeper("c")
    first.join("v1", 2, "a", Answers(site))
    answers = asked(site, lambda done: second.join("v1", 3, "a", done))
    site.run(WAIT_S + 1, source, second)

    assert answers.heard == [(pytest.approx(WAIT_S, abs=0.002), "taken", "")]
    assert site.holders() == (Holder("a", "a-boot1", 1), Holder("c", "c-boot1", 3))


def test_take_of_a_migrating_machine_needs_both_holders_dead(site: Site) -> None:
    taken(site, "a")
    target, third = site.keeper("b"), site.keeper("c")
    target.join("v1", 2, "a", Answers(site))
    answers = asked(site, lambda done: third.take("v1", 3, done))
    site.run(60, target, third)

    assert answers.heard == [(5.0, "held", "b")]


def test_leave_of_an_older_copy_keeps_the_newer_one(site: Site) -> None:
    keeper = taken(site, "a", epoch=5)
    assert asked(site, lambda done: keeper.take("v1", 6, done)).kinds == ["taken"]
    assert asked(site, lambda done: keeper.leave("v1", 5, done)).kinds == ["taken"]

    assert site.holders() == (Holder("a", "a-boot1", 6),)
    assert keeper.holds("v1", 6)


def test_leave_makes_a_write_harmless_that_is_still_under_way(site: Site) -> None:
    keeper = site.keeper("a")
    assert renewed(site, keeper)[0][1]
    site.faults.befall_next("a", Fate())
    site.faults.hang_next("a", effect_after_s=50)
    taking = asked(site, lambda done: keeper.take("v1", 1, done))
    site.run(1)
    leaving = asked(site, lambda done: keeper.leave("v1", 1, done))
    site.run(90)

    assert (taking.kinds, leaving.kinds) == (["stale"], ["taken"])
    assert site.holders() == ()


def test_leave_without_answer_is_unreachable_and_works_when_asked_again(site: Site) -> None:
    keeper = taken(site, "a")
    site.faults.cut("a")
    first = asked(site, lambda done: keeper.leave("v1", 1, done))
    site.run(10)
    site.faults.heal("a")
    again = asked(site, lambda done: keeper.leave("v1", 1, done))

    assert (first.kinds, again.kinds) == (["unreachable"], ["taken"])
    assert site.holders() == ()


def test_take_after_a_hung_leave_is_not_undone_by_it(site: Site) -> None:
    keeper = taken(site, "a")
    site.faults.befall_next("a", Fate())
    site.faults.hang_next("a", effect_after_s=20)
    leaving = asked(site, lambda done: keeper.leave("v1", 1, done))
    again = asked(site, lambda done: keeper.take("v1", 1, done))
    site.run(60, keeper)

    assert (leaving.kinds, again.kinds) == (["stale"], ["taken"])
    assert site.holders() == (Holder("a", "a-boot1", 1),)


def test_leave_of_a_higher_epoch_that_joins_one_under_way_drops_that_epoch_too(site: Site) -> None:
    keeper = taken(site, "a", epoch=5)
    site.faults.befall_next("a", Fate(effect_after_s=1, answer_after_s=1))
    site.faults.befall_next("a", Fate(effect_after_s=1, answer_after_s=1))
    lower = asked(site, lambda done: keeper.leave("v1", 4, done))
    site.run(1.5)
    higher = asked(site, lambda done: keeper.leave("v1", 5, done))
    site.run(10)

    assert (lower.kinds, higher.kinds) == (["taken"], ["taken"])
    assert site.holders() == ()


# ---------------------------------------------------------------- check and close


def test_check_of_a_renewing_host_is_live_at_its_first_rise(site: Site) -> None:
    a, b = site.keeper("a"), site.keeper("b")
    a.renew(lambda worked, message: None)
    heard: list[tuple[float, str]] = []
    b.check("a", lambda verdict: heard.append((site.now_s, verdict)))
    site.run(60, a)
    assert heard == [(5.0, "live")]


@pytest.mark.parametrize("ever_renewed", [True, False])
def test_check_of_a_silent_host_is_dead_after_the_whole_bound(site: Site, ever_renewed: bool) -> None:
    a, b = site.keeper("a"), site.keeper("b")
    if ever_renewed:
        a.renew(lambda worked, message: None)
    heard: list[tuple[float, str]] = []
    b.check("a", lambda verdict: heard.append((site.now_s, verdict)))
    site.run(60)
    assert heard == [(pytest.approx(WAIT_S, abs=0.002), "dead")]


def test_check_without_the_storage_is_unknown(site: Site) -> None:
    keeper = site.keeper("b")
    site.faults.cut("b")
    heard: list[str] = []
    keeper.check("a", heard.append)
    site.run(60)
    assert heard == ["unknown"]


def test_closed_keeper_calls_nobody_back(site: Site) -> None:
    taken(site, "a")
    other = site.keeper("b")
    answers = asked(site, lambda done: other.take("v1", 2, done))
    other.close()
    other.renew(lambda worked, message: answers(LeaseOutcome(kind="taken")))
    site.run(60)

    assert answers.heard == []
    assert site.scheduler.waiting_count == 0
    assert not other.armed()


def test_drift_of_a_whole_clock_is_refused(site: Site) -> None:
    with pytest.raises(BadInput, match="drift_percent < 100"):
        LeaseKeeper(
            "a",
            "b",
            site.leases.store("a"),
            site.scheduler,
            lambda deadline_ns: None,
            expiry_s=30,
            drift_percent=100,
        )


def test_late_renewal_of_an_earlier_boot_does_not_make_the_present_one_look_dead(site: Site) -> None:
    old = site.keeper("a", "a-boot1")
    assert renewed(site, old)[0][1]
    site.faults.hang_next("a", effect_after_s=20)
    old.renew(lambda worked, message: None)
    old.close()
    new = taken(site, "a", epoch=2, boot_id="a-boot2")
    site.run(22, new)
    other = site.keeper("b")
    answers = asked(site, lambda done: other.take("v1", 3, done))
    site.run(10, new, other)

    assert answers.kinds == ["held"]
    lease = site.leases.host_lease("a")
    assert lease is not None
    assert lease.boot_id == "a-boot2"


def test_first_renewal_of_a_boot_that_never_came_to_work_cannot_land_on_a_later_boot(site: Site) -> None:
    store = site.leases.store("a")
    for boot_id, replaces in (("boot0", ""), ("boot2", "boot0"), ("boot1", "boot0")):
        store.submit(RenewHostLease(host="a", boot_id=boot_id, replaces=replaces), lambda result: None)
    lease = site.leases.host_lease("a")
    assert lease is not None
    assert lease.boot_id == "boot2"
