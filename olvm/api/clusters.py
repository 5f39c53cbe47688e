"""Clusters of a data center: handles with their hosts, machines and affinity groups, and the collection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from olvm.api.affinity_groups import AffinityGroups
from olvm.api.hosts import Hosts
from olvm.api.operation import Operation
from olvm.api.policies import PolicyLike, policy_of
from olvm.api.tables import Table
from olvm.api.vms import Vms
from olvm.model import messages as m
from olvm.model.records import ClusterRecord

if TYPE_CHECKING:
    from olvm.api.data_center import DataCenter

CREATE_WAIT_S = 120.0


class Cluster:
    """One cluster, by name, with its hosts and machines."""

    def __init__(self, dc: DataCenter, name: str) -> None:
        self._dc = dc
        self.name = name
        self.hosts = Hosts(dc, name)
        self.vms = Vms(dc, name)
        self.affinity_groups = AffinityGroups(dc, name)

    def update(
        self,
        *,
        policy: PolicyLike | None = None,
        policy_parameters: dict[str, float] | None = None,
        memory_overcommit_percent: int | None = None,
        cpu_overcommit_percent: int | None = None,
        migration_policy: str | None = None,
        migration_bandwidth_mib_s: float | None = None,
        fencing: bool | None = None,
        fencing_skip_if_lease_live: bool | None = None,
        fencing_skip_if_connectivity_broken: bool | None = None,
        fencing_connectivity_threshold_percent: int | None = None,
        ha_reservation: bool | None = None,
        client_request_id: str | None = None,
    ) -> Operation:
        """Change what is given. `Clusters.create` says what each is."""
        policy_name, definition = (None, None) if policy is None else policy_of(policy)
        command = m.UpdateCluster(
            name=self.name,
            policy=policy_name,
            policy_parameters=policy_parameters,
            memory_overcommit_percent=memory_overcommit_percent,
            cpu_overcommit_percent=cpu_overcommit_percent,
            migration_policy=migration_policy,
            migration_bandwidth_mib_s=migration_bandwidth_mib_s,
            fencing=fencing,
            fencing_skip_if_lease_live=fencing_skip_if_lease_live,
            fencing_skip_if_connectivity_broken=fencing_skip_if_connectivity_broken,
            fencing_connectivity_threshold_percent=fencing_connectivity_threshold_percent,
            ha_reservation=ha_reservation,
            policy_definition=definition,
        )
        return self._dc.submit(command, f"update cluster {self.name}", client_request_id)

    def shutdown(self, *, timeout: float | None = None, client_request_id: str | None = None) -> Operation:
        """Shut all machines down in order and put all hosts into maintenance; `start` brings back what ran.

        Args:
            timeout: seconds for all of it; None: the configuration's `cluster_power_timeout_s`.
        """
        return self._power("shutdown", timeout, client_request_id)

    def start(self, *, timeout: float | None = None, client_request_id: str | None = None) -> Operation:
        """Activate the hosts and start the machines that ran before `shutdown`, highest priority first.

        Args:
            timeout: seconds for all of it; None: the configuration's `cluster_power_timeout_s`.
        """
        return self._power("start", timeout, client_request_id)

    def _power(
        self, verb: Literal["shutdown", "start"], timeout: float | None, request_id: str | None
    ) -> Operation:
        command = m.ClusterCommand(self.name, verb, timeout)
        return self._dc.submit(command, f"{verb} cluster {self.name}", request_id)

    def remove(self) -> Operation:
        return self._dc.submit(m.RemoveCluster(self.name), f"remove cluster {self.name}")

    @property
    def record(self) -> ClusterRecord:
        return self._dc.clusters.row(self.name)

    def __repr__(self) -> str:
        return f"<Cluster {self.name}>"


class Clusters(Table[ClusterRecord]):
    record = ClusterRecord

    def create(
        self,
        name: str,
        *,
        policy: PolicyLike = "none",
        policy_parameters: dict[str, float] | None = None,
        memory_overcommit_percent: int = 100,
        cpu_overcommit_percent: int = 0,
        migration_policy: str = "minimal_downtime",
        migration_bandwidth_mib_s: float = 0.0,
        fencing: bool = True,
        fencing_skip_if_lease_live: bool = True,
        fencing_skip_if_connectivity_broken: bool = True,
        fencing_connectivity_threshold_percent: int = 50,
        ha_reservation: bool = False,
        client_request_id: str | None = None,
    ) -> Cluster:
        """Create a cluster without hosts.

        Args:
            policy: scheduling policy: "none", "evenly_distributed", "power_saving", "vm_evenly_distributed" or
                "cluster_maintenance"; a TOML file with one of your own, or its fields; or a class of your own, by
                name as "my_policies:BestFit", which the engine can import. docs/scheduling.md has all of it.
            memory_overcommit_percent: of the hosts' memory, 100 to 1000.
            cpu_overcommit_percent: of the hosts' CPUs, 0 (no bound) to 10000.
            migration_policy: of machines that have none of their own: "minimal_downtime", "post_copy",
                "suspend_workload" or "legacy".
            migration_bandwidth_mib_s: of one host in each direction; 0: the configuration's, for one migration.
            fencing: hosts that stay silent are fenced, where they have fence devices.
            fencing_skip_if_lease_live: not while the host still renews its lease on the storage.
            fencing_skip_if_connectivity_broken: not while so many hosts are silent that the fault is rather the
                engine's own network.
            fencing_connectivity_threshold_percent: how many that is, 1 to 100 percent of the hosts.
            ha_reservation: check that what is highly available still fits when any one host is lost, and warn.

        Raises:
            DuplicateName, BadInput: refused; nothing has changed.
        """
        policy_name, definition = policy_of(policy)
        command = m.CreateCluster(
            name=name,
            policy=policy_name,
            policy_parameters=policy_parameters or {},
            memory_overcommit_percent=memory_overcommit_percent,
            cpu_overcommit_percent=cpu_overcommit_percent,
            migration_policy=migration_policy,
            migration_bandwidth_mib_s=migration_bandwidth_mib_s,
            fencing=fencing,
            fencing_skip_if_lease_live=fencing_skip_if_lease_live,
            fencing_skip_if_connectivity_broken=fencing_skip_if_connectivity_broken,
            fencing_connectivity_threshold_percent=fencing_connectivity_threshold_percent,
            ha_reservation=ha_reservation,
            policy_definition=definition,
        )
        self._dc.submit(command, f"create cluster {name}", client_request_id).wait(CREATE_WAIT_S)
        return Cluster(self._dc, name)

    def row(self, name: str) -> ClusterRecord:
        return self._one("cluster", name, "name")

    def get(self, name: str) -> Cluster:
        """The cluster of that name; `NotFound` when there is none."""
        return Cluster(self._dc, self.row(name).name)

    def list(self, where: str = "") -> list[ClusterRecord]:
        return self.rows(where)
