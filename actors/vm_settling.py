"""Who is the machine when a live migration's outcome is open: one literal table, and what makes its words.

Rows are what is known of the source, columns what is known of the target. It knows no hosts, messages or time;
`vm_migration.py` gathers the words and carries out the decision, and nothing else decides.

Source:
* `""`: nothing heard that would settle it. `silent`: its host does not answer, whatever it said before. `migrating`:
  heard to be sending.
* `alive`: the host says that it runs and sends nothing. The order to send may still be on its way there.
* `running`: the host says that the migration *failed*, or refused the order: it runs there and will not hand over.
* `post_migrate`: paused after all was sent, the target's word is missing. It continues only if told to.
* `handed_over`: Down with exit reason 4. `gone`: Down with another, or absent. `dead`: its host is confirmed dead.

Target:
* `""`: not heard since the doubt began. `waiting`: it is ready for the machine and does not run; or its hypervisor has
  given it up, which does not keep out what the source had begun by then (docs/decisions/0035).
* `arrived`: it runs, or is paused with the machine's state in it. Its host tells an arrival before its end.
* `gone`: over without having run, and the agent refuses this epoch for ever. It lost the source that had begun to send
  to it, never got ready, or was ended on our order, which only END_TARGET and a source that is `running` give.
* `dead`: over, and it may have run: its host is confirmed dead, it ended as only a running one can, or its agent
  does not know how it ended, or that it ever was.
* `lost`: its host does not answer.

Why each decision keeps at most one copy executing (S1), and none that has been overtaken:

* HAND_OVER, the copy is the machine. Only if the target has arrived or the source has confirmed it. The hypervisors
  never run both; the source's copy does not run again unless told to continue, and nobody tells it: the decisions
  that do (CONTINUE, and `vm_running.py` rule 5) need a target that never ran.
* ADOPT, the same with the status Unknown. The source is over for certain, so nothing but the target's copy can run,
  wherever it stands; the usual rules for an Unknown machine (its host's word, proof, lease) protect it from now on.
* STAY, the source is the machine. Its host says that it will not hand over (`running`), so the target can never run;
  or the target is over and the source silent: nothing but the source's host can say more, and the machine is Unknown
  there.
* STOP_SENDING: the source is told to give this attempt up, and its host to refuse the order to begin it, which may
  still come; then it is `running`. That the target is over does not do: a hypervisor takes in what was sent to a copy
  that has just ended, and runs it.
* CONTINUE: the source is paused and will not move by itself, and the target is over without having run: the source's
  memory is the newest there is.
* END_TARGET, and decide on its end. Nothing is started by it. Beside `post_migrate`, `gone` and `dead` the target
  cannot be left: it may start by itself if all has been sent to it.
* END_SOURCE, and decide on its end: the target may have run and is over, so the source's memory may be older than
  what the guest has written to its disks. It must not continue.
* DOWN: both are over. Only here may the machine be started again.
* WAIT: whatever was begun now could meet a copy that runs.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

SourceWord = Literal[
    "", "silent", "migrating", "alive", "running", "post_migrate", "handed_over", "gone", "dead"
]
TargetWord = Literal["", "waiting", "arrived", "gone", "dead", "lost"]

SOURCE_OVER = frozenset({"handed_over", "gone", "dead"})
TARGET_OVER = frozenset({"gone", "dead"})


class Settlement(StrEnum):
    WAIT = "wait"
    HAND_OVER = "hand_over"
    ADOPT = "adopt"
    STAY = "stay"
    STOP_SENDING = "stop_sending"
    CONTINUE = "continue"
    END_TARGET = "end_target"
    END_SOURCE = "end_source"
    DOWN = "down"


W = Settlement

SETTLEMENT: dict[tuple[str, str], Settlement] = {
    ("", ""): W.WAIT,
    ("", "waiting"): W.WAIT,
    ("", "arrived"): W.HAND_OVER,
    ("", "gone"): W.STOP_SENDING,
    ("", "dead"): W.WAIT,
    ("", "lost"): W.WAIT,
    ("silent", ""): W.WAIT,
    ("silent", "waiting"): W.WAIT,
    ("silent", "arrived"): W.HAND_OVER,
    ("silent", "gone"): W.STAY,
    ("silent", "dead"): W.WAIT,
    ("silent", "lost"): W.WAIT,
    ("migrating", ""): W.WAIT,
    ("migrating", "waiting"): W.WAIT,
    ("migrating", "arrived"): W.HAND_OVER,
    ("migrating", "gone"): W.STOP_SENDING,
    ("migrating", "dead"): W.WAIT,
    ("migrating", "lost"): W.WAIT,
    ("alive", ""): W.WAIT,
    ("alive", "waiting"): W.STOP_SENDING,
    ("alive", "arrived"): W.HAND_OVER,
    ("alive", "gone"): W.STOP_SENDING,
    ("alive", "dead"): W.STOP_SENDING,
    ("alive", "lost"): W.WAIT,
    ("running", ""): W.STAY,
    ("running", "waiting"): W.STAY,
    ("running", "arrived"): W.HAND_OVER,
    ("running", "gone"): W.STAY,
    ("running", "dead"): W.STAY,
    ("running", "lost"): W.STAY,
    ("post_migrate", ""): W.WAIT,
    ("post_migrate", "waiting"): W.END_TARGET,
    ("post_migrate", "arrived"): W.HAND_OVER,
    ("post_migrate", "gone"): W.CONTINUE,
    ("post_migrate", "dead"): W.END_SOURCE,
    ("post_migrate", "lost"): W.WAIT,
    ("handed_over", ""): W.HAND_OVER,
    ("handed_over", "waiting"): W.HAND_OVER,
    ("handed_over", "arrived"): W.HAND_OVER,
    ("handed_over", "gone"): W.DOWN,
    ("handed_over", "dead"): W.DOWN,
    ("handed_over", "lost"): W.ADOPT,
    ("gone", ""): W.WAIT,
    ("gone", "waiting"): W.END_TARGET,
    ("gone", "arrived"): W.HAND_OVER,
    ("gone", "gone"): W.DOWN,
    ("gone", "dead"): W.DOWN,
    ("gone", "lost"): W.ADOPT,
    ("dead", ""): W.WAIT,
    ("dead", "waiting"): W.END_TARGET,
    ("dead", "arrived"): W.HAND_OVER,
    ("dead", "gone"): W.DOWN,
    ("dead", "dead"): W.DOWN,
    ("dead", "lost"): W.ADOPT,
}
