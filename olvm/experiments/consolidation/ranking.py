"""A stable order of a few hundred numbers: equals keep theirs."""

from __future__ import annotations

import numpy as np

from olvm.experiments.compilation import allocating
from olvm.experiments.consolidation.plant import Floats, Ints


@allocating
def ranked(values: Floats) -> Ints:
    """The indices of `values`, the least value first.

    Cost: quadratic (insertion), and quicker to compile than NumPy's sorts; a round has a hundred values or so.
    """
    order = np.empty(len(values), dtype=np.int64)
    for index in range(len(values)):
        place = index
        while place > 0 and values[order[place - 1]] > values[index]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = index
    return order
