"""Placement as a Gymnasium environment: an agent gets each VM of a trace in turn and says which host takes it.

The world is that of a replay with the queue `reject`: the same departures, the same room, NUMA nodes included. An agent
that always takes the lowest host with room ends with the digest of `first_fit`; a test says so.

Needs the extra `gym` (`pip install 'olvm[gym]'`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from olvm.experiments.grids.sampling import sampled
from olvm.experiments.host_specs import HostFleet, parse_hosts
from olvm.experiments.kernels.samples import no_samples
from olvm.experiments.kernels.state import ACTIVE, REFUSED
from olvm.experiments.object_policies import ObjectLoop, ObjectPolicy
from olvm.experiments.running import OWN_POLICY, Prepared
from olvm.experiments.trace import read_trace
from olvm.model.errors import BadInput
from olvm.scheduling.user_policies import load_user_policy

HOST_FEATURES = ("free_vcpus", "free_memory", "capacity_vcpus", "capacity_memory", "is_used")
SECONDS_PER_HOUR = 3600.0
_SEEDS = 2**31

Observation = dict[str, npt.NDArray[np.float32]]


class _Agent:
    """The agent in the place of a policy's object: its choice comes by `send`, so this is never asked."""

    def choose(self, vm: object, hosts: object) -> int | None:
        del vm, hosts
        raise AssertionError("an environment's policy is not asked")


class PlacementEnv(gymnasium.Env[Observation, np.int64]):
    """One episode is one trace, or a part of it that the seed of `reset` draws.

    Observation: `hosts`, float32 (hosts, 5): free vCPUs and memory, capacity of both, each as a share of the fleet's
    largest host, and 1 where the host has a VM. `request`, float32 (2,): vCPUs and memory that the VM asks for, in the
    same shares.

    Action: the index of a host. `action_masks()` says which have room: there is always at least one, for a VM that no
    host has room for is refused without asking. An action without room refuses the VM.

    Reward: less the hours that hosts had VMs since the last decision, all hosts together, over the number of hosts; and
    less `refusal_cost` for each VM that was refused since then. The time after the last decision is not in it.

    Args:
        trace, hosts, numa_nodes, split_above_gib: as `olvm.experiments.replay` takes them.
        window_vms, keep: which part of the trace an episode sees, as in a grid; 0 and 1: all of it, each time.
        refusal_cost: of one VM, in the reward's unit: hours that all hosts are in use.

    Raises:
        BadInput: a trace, hosts or parameter that makes no sense.
    """

    metadata = {"render_modes": []}

    def __init__(
        self,
        trace: object = "azure-v1",
        hosts: str | HostFleet = "100x64c256g",
        *,
        numa_nodes: int = 1,
        split_above_gib: float | None = None,
        window_vms: int = 0,
        keep: float = 1.0,
        refusal_cost: float = 1.0,
    ) -> None:
        from olvm.experiments.replays import checked_nodes

        self._trace = read_trace(trace)
        self._hosts = parse_hosts(hosts)
        self._node_count, self._split_above = checked_nodes(numa_nodes, split_above_gib)
        if window_vms < 0 or window_vms > len(self._trace):
            raise BadInput(
                f"an episode cannot have {window_vms} VMs: the trace has {len(self._trace)}; 0 means all"
            )
        if not 0 < keep <= 1:
            raise BadInput(
                f"an episode cannot keep a share of {keep:g} of its VMs: give more than 0, at most 1"
            )
        self._window_vms, self._keep, self._refusal_cost = window_vms, keep, refusal_cost
        count = len(self._hosts)
        self.observation_space: spaces.Space[Any] = spaces.Dict(
            {
                "hosts": spaces.Box(0.0, 1.0, (count, len(HOST_FEATURES)), np.float32),
                # What is larger than every host is refused before it is seen.
                "request": spaces.Box(0.0, 1.0, (2,), np.float32),
            }
        )
        self.action_space = spaces.Discrete(count)
        self._decisions: Generator[int | None, int | None, None] | None = None
        self._vm: int | None = None  # that waits for a host

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        del options
        drawn = int(self.np_random.integers(_SEEDS))
        trace = sampled(self._trace, self._window_vms, self._keep, drawn)
        self._prepared = Prepared.of(trace, self._hosts, self._node_count, self._split_above)
        self._world = self._prepared.world(OWN_POLICY, 0, no_samples())
        policy = ObjectPolicy(load_user_policy(_Agent()))
        self._loop = _MeteredLoop(self._world, trace, self._hosts, policy, self._node_count)
        self._loop.begin(float(trace.arrival_s[0]))
        self._decisions = self._loop.decisions(is_fifo=False)
        self._refused = 0
        self._go_on(None)
        return self._observation(), self._info()

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        if self._decisions is None or self._vm is None:
            raise BadInput("the episode is over: reset the environment")
        index = int(action)
        if not 0 <= index < len(self._hosts):
            raise BadInput(f"there is no host {index}: the environment has {len(self._hosts)}")
        is_valid = bool(self._loop.hosts.fits[index])
        reward = self._go_on(index if is_valid else None)
        is_over = self._vm is None
        return self._observation(), reward, is_over, False, {**self._info(), "had_room": is_valid}

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """True where the VM that waits has room. All true once the episode is over: nothing is asked any more."""
        if self._vm is None:
            return np.ones(len(self._hosts), np.bool_)
        return self._loop.hosts.fits

    def figures(self) -> dict[str, Any]:
        """What a replay answers: placed, rejected, hosts_peak, digest, … (docs/experiments.md)."""
        return self._prepared.figures(self._world)

    def _go_on(self, host: int | None) -> float:
        """To the next VM that some host has room for; what that cost."""
        assert self._decisions is not None
        self._vm = None
        for vm in self._asked(host):
            if vm is not None:
                self._loop.ask_of(vm)
                if self._loop.hosts.fits.any():
                    self._vm = vm
                    break
        refused = int(self._world.progress.counts[REFUSED])
        cost = self._loop.take_host_seconds() / SECONDS_PER_HOUR / len(self._hosts)
        cost += self._refusal_cost * (refused - self._refused)
        self._refused = refused
        return -cost

    def _asked(self, host: int | None) -> Iterator[int | None]:
        assert self._decisions is not None
        with contextlib.suppress(StopIteration):
            yield self._decisions.send(host)  # the first is sent None: a generator that has not begun
            while True:
                yield self._decisions.send(None)

    def _observation(self) -> Observation:
        fleet = self._world.fleet
        cpu, memory = fleet.share
        hosts = np.stack(
            [
                fleet.host_cpu * cpu,
                fleet.host_mem * memory,
                fleet.cpu_capacity * cpu,
                fleet.mem_capacity * memory,
                fleet.vm_count > 0,
            ],
            axis=1,
        )
        request = np.zeros(2)
        if self._vm is not None:
            parts = int(self._world.requests.parts[self._vm])
            asked = self._world.requests.cpu[self._vm], self._world.requests.mem[self._vm]
            request = np.array([asked[0] * parts * cpu, asked[1] * parts * memory])
        return {"hosts": hosts.astype(np.float32), "request": request.astype(np.float32)}

    def _info(self) -> dict[str, Any]:
        """`vm`: number of the VM that waits, in the episode's order; None once it is over."""
        counts = self._world.progress.counts
        return {"vm": self._vm, "refused": int(counts[REFUSED]), "used_hosts": int(counts[ACTIVE])}


class _MeteredLoop(ObjectLoop):
    """Counts how long hosts have had VMs, all together."""

    def begin(self, now_s: float) -> None:
        self._since_s, self._host_seconds = now_s, 0.0

    def take_host_seconds(self) -> float:
        """Since it was last asked."""
        taken, self._host_seconds = self._host_seconds, 0.0
        return taken

    def _pass_to(self, now_s: float) -> None:
        self._host_seconds += float(self._world.progress.counts[ACTIVE]) * (now_s - self._since_s)
        self._since_s = now_s

    def _leave(self, vm: int) -> None:
        requests = self._world.requests
        self._pass_to(float(requests.start_s[vm] + requests.lifetime_s[vm]))
        super()._leave(vm)

    def _until(self, now_s: float) -> Iterator[None]:
        yield from super()._until(now_s)
        self._pass_to(float(now_s))
