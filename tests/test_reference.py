"""The pages that follow from the program are what scripts/reference.py writes, and messages are quoted as they are."""

from __future__ import annotations

import ast
import json
import re
import runpy
from pathlib import Path
from typing import Any, get_args

import pytest

from inprocess import run_in_process
from mellea_cli import errors, events
from mellea_cli.cli.help_pages import VARIABLES
from rowfiles import read_rows

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "reference.py"))
TROUBLESHOOTING = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^### `(.+)`$", TROUBLESHOOTING, re.MULTILINE)
# Variables that the program sets itself, or that belong to no setting.
_NOT_SETTINGS = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "RAY_USAGE_STATS_ENABLED"}
_VARIABLE = re.compile(
    r"(?:MELLEA|OLLAMA|OPENAI|RAY|HF|SSL|TTY|XDG)_[A-Z_]+|NO_COLOR|FORCE_COLOR|TERM|CI|EDITOR|VISUAL|INPUTRC"
)


def strings() -> list[str]:
    """Every string of the source; the replaced parts of an f-string are null characters."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


STRINGS = strings()
MESSAGES = [
    re.compile(".+".join(map(re.escape, text.split("\0"))), re.DOTALL)
    for text in STRINGS
    if len(text.replace("\0", "").replace(" ", "")) > 7 and "\n" not in text
]


@pytest.mark.parametrize("name", REFERENCE["PAGES"])
def test_a_page_is_what_the_script_writes(name: str) -> None:
    """`make reference` writes it again after a change of the help or of the navigation."""
    assert (DOCS / name).read_text(encoding="utf-8") == REFERENCE["PAGES"][name]()


def test_every_variable_is_described() -> None:
    """A variable that the source names is one of a flag, or is in the table of the others."""
    named = {text for text in STRINGS if _VARIABLE.fullmatch(text) and not text.endswith("_")}
    settings = (DOCS / "settings.md").read_text(encoding="utf-8")
    described = set(re.findall(r"`([A-Z][A-Z_]+)`", settings))
    assert named - described - _NOT_SETTINGS == set()
    assert set(VARIABLES) <= named


def test_the_manual_pages_are_what_the_script_writes() -> None:
    """One for the program and one for each command; no other file is in their folder."""
    written = dict(REFERENCE["manual_pages"]())
    assert {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "man").iterdir()} == written
    assert {"mellea.1", "mellea-summarise.1", "mellea-models-pull.1"} <= set(written)


@pytest.mark.parametrize("message", QUOTED)
def test_a_message_of_the_troubleshooting_page_is_one_of_the_program(message: str) -> None:
    """Words in capitals stand for what differs; a place in front is that of an input error."""
    bare = re.sub(r"^FILE(?::LINE)?: ", "", message)
    assert any(pattern.fullmatch(text) for pattern in MESSAGES for text in (message, bare))


def test_every_kind_of_a_failed_row_is_described() -> None:
    """The table has each kind with which a row can fail, and no other."""
    table = TROUBLESHOOTING.split("## A row with an error")[1]
    ends_the_run = {"backend", "not-authorized", "quota-spent", "endpoint-missing", "model-missing", "no-logprobs"}
    kinds = {
        one.kind
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, (errors.BackendError, errors.AnswerError))
    }
    assert set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == kinds - ends_the_run


def test_the_exit_codes_are_all_there() -> None:
    """The page has each code of the enum and no other."""
    page = (DOCS / "exit-codes.md").read_text(encoding="utf-8")
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == {
        int(one) for one in errors.ExitCode
    }


def keys_of(heading: str) -> set[str]:
    """The keys in the first column of the table under a heading of docs/json.md."""
    section = (DOCS / "json.md").read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}


def test_every_key_of_the_json_is_described(tmp_path: Path) -> None:
    """Of the summary, of the events that a run writes, of a report and of a comparison."""
    page = (DOCS / "json.md").read_text(encoding="utf-8")
    source = str(ROOT / "samples" / "feedback.jsonl")
    flags = ("-b", "scripted", "--summary-file", "summary.json", "--log-file", "log.jsonl")
    assert run_in_process(("summarise", source, "-o", "out.jsonl", *flags), tmp_path).returncode == 0
    assert set(json.loads((tmp_path / "summary.json").read_text())) == keys_of("The summary of a run")
    for event in read_rows(tmp_path / "log.jsonl"):
        row = next(line for line in page.splitlines() if line.startswith(f"| `{event['event']}` |"))
        assert {"time", "t", "event", *re.findall(r"`(\w+)`", row)[1:]} == set(event)
    assert keys_of("Events") == {one.__name__ for one in get_args(events.Event)} - {"TokensReceived", "Counted"}
    report = run_in_process(("report", "out.jsonl", "--format", "json"), tmp_path).stdout
    assert set(json.loads(report)) == keys_of("A report")
    compared = json.loads(run_in_process(("compare", "out.jsonl", "out.jsonl", "--format", "json"), tmp_path).stdout)
    assert all(f"`{key}`" in page for key in compared)
    answer = json.loads(run_in_process(("chat", "Why?", "-b", "scripted", "--json", "--no-history"), tmp_path).stdout)
    assert all(f"`{key}`" in page for key in answer)


def told_keys(value: Any) -> set[str]:
    """The keys of an object, and of the objects in its lists one level below."""
    if isinstance(value, list):
        return set().union(*map(told_keys, value))
    below = [
        told_keys(one) for part in value.values() if isinstance(part, list) for one in part if isinstance(one, dict)
    ]
    return set(value).union(*below)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("models list", ("models", "list")),
        ("jobs list", ("jobs", "list", "--all")),
        ("pipeline new", ("pipeline", "new", "nps-reasons")),
        ("pipeline new", ("pipeline", "new", "-o", "new.toml")),
        ("pipeline check", ("pipeline", "check", "fields.toml")),
        ("pipeline check", ("pipeline", "check", "wrong.toml")),
        ("pipeline show", ("pipeline", "show", "fields.toml")),
        ("doctor", ("doctor",)),
        ("skill", ("skill",)),
        ("help", ("help",)),
        ("help", ("help", "exit-codes")),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_every_key_of_the_other_commands_is_described(command: str, words: tuple[str, ...], tmp_path: Path) -> None:
    """The row of the command in docs/json.md has each key that the command writes."""
    (tmp_path / "fields.toml").write_text('[fields.product]\ndescription = "the product"\n')
    (tmp_path / "wrong.toml").write_text("[fields.product]\ndescripton = 1\n")
    done = run_in_process(
        (*words, "--json"), tmp_path, env={"OLLAMA_HOST": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    )
    page = (DOCS / "json.md").read_text(encoding="utf-8").split("## Other commands")[1]
    row = next(line for line in page.splitlines() if line.startswith(f"| `mellea {command}`"))
    keys = told_keys(json.loads(done.stdout))
    assert keys
    assert keys - {"headers", "rows"} <= set(re.findall(r"`(\w+)`", row))


def test_the_keys_of_errors_and_of_an_export_are_described(tmp_path: Path) -> None:
    """An error of an input has a place; the closing line of an export counts."""
    (tmp_path / "in.jsonl").write_text('{"text": "fine"}\n{broken\n')
    done = run_in_process(("summarise", "in.jsonl", "-b", "scripted", "--json"), tmp_path)
    told = json.loads(done.stderr.splitlines()[-1])
    assert {"error", *told["error"]} | {"line"} == keys_of("Errors") - {"usage", "input", "output"}
    assert (told["error"]["code"], told["error"]["file"], told["error"]["line"]) == ("input", "in.jsonl", 2)
    done = run_in_process(("export", "in.jsonl", "--json"), tmp_path)
    assert set(json.loads(done.stderr.splitlines()[-1])) == keys_of("Rows")
