"""How a command becomes an operation: who is meant, whether it can be asked at all, and to whom it goes.

Rule: everything that can refuse comes before the first change, so that a refused command leaves nothing behind.
What depends on the present state of a machine, host or cluster is asked of its actor, later; a refusal there ends
the operation.
"""

from __future__ import annotations

from typing import assert_never

from actors import command_checks as check
from actors.behaviour import Turn
from actors.cluster import Cluster
from actors.host import Host
from actors.vm import Vm
from actors.wire import at_silo
from olvm.model import messages as m
from olvm.model.errors import BadInput, Conflict, DuplicateName, NotFound
from olvm.model.names import check_name
from olvm.model.records import InventoryRecord, OperationRecord

# What is about clusters, hosts and machines; the rest of m.Command is about users: actors/users.py.
InventoryCommand = (
    m.VmCommand
    | m.VmTask
    | m.HostTask
    | m.CreateVm
    | m.UpdateVm
    | m.AddHost
    | m.HostCommand
    | m.CreateCluster
    | m.UpdateCluster
    | m.RemoveCluster
    | m.ClusterCommand
    | m.SetAffinityGroup
    | m.RemoveAffinityGroup
)


class Inventory:
    """The unique names of clusters, hosts and machines, and the actors behind them."""

    def __init__(self, items: dict[str, InventoryRecord]) -> None:
        self.items = items
        self.key_by_vm_id = {item.id: item.key for item in items.values() if item.kind == "vm"}

    def item(self, kind: str, name: str) -> InventoryRecord:
        """Raises `NotFound`."""
        item = self.items.get(f"{kind}/{name}")
        if item is None:
            raise NotFound(f"{kind} {name} does not exist; `olvm {kind} list` shows those that do")
        return item

    def vm(self, name_or_id: str) -> InventoryRecord:
        key = self.key_by_vm_id.get(name_or_id)
        return self.items[key] if key is not None else self.item("vm", name_or_id)

    def check_free(self, kind: str, name: str) -> None:
        check_name(kind, name)
        if f"{kind}/{name}" in self.items:
            raise DuplicateName(f"{kind} {name} exists already; choose another name or remove it first")

    def names_in(self, cluster: str) -> list[str]:
        """Hosts and machines of a cluster, sorted."""
        return sorted(item.name for item in self.items.values() if item.cluster == cluster)

    def add(self, item: InventoryRecord, turn: Turn) -> None:
        self.items[item.key] = item
        if item.kind == "vm":
            self.key_by_vm_id[item.id] = item.key
        turn.save(item)

    def remove(self, kind: str, name: str, turn: Turn) -> None:
        item = self.items.pop(f"{kind}/{name}", None)
        if item is not None:
            self.key_by_vm_id.pop(item.id, None)
            turn.erase(item)


def accept(
    command: InventoryCommand,
    operation: OperationRecord,
    inventory: Inventory,
    turn: Turn,
    host_epoch_removed: int,
) -> None:
    """Fill in what `operation` is about and send its command on. A new host's epochs are above `host_epoch_removed`.

    Raises:
        BadInput, NotFound, Conflict: refused; nothing has changed.
    """
    match command:
        case m.VmCommand():
            _command_vm(command, operation, inventory, turn)
        case m.VmTask():
            _task_vm(command, operation, inventory, turn)
        case m.HostTask():
            _task_host(command, operation, inventory, turn)
        case m.CreateVm():
            _create_vm(command, operation, inventory, turn)
        case m.UpdateVm():
            _update_vm(command, operation, inventory, turn)
        case m.AddHost():
            _add_host(command, operation, inventory, turn, host_epoch_removed)
        case m.HostCommand():
            _command_host(command, operation, inventory, turn)
        case m.CreateCluster():
            _create_cluster(command, operation, inventory, turn)
        case m.UpdateCluster():
            _update_cluster(command, operation, inventory, turn)
        case m.RemoveCluster():
            _remove_cluster(command, operation, inventory, turn)
        case m.ClusterCommand():
            _command_cluster(command, operation, inventory, turn)
        case m.SetAffinityGroup():
            _set_affinity_group(command, operation, inventory, turn)
        case m.RemoveAffinityGroup():
            _remove_affinity_group(command, operation, inventory, turn)
        case _:
            assert_never(command)


def describe(operation: OperationRecord, kind: str, target_kind: str, target_id: str, name: str) -> None:
    operation.kind = kind
    operation.target_kind = target_kind
    operation.target_id = target_id
    operation.target_name = name


# ---------------------------------------------------------------- clusters


def _create_cluster(
    command: m.CreateCluster, operation: OperationRecord, inventory: Inventory, turn: Turn
) -> None:
    inventory.check_free("cluster", command.name)
    check.cluster_settings(command)
    describe(operation, "create_cluster", "cluster", command.name, command.name)
    address = f"cluster/{command.name}"
    inventory.add(
        InventoryRecord(key=address, kind="cluster", name=command.name, id=command.name, address=address),
        turn,
    )
    turn.spawn(Cluster.new(command.name))
    turn.send(address, m.StartCluster(operation.id, command))


def _update_cluster(
    command: m.UpdateCluster, operation: OperationRecord, inventory: Inventory, turn: Turn
) -> None:
    item = inventory.item("cluster", command.name)
    check.cluster_settings(command)
    describe(operation, "update_cluster", "cluster", item.id, item.name)
    turn.send(item.address, m.ChangeCluster(operation.id, command))


def _remove_cluster(
    command: m.RemoveCluster, operation: OperationRecord, inventory: Inventory, turn: Turn
) -> None:
    item = inventory.item("cluster", command.name)
    inside = inventory.names_in(item.name)
    if inside:
        raise Conflict(
            f"cannot remove cluster {item.name}: it holds {len(inside)} hosts and machines "
            f"({', '.join(inside[:3])}{', …' if len(inside) > 3 else ''}); remove them first"
        )
    describe(operation, "remove_cluster", "cluster", item.id, item.name)
    turn.send(item.address, m.EndCluster(operation.id))


def _command_cluster(
    command: m.ClusterCommand, operation: OperationRecord, inventory: Inventory, turn: Turn
) -> None:
    item = inventory.item("cluster", command.name)
    check.timeout(f"{command.verb} of cluster {item.name}", command.timeout_s)
    describe(operation, f"{command.verb}_cluster", "cluster", item.id, item.name)
    turn.send(item.address, m.CommandCluster(operation.id, command))


def _set_affinity_group(
    command: m.SetAffinityGroup, operation: OperationRecord, inventory: Inventory, turn: Turn
) -> None:
    cluster = inventory.item("cluster", command.cluster)
    check.affinity_group(command)
    members = [inventory.vm(vm) for vm in command.vms]
    members += [inventory.item("host", host) for host in command.hosts]
    for member in members:
        if member.cluster != cluster.name:
            raise BadInput(
                f"affinity group {command.name}: {member.kind} {member.name} is in cluster {member.cluster}, "
                f"not in {cluster.name}; a group holds members of one cluster"
            )
    _describe_group(command, operation, "set_affinity_group")
    vm_ids = [member.id for member in members if member.kind == "vm"]
    turn.send(cluster.address, m.ChangeAffinity(operation.id, command, vm_ids))


def _remove_affinity_group(
    command: m.RemoveAffinityGroup, operation: OperationRecord, inventory: Inventory, turn: Turn
) -> None:
    """Whether there is such a group, its cluster knows."""
    cluster = inventory.item("cluster", command.cluster)
    _describe_group(command, operation, "remove_affinity_group")
    turn.send(cluster.address, m.ChangeAffinity(operation.id, command))


def _describe_group(
    command: m.SetAffinityGroup | m.RemoveAffinityGroup, operation: OperationRecord, kind: str
) -> None:
    describe(operation, kind, "affinity_group", f"{command.cluster}/{command.name}", command.name)


# ---------------------------------------------------------------- hosts


def _add_host(
    command: m.AddHost, operation: OperationRecord, inventory: Inventory, turn: Turn, host_epoch_removed: int
) -> None:
    inventory.check_free("host", command.name)
    inventory.item("cluster", command.cluster)
    check.new_host(command)
    describe(operation, "add_host", "host", command.name, command.name)
    address = f"host/{command.name}"
    inventory.add(
        InventoryRecord(
            key=address,
            kind="host",
            name=command.name,
            id=command.name,
            cluster=command.cluster,
            address=address,
        ),
        turn,
    )
    turn.spawn(Host.new(command.name, command.cluster, turn.now_ns, host_epoch_removed))
    turn.send(address, m.RegisterHost(operation.id, command))


def _command_host(
    command: m.HostCommand, operation: OperationRecord, inventory: Inventory, turn: Turn
) -> None:
    item = inventory.item("host", command.host)
    check.host_command(command)
    describe(operation, f"{command.action}_host", "host", item.id, item.name)
    turn.send(item.address, m.CommandHost(operation.id, command.action, command.timeout_s))


def _task_host(command: m.HostTask, operation: OperationRecord, inventory: Inventory, turn: Turn) -> None:
    item = inventory.item("host", command.host)
    check.host_task(command)
    describe(operation, command.verb, "host", item.id, item.name)
    turn.send(item.address, m.TaskHost(operation.id, command))


# ---------------------------------------------------------------- machines


def _create_vm(command: m.CreateVm, operation: OperationRecord, inventory: Inventory, turn: Turn) -> None:
    inventory.check_free("vm", command.name)
    inventory.item("cluster", command.cluster)
    check.new_vm(command)
    for host in command.pinned_hosts:
        inventory.item("host", host)
    vm_id = turn.new_id()
    describe(operation, "create_vm", "vm", vm_id, command.name)
    address = at_silo(f"vm/{vm_id}", command.silo) if command.silo else f"vm/{vm_id}"
    inventory.add(
        InventoryRecord(
            key=f"vm/{command.name}",
            kind="vm",
            name=command.name,
            id=vm_id,
            cluster=command.cluster,
            address=address,
        ),
        turn,
    )
    register = m.RegisterVm(operation.id, vm_id, command)
    if command.silo:
        turn.send(at_silo("vms", command.silo), register)
    else:
        turn.spawn(Vm.new(register, turn.now_ns))
        turn.send(address, register)


def _update_vm(command: m.UpdateVm, operation: OperationRecord, inventory: Inventory, turn: Turn) -> None:
    item = inventory.vm(command.vm)
    check.vm_change(item.name, command)
    describe(operation, "update_vm", "vm", item.id, item.name)
    turn.send(item.address, m.ChangeVm(operation.id, command))


def _command_vm(command: m.VmCommand, operation: OperationRecord, inventory: Inventory, turn: Turn) -> None:
    item = inventory.vm(command.vm)
    check.timeout(f"{command.verb} of {item.name}", command.timeout_s)
    if command.to_host is not None:
        inventory.item("host", command.to_host)
    describe(operation, f"{command.verb}_vm", "vm", item.id, item.name)
    turn.send(item.address, m.CommandVm(operation.id, command.verb, command.timeout_s, command.to_host))


def _task_vm(command: m.VmTask, operation: OperationRecord, inventory: Inventory, turn: Turn) -> None:
    item = inventory.vm(command.vm)
    check.vm_task(item.name, command)
    describe(operation, command.verb, "vm", item.id, item.name)
    turn.send(item.address, m.TaskVm(operation.id, command))
