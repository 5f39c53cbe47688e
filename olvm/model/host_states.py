"""The life of a host as the engine sees it: 16 statuses, what may be asked in each, how one becomes another.

It decides nothing by itself: the `Host` actor asks `host_refusal` before it accepts a command and
`next_host_status` for every change. It must not know actors, machines or time.

Rules:
1. A command that `host_refusal` lets through never meets a missing row of `HOST_TRANSITIONS`.
2. Only `SCHEDULABLE` hosts get machines.
3. A host that falls silent is Connecting whatever it was before. The table does not remember what: the owner
   does, and picks `answered` or one of the `returned_to_*`.

Removal has no status: the actor ends with its host.

Source: `VDSStatus.java`, `ActionUtils.java` and `HostMonitoring.java` of ovirt-engine 4.5.
"""

from __future__ import annotations

from enum import StrEnum

from olvm.model.transitions import every, flatten, step


class HostStatus(StrEnum):
    UNASSIGNED = "unassigned"  # activated; its capabilities are being asked for
    DOWN = "down"  # powered off on purpose
    MAINTENANCE = "maintenance"
    UP = "up"
    NON_RESPONSIVE = "non_responsive"  # silent past the grace: its machines are Unknown
    ERROR = "error"  # too many machines failed to start on it; comes back by itself
    INSTALLING = "installing"
    INSTALL_FAILED = "install_failed"
    REBOOT = "reboot"
    PREPARING_FOR_MAINTENANCE = "preparing_for_maintenance"  # until no machine is left on it
    NON_OPERATIONAL = "non_operational"  # it answers, but lacks what its cluster requires
    PENDING_APPROVAL = "pending_approval"  # it registered itself
    INITIALIZING = "initializing"  # its agent says that it is recovering
    CONNECTING = "connecting"  # silent, within the grace
    INSTALLING_OS = "installing_os"
    KDUMPING = "kdumping"  # its kernel crashed and writes a dump


S = HostStatus

OVIRT_NUMBER_BY_HOST_STATUS: dict[HostStatus, int] = {
    S.UNASSIGNED: 0,
    S.DOWN: 1,
    S.MAINTENANCE: 2,
    S.UP: 3,
    S.NON_RESPONSIVE: 4,
    S.ERROR: 5,
    S.INSTALLING: 6,
    S.INSTALL_FAILED: 7,
    S.REBOOT: 8,
    S.PREPARING_FOR_MAINTENANCE: 9,
    S.NON_OPERATIONAL: 10,
    S.PENDING_APPROVAL: 11,
    S.INITIALIZING: 12,
    S.CONNECTING: 13,
    S.INSTALLING_OS: 14,
    S.KDUMPING: 15,
}

# ---------------------------------------------------------------- groups of statuses

SCHEDULABLE = frozenset({S.UP})
STATISTICS_WANTED = frozenset({S.UP, S.PREPARING_FOR_MAINTENANCE, S.ERROR, S.NON_OPERATIONAL})
MONITORED = STATISTICS_WANTED | {S.UNASSIGNED, S.NON_RESPONSIVE, S.INITIALIZING, S.CONNECTING}
# Where a host's life begins: an administrator adds it, it registers itself, or it is provisioned from bare
# metal.
INITIAL = frozenset({S.INSTALLING, S.PENDING_APPROVAL, S.INSTALLING_OS})

# ---------------------------------------------------------------- the table of transitions


class HostTrigger(StrEnum):
    APPROVED = "approved"
    OS_INSTALLED = "os_installed"
    REINSTALL_REQUESTED = "reinstall_requested"
    INSTALLED_FOR_LATER = "installed_for_later"  # added without activation
    INSTALL_FAILED = "install_failed"
    ACTIVATE = "activate"
    CAPABILITIES_OK = "capabilities_ok"
    REQUIREMENTS_FAILED = "requirements_failed"
    AGENT_RECOVERING = "agent_recovering"
    RECOVERY_TIMED_OUT = "recovery_timed_out"
    HEARTBEAT_MISSED = "heartbeat_missed"
    GRACE_OVER = "grace_over"
    ANSWERED = "answered"
    RETURNED_TO_UNASSIGNED = "returned_to_unassigned"
    RETURNED_TO_INITIALIZING = "returned_to_initializing"
    RETURNED_TO_ERROR = "returned_to_error"
    RETURNED_TO_NON_OPERATIONAL = "returned_to_non_operational"
    RETURNED_TO_PREPARING = "returned_to_preparing"
    MAINTENANCE_REQUESTED = "maintenance_requested"
    MAINTENANCE_CANCELLED = "maintenance_cancelled"
    MAINTENANCE_ABANDONED = "maintenance_abandoned"  # cancelled on a host that does not answer
    EMPTIED = "emptied"
    FAILED_RUNS = "failed_runs"
    ERROR_EXPIRED = "error_expired"
    RESTART_STARTED = "restart_started"  # by a fence device, by power management or over SSH
    RESTART_TIMED_OUT = "restart_timed_out"
    KDUMP_SEEN = "kdump_seen"
    KDUMP_ENDED = "kdump_ended"
    POWERED_OFF = "powered_off"


T = HostTrigger

HOST_TRANSITIONS: dict[tuple[HostStatus, HostTrigger], HostStatus] = flatten(
    {
        # Coming into service.
        T.APPROVED: {S.PENDING_APPROVAL: S.INSTALLING},
        T.OS_INSTALLED: {S.INSTALLING_OS: S.INSTALLING},
        T.REINSTALL_REQUESTED: every({S.MAINTENANCE, S.INSTALL_FAILED}, S.INSTALLING),
        T.INSTALLED_FOR_LATER: {S.INSTALLING: S.MAINTENANCE},
        T.INSTALL_FAILED: every({S.INSTALLING, S.INSTALLING_OS}, S.INSTALL_FAILED),
        # oVirt's page lets Down be activated while its black-list refuses that; the list is asked first.
        T.ACTIVATE: every(
            {
                S.MAINTENANCE,
                S.DOWN,
                S.NON_OPERATIONAL,
                S.INSTALL_FAILED,
                S.ERROR,
                S.PREPARING_FOR_MAINTENANCE,
            },
            S.UNASSIGNED,
        ),
        T.CAPABILITIES_OK: every({S.INSTALLING, S.UNASSIGNED, S.INITIALIZING, S.NON_OPERATIONAL}, S.UP),
        T.REQUIREMENTS_FAILED: every({S.UP, S.INSTALLING, S.UNASSIGNED, S.INITIALIZING}, S.NON_OPERATIONAL),
        # An agent that restarts under an Up host is not whole either: nothing new is placed there meanwhile.
        T.AGENT_RECOVERING: every({S.UNASSIGNED, S.UP, S.CONNECTING, S.NON_RESPONSIVE}, S.INITIALIZING),
        T.RECOVERY_TIMED_OUT: {S.INITIALIZING: S.NON_OPERATIONAL},
        # Silence, and its end. After a restart the capabilities are asked for again.
        T.HEARTBEAT_MISSED: every(MONITORED - {S.CONNECTING, S.NON_RESPONSIVE}, S.CONNECTING),
        T.GRACE_OVER: {S.CONNECTING: S.NON_RESPONSIVE},
        T.ANSWERED: {
            S.CONNECTING: S.UP,
            S.NON_RESPONSIVE: S.UP,
            S.KDUMPING: S.UP,
            S.REBOOT: S.UNASSIGNED,
        },
        T.RETURNED_TO_UNASSIGNED: every({S.CONNECTING, S.NON_RESPONSIVE}, S.UNASSIGNED),
        T.RETURNED_TO_INITIALIZING: every({S.CONNECTING, S.NON_RESPONSIVE}, S.INITIALIZING),
        T.RETURNED_TO_ERROR: every({S.CONNECTING, S.NON_RESPONSIVE}, S.ERROR),
        T.RETURNED_TO_NON_OPERATIONAL: every({S.CONNECTING, S.NON_RESPONSIVE}, S.NON_OPERATIONAL),
        T.RETURNED_TO_PREPARING: every({S.CONNECTING, S.NON_RESPONSIVE}, S.PREPARING_FOR_MAINTENANCE),
        # Out of service.
        T.MAINTENANCE_REQUESTED: every(
            {S.UP, S.NON_OPERATIONAL, S.NON_RESPONSIVE, S.ERROR, S.DOWN, S.INSTALL_FAILED},
            S.PREPARING_FOR_MAINTENANCE,
        ),
        T.MAINTENANCE_CANCELLED: {S.PREPARING_FOR_MAINTENANCE: S.UP},
        T.MAINTENANCE_ABANDONED: {S.PREPARING_FOR_MAINTENANCE: S.NON_RESPONSIVE},
        T.EMPTIED: {S.PREPARING_FOR_MAINTENANCE: S.MAINTENANCE},
        T.FAILED_RUNS: {S.UP: S.ERROR},
        T.ERROR_EXPIRED: {S.ERROR: S.UP},
        # Power. A fenced host goes to Reboot and not to Down, which nobody would start again after an
        # engine crash.
        T.RESTART_STARTED: every({S.NON_RESPONSIVE, S.MAINTENANCE, S.DOWN}, S.REBOOT),
        T.RESTART_TIMED_OUT: {S.REBOOT: S.NON_RESPONSIVE},
        T.KDUMP_SEEN: {S.NON_RESPONSIVE: S.KDUMPING},
        T.KDUMP_ENDED: {S.KDUMPING: S.NON_RESPONSIVE},
        T.POWERED_OFF: every({S.MAINTENANCE, S.NON_RESPONSIVE}, S.DOWN),
    }
)


def next_host_status(status: HostStatus, trigger: HostTrigger) -> HostStatus:
    """The status after `trigger`.

    Raises:
        IllegalTransition: the pair is not in `HOST_TRANSITIONS`; nothing has changed.
    """
    return step(HOST_TRANSITIONS, "host", status, trigger)


# ---------------------------------------------------------------- what may be asked


class HostAction(StrEnum):
    """The 14 actions that oVirt's black-list speaks of."""

    ACTIVATE = "activate"
    MAINTENANCE = "maintenance"
    REMOVE = "remove"
    APPROVE = "approve"
    CLEAR_NON_RESPONSIVE_VMS = "clear_non_responsive_vms"  # "I confirm that the host was restarted"
    START = "start"
    STOP = "stop"
    POWER_DOWN = "power_down"
    SSH_REBOOT = "ssh_reboot"
    REFRESH_CAPABILITIES = "refresh_capabilities"
    UPGRADE_CHECK = "upgrade_check"
    UPGRADE = "upgrade"
    UPDATE = "update"
    ATTACH_TAG = "attach_tag"


A = HostAction
_ASK_OR_UPGRADE = frozenset({A.REFRESH_CAPABILITIES, A.UPGRADE_CHECK, A.UPGRADE})
_IN_TRANSIT = _ASK_OR_UPGRADE | {A.ACTIVATE, A.REMOVE, A.MAINTENANCE, A.CLEAR_NON_RESPONSIVE_VMS, A.APPROVE}
_NOT_INSTALLED = _ASK_OR_UPGRADE | {
    A.UPDATE,
    A.ACTIVATE,
    A.MAINTENANCE,
    A.ATTACH_TAG,
    A.CLEAR_NON_RESPONSIVE_VMS,
}

FORBIDDEN_HOST_ACTIONS: dict[HostStatus, frozenset[HostAction]] = {
    S.UP: frozenset(
        {A.ACTIVATE, A.REMOVE, A.CLEAR_NON_RESPONSIVE_VMS, A.APPROVE, A.START, A.STOP, A.POWER_DOWN}
    ),
    S.MAINTENANCE: frozenset({A.MAINTENANCE, A.CLEAR_NON_RESPONSIVE_VMS, A.APPROVE}),
    S.NON_OPERATIONAL: frozenset({A.REMOVE, A.APPROVE}),
    S.NON_RESPONSIVE: _ASK_OR_UPGRADE | {A.REMOVE, A.ACTIVATE, A.APPROVE},
    S.PREPARING_FOR_MAINTENANCE: _ASK_OR_UPGRADE
    | {A.REMOVE, A.MAINTENANCE, A.CLEAR_NON_RESPONSIVE_VMS, A.APPROVE},
    S.CONNECTING: _ASK_OR_UPGRADE | {A.MAINTENANCE, A.REMOVE, A.ACTIVATE, A.APPROVE},
    S.ERROR: _ASK_OR_UPGRADE | {A.REMOVE, A.CLEAR_NON_RESPONSIVE_VMS, A.APPROVE},
    S.REBOOT: _IN_TRANSIT,
    S.UNASSIGNED: _IN_TRANSIT,
    S.INITIALIZING: _IN_TRANSIT,
    S.KDUMPING: _IN_TRANSIT,
    S.INSTALLING: _IN_TRANSIT | {A.START, A.STOP, A.POWER_DOWN},
    S.DOWN: _ASK_OR_UPGRADE | {A.ACTIVATE, A.APPROVE, A.SSH_REBOOT, A.POWER_DOWN},
    S.INSTALL_FAILED: frozenset({A.APPROVE, A.REFRESH_CAPABILITIES}),
    S.PENDING_APPROVAL: _NOT_INSTALLED,
    S.INSTALLING_OS: _NOT_INSTALLED | {A.APPROVE},
}

# The change that an action brings about, at once or when it has succeeded: it is refused where there is no such row.
# So power is switched by hand only where no machine is believed to run: oVirt's list, and a little more.
TRIGGER_BY_ACTION: dict[HostAction, HostTrigger] = {
    A.ACTIVATE: T.ACTIVATE,
    A.MAINTENANCE: T.MAINTENANCE_REQUESTED,
    A.APPROVE: T.APPROVED,
    A.START: T.RESTART_STARTED,
    A.STOP: T.POWERED_OFF,
}

_PHRASE: dict[HostAction, str] = {
    A.ACTIVATE: "activate {}",
    A.MAINTENANCE: "put {} into maintenance",
    A.REMOVE: "remove {}",
    A.APPROVE: "approve {}",
    A.CLEAR_NON_RESPONSIVE_VMS: "confirm that {} was restarted",
    A.START: "power on {}",
    A.STOP: "power off {}",
    A.POWER_DOWN: "power down {}",
    A.SSH_REBOOT: "restart {} over SSH",
    A.REFRESH_CAPABILITIES: "refresh the capabilities of {}",
    A.UPGRADE_CHECK: "check {} for upgrades",
    A.UPGRADE: "upgrade {}",
    A.UPDATE: "change {}",
    A.ATTACH_TAG: "tag {}",
}

# Why the status stands in the way (empty: the word alone says it), and what a person can do about it.
_WHY_AND_ADVICE: dict[HostStatus, tuple[str, str]] = {
    S.UP: ("", "put it into maintenance first"),
    S.DOWN: ("it is powered off", "start it first"),
    S.MAINTENANCE: ("", "activate it first"),
    S.UNASSIGNED: ("it is being activated", "wait until it is up"),
    S.INITIALIZING: ("its agent is recovering", "wait until it is up"),
    S.INSTALLING: ("", "wait until the installation has ended"),
    S.INSTALLING_OS: ("", "wait until its operating system is installed"),
    S.INSTALL_FAILED: ("", "install it again, or remove it"),
    S.PENDING_APPROVAL: ("it registered itself", "approve it first, or remove it"),
    S.REBOOT: ("it is being restarted", "wait until it is up"),
    S.KDUMPING: ("its kernel crashed and writes a dump", "wait until the dump has ended"),
    S.CONNECTING: ("it stopped answering a moment ago", "wait until it answers or is non_responsive"),
    S.NON_RESPONSIVE: (
        "it does not answer",
        "repair it, or put it into maintenance once its machines are accounted for",
    ),
    S.NON_OPERATIONAL: ("it lacks what its cluster requires", "put it into maintenance first"),
    S.ERROR: ("too many machines failed to start on it", "put it into maintenance first, or activate it"),
    S.PREPARING_FOR_MAINTENANCE: ("machines are still leaving it", "wait until it is in maintenance"),
}

_ADVICE: dict[tuple[HostStatus, HostAction], str] = {
    (S.UP, A.ACTIVATE): "there is nothing to do",
    (S.UP, A.START): "there is nothing to do",
    (S.UP, A.CLEAR_NON_RESPONSIVE_VMS): "it answers, and reports its machines itself",
    (S.MAINTENANCE, A.MAINTENANCE): "there is nothing to do",
    (S.MAINTENANCE, A.CLEAR_NON_RESPONSIVE_VMS): "no machine is left on it",
    (S.DOWN, A.POWER_DOWN): "there is nothing to do",
    (S.DOWN, A.STOP): "there is nothing to do",
    (S.PREPARING_FOR_MAINTENANCE, A.MAINTENANCE): "it is on its way; wait until its machines have left",
    (S.PREPARING_FOR_MAINTENANCE, A.CLEAR_NON_RESPONSIVE_VMS): "it answers, and reports its machines itself",
}
_NOT_PENDING = "only a host that is pending_approval is approved; there is nothing to do"


def host_refusal(name: str, status: HostStatus, action: HostAction, *, asked: str = "") -> str | None:
    """Why `action` cannot be asked of the host now, as one sentence for a person; None: it may be asked.

    `asked` is what the person said where that is not the action's own word: "restart {}" is a STOP and more.
    """
    if action not in FORBIDDEN_HOST_ACTIONS[status] and _has_row(status, action):
        return None
    why, advice = _WHY_AND_ADVICE[status]
    if action is A.APPROVE:
        advice = _NOT_PENDING
    advice = _ADVICE.get((status, action), advice)
    reason = f" ({why})" if why else ""
    return (
        f"cannot {(asked or _PHRASE[action]).format(f'host {name}')}: it is {status.value}{reason}; {advice}"
    )


def _has_row(status: HostStatus, action: HostAction) -> bool:
    trigger = TRIGGER_BY_ACTION.get(action)
    return trigger is None or (status, trigger) in HOST_TRANSITIONS
