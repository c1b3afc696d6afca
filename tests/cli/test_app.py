"""What holds for every command: help, version, completion, wrong usage."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mellea_cli.cli.app import COMMANDS, app
from rowfiles import Run

# What `mellea --help` may import besides the standard library: Typer, and what it needs itself.
HELP_MAY_IMPORT = {"mellea_cli", "typer", "shellingham", "annotated_doc", "platformdirs"}


def test_help_lists_the_commands() -> None:
    """Every command is there with a line, the second spelling is not in the way."""
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    for command in ("summarise", "models", "doctor"):
        assert command in shown.stdout
    assert "summarize" not in shown.stdout


def test_version_is_the_distributions() -> None:
    """One line on stdout."""
    from importlib.metadata import version

    shown = CliRunner().invoke(app, ["--version"])
    assert shown.stdout == f"mellea {version('mellea-cli')}\n"


def loaded_by(*arguments: str, environ: dict[str, str] | None = None) -> set[str]:
    """Modules that a `mellea` of its own has loaded when it ends."""
    code = (
        "import atexit, sys; before = set(sys.modules)\n"
        "atexit.register(lambda: print(*(set(sys.modules) - before), file=sys.stderr))\n"
        "from mellea_cli.cli.entry import main\n"
        f"sys.argv[1:] = {list(arguments)}\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **(environ or {})}
    )
    return set(done.stderr.splitlines()[-1].split())


def third_party(modules: set[str]) -> set[str]:
    """The packages among them that are neither the standard library's nor private parts."""
    tops = {name.split(".")[0] for name in modules} - sys.stdlib_module_names
    return {name for name in tops if not name.startswith("_")}


@pytest.mark.parametrize("arguments", [("--help",), ("summarise", "--help"), ("chat", "--help")])
def test_help_imports_nothing_that_it_does_not_use(arguments: tuple[str, ...]) -> None:
    """Neither pydantic nor Rich nor the HTTP client nor the engine is loaded to show the help."""
    loaded = loaded_by(*arguments)
    assert third_party(loaded) <= HELP_MAY_IMPORT
    for room in ("engine", "io", "run", "session", "pipelines", "backends", "ui.live"):
        assert f"mellea_cli.{room}" not in loaded


def test_the_version_imports_nothing() -> None:
    """Not even Typer."""
    assert third_party(loaded_by("--version")) == {"mellea_cli"}


@pytest.mark.parametrize(
    ("words", "expected"), [("mellea su", "summarise"), ("mellea summarise --concurr", "--concurrency")]
)
def test_a_completion_imports_no_more_than_the_help(words: str, expected: str) -> None:
    """A shell that asks for a completion gets it at once, and the right one."""
    asked = {
        "_MELLEA_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    assert third_party(loaded_by(environ=asked)) <= HELP_MAY_IMPORT
    done = subprocess.run(
        [sys.executable, "-m", "mellea_cli"], capture_output=True, text=True, check=True, env={**os.environ, **asked}
    )
    assert expected in done.stdout.split()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_listed_command_says_the_same_of_itself(name: str) -> None:
    """The line in the list, written down so that no module need be loaded for it, is the command's own first one."""
    group: Any = typer.main.get_command(app)
    own = group.commands[name].help
    if name != "summarize":
        assert own.splitlines()[0].startswith(COMMANDS[name].summary.rstrip("."))


def test_wrong_usage_exits_with_two(mellea: Run) -> None:
    """Unknown commands and flags are usage errors on stderr."""
    for arguments in (("sumarise",), ("summarise", "--no-such-flag"), ("models", "pull")):
        done = mellea(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments


def test_without_a_command_the_help_is_shown_as_a_usage_error(mellea: Run) -> None:
    """On stderr: a script does not take it for a result."""
    done = mellea()
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: mellea" in done.stderr
    assert len(done.stderr.splitlines()) > 5


@pytest.mark.parametrize("command", ["models", "jobs"])
def test_a_group_without_a_subcommand_shows_its_help(mellea: Run, command: str) -> None:
    """As with `--help`."""
    done = mellea(command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == mellea(command, "--help").stdout
