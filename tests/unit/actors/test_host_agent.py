"""Authority by epoch, Down until acknowledged, and doubt that is asked again."""

from __future__ import annotations

import msgspec
import pytest

from actors.behaviour import Turn
from actors.host_agent import HostAgent
from actors.hypervisor_port import HostOpened
from hypervisor_backends.protocol import DestroyDomain, ListDomains, StartDomain
from olvm.model import messages as m
from olvm.model.records import AgentRecord, DomainRecord
from olvm.model.vm_states import VmStatus
from tests.builders import GIB, sent_to, turn

S = VmStatus
VM = "vm/v1"


def opened(boot_id: str = "boot-1", **statuses: str) -> m.CallEnded:
    value = HostOpened(boot_id=boot_id, cpus=8, memory_bytes=16 * GIB, cpu_model="", statuses=statuses)
    return m.CallEnded("open", True, msgspec.msgpack.encode(value))


def domain(
    status: VmStatus = S.UP, *, epoch: int = 3, pending: str = "", forgotten: bool = False
) -> DomainRecord:
    return DomainRecord(
        key="H1/v1", host="H1", vm_id="v1", vm_address=VM, name="web", epoch=epoch, status=status,
        vcpus=1, memory_bytes=GIB, pending=pending, forgotten=forgotten,
    )  # fmt: skip


def agent(*domains: DomainRecord, is_open: bool = True) -> HostAgent:
    record = AgentRecord(host="H1", cluster="prod", cpus=8, memory_bytes=GIB, host_epoch=1, boot_id="boot-1")
    made = HostAgent(record, {one.vm_id: one for one in domains})
    made.is_open = is_open
    return made


def give(one: HostAgent, message: m.AnyMessage) -> Turn:
    done = turn(me="agent/H1", sender=VM)
    done.silo = "host-1"
    one.handle(message, done)
    flush = ("agent/H1@host-1", m.FlushReports(), True)
    if flush in done.sent:  # handled in the same batch
        done.sent.remove(flush)
        one.handle(m.FlushReports(), done)
    return done


def create(epoch: int = 3) -> m.CreateDomain:
    return m.CreateDomain("v1", VM, epoch, "web", 1, GIB)


def told(done: Turn) -> list[tuple[VmStatus, int, bool]]:
    return [
        (said.domain.status, said.domain.epoch, said.absent)
        for said in sent_to(done, VM)
        if isinstance(said, m.DomainReported)
    ]


def test_agent_create_is_recorded_before_the_hypervisor_is_asked() -> None:
    one = agent()
    done = give(one, create())
    assert done.saved == [one.domains["v1"]]
    assert [(type(request), tag) for _, request, tag in done.calls] == [(StartDomain, "start/v1/3")]


def test_agent_create_repeated_is_answered_and_not_carried_out_again() -> None:
    done = give(agent(domain(S.UP)), create(3))
    assert (told(done), done.calls) == ([(S.UP, 3, False)], [])


def test_agent_create_of_an_older_epoch_is_refused() -> None:
    done = give(agent(domain(S.UP, epoch=5)), create(4))
    (refused,) = sent_to(done, VM)
    assert isinstance(refused, m.DomainRefused)
    assert (refused.code, refused.epoch, done.calls) == ("stale_epoch", 4, [])


def test_agent_create_of_an_older_epoch_is_refused_also_after_the_machine_was_forgotten() -> None:
    done = give(agent(domain(S.DOWN, epoch=5, forgotten=True)), create(4))
    assert [type(said) for said in sent_to(done, VM)] == [m.DomainRefused]


def test_agent_create_of_a_newer_epoch_ends_the_older_copy_first() -> None:
    done = give(agent(domain(S.UP, epoch=3)), create(4))
    assert [request for _, request, _ in done.calls] == [DestroyDomain(vm_id="v1")]
    (refused,) = sent_to(done, VM)
    assert isinstance(refused, m.DomainRefused)
    assert refused.code == "older_copy"


def test_agent_command_of_an_older_epoch_is_refused() -> None:
    done = give(agent(domain(S.UP, epoch=3)), m.CommandDomain("v1", 2, "destroy"))
    assert ([type(said) for said in sent_to(done, VM)], done.calls) == ([m.DomainRefused], [])


def test_agent_down_entry_is_reported_until_it_is_acknowledged_by_its_epoch() -> None:
    one = agent(domain(S.DOWN))
    for epoch, count in ((2, 1), (3, 0)):
        give(one, m.ForgetDomain("v1", epoch))
        (report,) = sent_to(give(one, m.TimerFired("report")), "host/H1")
        assert isinstance(report, m.HostReport)
        assert len(report.domains) == count


def test_agent_asked_for_a_machine_it_never_had_asks_the_hypervisor_and_then_refuses_its_create() -> None:
    one = agent()
    done = give(one, m.QueryDomain("v1", VM, 3))
    assert [(type(request), tag) for _, request, tag in done.calls] == [(ListDomains, "query/v1/3")]
    answer = m.CallEnded("query/v1/3", True, msgspec.msgpack.encode({}))
    assert told(give(one, answer)) == [(S.DOWN, 3, True)]
    late = give(one, create(2))
    assert [type(said) for said in sent_to(late, VM)] == [m.DomainRefused]


def test_agent_start_of_unknown_outcome_is_asked_about_until_it_is_known() -> None:
    one = agent(domain(S.WAIT_FOR_LAUNCH, pending="start"))
    done = give(one, m.CallEnded("start/v1/3", False, b"timed out", "timed_out", False))
    assert [tag for _, _, tag in done.calls] == ["verify/v1/3"]
    waiting = give(one, m.CallEnded("verify/v1/3", True, msgspec.msgpack.encode({"v1": "wait_for_launch"})))
    assert [name for name, _ in waiting.timers] == ["list/verify/v1/3"]
    assert [tag for _, _, tag in give(one, m.TimerFired("list/verify/v1/3")).calls] == ["verify/v1/3"]
    known = give(one, m.CallEnded("verify/v1/3", True, msgspec.msgpack.encode({"v1": "up"})))
    assert told(known) == [(S.UP, 3, False)]


def test_agent_list_that_fails_is_asked_again_later_and_not_at_once() -> None:
    done = give(agent(domain(S.WAIT_FOR_LAUNCH)), m.CallEnded("verify/v1/3", False, b"", "host_down"))
    assert (done.calls, [name for name, _ in done.timers]) == ([], ["list/verify/v1/3"])


@pytest.mark.parametrize(("found", "status"), [({"v1": "paused"}, S.PAUSED), ({}, S.DOWN)])
def test_agent_command_of_unknown_outcome_is_looked_up(found: dict[str, str], status: VmStatus) -> None:
    one = agent(domain(S.POWERING_DOWN))
    done = give(one, m.CallEnded("shutdown/v1/3", False, b"timed out", "timed_out", False))
    assert ([tag for _, _, tag in done.calls], done.sent) == (["recheck/v1/3"], [])
    after = give(one, m.CallEnded("recheck/v1/3", True, msgspec.msgpack.encode(found)))
    assert told(after) == [(status, 3, False)]


@pytest.mark.parametrize(
    ("before", "there", "after"),
    [
        (domain(S.WAIT_FOR_LAUNCH, pending="start"), "up", S.UP),
        (domain(S.UP), "paused", S.PAUSED),
        (domain(S.SAVING_STATE), "saving_state", S.SAVING_STATE),
        (domain(S.UP), None, S.DOWN),
    ],
)
def test_agent_restarted_tells_what_the_hypervisor_says(
    before: DomainRecord, there: str | None, after: VmStatus
) -> None:
    one = agent(msgspec.structs.replace(before), is_open=False)
    done = give(one, opened(**({} if there is None else {"v1": there})))
    assert told(done) == [(after, 3, False)]
    assert one.record.host_epoch == 2


@pytest.mark.parametrize("there", ["wait_for_launch", None])
def test_agent_restarted_in_the_middle_of_a_start_asks_for_it_again(there: str | None) -> None:
    one = agent(domain(S.WAIT_FOR_LAUNCH, pending="start"), is_open=False)
    done = give(one, opened(**({} if there is None else {"v1": there})))
    assert [tag for _, _, tag in done.calls] == ["start/v1/3"]


def test_agent_restarted_on_a_rebooted_host_says_that_the_host_was_the_reason() -> None:
    one = agent(domain(S.UP), is_open=False)
    give(one, opened("boot-2"))
    assert (one.domains["v1"].status, one.domains["v1"].exit_reason) == (S.DOWN, 11)


def test_agent_event_of_another_epoch_is_ignored() -> None:
    done = give(agent(domain(S.UP)), m.DomainHappened("v1", 2, "crashed"))
    assert (done.sent, done.saved) == ([], [])


def test_agent_message_of_another_actor_is_a_fault_of_the_programmer() -> None:
    with pytest.raises(AssertionError, match="cannot handle"):
        give(agent(), m.HostLost("H1", ""))
