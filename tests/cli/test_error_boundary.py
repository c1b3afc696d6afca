"""Where errors end: one line, a hint, an exit code, and a report file for a bug."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from mellea_cli.cli.error_boundary import asks_for_json, boundary
from mellea_cli.errors import ExitCode, InputError, OutputBusy, ReaderGone, ServerFault, UsageError


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


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UsageError("no", hint="yes"), {"code": "usage", "message": "no", "hint": "yes", "exit_code": 2}),
        (
            InputError("bad row", path="in.csv", line=7),
            {"code": "input", "message": "in.csv:7: bad row", "file": "in.csv", "line": 7, "exit_code": 2},
        ),
        (OutputBusy("taken"), {"code": "output-busy", "message": "taken", "exit_code": 2}),
        (ServerFault("broken \x9b2J"), {"code": "server-fault", "message": "broken \x9b2J", "exit_code": 4}),
        (KeyboardInterrupt(), {"code": "interrupted", "message": "interrupted", "exit_code": 130}),
        (UsageError("lone \ud800"), {"code": "usage", "message": "lone \ud800", "exit_code": 2}),
    ],
)
def test_an_error_is_one_line_of_json_for_a_program(
    error: BaseException, told: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every key is there, null where nothing is known, and no control character reaches a terminal."""
    with pytest.raises(typer.Exit), boundary({"json": True}):
        raise error
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert shown.err[:-1].isprintable()
    assert json.loads(shown.err)["error"] == {"hint": None, "file": None, "line": None} | told


def test_a_bug_is_told_as_json_with_its_report(capsys: pytest.CaptureFixture[str]) -> None:
    """The hint names the file."""
    with pytest.raises(typer.Exit), boundary({"json": True}):
        raise RuntimeError("unexpected")
    told = json.loads(capsys.readouterr().err)["error"]
    assert (told["code"], told["exit_code"]) == ("bug", 1)
    assert "mellea-bug-" in told["hint"]


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["report", "x", "--json"], True),
        (["show", "x", "--json=id"], True),
        (["summarise", "--jsonl"], False),
        (["chat", "--", "--json"], False),
        ([], False),
    ],
)
def test_json_is_asked_for_by_its_flag(arguments: list[str], asked: bool) -> None:
    """Also where the other arguments are wrong, and not behind `--`."""
    assert asks_for_json(arguments) is asked
