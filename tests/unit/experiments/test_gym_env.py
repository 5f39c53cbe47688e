"""Placement as a Gymnasium environment: the interface is kept, and its world is the replay's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium", reason="the extra `gym` is not installed")

from gymnasium.utils.env_checker import check_env  # noqa: E402

from olvm.experiments import replay  # noqa: E402
from olvm.experiments.gym_env import PlacementEnv  # noqa: E402
from olvm.model.errors import BadInput  # noqa: E402
from tests.unit.experiments.grids.small import write_trace  # noqa: E402

HOSTS = "3x8c32g,2x16c24g"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    write_trace(path)
    return path


def played(env: PlacementEnv, choose: Any) -> tuple[dict[str, Any], float, list[Any]]:
    observation, _ = env.reset(seed=4)
    total, seen = 0.0, [observation]
    is_over = False
    while not is_over:
        observation, reward, is_over, _, _ = env.step(choose(env.action_masks()))
        total += reward
        seen.append(observation)
    return env.figures(), total, seen


def test_interface_is_gymnasiums(trace: Path) -> None:
    check_env(PlacementEnv(trace, HOSTS, window_vms=100, keep=0.8), skip_render_check=True)


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize(("policy", "choose"), [("first_fit", lambda masks: int(masks.argmax()))])
def test_agent_that_takes_the_first_host_with_room_is_first_fit(
    trace: Path, policy: str, choose: Any, nodes: int
) -> None:
    figures, _, _ = played(PlacementEnv(trace, HOSTS, numa_nodes=nodes, split_above_gib=8), choose)
    alone = replay(trace, HOSTS, numa_nodes=nodes, split_above_gib=8, policy=policy, queue="reject")

    assert figures["digest"] == alone.digest
    assert figures["rejected"] == alone.rejected > 0


def test_reward_is_host_hours_and_refusals(tmp_path: Path) -> None:
    """One host of two has VMs from 0 s to 3,600 s, both from there to 7,200 s; the fourth VM finds no room."""
    trace = {
        "arrival_s": [0, 3600, 3600, 7200],
        "lifetime_s": [9000, 9000, 9000, 9000],
        "vcpus": [2, 1, 2, 2],
        "memory_gib": [1, 1, 1, 1],
    }
    env = PlacementEnv(trace, "2x3c8g", refusal_cost=5.0)
    figures, total, _ = played(env, lambda masks: int(masks.argmax()))

    assert (figures["placed"], figures["rejected"]) == (3, 1)
    assert total == pytest.approx(-(1 * 1 + 2 * 1) / 2 - 5)


def test_seed_draws_the_episode(trace: Path) -> None:
    env = PlacementEnv(trace, HOSTS, window_vms=50)
    first, second, other = (env.reset(seed=seed)[0] for seed in (1, 1, 2))

    assert (first["request"] == second["request"]).all()
    assert env.reset(seed=1)[0]["hosts"].tolist() == first["hosts"].tolist()
    digests = []
    for seed in (1, 1, 2):
        env.reset(seed=seed)
        is_over = False
        while not is_over:
            _, _, is_over, _, _ = env.step(np.int64(env.action_masks().argmax()))
        digests.append(env.figures()["digest"])
    assert digests[0] == digests[1] != digests[2]
    assert other["request"].shape == (2,)


def test_masks_are_where_the_vm_has_room_and_another_action_refuses_it(trace: Path) -> None:
    env = PlacementEnv(trace, HOSTS)
    env.reset(seed=1)
    while env.action_masks().all():
        env.step(np.int64(env.action_masks().argmax()))
    masks = env.action_masks()
    assert masks.any()
    _, reward, _, _, info = env.step(np.int64(masks.argmin()))

    assert info["had_room"] is False
    assert info["refused"] >= 1
    assert reward <= -1


@pytest.mark.parametrize(
    "wrong", [{"window_vms": 301}, {"window_vms": -1}, {"keep": 0.0}, {"numa_nodes": 0}, {"hosts": "many"}]
)
def test_parameters_that_make_no_sense_are_refused(trace: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        PlacementEnv(trace, **{"hosts": HOSTS, **wrong})


def test_episode_that_is_over_is_reset_first(trace: Path) -> None:
    env = PlacementEnv(trace, HOSTS)
    with pytest.raises(BadInput, match="reset the environment"):
        env.step(np.int64(0))
