"""Which machine leaves an overloaded host: the quickest to move (MMT), the idlest (MU), the one that rises and falls
with the others (MC), or any (RS).

Ties go to the machine that stands first on the host, which is the one that came first.

Source: Beloglazov & Buyya 2012, section 5.5, as CloudSim 3.0.3 computes it. The multiple correlation is solved by
Householder reflections in the textbook's order of operations (Golub & Van Loan, section 5.2).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from olvm.experiments.compilation import allocating
from olvm.experiments.consolidation.plant import HISTORY_MAX, Floats, Ints, Plant, State

MMT, MC, MU, RS = range(4)
SELECTOR_NUMBERS = {"mmt": MMT, "mc": MC, "mu": MU, "rs": RS}
NOT_SOLVABLE = -1.0


@allocating
def least_memory(guests: npt.NDArray[np.int32], memory_mb: Ints) -> int:
    """The place in `guests` of the first one with the least memory."""
    best = 0
    for index in range(1, len(guests)):
        if memory_mb[guests[index]] < memory_mb[guests[best]]:
            best = index
    return best


@allocating
def least_utilised(guests: npt.NDArray[np.int32], demand: Floats, vm_mips: Floats) -> int:
    """The place in `guests` of the first one that uses the least part of itself."""
    best = 0
    least = np.inf
    for index in range(len(guests)):
        utilisation = demand[guests[index]] / vm_mips[guests[index]]
        if utilisation < least:
            least = utilisation
            best = index
    return best


@allocating
def most_correlated(past: Floats) -> int:
    """The row of `past` (machines × samples) that the other rows explain best; -1 where that cannot be said.

    It cannot with a single machine, with fewer samples than machines, or when rows depend on each other exactly.
    """
    vm_count, sample_count = past.shape
    if vm_count < 2 or sample_count < vm_count:
        return -1
    best = 0
    highest = 0.0
    others = np.empty((vm_count, sample_count))
    for vm in range(vm_count):
        others[0, :] = 1.0
        row = 1
        for other in range(vm_count):
            if other != vm:
                others[row, :] = past[other, :]
                row += 1
        explained = explained_share(others, past[vm])
        if explained == NOT_SOLVABLE:
            return -1
        if explained > highest:
            highest = explained
            best = vm
    return best


@allocating
def explained_share(columns: Floats, target: Floats) -> float:
    """R² of the least-squares fit of `target` by `columns` (k × m, the first of ones); changes `columns`.

    NaN or minus infinity when the target never varies; NOT_SOLVABLE when a column is exactly zero after the
    earlier ones are taken away.
    """
    column_count, sample_count = columns.shape
    plain = columns.copy()
    diagonal = np.empty(column_count)
    for step in range(column_count):
        pivot = columns[step]
        norm2 = 0.0
        for row in range(step, sample_count):
            norm2 += pivot[row] * pivot[row]
        length = -np.sqrt(norm2) if pivot[step] > 0 else np.sqrt(norm2)
        diagonal[step] = length
        if length == 0.0:
            return NOT_SOLVABLE
        pivot[step] -= length
        for later in range(step + 1, column_count):
            column = columns[later]
            alpha = 0.0
            for row in range(step, sample_count):
                alpha -= column[row] * pivot[row]
            alpha /= length * pivot[step]
            for row in range(step, sample_count):
                column[row] -= alpha * pivot[row]
    coefficients = _solved(columns, diagonal, target)
    unexplained = 0.0
    for row in range(sample_count):
        fitted = 0.0
        for index in range(column_count):
            fitted += plain[index, row] * coefficients[index]
        rest = target[row] - fitted
        unexplained += rest * rest
    return float(1 - unexplained / _second_moment(target))


@allocating
def _solved(reflected: Floats, diagonal: Floats, target: Floats) -> Floats:
    """Coefficients by the reflections that `explained_share` has left in `reflected`."""
    column_count, sample_count = reflected.shape
    rest = target.copy()
    for step in range(column_count):
        pivot = reflected[step]
        product = 0.0
        for row in range(step, sample_count):
            product += rest[row] * pivot[row]
        product /= diagonal[step] * pivot[step]
        for row in range(step, sample_count):
            rest[row] += product * pivot[row]
    coefficients = np.empty(column_count)
    for step in range(column_count - 1, -1, -1):
        rest[step] /= diagonal[step]
        coefficients[step] = rest[step]
        for row in range(step):
            rest[row] -= rest[step] * reflected[step, row]
    return coefficients


@allocating
def _second_moment(values: Floats) -> float:
    """The sum of squared distances from the mean, in one pass (Welford)."""
    mean, moment = 0.0, 0.0
    for index in range(len(values)):
        distance = values[index] - mean
        step = distance / (index + 1.0)
        mean += step
        moment += index * distance * step
    return moment


@allocating
def chosen_guest(
    plant: Plant, state: State, selector: int, guests: npt.NDArray[np.int32], draw: np.random.Generator
) -> int:
    """The place in `guests`, of which there is one or more, of the machine to move."""
    if selector == MU:
        return least_utilised(guests, state.demand, plant.vm_mips)
    if selector == RS:
        return int(draw.random() * len(guests))
    if selector == MC:
        length = min(state.record_count[0], HISTORY_MAX)
        past = np.empty((len(guests), length))
        for index in range(len(guests)):
            for age in range(length):
                past[index, age] = state.recorded[guests[index], state.record_count[0] - 1 - age]
        best = most_correlated(past)
        if best >= 0:
            return best
    return least_memory(guests, plant.memory_mb)
