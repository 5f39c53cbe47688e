"""All situations that a campaign counts: those that the system marks, and those that only the world can see.

A world's situation is a function of what really happened; the system could not mark it, because it does not know.
"""

from __future__ import annotations

from olvm.model.situations import SITUATIONS

WORLD_SITUATIONS: dict[str, str] = {
    "two_engines_alive": "an old engine goes on while a new one has started from its disk",
    "commit_lost_with_the_process": "a process dies with a batch that was not durable",
    "died_between_commit_and_release": "a process dies when its batch is durable and nothing of it was sent",
    "torn_tail_recovered": "a silo recovers from a disk whose last write is torn",
    "frame_of_a_former_life": "a frame arrives from a process that is dead",
    "source_paused_unconfirmed": "a migration's source stands still because the hand-over was not confirmed",
    "both_sides_of_a_migration_lost": "source and target of a migration lose their power",
    "watchdog_ends_machines": "a host stops its leased machines because their lease expired",
    "lease_expires_while_agent_stands_still": "a lease expires while the agent that should renew it is paused",
    "machine_finds_its_snapshots_on_another_host": "a machine with snapshots comes to another host than it was on",
    "guest_disks_break": "guests are paused by I/O errors",
    "all_hosts_down": "no host has power",
    "fence_device_switched_off": "a fence device has switched a host off",
    "fence_device_lied": "a fence device said that it switched a host off, and did not",
    "rack_lost": "all hosts of a rack lose their power at once",
    "events_suppressed": "a hypervisor's event was lost",
    "late_duplicate": "a frame arrives once more long after",
    "clock_stepped": "a process starts with its wall clock stepped",
    "journal_refused": "a silo's disk refused a commit",
    "history_refused": "history's disk refused a commit",
    "history_lost_what_it_had_in_memory": "the telemetry silo dies with reports that are not on its disk",
    "report_came_again": "a report of samples reaches history a second time",
    "agent_dropped_samples": "an agent has no room for samples that history does not take, and says so",
}


def all_situations() -> dict[str, str]:
    return {**SITUATIONS, **WORLD_SITUATIONS}
