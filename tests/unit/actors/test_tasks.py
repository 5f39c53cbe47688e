"""Tasks of machines and hosts, from the engine's side and the agent's, turn by turn."""

from __future__ import annotations

import msgspec
import pytest

from actors.behaviour import Turn
from actors.host_agent import HostAgent
from actors.hypervisor_port import FoundDomain
from actors.task_requests import domain_request, host_request, result_of
from actors.vm import Vm
from hypervisor_backends import protocol as p
from olvm.model import messages as m
from olvm.model.errors import BadInput
from olvm.model.hardware import DiskSpec, Hardware
from olvm.model.host_states import HostStatus
from olvm.model.host_tasks import TIMEOUT_S_BY_HOST_TASK
from olvm.model.limits import SIZE_TASK_S_MAX, TASKS_PER_OBJECT_MAX
from olvm.model.vm_states import VmStatus
from olvm.model.vm_tasks import VM_TASKS
from tests.builders import endings, host, reported, turn, vm
from tests.unit.actors.agent_driving import agent, domain, listed

AGENT = "agent/H1@host-1"
DISK: m.Arguments = {"name": "vdb", "source": "/b"}
ATTACH = m.TaskVm("op-1", m.VmTask("web", "attach_disk", DISK))
ARGUMENTS: dict[str, m.Arguments] = {
    "attach_disk": DISK,
    "detach_disk": {"name": "vdb"},
    "change_medium": {"name": "sda", "source": ""},
    "attach_nic": {"name": "eth1"},
    "detach_nic": {"name": "eth1"},
    "set_nic_link": {"name": "eth1", "up": False},
    "set_cpu_quota": {"percent": 20},
    "set_vcpus": {"vcpus": 2},
    "set_balloon": {"memory_bytes": 1024**3},
    "plug_memory": {"name": "dimm0", "size_bytes": 1024**3},
    "unplug_memory": {"name": "dimm0"},
    "create_snapshot": {"name": "s", "with_memory": True},
    "commit_snapshot": {"name": "s"},
    "revert_snapshot": {"name": "s", "with_memory": True, "discard_later": True},
    "log_on": {"user": "alice", "session": "ttyS0"},
    "notify": {"message": "hello"},
    "set_guest_cpus": {"count": 1},
}
HOST_ARGUMENTS: dict[str, m.Arguments] = {
    "create_pool": {"name": "a", "path": "/a"},
    "delete_pool": {"name": "a"},
    "create_volume": {"pool": "a", "name": "b", "size_bytes": 1},
    "clone_volume": {"pool": "a", "name": "b", "source": "c"},
    "resize_volume": {"pool": "a", "name": "b", "size_bytes": 1},
    "delete_volume": {"pool": "a", "name": "b"},
    "list_volumes": {"pool": "a"},
    "create_network": {"name": "n", "kind": "isolated"},
    "delete_network": {"name": "n"},
}


def give(one: Vm, message: m.AnyMessage, sender: str = "engine") -> Turn:
    done = turn(me="vm/v1", sender=sender)
    one.handle(message, done)
    return done


@pytest.mark.parametrize("verb", sorted(VM_TASKS))
def test_each_task_of_a_machine_is_a_request_of_its_own(verb: str) -> None:
    request = domain_request("v1", verb, ARGUMENTS.get(verb, {}))
    assert isinstance(request, p.DomainRequest)
    assert request.vm_id == "v1"
    with pytest.raises(BadInput, match="nonsense"):
        domain_request("v1", verb, {**ARGUMENTS.get(verb, {}), "nonsense": 1})


@pytest.mark.parametrize("verb", sorted(TIMEOUT_S_BY_HOST_TASK))
def test_each_task_of_a_host_is_a_request_of_its_own(verb: str) -> None:
    assert host_request(verb, HOST_ARGUMENTS.get(verb, {})) in [
        host_request(verb, HOST_ARGUMENTS.get(verb, {}))
    ]
    with pytest.raises(BadInput, match="nonsense"):
        host_request(verb, {**HOST_ARGUMENTS.get(verb, {}), "nonsense": 1})


def test_log_on_without_a_user_is_refused() -> None:
    with pytest.raises(BadInput, match="user"):
        domain_request("v1", "log_on", {})


def test_result_of_an_answer_is_json_without_its_tag() -> None:
    assert msgspec.json.decode(result_of(p.PoolList(pools=()))) == {"pools": []}
    assert result_of(None) == b""


# ---------------------------------------------------------------- the machine


def test_task_of_a_running_machine_goes_to_its_agent_and_is_awaited() -> None:
    one = vm(status=VmStatus.UP)
    done = give(one, ATTACH)
    task = m.TaskDomain("v1", one.record.epoch, "op-1", "attach_disk", DISK)
    assert done.sent == [(AGENT, task, True)]
    assert one.record.tasks == {"op-1": "attach_disk"}
    assert "task/op-1" in one.record.timers
    assert give(one, ATTACH).sent == [], "asked twice"


def test_task_that_was_done_leaves_its_hardware_and_ends_its_operation() -> None:
    one = vm(status=VmStatus.UP)
    give(one, ATTACH)
    kept = "hardware/" + msgspec.json.encode(("attach_disk", DISK)).decode()
    done = give(one, m.TaskEnded("H1", "op-1", True, result=kept))
    assert endings(done) == [m.OperationEnded("op-1", True)]
    assert one.record.hardware == Hardware(disks=(DiskSpec(name="vdb", source="/b"),))
    assert one.record.tasks == {}
    assert one.record.timers == {}


def test_answer_that_comes_after_the_deadline_still_leaves_its_hardware() -> None:
    one = vm(status=VmStatus.UP)
    give(one, ATTACH)
    one.record.timers.clear()
    late = give(one, m.TimerFired("task/op-1"))
    (ended,) = endings(late)
    assert not ended.succeeded
    assert "may have been done" in ended.reason
    kept = "hardware/" + msgspec.json.encode(("attach_disk", DISK)).decode()
    assert endings(give(one, m.TaskEnded("H1", "op-1", True, result=kept))) == []
    assert one.record.hardware is not None


def test_task_of_unknown_outcome_fails_and_says_so() -> None:
    one = vm(status=VmStatus.UP)
    give(one, ATTACH)
    done = give(one, m.TaskEnded("H1", "op-1", False, "no answer", "timed_out", outcome_known=False))
    (ended,) = endings(done)
    assert (ended.succeeded, ended.error_code) == (False, "timed_out")
    assert ended.reason == "no answer; it may have been done"


def test_task_that_fails_names_the_machine_as_people_do() -> None:
    one = vm(status=VmStatus.UP)
    give(one, m.TaskVm("op-1", m.VmTask("web", "log_on", {"user": "alice"})))
    told = m.TaskEnded("H1", "op-1", False, "the guest of machine v1 refused: no user alice", "guest_refused")
    done = give(one, told)
    (ended,) = endings(done)
    assert ended.reason == "the guest of machine web refused: no user alice"
    assert [event.message for event in done.events] == [
        "machine web: log_on failed: the guest of machine web refused: no user alice"
    ]


def test_task_of_a_machine_that_is_down_changes_its_hardware_at_once() -> None:
    one = vm(status=VmStatus.DOWN)
    done = give(one, ATTACH)
    assert endings(done) == [m.OperationEnded("op-1", True)]
    assert one.record.hardware is not None
    assert one.record.tasks == {}


def test_task_whose_machine_is_removed_ends_with_it() -> None:
    one = vm(status=VmStatus.UP)
    give(one, ATTACH)
    give(one, reported(VmStatus.DOWN, exit_reason=0))
    done = give(one, m.CommandVm("op-2", "remove"))
    first, second = endings(done)
    assert (first.operation_id, first.succeeded, second) == ("op-1", False, m.OperationEnded("op-2", True))
    assert "was removed" in first.reason
    assert "it may have been done" in first.reason


def test_task_that_names_no_device_there_is_refused() -> None:
    one = vm(status=VmStatus.UP)
    done = give(one, m.TaskVm("op-1", m.VmTask("web", "detach_disk", {"name": "vdb"})))
    (ended,) = endings(done)
    assert ended.error_code == "conflict"
    assert "no disk vdb" in ended.reason


def test_more_tasks_than_are_allowed_are_refused() -> None:
    one = vm(status=VmStatus.UP)
    for number in range(TASKS_PER_OBJECT_MAX):
        give(one, m.TaskVm(f"op-{number}", m.VmTask("web", "list_snapshots")))
    done = give(one, m.TaskVm("op-last", m.VmTask("web", "list_snapshots")))
    assert [ended.error_code for ended in endings(done)] == ["conflict"]


def test_answer_of_a_task_that_lists_is_the_operations_result() -> None:
    one = vm(status=VmStatus.UP)
    give(one, m.TaskVm("op-1", m.VmTask("web", "list_snapshots")))
    done = give(one, m.TaskEnded("H1", "op-1", True, result='{"snapshots":[]}'))
    assert endings(done) == [m.OperationEnded("op-1", True, result='{"snapshots":[]}')]


# ---------------------------------------------------------------- the agent


def test_agent_asks_its_hypervisor_and_tells_what_it_left() -> None:
    one = agent(domain())
    begun = turn(me="agent/H1", sender="vm/v1")
    one.handle(m.TaskDomain("v1", 3, "op-1", "attach_disk", DISK), begun)
    assert begun.calls == [
        ("hypervisor", p.AttachDisk(vm_id="v1", disk=DiskSpec(name="vdb", source="/b")), "task/op-1")
    ]
    ended = turn(me="agent/H1")
    one.handle(m.CallEnded("task/op-1", True), ended)
    kept = "hardware/" + msgspec.json.encode(("attach_disk", DISK)).decode()
    assert ended.sent == [("vm/v1", m.TaskEnded("H1", "op-1", True, result=kept), True)]
    assert one.domains["v1"].hardware == Hardware(disks=(DiskSpec(name="vdb", source="/b"),))


LOGON = m.TaskDomain("v1", 3, "op-1", "log_on", {"user": "alice", "session": "ttyS0"})


def asked_about(one: HostAgent, task: m.TaskDomain = LOGON) -> None:
    """At 100 s."""
    done = turn(me="agent/H1", sender="vm/v1", at_s=100.0)
    one.handle(task, done)
    assert done.calls == []
    assert done.sent == [("vm/v1", m.AskTask(task.operation_id), True)]


@pytest.mark.parametrize(("after_s", "begins"), [(0.0, True), (5.0, True), (5.1, False), (-1.0, False)])
def test_agent_begins_a_logon_only_while_it_is_fresh(after_s: float, begins: bool) -> None:
    one = agent(domain())
    asked_about(one)
    done = turn(me="agent/H1", sender="vm/v1", at_s=100.0 + after_s)
    one.handle(m.TaskWanted("op-1", wanted=True), done)
    assert [tag for _, _, tag in done.calls] == (["task/op-1"] if begins else [])
    if not begins:
        ((to, ended, _),) = done.sent
        assert isinstance(ended, m.TaskEnded)
        assert (to, ended.succeeded, ended.outcome_known) == ("vm/v1", False, True)
        assert "heard too late" in ended.reason
    again = turn(me="agent/H1", sender="vm/v1", at_s=101.0)
    one.handle(m.TaskWanted("op-1", wanted=True), again)
    assert (again.calls, again.sent) == ([], [])


def test_agent_begins_no_logon_that_nobody_waits_for() -> None:
    one = agent(domain())
    asked_about(one)
    done = turn(me="agent/H1", sender="vm/v1", at_s=100.0)
    one.handle(m.TaskWanted("op-1", wanted=False), done)
    assert (done.calls, done.sent, one.tasks.doubted) == ([], [], {})


def test_agent_begins_no_logon_to_a_machine_that_ended_while_it_asked() -> None:
    one = agent(domain())
    asked_about(one)
    one.domains["v1"].epoch = 4
    done = turn(me="agent/H1", sender="vm/v1", at_s=100.0)
    one.handle(m.TaskWanted("op-1", wanted=True), done)
    assert done.calls == []
    assert "epoch 4" in done.sent[0][1].reason  # type: ignore[union-attr]


def test_machine_says_whether_a_task_is_still_wanted() -> None:
    one = vm(status=VmStatus.UP, host="H1", agent=AGENT)
    give(one, m.TaskVm("op-1", m.VmTask("web", "log_on", {"user": "alice", "session": "ttyS0"})))
    assert give(one, m.AskTask("op-1"), AGENT).sent == [(AGENT, m.TaskWanted("op-1", wanted=True), True)]
    give(one, m.TimerFired("task/op-1"))
    assert give(one, m.AskTask("op-1"), AGENT).sent == [(AGENT, m.TaskWanted("op-1", wanted=False), True)]


@pytest.mark.parametrize("epoch", [2, 4])
def test_agent_refuses_a_task_of_another_epoch(epoch: int) -> None:
    one = agent(domain())
    done = turn(me="agent/H1", sender="vm/v1")
    one.handle(m.TaskDomain("v1", epoch, "op-1", "attach_disk", DISK), done)
    assert done.calls == []
    ((to, answer, _),) = done.sent
    assert to == "vm/v1"
    assert isinstance(answer, m.TaskEnded)
    assert not answer.succeeded
    assert "epoch 3" in answer.reason


def test_agent_passes_on_that_an_outcome_is_not_known() -> None:
    one = agent(domain())
    one.handle(m.TaskDomain("v1", 3, "op-1", "freeze_guest"), turn(me="agent/H1", sender="vm/v1"))
    done = turn(me="agent/H1")
    one.handle(m.CallEnded("task/op-1", False, b"no answer", "timed_out", False), done)
    told = m.TaskEnded("H1", "op-1", False, "no answer", "timed_out", outcome_known=False)
    assert done.sent == [("vm/v1", told, True)]


def test_agent_that_was_restarted_says_nothing_of_tasks_before() -> None:
    one = agent(domain())
    one.handle(m.TaskDomain("v1", 3, "op-1", "freeze_guest"), turn(me="agent/H1", sender="vm/v1"))
    one.tasks.restart()
    done = turn(me="agent/H1")
    one.handle(m.CallEnded("task/op-1", True), done)
    assert done.sent == []


def measure(one: HostAgent, *, epoch: int = 3, at_s: float = 100.0) -> Turn:
    done = turn(me="agent/H1", sender="vm/v1", at_s=at_s)
    one.handle(m.MeasureDomain("v1", epoch, "op-1"), done)
    return done


def test_agent_says_how_large_the_machine_is() -> None:
    one = agent(domain())
    assert measure(one).calls == [("hypervisor", p.ListDomains(), "measure/v1/3/op-1")]
    answered = turn(me="agent/H1")
    found = {"v1": FoundDomain(3, "up", "", "web", False, 2, 3 * 1024**3)}
    one.handle(listed("measure/v1/3/op-1", found), answered)
    assert answered.sent == [("vm/v1", m.DomainMeasured("H1", 3, "op-1", 2, 3 * 1024**3), True)]


def test_agent_says_no_size_that_its_hypervisor_does_not_know() -> None:
    one = agent(domain())
    measure(one)
    answered = turn(me="agent/H1")
    found = {"v1": FoundDomain(3, "up", "", "web", False, 2, 3 * 1024**3, None, size_known=False)}
    one.handle(listed("measure/v1/3/op-1", found), answered)
    assert answered.sent == []


@pytest.mark.parametrize("verb", ["set_vcpus", "plug_memory", "unplug_memory"])
def test_agent_says_no_size_while_a_task_may_change_it(verb: str) -> None:
    one = agent(domain())
    one.handle(
        m.TaskDomain("v1", 3, "op-1", verb, ARGUMENTS[verb]), turn(me="agent/H1", sender="vm/v1", at_s=100)
    )
    assert measure(one, at_s=100 + SIZE_TASK_S_MAX - 1).calls == []
    assert len(measure(one, at_s=100 + SIZE_TASK_S_MAX).calls) == 1, "no hypervisor works on it any more"
    one.handle(m.CallEnded("task/op-1", False, b"", "timed_out", False), turn(me="agent/H1"))
    assert len(measure(one, at_s=101).calls) == 1


def test_agent_says_no_size_of_what_it_does_not_have() -> None:
    assert measure(agent(domain()), epoch=4).calls == []
    assert measure(agent()).calls == []
    assert measure(agent(domain(), is_open=False)).calls == []
    one = agent(domain())
    for found in ({}, {"v1": FoundDomain(2, "up", "", "web", False, 2, 1)}):
        answered = turn(me="agent/H1")
        one.handle(listed("measure/v1/3/op-1", found), answered)
        assert answered.sent == []


# ---------------------------------------------------------------- the host


def test_task_of_a_host_goes_to_its_agent_and_ends_with_its_answer() -> None:
    one = host()
    done = turn(me="host/H1")
    one.handle(m.TaskHost("op-1", m.HostTask("H1", "list_pools")), done)
    assert [message for _, message, _ in done.sent] == [m.TaskOfHost("H1", "op-1", "list_pools")]
    ended = turn(me="host/H1")
    one.handle(m.TaskEnded("H1", "op-1", True, result='{"pools":[]}'), ended)
    assert endings(ended) == [m.OperationEnded("op-1", True, result='{"pools":[]}')]
    assert one.record.tasks == {}


def test_task_of_a_host_that_does_not_answer_is_refused() -> None:
    one = host(status=HostStatus.NON_RESPONSIVE)
    done = turn(me="host/H1")
    one.handle(m.TaskHost("op-1", m.HostTask("H1", "list_pools")), done)
    assert [ended.error_code for ended in endings(done)] == ["conflict"]


def test_task_of_a_host_that_is_not_answered_ends_by_its_deadline() -> None:
    one = host()
    one.handle(m.TaskHost("op-1", m.HostTask("H1", "list_pools")), turn(me="host/H1"))
    late = turn(me="host/H1")
    one.handle(m.TimerFired("task/op-1"), late)
    (ended,) = endings(late)
    assert "may have been done" in ended.reason


# ---------------------------------------------------------------- the guest and the screen


def test_what_a_guest_says_is_kept_once_and_not_from_another_host() -> None:
    from tests.unit.hypervisor_backends.bench import simulated_bench, start_of  # facts of a real backend

    bench, _ = simulated_bench()
    bench.succeed(start_of())
    facts = bench.backend.statistics()[1][0].guest
    assert facts is not None
    one = vm(status=VmStatus.UP)
    told = m.GuestTold("H1", one.record.epoch, msgspec.json.encode(facts))
    assert one.record in give(one, told).saved
    assert one.record.guest_hostname == facts.hostname
    assert give(one, told).saved == []
    assert give(one, m.GuestTold("H9", one.record.epoch, b"{}")).saved == []


def test_console_of_a_machine_that_is_down_is_refused_through_the_engine() -> None:
    one = vm(status=VmStatus.DOWN, host=None, agent=None)
    done = give(one, m.AskConsole("client/1/1"))
    ((to, answer, durable),) = done.sent
    assert (to, durable) == ("engine", False)
    assert isinstance(answer, m.PassOn)
    assert isinstance(answer.body, m.Refusal)


def test_console_ticket_is_told_and_kept_nowhere() -> None:
    one = agent(domain())
    asked = turn(me="agent/H1", sender="vm/v1")
    one.handle(m.OpenConsole("v1", 3, "client/1/1", 60), asked)
    ticket = m.ConsoleTicket("vnc", "10.0.0.1", 5900, "s3cret", 1)
    done = turn(me="agent/H1")
    one.handle(m.CallEnded("console/client/1/1", True, msgspec.msgpack.encode(ticket)), done)
    assert done.sent == [("engine", m.PassOn("client/1/1", ticket), False)]
    assert done.saved == []
    assert "s3cret" not in repr(ticket)


def test_news_of_a_guest_are_fetched_soon_and_its_sessions_are_events() -> None:
    one = agent(domain())
    news = turn(me="agent/H1")
    one.handle(m.DomainHappened("v1", 3, "guest_event", None, "facts", ""), news)
    assert [name for name, _ in news.timers] == ["sample"]
    session = turn(me="agent/H1")
    one.handle(m.DomainHappened("v1", 3, "guest_event", None, "session-logon alice", ""), session)
    assert [event.code for event in session.events] == ["vm_guest_event"]
