"""`olvm sim` as a shell sees it: exit codes, what stands on stdout, and what it loads.

Bugs are planted in the program that is started, so that each verdict is reached by the way a real one is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sim.plan import Plan, Shape, Step
from sim.swarm import draw_plan
from sim.token import encode_plan

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120
SMALL = ("--hosts", "2", "--vms", "2", "--hours", "0.02", "--profile", "calm")
ONE_HOST = Shape(hosts=1, vms=1, running_percent=100, host_memory_gib=8)
ENGINE = "actors.engine"
# (module, the text that is replaced, what stands there instead)
Bug = tuple[str, str, str]
FORGETS_REQUEST: Bug = (
    ENGINE,
    "        if known is not None:\n",
    "        if known is not None and not known:\n",
)
LOSES_REASON: Bug = (
    ENGINE,
    "        operation.reason = message.reason\n        operation.error_code",
    "        operation.reason = ''\n        operation.error_code",
)
RAISES: Bug = (ENGINE, "self.record.accepted_count += 1", "raise RuntimeError('planted')")
DRAWS: Bug = (ENGINE, "id=turn.new_id(),", "id=__import__('uuid').uuid4().hex,")


def olvm(*arguments: str, bug: Bug | None = None) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "olvm.cli"]
    if bug is not None:
        module, old, new = bug
        script = (
            "import sys\n"
            "from sim.mutants.planting import Mutant, plant\n"
            f"plant(Mutant(name='test', module={module!r}, old={old!r}, new={new!r}, says=''))\n"
            "from olvm.cli import main\n"
            "sys.exit(main())\n"
        )
        program = [sys.executable, "-c", script]
    return subprocess.run(
        [*program, "sim", *arguments],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def parsed(result: subprocess.CompletedProcess[str]) -> Any:
    """Stdout is one JSON document and nothing else."""
    assert result.stdout.count("\n") == 1, result.stdout[:400] + result.stderr
    return json.loads(result.stdout)


def test_run_of_a_calm_seed_says_what_happened_and_exits_0() -> None:
    result = olvm("run", "--seed", "5", *SMALL)
    assert result.returncode == 0, result.stderr
    words = [line.split()[0] for line in result.stdout.splitlines()]
    assert " ".join(words) == "seed simulated messages commits faults oracles situations digest verdict"


def test_run_as_json_gives_the_digest_and_the_token_of_the_same_run() -> None:
    first = parsed(olvm("run", "--seed", "5", *SMALL, "--json"))
    assert (first["seed"], first["verdict"]) == (5, "ok")
    again = parsed(olvm("replay", first["token"], "--json"))
    assert again["digest"] == first["digest"]
    assert again["story"], "a replay tells its story"
    assert again["plan"]["seed"] == 5


def test_replay_about_a_machine_tells_of_it_and_of_the_world_alone() -> None:
    plan = Plan(seed=1, hours=0.01, shape=Shape(hosts=1, vms=2), steps=(Step(5_000, "reset", "v1"),))
    result = olvm("replay", encode_plan(plan), "--about", "v1")
    assert result.returncode == 0, result.stderr
    story = [line for line in result.stdout.splitlines() if line[:1] == " "]
    assert any("reset v1" in line for line in story)
    assert not any("v2" in line for line in story)


BROKEN: dict[str, tuple[Bug, Plan, str, int]] = {
    "safety": (
        FORGETS_REQUEST,
        Plan(
            seed=1, hours=0.01, shape=ONE_HOST, steps=(Step(5_000, "reset", "v1"), Step(9_000, "repeat", ""))
        ),
        "S5",
        20,
    ),
    "liveness": (
        LOSES_REASON,
        Plan(seed=1, hours=0.01, shape=ONE_HOST, steps=(Step(5_000, "migrate", "v1"),)),
        "L3",
        21,
    ),
    "crash": (RAISES, Plan(seed=1, hours=0.01, shape=ONE_HOST), "", 23),
}


@pytest.mark.parametrize("verdict", BROKEN)
def test_replay_with_a_planted_bug_exits_by_its_verdict(verdict: str) -> None:
    bug, plan, oracle, code = BROKEN[verdict]
    token = encode_plan(plan)
    healthy, ill = olvm("replay", token, "--json"), olvm("replay", token, "--json", bug=bug)
    assert (healthy.returncode, parsed(healthy)["verdict"]) == (0, "ok"), healthy.stdout[:500]
    outcome = parsed(ill)
    found = (ill.returncode, outcome["verdict"], outcome["oracle"])
    assert found == (code, verdict, oracle), outcome["sentence"]
    assert outcome["sentence"]


def test_run_twice_with_a_planted_draw_exits_22() -> None:
    assert olvm("run", "--seed", "5", *SMALL, "--twice").returncode == 0
    result = olvm("run", "--seed", "5", *SMALL, "--twice", bug=DRAWS)
    assert result.returncode == 22, result.stdout + result.stderr
    assert "DETERMINISM D1" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("olvm sim replay p-")


def test_explore_as_json_counts_seeds_twins_and_situations() -> None:
    result = olvm("explore", "--seeds", "3", "--workers", "2", *SMALL, "--json")
    assert result.returncode == 0, result.stderr
    campaign = parsed(result)
    assert (campaign["seeds"], campaign["twins"], campaign["failures"]) == (3, 1, [])
    assert campaign["simulated_s"] > 0
    assert 0 in campaign["situations"].values()


def test_explore_with_favoured_faults_draws_other_plans_of_the_same_seeds() -> None:
    asked = ("--seeds", "2", "--workers", "1", "--hosts", "3", "--vms", "3", "--hours", "0.1", "--json")
    plain = parsed(olvm("explore", *asked))["fault_counts"]
    result = olvm("explore", *asked, "--favour", "crash_host", "--favour", "plug_memory")
    assert result.returncode == 0, result.stderr

    favoured = parsed(result)["fault_counts"]
    assert favoured["crash_host"] >= 3 * (plain.get("crash_host", 0) + 1)


def test_run_with_favoured_faults_gives_the_token_of_the_favoured_plan() -> None:
    outcome = parsed(olvm("run", "--seed", "5", *SMALL, "--favour", "reset", "--json"))

    plan = draw_plan(5, "calm", hosts=2, vms=2, hours=0.02, favour=("reset",))
    assert outcome["token"] == encode_plan(plan)
    assert plan != draw_plan(5, "calm", hosts=2, vms=2, hours=0.02)


def test_explore_that_must_reach_all_and_does_not_exits_1() -> None:
    result = olvm("explore", "--seeds", "1", "--workers", "1", *SMALL, "--must-reach-all")
    assert result.returncode == 1
    assert "never reached: " in result.stderr


def test_sweep_of_few_places_exits_0_and_counts_them() -> None:
    report = parsed(olvm("sweep", "--every", "3000", "--offset", "5", "--workers", "1", "--json"))
    assert 2 <= report["runs"] <= 4
    assert report["places"] > 5_000
    assert report["failures"] == []


def test_mutants_list_is_the_catalogue() -> None:
    result = olvm("mutants", "--list", "--json")
    assert result.returncode == 0, result.stderr
    from sim.mutants.catalogue import MUTANTS

    assert [one["name"] for one in parsed(result)] == [mutant.name for mutant in MUTANTS]


TOKEN = encode_plan(Plan(seed=1))
BEYOND = encode_plan(Plan(seed=1, steps=(Step(0, "break_watchdog", "H1"),)))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("replay", "nonsense"), 2, "no token"),
        (("replay", TOKEN[:-3]), 2, "damaged or cut off"),
        (("replay", TOKEN[:9] + ("A" if TOKEN[9] != "A" else "B") + TOKEN[10:]), 2, "damaged"),
        (("replay", BEYOND), 2, "beyond the failure model"),
        (("run", "--hosts", "0"), 2, "cannot be built"),
        (("run", "--profile", "wild"), 2, "wild"),
        (("explore", "--seeds", "0"), 2, "--seeds must be at least 1"),
        (("explore", "--favour", "no-such-fault"), 2, "faults are arrival_is_late, "),
        (("explore", "--favour", "start", "--favour", ""), 2, "'' cannot be favoured"),
        (("run", "--favour", "watchdog_ends_machines"), 2, "commands are activate, "),
        (("sweep", "--every", "0"), 2, "--every must be at least 1"),
        (("mutants", "no-such-bug"), 3, "no planted bug"),
    ],
)
def test_wrong_word_is_refused_with_a_sentence_on_stderr(
    arguments: tuple[str, ...], code: int, words: str
) -> None:
    result = olvm(*arguments)
    assert (result.returncode, result.stdout) == (code, ""), result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_run_loads_neither_ray_nor_libvirt_nor_duckdb() -> None:
    script = (
        "import sys\n"
        "from olvm.cli import main\n"
        "code = main()\n"
        "heavy = {'ray', 'libvirt', 'duckdb', 'numpy', 'pandas', 'pyarrow'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, "sim", "run", "--seed", "5", *SMALL],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (result.returncode, result.stderr.splitlines()[-1]) == (0, "[]")
