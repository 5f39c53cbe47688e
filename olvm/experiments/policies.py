"""The policies that replays know by name, with what each of them takes and where it comes from.

All of them choose among hosts with room; ties go to the lowest index, and within a host to the lowest NUMA node with
room. "Free" is the sum over a host's NUMA nodes: a policy ranks hosts, and a node only has to have room (but with
`numa_balance`, which chooses the node too).
"""

from __future__ import annotations

import math

import msgspec

from olvm.experiments.kernels.state import (
    BEST_FIT,
    COSINE,
    DOT_PRODUCT,
    FIRST_FIT,
    LAVA,
    NILAS,
    NORM_GREEDY,
    NUMA_BALANCE,
    RANDOM,
    ROUND_ROBIN,
    TWO_CHOICE,
    WEIGHTED_DOT_PRODUCT,
    WORST_FIT,
)
from olvm.model.errors import BadInput
from olvm.model.search import nearest
from olvm.scheduling.host_selectors import HOST_SELECTORS

# Of those that live clusters have too.
_SOURCE = {selector.policy: selector.source for selector in HOST_SELECTORS.values()}


_LAVA_PAPER = "Ling et al., LAVA, MLSys 2025, arXiv 2412.09840; docs/experiments.md says what is our reading"
# Those that predict lifetimes, and may be told how badly: name@error.
PREDICTING = ("nilas", "lava")
PREDICTION_ERROR_MAX = 10.0


class NamedPolicy(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kernel: int  # what the compiled loop knows it by
    takes: str  # the host that it takes, in a sentence
    source: str
    cost: str
    prediction_error: float = 0.0  # of lifetimes; `olvm.experiments.running.predicted_lifetimes` says what of


POLICIES: dict[str, NamedPolicy] = {
    policy.name: policy
    for policy in (
        NamedPolicy(
            name="first_fit",
            kernel=FIRST_FIT,
            takes="the host of the lowest index",
            source=_SOURCE["first_fit"],
            cost="O(log hosts), mostly",
        ),
        NamedPolicy(
            name="best_fit",
            kernel=BEST_FIT,
            takes="the host with the least free vCPUs, then the least free memory",
            source=_SOURCE["best_fit"],
            cost="O(log classes of equal free capacity)",
        ),
        NamedPolicy(
            name="worst_fit",
            kernel=WORST_FIT,
            takes="the host with the most free vCPUs, then the most free memory",
            source=_SOURCE["worst_fit"],
            cost="O(hosts)",
        ),
        NamedPolicy(
            name="round_robin",
            kernel=ROUND_ROBIN,
            takes="the next host after the one that was taken last, around the end",
            source=_SOURCE["round_robin"],
            cost="O(log hosts), mostly",
        ),
        NamedPolicy(
            name="random",
            kernel=RANDOM,
            takes="any host, each as likely (splitmix64 from the seed)",
            source=_SOURCE["random"],
            cost="O(hosts)",
        ),
        NamedPolicy(
            name="two_choice",
            kernel=TWO_CHOICE,
            takes="of two hosts that are drawn, with replacement, the one that worst_fit would take",
            source=_SOURCE["two_choice"],
            cost="O(hosts)",
        ),
        NamedPolicy(
            name="dot_product",
            kernel=DOT_PRODUCT,
            takes="the host with the largest dot product of what is asked and what is free, as shares of the "
            "fleet's largest host",
            source=_SOURCE["dot_product"],
            cost="O(hosts)",
        ),
        NamedPolicy(
            name="cosine",
            kernel=COSINE,
            takes="the host with the smallest angle between what is asked and what is free, as shares of the "
            "fleet's largest host",
            source=_SOURCE["cosine"],
            cost="O(hosts)",
        ),
        NamedPolicy(
            name="norm_greedy",
            kernel=NORM_GREEDY,
            takes="the host on which the L2 norm of what stays free is least, as shares of the fleet's largest host",
            source=_SOURCE["norm_greedy"],
            cost="O(hosts)",
        ),
        NamedPolicy(
            name="weighted_dot_product",
            kernel=WEIGHTED_DOT_PRODUCT,
            takes="the host with the largest dot product of what is asked and what is free, as shares of the "
            "fleet's largest host, each resource weighted by the average demand of the VMs that run and of the one "
            "that asks",
            source=_SOURCE["weighted_dot_product"],
            cost="O(hosts)",
        ),
        NamedPolicy(
            name="numa_balance",
            kernel=NUMA_BALANCE,
            takes="the host and the node in it that leave the host's nodes most even in free vCPUs and memory, as "
            "shares of a node; then the one that best_fit would take",
            source=_SOURCE["numa_balance"],
            cost="O(hosts)",
        ),
        NamedPolicy(
            name="nilas",
            kernel=NILAS,
            takes="the host whose last VM's predicted end is put off least, in steps; then the one that best_fit would "
            "take. nilas@0.5: predicted lifetimes are wrong by half a power of ten",
            source=_LAVA_PAPER,
            cost="O(hosts)",
        ),
        NamedPolicy(
            name="lava",
            kernel=LAVA,
            takes="a full host of a longer class of predicted lifetimes, into the gaps there; then one that fills up "
            "with VMs of the same class; then as nilas. lava@0.5: as nilas@0.5",
            source=_LAVA_PAPER,
            cost="O(hosts)",
        ),
    )
}


def named_policy(name: str) -> NamedPolicy:
    """`nilas@0.5` is nilas with that error of its predictions.

    Raises BadInput for a name that is none, with the nearest one, and for an error that makes no sense.
    """
    base, at, error = name.partition("@")
    if at and base in PREDICTING:
        return msgspec.structs.replace(
            POLICIES[base], name=name, prediction_error=_checked_error(name, error)
        )
    if at and base in POLICIES:
        raise BadInput(f"policy {base} predicts nothing, so that @{error} has no meaning: name {base} alone")
    policy = POLICIES.get(name)
    if policy is None:
        raise BadInput(
            f"there is no policy {name}{nearest(name, list(POLICIES))}: choose from {', '.join(POLICIES)}, "
            "or name a class of your own as module:Class"
        )
    return policy


def _checked_error(name: str, text: str) -> float:
    try:
        error = float(text)
    except ValueError:
        error = math.nan
    if not 0 <= error <= PREDICTION_ERROR_MAX:
        raise BadInput(
            f"policy {name} cannot be wrong by {text or 'nothing'} in its predictions: after the @ give powers of ten "
            f"from 0 to {PREDICTION_ERROR_MAX:g}, as in nilas@0.5"
        )
    return error
