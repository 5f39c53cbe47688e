"""NUMA balance fit: the host, and the node in it, that leave a host's nodes most even.

How uneven a host is: the difference between its freest and its fullest node, in vCPUs and in memory, each as a share of
what one node has, added up. A VM that is spread over all nodes leaves that as it is, and one that asks for several gets
the lowest with room. Of hosts that would be equally even the fullest is taken, as in best fit; of nodes the lowest.

Cost: O(hosts) for each decision, and the square of the nodes within each host with room.
"""

from __future__ import annotations

import numpy as np

from olvm.experiments.compilation import compiled
from olvm.experiments.kernels.best_fit import has_room
from olvm.experiments.kernels.state import Ask, Fleet


@compiled
def lowest_nodes(fleet: Fleet, host: int, ask: Ask) -> int:
    """A bit for each node that a VM gets of a host with room, where it has no choice to make: the lowest with room."""
    nodes, missing = np.int64(0), ask.parts
    for node in range(ask.node_count):
        at = host * ask.node_count + node
        if missing > 0 and fleet.node_cpu[at] >= ask.cpu and fleet.node_mem[at] >= ask.mem:
            nodes |= np.int64(1) << np.int64(node)
            missing -= 1
    return int(nodes)


@compiled
def unevenness(fleet: Fleet, host: int, nodes: int, ask: Ask) -> float:
    """After the VM has come to the nodes with a bit."""
    first = host * ask.node_count
    cpu_least = cpu_most = fleet.node_cpu[first] - (ask.cpu if nodes & 1 else 0)
    mem_least = mem_most = fleet.node_mem[first] - (ask.mem if nodes & 1 else 0)
    for k in range(1, ask.node_count):
        cpu = fleet.node_cpu[first + k] - (ask.cpu if nodes >> k & 1 else 0)
        mem = fleet.node_mem[first + k] - (ask.mem if nodes >> k & 1 else 0)
        cpu_least, cpu_most = min(cpu_least, cpu), max(cpu_most, cpu)
        mem_least, mem_most = min(mem_least, mem), max(mem_most, mem)
    node_cpu = max(1, fleet.cpu_capacity[host] // ask.node_count)
    node_mem = max(1, fleet.mem_capacity[host] // ask.node_count)
    return float((cpu_most - cpu_least) / node_cpu + (mem_most - mem_least) / node_mem)


@compiled
def most_even_node(fleet: Fleet, host: int, ask: Ask) -> int:
    """For a VM of one node, of a host with room."""
    best, best_value = -1, 0.0
    for k in range(ask.node_count):
        at = host * ask.node_count + k
        if fleet.node_cpu[at] >= ask.cpu and fleet.node_mem[at] >= ask.mem:
            value = unevenness(fleet, host, 1 << k, ask)
            if best < 0 or value < best_value:
                best, best_value = k, value
    return best


@compiled
def find_most_even(fleet: Fleet, ask: Ask) -> int:
    """The host; -1 if none has room."""
    best, best_value = -1, 0.0
    for host in range(len(fleet.host_cpu)):
        if not has_room(fleet, host, ask):
            continue
        nodes = 1 << most_even_node(fleet, host, ask) if ask.parts == 1 else lowest_nodes(fleet, host, ask)
        value = unevenness(fleet, host, nodes, ask)
        if best < 0 or value < best_value or (value == best_value and fuller(fleet, host, best)):
            best, best_value = host, value
    return best


@compiled
def fuller(fleet: Fleet, one: int, other: int) -> bool:
    """Host `one` has fewer vCPUs free than `other`, or as many and less memory."""
    if fleet.host_cpu[one] != fleet.host_cpu[other]:
        return bool(fleet.host_cpu[one] < fleet.host_cpu[other])
    return bool(fleet.host_mem[one] < fleet.host_mem[other])
