"""Power models by name: watts of one host at 0, 10, … 100 % of its vCPUs, linear between.

A placement knows what is promised, not what is used: utilisation here is vCPUs promised over vCPUs there.

Source: SPECpower_ssj2008 results of both servers, as in CloudSim 3.0.3 (power.models).
"""

from __future__ import annotations

import numpy as np

from olvm.experiments.consolidation.power import WATTS_BY_KIND
from olvm.experiments.kernels.state import Ints
from olvm.model.errors import BadInput
from olvm.model.search import nearest

POWER_MODELS: dict[str, tuple[float, ...]] = {
    "hp-ml110-g4": WATTS_BY_KIND[0],
    "hp-ml110-g5": WATTS_BY_KIND[1],
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
