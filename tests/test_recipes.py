"""Every recipe of docs/recipes.md is run as it stands there, on what the program writes."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
import xlsxwriter

from inprocess import run_in_process

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
RECIPES = [
    pytest.param(language, tool, code, id=f"{tool}-{number}")
    for number, (language, tool, code) in enumerate(re.findall(r"```(sh|python) (\S+)\n(.*?)```", PAGE, re.DOTALL), 1)
]
FAILED = {"id": "F-900", "created_at": "2026-10-14", "channel": "web", "text": "?", "summary": None, "sentiment": None}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the outputs that the recipes name."""
    folder = tmp_path_factory.mktemp("outputs")
    for name in ("results.jsonl", "results.csv"):
        feedback = str(ROOT / "samples" / "feedback.jsonl")
        done = run_in_process(("summarise", feedback, "-o", name, "-b", "scripted", "-m", "scripted", "-q"), folder)
        assert done.returncode == 0, done.stderr
    with (folder / "results.jsonl").open("a", encoding="utf-8") as file:
        error = {"kind": "parse", "message": "no JSON", "attempts": 3}
        file.write(json.dumps({**FAILED, "issues": None, "error": error}) + "\n")
    _make_inputs(folder)
    return folder


def _make_inputs(folder: Path) -> None:
    """A workbook, a database and a folder of exports, from the sample."""
    feedback = (ROOT / "samples" / "feedback.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in feedback.splitlines()]
    with xlsxwriter.Workbook(folder / "weekly.xlsx") as book:
        book.add_worksheet("About").write_row(0, 0, ["Feedback of the week"])
        sheet = book.add_worksheet("Answers")
        for number, row in enumerate([["id", "text"], *([row["id"], row["text"]] for row in rows)]):
            sheet.write_row(number, 0, row)
    with duckdb.connect(str(folder / "shop.duckdb")) as shop:
        shop.execute("CREATE TABLE tickets (id VARCHAR, channel VARCHAR, body VARCHAR)")
        shop.executemany("INSERT INTO tickets VALUES (?, ?, ?)", [[row["id"], "email", row["text"]] for row in rows])
    (folder / "exports").mkdir()
    for month, part in (("jan", rows[:5]), ("feb", rows[5:10])):
        with (folder / "exports" / f"{month}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["id", "text"], *([row["id"], row["text"]] for row in part)])


def run(language: str, tool: str, code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    missing = shutil.which(tool) is None if language == "sh" else importlib.util.find_spec(tool) is None
    if missing:
        pytest.skip(f"{tool} is not installed")
    command = ["bash", "-euo", "pipefail", "-c", code] if language == "sh" else [sys.executable, "-c", code]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # Questions are answered by a script, and messages are left out.
    own = {"MELLEA_BACKEND": "scripted", "MELLEA_QUIET": "1", "XDG_CONFIG_HOME": str(folder)}
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **own, "PATH": path},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize(("language", "tool", "code"), RECIPES)
def test_a_recipe_works(outputs: Path, language: str, tool: str, code: str) -> None:
    """It ends well, complains about nothing, and says something or writes the file that it names."""
    written = re.findall(r"(?:> |TO '|-o )([a-z-]+\.(?:jsonl|csv|parquet|xlsx))", code)
    done = run(language, tool, code, outputs)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() or written
    for name in written:
        assert (outputs / name).stat().st_size > 100


def test_every_tool_has_recipes() -> None:
    """Those of the program itself, jq, Miller, sqlite3, DuckDB and pandas."""
    assert {recipe.values[1] for recipe in RECIPES} == {"mellea", "jq", "mlr", "sqlite3", "duckdb", "pandas"}


def first_recipe(tool: str) -> tuple[str, str, str]:
    language, _, code = next(recipe.values for recipe in RECIPES if recipe.values[1] == tool)
    return str(language), tool, str(code)


def test_counts_by_jq_are_right(outputs: Path) -> None:
    """The first recipe says how often each sentiment occurs."""
    rows = [json.loads(line) for line in (outputs / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    told = run(*first_recipe("jq"), outputs).stdout
    counts = Counter(row["sentiment"] for row in rows if row["sentiment"])
    assert {name: int(number) for number, name in map(str.split, told.splitlines())} == counts


@pytest.mark.parametrize("tool", ["mlr", "duckdb"])
def test_counts_by_channel_are_right(outputs: Path, tool: str) -> None:
    """Both count the same groups: the largest of them stands there with its number."""
    rows = [json.loads(line) for line in (outputs / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    groups = Counter((row["channel"], row["sentiment"]) for row in rows if row["sentiment"])
    (channel, sentiment), number = groups.most_common(1)[0]
    told = run(*first_recipe(tool), outputs).stdout
    assert re.search(rf"\b{channel}\W+{sentiment}\W+{number}\b", told), told


def test_the_weekly_check_of_an_output_that_grows(tmp_path: Path) -> None:
    """The script of docs/cron.md cuts two weeks out of one output; the week that is worse gives an alert."""
    page = (ROOT / "docs" / "cron.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    header = "id,created_at,text,summary,sentiment,urgency,main_complaint,positive_aspect,error"
    made = [header]
    for ago in range(1, 15):
        day = datetime.now(UTC).astimezone().date() - timedelta(days=ago)
        for number in range(40):
            mood = "negative" if number < (24 if ago < 8 else 8) else "positive"
            made.append(f"{ago}-{number},{day}T09:00:00,Late again {ago} {number}.,Late.,{mood},low,,,")
    (tmp_path / "summaries.csv").write_text("\n".join(made) + "\n", encoding="utf-8")
    done = run("sh", "date", f"set -- {tmp_path}\n{code}", tmp_path)
    assert done.returncode == 10, done.stderr
    assert "**negative**: 20 %" in done.stdout
    rows = {name: (tmp_path / f"{name}-week.csv").read_text("utf-8").count("\n") - 1 for name in ("last", "this")}
    assert rows == {"last": 280, "this": 280}
