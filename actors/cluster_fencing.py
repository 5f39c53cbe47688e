"""May a host be fenced now, and through whom?

Asked anew before each step of each host's fence flow, so a storm is seen by all of its hosts and not only by those
whose turn comes late. Pure: it knows statuses and the cluster's settings.

Rule: when at least `fencing_connectivity_threshold_percent` of the hosts that should be Up are silent, and more than
one is, the fault is more likely the engine's network than the hosts. A single silent host says nothing about the
network, or a cluster of two could never be fenced.
"""

from __future__ import annotations

from actors.cluster_book import HostFacts
from olvm.model import messages as m
from olvm.model.host_states import HostStatus
from olvm.model.records import ClusterRecord

SILENT = frozenset({HostStatus.CONNECTING.value, HostStatus.NON_RESPONSIVE.value})
# Out of service by an administrator's will, or never in it.
NOT_EXPECTED = frozenset(
    {
        HostStatus.MAINTENANCE.value,
        HostStatus.PREPARING_FOR_MAINTENANCE.value,
        HostStatus.DOWN.value,
        HostStatus.INSTALLING.value,
        HostStatus.INSTALL_FAILED.value,
        HostStatus.INSTALLING_OS.value,
        HostStatus.PENDING_APPROVAL.value,
    }
)


IN_SERVICE = frozenset({HostStatus.UP.value})
# Good enough to carry a word to a fence device: in a cluster that is shut down there are no others.
ANSWERING = frozenset(
    {
        HostStatus.MAINTENANCE.value,
        HostStatus.PREPARING_FOR_MAINTENANCE.value,
        HostStatus.NON_OPERATIONAL.value,
        HostStatus.ERROR.value,
    }
)


def advice(ask: m.AskFencing, record: ClusterRecord, hosts: dict[str, HostFacts]) -> m.FencingAdvice:
    reason = _objection(record, hosts)
    proxies = _proxies(ask.host, hosts)
    allowed = not reason
    if allowed and not proxies:
        reason = f"no other host of cluster {record.name} answers, to fence through"
    return m.FencingAdvice(ask.host, ask.seq, allowed, reason, proxies, record.fencing_skip_if_lease_live)


def _objection(record: ClusterRecord, hosts: dict[str, HostFacts]) -> str:
    if not record.fencing:
        return f"fencing is switched off in cluster {record.name}"
    if not record.fencing_skip_if_connectivity_broken:
        return ""
    expected = [facts for facts in hosts.values() if facts.status not in NOT_EXPECTED]
    silent = sum(1 for facts in expected if facts.status in SILENT)
    threshold = record.fencing_connectivity_threshold_percent
    if silent < 2 or silent * 100 < threshold * len(expected):
        return ""
    return (
        f"{silent} of {len(expected)} hosts of cluster {record.name} do not answer, {threshold} % or more: "
        "the engine's own network may be broken"
    )


def _proxies(asked: str, hosts: dict[str, HostFacts]) -> list[str]:
    """Hosts that are Up, then those that answer and are out of service. Spread: each search begins after its name."""

    def of(statuses: frozenset[str]) -> list[str]:
        names = sorted(name for name, facts in hosts.items() if facts.status in statuses and name != asked)
        return [name for name in names if name > asked] + [name for name in names if name < asked]

    return [hosts[name].agent for name in [*of(IN_SERVICE), *of(ANSWERING)]]
