"""What holds for every command: help, version, errors, configuration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mellea_cli.cli.app import app
from mellea_cli.cli.boundary import boundary
from mellea_cli.cli.settings import defaults_for, read_config
from mellea_cli.errors import ExitCode, InputError, OutputBusy, ReaderGone, ServerFault, UsageError
from rowfiles import Run

# What `mellea --help` may import beside the standard library: Typer, what it needs itself, and what draws the help
# (Rich looks whether attrs is there).
HELP_MAY_IMPORT = {
    "mellea_cli", "typer", "rich", "shellingham", "annotated_doc", "pygments", "markdown_it", "mdurl",
    "typing_extensions", "platformdirs", "attr", "attrs", "pydantic", "pydantic_core", "annotated_types",
    "typing_inspection",
}  # fmt: skip


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


def test_help_imports_nothing_that_it_does_not_use() -> None:
    """Neither the HTTP client nor the engine nor the live display is loaded to show the help."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "from typer.testing import CliRunner\n"
        "from mellea_cli.cli.app import app\n"
        "CliRunner().invoke(app, ['summarise', '--help'])\n"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('mellea_cli.')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    third_party, ours = (line.split() for line in done.stdout.splitlines())
    assert {name for name in third_party if not name.startswith("_")} <= HELP_MAY_IMPORT
    for room in ("engine", "io", "run", "session", "pipelines", "backends.http", "ui.live"):
        assert f"mellea_cli.{room}" not in ours


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
        "from mellea_cli.cli.boundary import boundary; from mellea_cli.errors import ReaderGone; import typer\n"
        "try:\n with boundary(): raise ReaderGone('gone')\n"
        "except typer.Exit as end: raise SystemExit(end.exit_code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (ExitCode.READER_GONE, "")
    assert ReaderGone("x").exit_code == ExitCode.READER_GONE


COMMANDS = {"summarise": frozenset({"limit", "max_retries", "backend"}), "models": frozenset[str]()}


def test_settings_at_the_top_hold_for_every_command_that_knows_them() -> None:
    """A table for a command beats them; dashes and underscores are the same, and so are both spellings."""
    config = {"backend": "ollama", "max-retries": 1, "summarize": {"max_retries": 2}}
    defaults = defaults_for(config, COMMANDS, Path("c.toml"))
    assert defaults["summarise"] == {"backend": "ollama", "max_retries": 2}
    assert defaults["models"] == {}


@pytest.mark.parametrize("config", [{"limt": 1}, {"summarise": {"limt": 1}}, {"summarice": {}}])
def test_an_unknown_setting_is_refused_with_the_nearest(config: dict[str, object]) -> None:
    """A typing mistake in the file does not go unnoticed."""
    with pytest.raises(UsageError, match=r"c\.toml") as raised:
        defaults_for(config, COMMANDS, Path("c.toml"))
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
