"""What holds for every command: help, version, errors, configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mellea_cli.cli.app import COMMANDS, app
from mellea_cli.cli.error_boundary import boundary
from mellea_cli.cli.settings import defaults_for, read_config
from mellea_cli.errors import ExitCode, InputError, OutputBusy, ReaderGone, ServerFault, UsageError
from rowfiles import Run

# What `mellea --help` may import beside the standard library: Typer, and what it needs itself.
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
        assert own.splitlines()[0].startswith(COMMANDS[name].about.rstrip("."))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no", hint="yes"), ExitCode.USAGE),
        (InputError("bad row", path="in.csv", line=7), ExitCode.USAGE),
        (OutputBusy("taken"), ExitCode.USAGE),
        (ServerFault("broken"), ExitCode.STOPPED_EARLY),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
    ],
)
def test_an_expected_error_is_one_line_and_a_code(
    error: BaseException, code: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    """What happened, the next step if there is one, and no traceback."""
    with pytest.raises(typer.Exit) as ended, boundary():
        raise error
    assert ended.value.exit_code == code
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == (2 if getattr(error, "hint", "") else 1)


def test_a_bug_leaves_a_report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The traceback goes into a private file, and the screen names the file."""
    with pytest.raises(typer.Exit) as ended, boundary():
        raise RuntimeError("unexpected")
    assert ended.value.exit_code == ExitCode.BUG
    (report,) = (tmp_path / "state").rglob("mellea-bug-*.txt")
    assert report.name in capsys.readouterr().err
    assert "RuntimeError: unexpected" in report.read_text()
    assert report.stat().st_mode & 0o077 == 0


def test_a_reader_that_has_enough_hears_nothing() -> None:
    """A closed pipe is no error worth a line."""
    code = (
        "from mellea_cli.cli.error_boundary import boundary; from mellea_cli.errors import ReaderGone; import typer\n"
        "try:\n with boundary(): raise ReaderGone('gone')\n"
        "except typer.Exit as end: raise SystemExit(end.exit_code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (ExitCode.READER_GONE, "")
    assert ReaderGone("x").exit_code == ExitCode.READER_GONE


KNOWN = {"summarise": frozenset({"limit", "max_retries", "backend"}), "models": frozenset[str]()}


def test_settings_at_the_top_hold_for_every_command_that_knows_them() -> None:
    """A table for a command beats them; dashes and underscores are the same, and so are both spellings."""
    config = {"backend": "ollama", "max-retries": 1, "summarize": {"max_retries": 2}}
    defaults = defaults_for(config, KNOWN, Path("c.toml"))
    assert defaults["summarise"] == {"backend": "ollama", "max_retries": 2}
    assert defaults["models"] == {}


@pytest.mark.parametrize("config", [{"limt": 1}, {"summarise": {"limt": 1}}, {"summarice": {}}])
def test_an_unknown_setting_is_refused_with_the_nearest(config: dict[str, object]) -> None:
    """A typing mistake in the file does not go unnoticed."""
    with pytest.raises(UsageError, match=r"c\.toml") as raised:
        defaults_for(config, KNOWN, Path("c.toml"))
    assert "limit" in raised.value.hint or "summarise" in raised.value.hint


def test_a_broken_configuration_names_the_file(tmp_path: Path) -> None:
    """And an absent one is simply empty."""
    path = tmp_path / "config.toml"
    assert read_config(path) == {}
    path.write_text("limit = = 3")
    with pytest.raises(UsageError, match=r"config\.toml"):
        read_config(path)


def test_wrong_usage_exits_with_two(mellea: Run) -> None:
    """Unknown commands and flags are usage errors on stderr."""
    for arguments in (("sumarise",), ("summarise", "--no-such-flag"), ("models", "pull")):
        done = mellea(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
