"""Batch runs on either event loop."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from loopback import ModelServer, faults
from mellea_cli.cli import batch_run
from mellea_cli.cli.app import app
from mellea_cli.io.source import SourceOptions
from mellea_cli.report.results import open_results
from rowfiles import Run, interrupted, read_rows, write_rows


@pytest.fixture(params=["uvloop", "asyncio"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The loop that programs started from here run on."""
    chosen: str = request.param
    monkeypatch.setenv("MELLEA_LOOP", "" if chosen == "uvloop" else chosen)
    return chosen


async def _its_loop() -> str:
    import asyncio

    return type(asyncio.get_running_loop()).__module__.split(".")[0]


def test_uvloop_is_taken_where_it_is(loop: str) -> None:
    """Unless somebody wants Python's own."""
    assert batch_run.run_on_loop(_its_loop()) == loop


def test_python_s_own_is_taken_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra."""
    monkeypatch.delenv("MELLEA_LOOP")
    monkeypatch.setattr(batch_run, "find_spec", lambda name: None)
    assert batch_run.run_on_loop(_its_loop()) == "asyncio"


def test_a_run_with_faults_ends_as_it_should(loop: str, mellea: Run, tmp_path: Path) -> None:
    """Broken connections, refusals and late answers are repaired: every row once, in order."""
    path = write_rows(tmp_path / "in.jsonl", [{"id": n, "text": f"MARK-{n} x"} for n in range(120)])
    plan = faults.drawn(3, 0.2, faults.cut(), faults.status(503), faults.status(429), faults.half_json())
    with ModelServer(models=("m",), latency_s=0.01, fault=plan) as server:
        done = mellea("summarise", str(path), "-o", "out.jsonl", "-c", "16", "-m", "m", "--base-url", server.openai_url)
    assert done.returncode == 0, f"{loop}: {done.stderr}"
    rows = read_rows(tmp_path / "out.jsonl")
    assert [row["id"] for row in rows] == list(range(120))
    assert all(f"MARK-{row['id']} " in row["summary"] + " " for row in rows)


def test_ctrl_c_is_heard(loop: str, mellea: Run, tmp_path: Path) -> None:
    """And the same command finishes the work without asking anything twice."""
    path = write_rows(tmp_path / "in.jsonl", [{"id": n, "text": f"MARK-{n} x"} for n in range(60)])
    with ModelServer(models=("m",), latency_s=0.05) as server:
        command = ("summarise", str(path), "-o", "out.jsonl", "-c", "4", "-m", "m", "--base-url", server.openai_url)
        code, talk = interrupted(command, tmp_path, server, answered=10)
        assert code == 130, f"{loop}: {talk}"
        assert mellea(*command).returncode == 0
        assert server.state.requests == 60


@pytest.mark.parametrize("yes", [True, False])
def test_other_settings_are_confirmed_at_a_terminal(
    yes: bool, mellea: Run, feedback: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question names what changed and the calls; without a yes nothing is asked and nothing changes."""
    questions: list[str] = []

    def agreed(question: str) -> bool:
        questions.append(question)
        return yes

    command = ("summarise", str(feedback), "-o", "out.jsonl", "-b", "scripted")
    mellea(*command)
    monkeypatch.setattr(batch_run, "confirmed", agreed)
    done = mellea(*command, "-p", "steps", "-t", "0.5")
    assert done.returncode == (0 if yes else 2), done.stderr
    (question,) = questions
    assert "pipeline steps instead of single, temperature 0.5 instead of 0.0" in question
    assert "30 rows are asked again, 90 calls" in question
    assert mellea(*command).returncode == 0
    assert len(questions) == 1


def test_a_switch_that_changed_is_named_as_it_is_typed(mellea: Run, feedback: Path) -> None:
    """Not as true instead of false."""
    command = ("summarise", str(feedback), "-o", "out.jsonl", "-b", "scripted", "--yes")
    mellea(*command)
    assert "out.jsonl: now with --confidence: 30 rows" in mellea(*command, "--confidence").stderr


def test_a_refused_start_leaves_no_file(mellea: Run, feedback: Path, tmp_path: Path) -> None:
    """No journal, partial file or lock next to the output, whatever refuses the run."""
    unreachable = ("-b", "openai", "-m", "m", "--base-url", "http://127.0.0.1:9/v1", "--max-wait", "0s", "-c", "1")
    for flags, code in (
        (("-b", "scripted", "--text-field", "nope"), 2),
        (("-b", "scripted", "--max-errors", "no"), 2),
        (("-b", "openai", "-m", "m", "--base-url", "ftp://127.0.0.1"), 2),
        ((*unreachable, "--errors-file", "bad.jsonl"), 4),
    ):
        done = mellea("summarise", str(feedback), "-o", "out.jsonl", *flags)
        assert done.returncode == code, done.stderr
        assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {feedback.name}


def scripted(folder: Path, data: bytes, *flags: str, name: str = "in.csv", **env: str) -> Result:
    """Summarise a file in this process."""
    (folder / name).write_bytes(data)
    command = ["summarise", str(folder / name), "-o", str(folder / f"out-{name}"), "-b", "scripted", *flags]
    return CliRunner().invoke(app, command, env=env, catch_exceptions=False)


EXCEL = "\ufeffsep=;\r\nID;Kommentar\r\n1;Zu spät; niemand da\r\n".replace("t; n", "t, n").encode()


def test_excel_can_open_what_becomes_of_its_file_and_report_reads_it(tmp_path: Path) -> None:
    """Mark, semicolons, CR LF and the line that states the delimiter stay; a failed row's file has them, too."""
    done = scripted(tmp_path, EXCEL)
    assert done.exit_code == 0, done.stderr
    assert "the text is in column 'Kommentar'" in done.stderr
    data = (tmp_path / "out-in.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbfsep=;\r\nID;Kommentar;summary;")
    with open_results(str(tmp_path / "out-in.csv")) as results:
        (record,) = results
    assert (record.id, record.text, record.state) == ("1", "Zu spät, niemand da", "answered")


def test_a_table_in_another_encoding_becomes_utf_8_with_a_mark(tmp_path: Path) -> None:
    """A summary may have letters that the input's encoding lacks; with the mark a spreadsheet opens it right."""
    data = "ID;Kommentar\n1;Zu spät\n".encode("cp1252")
    assert scripted(tmp_path, data, "--encoding", "cp1252").exit_code == 0
    assert (tmp_path / "out-in.csv").read_bytes().startswith("\ufeffID;Kommentar;".encode())
    packed = scripted(tmp_path, b"ID;Kommentar\n1;late\n", "--output-format", "csv", "-o", "-")
    assert packed.stdout.startswith("ID;Kommentar;summary;")


def test_several_columns_are_sent_and_reported_together(tmp_path: Path) -> None:
    """From flags, from a variable with a name in each line, and in the report."""
    data = b"n,What was good?,What was bad?\n1,the food was good,the room was cold\n"
    names = ("What was good?", "what was bad?")
    flags = [part for name in names for part in ("--text-field", name)]
    both = scripted(tmp_path, data, *flags, "--dry-run")
    assert "What was good?: the food was good\nWhat was bad?: the room was cold" in both.stdout
    same = scripted(tmp_path, data, "--dry-run", MELLEA_TEXT_FIELD="\n".join(names))
    assert same.stdout == both.stdout
    assert scripted(tmp_path, data, *flags).exit_code == 0
    with open_results(str(tmp_path / "out-in.csv"), SourceOptions(text_field=names)) as results:
        assert next(iter(results)).text.startswith("What was good?: the food was good\nWhat was bad?: ")


def test_dry_run_says_what_is_read(tmp_path: Path) -> None:
    """The column, renamed ones, and the lines that are no rows."""
    data = b"Title\n\nid,comment,n,n\n1,late,2,3\n# end\nid,comment,n,n\n2,fine,2,3\n"
    done = scripted(tmp_path, data, "--dry-run")
    assert done.exit_code == 0, done.stderr
    for words in ("text       comment", "1 line above the header", "'n_2'", "comment line (line 5)", "header (line 6)"):
        assert words in done.stdout
        assert words.startswith("text ") or words in done.stderr
    named = scripted(tmp_path, data, "--dry-run", "--header-row", "3", "--skip-rows", "1")
    assert "as --skip-rows says (line 4)" in named.stdout


def test_a_dry_run_ends_in_its_figures(tmp_path: Path) -> None:
    """The long prompt stands above them; the chosen column is said once, and the server's address is there."""
    flags = ("-b", "openai", "-m", "m", "--base-url", "https://user:pass@api.example.com/v1", "--dry-run")
    done = scripted(tmp_path, b"id,comment\n1,late\n", *flags)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.index("[system]") < done.stdout.index("input      ")
    assert done.stdout.splitlines()[-1].startswith("output ")
    assert "backend    openai, https://api.example.com/v1\n" in done.stdout
    assert (done.stdout + done.stderr).count("the text is in column") == 1
    assert "backend    scripted\n" in scripted(tmp_path, b"id,comment\n1,late\n", "--dry-run").stdout


def test_header_flags_are_for_tables(tmp_path: Path) -> None:
    """JSON has no header."""
    done = scripted(tmp_path, b'{"text": "a"}\n', "--header-row", "2", name="in.jsonl")
    assert done.exit_code == 2
    assert "omit --header-row" in done.stderr


def test_dry_run_shows_what_would_leave_masked(tmp_path: Path) -> None:
    """With --redact the prompt and the first texts with something to mask are shown as they would be sent."""
    data = (
        b'{"text": "Order 4111-2222 of 2024-03-05 never came"}\n'
        b'{"text": "mail jo.doe+x@example.co.uk"}\n'
        b'{"text": "card 4111 1111 1111 1111, version 10.15.7.1"}\n'
    )
    done = scripted(tmp_path, data, "--redact", "--dry-run", name="in.jsonl")
    assert "something in 2 of 3 items" in done.stdout
    assert "card [card], version 10.15.7.1" in done.stdout
    assert "jo.doe" not in done.stdout + done.stderr
    assert "4111 1111" not in done.stdout + done.stderr
    plain = scripted(tmp_path, data[53:], "--dry-run", name="in.jsonl")
    assert "jo.doe" in plain.stdout


def test_first_item_of_the_prompt_is_masked(tmp_path: Path) -> None:
    """The preview of the prompt is what would be sent, not what was read."""
    done = scripted(tmp_path, b'{"text": "call 0170/1234567"}\n', "--redact", "--dry-run", name="in.jsonl")
    assert "1234567" not in done.stdout
    assert done.stdout.count("call [phone]") == 2
