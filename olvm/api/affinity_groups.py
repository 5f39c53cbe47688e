"""Affinity groups of a cluster: machines that are kept together or apart, and hosts that they keep to or off."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from olvm.api.operation import Operation
from olvm.api.tables import Table
from olvm.api.words import checked_word
from olvm.model import messages as m
from olvm.model.errors import NotFound
from olvm.model.records import AffinityGroupRecord

RULES: tuple[m.Rule, ...] = get_args(m.Rule)


class AffinityGroups(Table[AffinityGroupRecord]):
    """Of one cluster (`cluster.affinity_groups`), or of all (`dc.affinity_groups`: `list` alone)."""

    record = AffinityGroupRecord

    def set(
        self,
        name: str,
        *,
        vms: Iterable[str] = (),
        hosts: Iterable[str] = (),
        vms_rule: str = "disabled",
        vms_enforcing: bool = False,
        hosts_rule: str = "disabled",
        hosts_enforcing: bool = False,
        priority: float = 1.0,
        client_request_id: str | None = None,
    ) -> Operation:
        """Create a group, or replace the one of that name.

        Args:
            vms: names or ids of machines of the cluster.
            hosts: names of hosts of the cluster.
            vms_rule: "positive": the machines run on one host; "negative": each on another; "disabled".
            vms_enforcing: True: a machine does not start where that would break the rule; False: it is preferred
                not to. Running machines are moved in the end so that the rule holds.
            hosts_rule: "positive": the machines run on these hosts; "negative": on others; "disabled".
            hosts_enforcing: likewise.
            priority: above 0; of two rules that contradict each other the higher one wins.

        Raises:
            NotFound, BadInput: refused; nothing has changed.
            Conflict: from `wait`; the rules contradict those of another group, which the reason names.
        """
        command = m.SetAffinityGroup(
            name=name,
            cluster=self._cluster(),
            vms=list(vms),
            hosts=list(hosts),
            vms_rule=checked_word("vms_rule", vms_rule, RULES),
            vms_enforcing=vms_enforcing,
            hosts_rule=checked_word("hosts_rule", hosts_rule, RULES),
            hosts_enforcing=hosts_enforcing,
            priority=priority,
        )
        return self._dc.submit(command, f"set affinity group {name}", client_request_id)

    def remove(self, name: str, *, client_request_id: str | None = None) -> Operation:
        """Remove a group; its machines stay where they are. `wait` raises `NotFound` when there is none."""
        command = m.RemoveAffinityGroup(name, self._cluster())
        return self._dc.submit(command, f"remove affinity group {name}", client_request_id)

    def row(self, name: str) -> AffinityGroupRecord:
        """The group of that name, in this cluster; `NotFound` when there is none."""
        found = [one for one in self.rows() if one.name == name]
        if not found:
            raise NotFound(f"affinity group {name} does not exist; `olvm affinity list` shows those that do")
        return found[0]

    def list(self, where: str = "") -> list[AffinityGroupRecord]:
        """Groups that match a search, by name."""
        return self.rows(where)

    def _cluster(self) -> str:
        if not self._restriction:
            raise NotFound("no cluster was named; use `dc.clusters.get(name).affinity_groups`")
        return self._restriction
