"""Bugs on the way to history: agents that keep and send samples, and the telemetry actor that takes what comes.

Decides which promises of `actors/sample_spool.py`, `actors/telemetry.py` and of the feeds are put to the test.
"""

from __future__ import annotations

from sim.mutants.planting import Mutant

HISTORY: tuple[Mutant, ...] = (
    Mutant(
        name="telemetry-acknowledges-before-the-flush",
        module="actors.telemetry",
        old="self.unacknowledged.setdefault(sender, {})[report.number] = None",
        new="turn.tell(sender[0], m.SamplesStored(message.incarnation, [message.number]))",
        says="samples are acknowledged before history has put them on its disk",
        favour=("crash_telemetry",),
    ),
    Mutant(
        name="telemetry-acknowledges-a-flush-that-failed",
        module="actors.telemetry",
        old='elif message.tag == "flush" and message.ok:',
        new='elif message.tag == "flush":',
        says="samples are acknowledged though the flush that was to store them has failed",
        favour=("break_history",),
    ),
    Mutant(
        name="telemetry-takes-events-for-a-former-life",
        module="actors.telemetry",
        old="if self.events.is_answered_by(message.after_seq):",
        new="if self.events.is_answered_by(message.after_seq) or message.after_seq > self.events.cursor:",
        says="an answer to what a former life has asked is taken, though history lost what stands before it",
        favour=("clog_telemetry",),
        pair=True,
    ),
    Mutant(
        name="telemetry-takes-operations-for-a-former-life",
        module="actors.telemetry",
        old="if self.operations.is_answered_by(message.from_ns):",
        new="if self.operations.is_answered_by(message.from_ns) or message.from_ns > self.operations.cursor:",
        says="the same of operations that have ended",
        favour=("clog_telemetry",),
        pair=True,
    ),
    Mutant(
        name="telemetry-asks-for-events-once",
        module="actors.telemetry",
        old='turn.wake("pull", 10 * turn.config.events_pull_period_s)',
        new="pass",
        says="a question for events that was lost on the way is not asked again",
        favour=("crash_engine", "crash_telemetry"),
    ),
    Mutant(
        name="spool-sends-once",
        module="actors.sample_spool",
        old="            self._sent_count = 0\n        while",
        new="            self._waiting[0].sent_ns = turn.now_ns\n        while",
        says="samples that were lost on the way are not sent again",
        favour=("crash_telemetry",),
    ),
    Mutant(
        name="spool-obeys-an-acknowledgement-of-another-life",
        module="actors.sample_spool",
        old="if message.incarnation != self._incarnation:",
        new="if not self._incarnation:",
        says="what history had of an agent's former life is forgotten of this one",
        favour=("crash_agent", "crash_telemetry"),
        profile="brutal",
        pair=True,
    ),
    Mutant(
        name="agent-that-was-lost-counts-from-what-was-heard",
        module="actors.host_agent",
        old="return heard + HOST_EPOCHS_UNHEARD_MAX if",
        new="return heard if",
        says="an agent that lost its journal begins at an epoch that it may have had, which the engine never heard of",
        favour=("reinstall_host", "crash_agent", "cut"),
        profile="brutal",
        pair=True,
    ),
    Mutant(
        name="engine-forgets-the-epochs-of-removed-hosts",
        module="actors.engine",
        old="if message.host_epoch > self.record.host_epoch_removed:",
        new="if message.host_epoch < 0:",
        says="a host that was removed and is added again counts its agent's starts anew, and history knows its samples",
        favour=("remove_host", "add_host", "crash_telemetry"),
    ),
    Mutant(
        name="spool-tells-of-one-loss-only",
        module="actors.sample_spool",
        old="loss.report_count += 1",
        new="loss.report_count = 1",
        says="of all reports that had no room one is told",
        favour=("cut_telemetry", "crash_telemetry"),
    ),
)
