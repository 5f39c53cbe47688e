"""Power models by name: watts of one host at 0, 10, … 100 % of its CPUs, linear between.

Replays and the PlanetLab experiment read the same tables. A placement knows what is promised, not what is used: in a
replay utilisation is vCPUs promised over vCPUs there. The loops interpolate on their own: a replay in whole milliwatts,
the experiment in the order of operations that CloudSim's choices depend on (`consolidation/energy.py`).

Source: SPECpower_ssj2008 results of HP ProLiant ML110 G4 (Xeon 3040) and G5 (Xeon 3075), as in CloudSim 3.0.3
(power.models).
"""

from __future__ import annotations

import numpy as np

from olvm.experiments.kernels.state import Ints
from olvm.model.errors import BadInput
from olvm.model.search import nearest

POWER_MODELS: dict[str, tuple[float, ...]] = {
    "hp-ml110-g4": (86.0, 89.4, 92.6, 96.0, 99.5, 102.0, 106.0, 108.0, 112.0, 114.0, 117.0),
    "hp-ml110-g5": (93.7, 97.0, 101.0, 105.0, 110.0, 116.0, 121.0, 125.0, 129.0, 133.0, 135.0),
}


def power_milliwatts(name: str) -> Ints:
    """The eleven points of a model, in milliwatts.

    Raises:
        BadInput: there is no such model.
    """
    watts = POWER_MODELS.get(name)
    if watts is None:
        raise BadInput(
            f"there is no power model {name}{nearest(name, list(POWER_MODELS))}: choose from {', '.join(POWER_MODELS)}"
        )
    return np.array([round(point * 1000) for point in watts], np.int64)
