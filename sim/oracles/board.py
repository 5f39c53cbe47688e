"""All oracles of a run."""

from __future__ import annotations

from collections.abc import Sequence

from sim.hearing import Hearing
from sim.oracles.d2_replay_is_state import ReplayIsState
from sim.oracles.l1_stable import Stable
from sim.oracles.l2_available_again import AvailableAgain
from sim.oracles.l3_operations_end import OperationsEnd
from sim.oracles.l4_quiet import Quiet
from sim.oracles.l5_effect_economy import EffectEconomy
from sim.oracles.l6_history_complete import HistoryComplete
from sim.oracles.linearizable import Linearizable
from sim.oracles.oracle import Oracle, Witness
from sim.oracles.s01_one_copy import OneCopy
from sim.oracles.s02_proof_before_restart import ProofBeforeRestart
from sim.oracles.s03_epochs_obeyed import EpochsObeyed
from sim.oracles.s04_acknowledged_stays import AcknowledgedStays
from sim.oracles.s05_one_effect import OneEffect
from sim.oracles.s06_within_capacity import WithinCapacity
from sim.oracles.s07_ledger_is_actual import LedgerIsActual
from sim.oracles.s08_down_is_down import DownIsDown
from sim.oracles.s09_destroyed_on_record import DestroyedOnRecord
from sim.oracles.s10_no_orphans import NoOrphans
from sim.oracles.s11_legal_transitions import LegalTransitions
from sim.oracles.s12_events_without_gaps import EventsWithoutGaps
from sim.oracles.s13_epochs_never_fall import EpochsNeverFall
from sim.oracles.s14_history_keeps import HistoryKeeps
from sim.oracles.s15_history_once import HistoryOnce
from sim.oracles.s16_snapshots_stay import SnapshotsStay

# D1, the same digest in another process, is a matter of two runs: sim.runs.
ORACLES: tuple[type[Oracle], ...] = (
    OneCopy,
    ProofBeforeRestart,
    EpochsObeyed,
    AcknowledgedStays,
    OneEffect,
    WithinCapacity,
    LedgerIsActual,
    DownIsDown,
    DestroyedOnRecord,
    NoOrphans,
    LegalTransitions,
    EventsWithoutGaps,
    EpochsNeverFall,
    HistoryKeeps,
    HistoryOnce,
    SnapshotsStay,
    Linearizable,
    Stable,
    AvailableAgain,
    OperationsEnd,
    Quiet,
    EffectEconomy,
    HistoryComplete,
    ReplayIsState,
)


class Board(Hearing):
    """Hears for all oracles. A hook that one oracle has is that oracle's method itself."""

    def __init__(self, witness: Witness, kinds: Sequence[type[Oracle]] = ORACLES) -> None:
        super().__init__()
        self.oracles = [kind(witness) for kind in kinds]
        for oracle in self.oracles:
            self.add(oracle)

    def judged(self) -> int:
        """How many machines' histories were held against the model of clients."""
        return sum(one.judged_count for one in self.oracles if isinstance(one, Linearizable))

    def forget(self, silo: str) -> None:
        """The silo's disk is gone, as the failure model allows: what was read on it holds no more."""
        for one in self.oracles:
            if isinstance(one, EpochsNeverFall):
                one.forget(silo)
