"""What the README and the other documents say is what the program does."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from mellea_cli.cli.app import app
from mellea_cli.errors import ExitCode

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

GROUP: Any = typer.main.get_command(app)


def flags_of(command: Any) -> set[str]:
    inner = [flags_of(one) for one in getattr(command, "commands", {}).values()]
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*inner)


def examples() -> list[str]:
    """Each `mellea ...` command that the README shows, without what is piped to or from it."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for line in block.splitlines():
            parts = [part.strip() for part in re.split(r"\||&&|#", line.removeprefix("$ "))]
            found += [part for part in parts if part.startswith("mellea ")]
    return found


def test_the_second_command_is_the_one_that_ci_runs() -> None:
    """The test command in the README stands in .ci/run letter by letter."""
    commands = re.findall(r"```console\n(.*?)\n```", README, re.DOTALL)
    assert commands[1].endswith("pytest --quiet")
    assert f'"{commands[1]}"' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "mellea summarise samples/feedback.jsonl" in commands[0]


@pytest.mark.parametrize("command", examples())
def test_every_example_parses(command: str) -> None:
    """Flags and arguments of the README's examples exist."""
    name, *arguments = shlex.split(command)[1:]
    GROUP.commands[name].make_context(name, arguments, resilient_parsing="--help" in arguments)


def test_every_flag_that_is_named_exists() -> None:
    """A flag in backticks anywhere in the README is one that a command takes."""
    known = flags_of(GROUP) | {"--help"}
    named = set(re.findall(r"`(--[a-z][a-z-]+)", README))
    assert named
    assert named <= known, named - known


def test_the_exit_codes_are_all_there() -> None:
    """The table has each code of the enum and no other."""
    table = README.split("## Exit codes")[1].split("##")[0]
    codes = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for code in row.split(",")}
    assert codes == {int(code) for code in ExitCode}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link and picture is a file."""
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_every_module_says_what_it_is() -> None:
    """Every module has a docstring: a newcomer reads it first."""
    modules = sorted((ROOT / "src").rglob("*.py"))
    assert [path for path in modules if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))] == []


def test_paths_in_the_documents_exist() -> None:
    """A path that architecture and contributing name is there."""
    for document in (ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md"):
        for name in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", document.read_text(encoding="utf-8")):
            assert (ROOT / name).exists() or (ROOT / "src" / "mellea_cli" / name).exists(), name
