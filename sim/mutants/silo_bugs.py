"""Bugs in how turns become durable and messages arrive: silos, their links, channels, what a turn asks for.

Decides which promises of `actors/silo.py` and of what it puts together are put to the test.
"""

from __future__ import annotations

from sim.mutants.planting import Mutant

SILO: tuple[Mutant, ...] = (
    Mutant(
        name="silo-releases-before-commit",
        module="actors.silo",
        old="if self._commit.is_due:\n            self._write()",
        new="if self._commit.is_due:\n            self._release(now_ns)\n            self._write()",
        says="replies and messages leave the silo before the batch is committed",
        favour=("crash_after_turn", "crash_engine"),
    ),
    Mutant(
        name="silo-acknowledges-before-commit",
        module="actors.links",
        old="fresh = accept(peer, frame)\n",
        new="fresh = accept(peer, frame)\n        self._transmit_to(frame.source, [], True, now_ns)\n",
        says="a frame is acknowledged before what it brought is committed",
        favour=("crash_after_turn", "disk_errors"),
    ),
    Mutant(
        name="silo-forgets-timers",
        module="actors.silo",
        old="for name, due_ns in record.timers.items():",
        new="for name, due_ns in ():",
        says="durable timers are not armed again after a recovery",
        favour=("crash_engine",),
        pair=True,
    ),
    Mutant(
        name="silo-restarts-event-numbers",
        module="actors.numbering",
        old="self._event_seq = recovered.next_event_seq",
        new="self._event_seq = max(1, recovered.next_event_seq - 1)",
        says="the last event's number is given again after a recovery",
        favour=("crash_engine",),
    ),
    Mutant(
        name="silo-keeps-what-it-could-not-commit",
        module="actors.silo",
        old="self.observer.on_released()\n        self._recover()",
        new="self.observer.on_released()\n        self._commit = GroupCommit(self.journal, self._numbering)",
        says="actors go on with the state of a batch that could not be committed",
        favour=("disk_errors", "disk_full"),
    ),
    Mutant(
        name="outbox-not-resent",
        module="actors.channel",
        old="            self.sent_seq = self.acked_seq\n        if self.sent_seq + 1",
        new="            self.progress_ns = now_ns\n        if self.sent_seq + 1",
        says="messages that were lost on the way are not sent again",
    ),
    Mutant(
        name="channel-accepts-a-gap",
        module="actors.channel",
        old="if seq == peer.received_seq + 1:",
        new="if seq > peer.received_seq:",
        says="a message after a lost one is taken, and the lost one is never missed",
        favour=("noise",),
    ),
    Mutant(
        name="channel-takes-repetitions",
        module="actors.channel",
        old="if seq == peer.received_seq + 1:",
        new="if seq <= peer.received_seq + 1:",
        says="a repeated message is handled again",
        favour=("noise",),
    ),
    Mutant(
        name="channel-ignores-a-new-journal",
        module="actors.channel",
        old="if peer.incarnation != frame.source_id:",
        new="if not peer.incarnation:",
        says="a peer that lost its disk and counts anew is taken for a repetition",
        profile="brutal",
        favour=("reinstall_host",),
    ),
    Mutant(
        name="durable-sent-as-volatile",
        module="actors.behaviour",
        old="self.sent.append((to, message, True))",
        new="self.sent.append((to, message, False))",
        says="what must be delivered is sent once and forgotten",
    ),
    Mutant(
        name="timer-set-and-not-saved",
        module="actors.behaviour",
        old="self.timers.append((name, due_ns))\n        self.save(cast(Record, record))",
        new="self.timers.append((name, due_ns))\n        record.timers.pop(name)",
        says="durable timers are armed in memory and not written down",
        favour=("crash_engine",),
    ),
)
