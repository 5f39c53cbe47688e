"""The README's promises: its script runs, its SQL answers, its commands and files exist.

The script runs in the local runtime; that it runs on Ray too is the affair of tests/ray.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cyclopts import CycloptsError

import olvm
from tests.architecture.source import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
WAIT_S_MAX = 60.0
WIDTH_MAX = 120


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[str]:
    """The lines of shell blocks that call `program`, joined where a backslash goes on in the next one."""
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", "").splitlines()]
    return [line for line in lines if line.split()[:1] == [program]]


def until(condition: Callable[[], bool]) -> bool:
    """Ask again until it holds; each question waits for the engine's answer, so this does not spin."""
    deadline = time.monotonic() + WAIT_S_MAX
    while not condition():
        if time.monotonic() > deadline:
            return False
    return True


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[olvm.DataCenter, str]]:
    """A data center that the README's script has made and left, opened again; and what the script printed."""
    directory = tmp_path_factory.mktemp("readme")
    (directory / "lab").mkdir()
    # Only how often history gets something; what the script does is the README's.
    settings = '{"sample_period_s": 0.2, "history_flush_period_s": 0.2, "events_pull_period_s": 0.2}'
    (directory / "lab" / "config.json").write_text(settings, encoding="utf-8")
    (script,) = blocks("python")
    assert script.count('runtime="ray"') == 1
    printed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        code = compile(script.replace('runtime="ray"', 'runtime="local"'), "README.md", "exec")
        exec(code, {"print": lambda *values: printed.append(" ".join(map(str, values)))})  # our own page
    with olvm.DataCenter.open(directory / "lab", runtime="local") as dc:
        yield dc, "\n".join(printed)


def test_readme_lines_fit_a_page() -> None:
    assert [line for line in README.splitlines() if len(line) > WIDTH_MAX] == []


def test_readme_script_run_prints_the_machine_as_up(lab: tuple[olvm.DataCenter, str]) -> None:
    _, printed = lab
    assert printed.startswith("up kvm0")
    assert "web-1 4 8589934592" in printed
    assert re.search(r"^web-1 +up +kvm0\d$", printed, re.MULTILINE), printed


@pytest.mark.parametrize("statement", blocks("sql"))
def test_readme_sql_answers_with_rows(lab: tuple[olvm.DataCenter, str], statement: str) -> None:
    dc, _ = lab
    assert until(lambda: len(dc.sql(statement)) > 0), statement


@pytest.mark.parametrize("statement", ["show tables", "describe vms"])
def test_readme_sql_about_tables_answers(lab: tuple[olvm.DataCenter, str], statement: str) -> None:
    assert statement in README
    assert len(lab[0].sql(statement)) > 0


def test_readme_files_of_a_data_center_are_those_on_disk(lab: tuple[olvm.DataCenter, str]) -> None:
    dc, _ = lab
    rows = re.findall(r"^\| `([^`]+)` \|", README, re.MULTILINE)
    assert rows, "the table of files is gone"
    patterns = [re.compile(re.escape(row).replace("…", ".*")) for row in rows]
    found = [path.name for path in Path(dc.directory).iterdir() if not path.name.endswith((".wal", ".tmp"))]
    assert [name for name in found if not any(pattern.fullmatch(name) for pattern in patterns)] == []


@pytest.mark.parametrize("line", commands("olvm"))
def test_readme_command_parses(line: str) -> None:
    from olvm.cli import app

    try:
        function, _, _ = app.parse_args(shlex.split(line)[1:])
    except CycloptsError as error:
        pytest.fail(f"{line}: {error}")
    # An unknown noun would be answered with the help of the whole program.
    assert function.__module__.startswith("olvm.cli"), line


@pytest.mark.parametrize(
    "target",
    sorted(
        set(
            re.findall(
                r"\bmake ([a-z][a-z-]*)\b", " ".join([*blocks("sh"), *re.findall(r"`([^`\n]+)`", README)])
            )
        )
    ),
)
def test_readme_make_target_exists(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_readme_token_replays_the_story_that_is_told() -> None:
    from sim.runs import run_plan
    from sim.token import decode_plan

    (token,) = [words[3] for words in map(str.split, commands("olvm")) if words[1:3] == ["sim", "replay"]]
    outcome = run_plan(decode_plan(token), keeps_story=True)
    assert outcome.verdict == "ok", outcome.sentence
    told = [
        line for block in blocks("text") for line in block.splitlines() if re.match(r" +\d+\.\d{3}  ", line)
    ]
    # Moments move when the control plane changes; what happens, in which order, does not.
    story = iter([line.split(maxsplit=1)[1] for line in outcome.story])
    words = [re.sub(r"after \d+ s", "after", line.split(maxsplit=1)[1]) for line in told]
    assert len(words) >= 5
    assert all(word in (re.sub(r"after \d+ s", "after", line) for line in story) for word in words), told


def test_readme_command_misspelt_is_found() -> None:
    from olvm.cli import app

    with pytest.raises(CycloptsError):
        app.parse_args(["vm", "strat", "web-1"])
