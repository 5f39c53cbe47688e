"""The fence flow of a host as a table: which step follows when something happens in one.

Rules:
1. A pair that is not in `FENCE_STEPS` changes nothing: the word came late, or the step does not care.
2. From the first order to switch off on (`NO_RETURN`), an answer of the same boot does not end the flow: nobody
   knows whether the device will still act, so the host is power-cycled to the end. A new boot does end it.
3. A step in which the flow waits has the durable deadline `fence`; `Word.DUE` is a pair of every such step.
4. Nothing is ordered or asked through a proxy without having asked the cluster in a step before (`ASKING`).

Source: `VdsNotRespondingTreatmentCommand` and its siblings, ovirt-engine 4.5; they keep it on a thread's stack.
"""

from __future__ import annotations

from enum import StrEnum


class FenceStep(StrEnum):
    QUIET = "quiet"  # the engine has just started: hosts are given time to be heard
    ASK_SOFT = "ask_soft"
    SOFT = "soft"  # the agent is being restarted
    DEVICES = "devices"
    UNFENCED = "unfenced"
    KDUMP = "kdump"  # perhaps its kernel says that it writes a dump
    DUMPING = "dumping"
    DUMPED = "dumped"  # the dump has ended; the kernel restarts the host by itself
    ASK_CHECK = "ask_check"
    LEASE = "lease"  # a proxy watches the host's lease
    RETRY = "retry"  # the lease is live: the host's machines run, and are left in peace
    ASK_OFF = "ask_off"
    OFF = "off"  # the order was given to a device
    OFF_STATUS = "off_status"  # the device took it and is asked whether the host is off
    OFF_WAIT = "off_wait"  # it said "still on"
    ASK_OFF_AGAIN = "ask_off_again"
    OFF_PAUSE = "off_pause"  # all proxies and devices were tried once
    FAILED = "failed"
    FENCED = "fenced"
    ASK_ON = "ask_on"
    ON = "on"
    ON_PAUSE = "on_pause"
    BOOTING = "booting"
    NOT_BACK = "not_back"
    ENDED = ""


class Word(StrEnum):
    """What can happen to a flow."""

    DUE = "due"
    READY = "ready"
    ALLOWED = "allowed"
    REFUSED = "refused"  # the runtime cannot restart the agent
    PRESENT = "present"
    ABSENT = "absent"
    DUMP = "dump"
    LIVE = "live"
    DEAD = "dead"
    UNKNOWN = "unknown"
    TAKEN = "taken"
    FAILED = "failed"
    IS_ON = "is_on"
    IS_OFF = "is_off"
    ROUND_OVER = "round_over"
    TRIED_OUT = "tried_out"
    CONTINUE = "continue"
    UNPROVEN = "unproven"
    DONE = "done"
    ANSWERED = "answered"  # the host, in the boot that the flow is about
    REBOOTED = "rebooted"  # the host, in a new boot


S = FenceStep
W = Word

FENCE_STEPS: dict[tuple[FenceStep, Word], FenceStep] = {
    # Let it come back by itself, or by a restart of its agent.
    (S.QUIET, W.READY): S.ASK_SOFT,
    (S.QUIET, W.DUE): S.QUIET,
    (S.ASK_SOFT, W.ALLOWED): S.SOFT,
    (S.ASK_SOFT, W.DUE): S.ASK_SOFT,
    (S.SOFT, W.REFUSED): S.DEVICES,
    (S.SOFT, W.DUE): S.DEVICES,
    (S.DEVICES, W.PRESENT): S.KDUMP,
    (S.DEVICES, W.ABSENT): S.UNFENCED,
    (S.UNFENCED, W.DONE): S.ENDED,
    # Does it dump, do its machines run?
    (S.KDUMP, W.ABSENT): S.ASK_CHECK,
    (S.KDUMP, W.DUE): S.ASK_CHECK,
    (S.DUMPING, W.DUE): S.DUMPED,
    (S.DUMPED, W.DUE): S.DEVICES,
    (S.ASK_CHECK, W.ALLOWED): S.LEASE,
    (S.ASK_CHECK, W.DUE): S.ASK_CHECK,
    (S.LEASE, W.ABSENT): S.ASK_OFF,
    (S.LEASE, W.DEAD): S.ASK_OFF,
    (S.LEASE, W.LIVE): S.RETRY,
    (S.LEASE, W.UNKNOWN): S.ASK_CHECK,
    (S.LEASE, W.DUE): S.ASK_CHECK,
    (S.LEASE, W.TRIED_OUT): S.ASK_OFF,
    (S.RETRY, W.DUE): S.ASK_SOFT,
    # Off, until a device says so.
    (S.ASK_OFF, W.ALLOWED): S.OFF,
    (S.ASK_OFF, W.DUE): S.ASK_OFF,
    (S.ASK_OFF, W.TRIED_OUT): S.FAILED,
    (S.OFF, W.TAKEN): S.OFF_STATUS,
    (S.OFF, W.FAILED): S.ASK_OFF_AGAIN,
    (S.OFF, W.DUE): S.ASK_OFF_AGAIN,
    (S.OFF, W.ROUND_OVER): S.OFF_PAUSE,
    (S.OFF, W.TRIED_OUT): S.FAILED,
    (S.OFF_STATUS, W.IS_OFF): S.FENCED,
    (S.OFF_STATUS, W.IS_ON): S.OFF_WAIT,
    (S.OFF_STATUS, W.FAILED): S.ASK_OFF_AGAIN,
    (S.OFF_STATUS, W.DUE): S.ASK_OFF_AGAIN,
    (S.OFF_WAIT, W.IS_OFF): S.FENCED,
    (S.OFF_WAIT, W.DUE): S.OFF_STATUS,
    (S.OFF_WAIT, W.TRIED_OUT): S.ASK_OFF_AGAIN,
    (S.ASK_OFF_AGAIN, W.ALLOWED): S.OFF,
    (S.ASK_OFF_AGAIN, W.DUE): S.ASK_OFF_AGAIN,
    (S.ASK_OFF_AGAIN, W.TRIED_OUT): S.FAILED,
    (S.OFF_PAUSE, W.DUE): S.ASK_OFF_AGAIN,
    (S.FAILED, W.DUE): S.ASK_CHECK,
    (S.FAILED, W.DONE): S.ENDED,
    # On again.
    (S.FENCED, W.CONTINUE): S.ASK_ON,
    (S.FENCED, W.DONE): S.ENDED,
    (S.ASK_ON, W.ALLOWED): S.ON,
    (S.ASK_ON, W.DUE): S.ASK_ON,
    (S.ASK_ON, W.TRIED_OUT): S.NOT_BACK,
    (S.ON, W.TAKEN): S.BOOTING,
    (S.ON, W.FAILED): S.ASK_ON,
    (S.ON, W.DUE): S.ASK_ON,
    (S.ON, W.ROUND_OVER): S.ON_PAUSE,
    (S.ON, W.TRIED_OUT): S.NOT_BACK,
    (S.ON_PAUSE, W.DUE): S.ASK_ON,
    (S.BOOTING, W.DUE): S.NOT_BACK,
    (S.NOT_BACK, W.DUE): S.ASK_ON,
    (S.NOT_BACK, W.UNPROVEN): S.ASK_SOFT,
    (S.NOT_BACK, W.DONE): S.ENDED,
    # It answers, and was not touched.
    (S.QUIET, W.ANSWERED): S.ENDED,
    (S.ASK_SOFT, W.ANSWERED): S.ENDED,
    (S.SOFT, W.ANSWERED): S.ENDED,
    (S.KDUMP, W.ANSWERED): S.ENDED,
    (S.ASK_CHECK, W.ANSWERED): S.ENDED,
    (S.LEASE, W.ANSWERED): S.ENDED,
    (S.RETRY, W.ANSWERED): S.ENDED,
    (S.ASK_OFF, W.ANSWERED): S.ENDED,
    (S.FAILED, W.ANSWERED): S.ENDED,
    (S.ASK_ON, W.ANSWERED): S.ENDED,
    (S.ON, W.ANSWERED): S.ENDED,
    (S.ON_PAUSE, W.ANSWERED): S.ENDED,
    (S.BOOTING, W.ANSWERED): S.ENDED,
    (S.NOT_BACK, W.ANSWERED): S.ENDED,
    # It has started anew: what the flow is about is over.
    (S.QUIET, W.REBOOTED): S.ENDED,
    (S.ASK_SOFT, W.REBOOTED): S.ENDED,
    (S.SOFT, W.REBOOTED): S.ENDED,
    (S.KDUMP, W.REBOOTED): S.ENDED,
    (S.DUMPING, W.REBOOTED): S.ENDED,
    (S.DUMPED, W.REBOOTED): S.ENDED,
    (S.ASK_CHECK, W.REBOOTED): S.ENDED,
    (S.LEASE, W.REBOOTED): S.ENDED,
    (S.RETRY, W.REBOOTED): S.ENDED,
    (S.ASK_OFF, W.REBOOTED): S.ENDED,
    (S.OFF, W.REBOOTED): S.ENDED,
    (S.OFF_STATUS, W.REBOOTED): S.ENDED,
    (S.OFF_WAIT, W.REBOOTED): S.ENDED,
    (S.ASK_OFF_AGAIN, W.REBOOTED): S.ENDED,
    (S.OFF_PAUSE, W.REBOOTED): S.ENDED,
    (S.FAILED, W.REBOOTED): S.ENDED,
    (S.ASK_ON, W.REBOOTED): S.ENDED,
    (S.ON, W.REBOOTED): S.ENDED,
    (S.ON_PAUSE, W.REBOOTED): S.ENDED,
    (S.BOOTING, W.REBOOTED): S.ENDED,
    (S.NOT_BACK, W.REBOOTED): S.ENDED,
    # Its kernel has crashed.
    (S.QUIET, W.DUMP): S.DUMPING,
    (S.ASK_SOFT, W.DUMP): S.DUMPING,
    (S.SOFT, W.DUMP): S.DUMPING,
    (S.KDUMP, W.DUMP): S.DUMPING,
    (S.DUMPING, W.DUMP): S.DUMPING,
    (S.DUMPED, W.DUMP): S.DUMPING,
    (S.ASK_CHECK, W.DUMP): S.DUMPING,
    (S.LEASE, W.DUMP): S.DUMPING,
    (S.RETRY, W.DUMP): S.DUMPING,
    (S.ASK_OFF, W.DUMP): S.DUMPING,
    (S.FAILED, W.DUMP): S.DUMPING,
}

# Steps that pass on to another one at once: no flow is ever found standing in them.
PASSING = frozenset({S.DEVICES, S.UNFENCED, S.FENCED, S.ENDED})
# The cluster was asked, and its advice opens the next step.
ASKING = frozenset({S.ASK_SOFT, S.ASK_CHECK, S.ASK_OFF, S.ASK_OFF_AGAIN, S.ASK_ON})
NO_RETURN = frozenset({S.OFF, S.OFF_STATUS, S.OFF_WAIT, S.ASK_OFF_AGAIN, S.OFF_PAUSE})
# Power is being switched: nothing else may be begun with the host. A flow in any other step can give way.
SWITCHING = NO_RETURN | {S.FENCED, S.ASK_ON, S.ON, S.ON_PAUSE, S.BOOTING}
# Before the first order: after a restart of the engine the host is given time to be heard first.
UNTOUCHED = frozenset({S.ASK_SOFT, S.SOFT, S.KDUMP, S.ASK_CHECK, S.LEASE, S.RETRY, S.ASK_OFF, S.FAILED})

# Attempts are counted within one of these; entering another one begins at the first proxy and device again.
_OFF, _ON = "off", "on"
PHASE_BY_STEP: dict[FenceStep, str] = {
    S.ASK_CHECK: "lease",
    S.LEASE: "lease",
    S.ASK_OFF: _OFF,
    S.OFF: _OFF,
    S.OFF_STATUS: _OFF,
    S.OFF_WAIT: _OFF,
    S.ASK_OFF_AGAIN: _OFF,
    S.OFF_PAUSE: _OFF,
    S.ASK_ON: _ON,
    S.ON: _ON,
    S.ON_PAUSE: _ON,
}
