"""Why a host that answers is NonOperational: the words of oVirt's `NonOperationalReason`, and what to do.

The agent names a problem in its heartbeats; the host actor decides. Only those that this system can meet are here.
"""

from __future__ import annotations

# By oVirt's number: 1 (general), 2, 3, 4, 5, 6, 7, 17.
HOST_PROBLEMS: dict[str, tuple[int, str]] = {
    "watchdog_not_armed": (
        1,
        "its watchdog is not armed, so that no leased machine may run there; its agent's log says why",
    ),
    "cpu_type_incompatible": (2, "its CPU lacks what the cluster's hosts have; move it to another cluster"),
    "storage_domain_unreachable": (3, "it does not reach the shared storage; repair its storage network"),
    "network_unreachable": (4, "a required network is missing; repair its cabling or configuration"),
    "version_incompatible": (5, "its agent is too old or too new; update it"),
    "kvm_not_running": (
        6,
        "its hypervisor does not run; look at libvirt and the CPU's virtualization setting",
    ),
    "timeout_recovering_from_crash": (7, "its agent did not become whole again; look at its log"),
    "network_interface_is_down": (17, "a required interface is down; repair it"),
}


def problem_text(problem: str) -> str:
    """One clause for a person; a problem of a newer agent is named as it is."""
    number, text = HOST_PROBLEMS.get(problem, (0, "see the host's agent"))
    return f"{problem} ({text})" if number else problem
