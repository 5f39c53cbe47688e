"""Writes docs/planted-bugs.md from what a hunt said: `olvm sim mutants --json | python -m sim.mutants.page > PAGE`.

The table is measured, never written by hand; seconds are of one process on the machine that ran it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

import msgspec

from sim.mutants.hunting import Kill

HEAD = """# Planted bugs

A test that never failed proves little. So {count} bugs are planted in the control plane, one at a time, each a change
of a few words in one module, and `olvm sim explore` has to find each: an oracle must fail in a seed that is green
without the bug. `pair` marks bugs that only two faults together bring to light: a silent target and a confirmation
that was lost, say.

{killed} of {count} are killed, in {total_s:.0f} s of one process each ({mean_s:.1f} s on average, {seeds} seeds in
all). By oracle: {by_oracle}.

These are the bugs that remained of about a hundred that were drafted: one that no oracle found within a minute of
seeds was retuned (another profile, a smaller world, favoured faults) or dropped. Some of those dropped are no bugs,
because something else makes up for them; of others it is not known, among them a start that is launched again after
a reboot, a fence answer of an earlier question, and an unresent outbox. No oracle watches migration slots, affinity, or
needless fencing.

The bugs stand in `sim/mutants/`, by part, with the faults that each is looked for with; the plans come from seeds
like all others. What the oracles promise stands in [promises.md](promises.md). This page is written by

    olvm sim mutants --json > kills.json
    python -m sim.mutants.page < kills.json > docs/planted-bugs.md

and `olvm sim mutants NAME` hunts one bug alone. Its token replays the plan of the seed; planted, it is a failure, and
without the bug it is green.

| bug | module | pair | killed by | seed | seeds needed | seconds |
|---|---|---|---|---|---|---|
"""


def page_of(kills: Sequence[Kill]) -> str:
    killed = [kill for kill in kills if kill.oracle]
    total_s = sum(kill.wall_s for kill in kills)
    counts = Counter(kill.oracle for kill in killed)
    head = HEAD.format(
        count=len(kills),
        killed=len(killed),
        total_s=total_s,
        mean_s=total_s / max(1, len(kills)),
        seeds=sum(kill.seeds for kill in kills),
        by_oracle=", ".join(f"{oracle} {count}" for oracle, count in sorted(counts.items())),
    )
    return head + "\n".join(_row(kill) for kill in kills) + "\n"


def _row(kill: Kill) -> str:
    cells = (
        f"{kill.says} (`{kill.mutant}`)",
        f"`{kill.module}`",
        "pair" if kill.pair else "",
        kill.oracle or "**survived**",
        str(kill.seed) if kill.oracle else "",
        str(kill.seeds),
        f"{kill.wall_s:.1f}",
    )
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.stdout.write(page_of(msgspec.json.decode(sys.stdin.buffer.read(), type=list[Kill])))
