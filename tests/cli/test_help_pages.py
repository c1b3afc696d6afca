"""`mellea help`: topics and commands at the terminal, as JSON and as manual pages; the first minute; completion."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

from mellea_cli.cli.app import COMMANDS, SectionedCommand, app
from mellea_cli.cli.help_pages import EXIT_CODES, PAGES, VARIABLES, blocks, first_minute, manual_page, plain
from mellea_cli.errors import ExitCode
from rowfiles import Run, write_rows


def commands() -> list[tuple[str, ...]]:
    """The words of every visible command."""
    group: Any = typer.main.get_command(app)
    found: list[tuple[str, ...]] = []
    for name, entry in COMMANDS.items():
        if not entry.hidden:
            below = getattr(group.commands[name], "commands", {})
            found += [(name, one) for one in below] or [(name,)]
    return found


@pytest.mark.parametrize("topic", PAGES)
def test_a_topic_is_a_short_page(mellea: Run, topic: str) -> None:
    """Its heading, its tables and its paragraphs, without the marks of Markdown."""
    done = mellea("help", topic)
    assert (done.returncode, done.stderr) == (0, "")
    title, *parts = blocks(PAGES[topic]())
    assert done.stdout.startswith(f"{str(title)[2:]}\n")
    assert len(done.stdout.splitlines()) < 70
    assert "](" not in done.stdout
    assert "|---" not in done.stdout
    for part in parts:
        if not isinstance(part, str):
            assert all(" ".join(plain(row[0]).split()) in done.stdout for row in part[1])


def test_the_pages_say_what_the_program_has(mellea: Run) -> None:
    """Exit codes, variables, formats, and the path of the configuration file."""
    codes = next(block for block in blocks(EXIT_CODES) if not isinstance(block, str))
    assert [int(row[0]) for row in codes[1]] == [int(code) for code in ExitCode]
    assert all(name in mellea("help", "environment").stdout for name in VARIABLES)
    shown = mellea("help", "formats").stdout
    assert all(name in shown for name in ("jsonl", ".ndjson", "csv", ".tsv", "One JSON object per line."))
    assert "else.toml" in mellea("help", "config", env={"MELLEA_CONFIG": "folder/else.toml"}).stdout


def test_the_examples_of_the_page_on_filters_can_be_read(mellea: Run, tmp_path: Path) -> None:
    """Each condition in backticks that compares something is one."""
    write_rows(
        tmp_path / "in.jsonl", [{"rating": 4, "id": "007", "text": "refund", "themes": ["App"], "channel": "web"}]
    )
    page = PAGES["filters"]()
    found = [
        text
        for block in blocks(page)
        for text in ([block] if isinstance(block, str) else [cell for row in block[1] for cell in row])
    ]
    quoted = [one for text in found if not text.startswith("```") for one in text.split("`")[1::2]]
    conditions = [one for one in quoted if '"' in one and any(f" {word} " in one for word in ("==", "in", "matches"))]
    assert len(conditions) >= 4
    for condition in conditions:
        done = mellea("show", "in.jsonl", "--where", condition, "--json", "id")
        assert done.returncode == 0, (condition, done.stderr)
        assert json.loads(done.stdout) == [{"id": "007"}]


@pytest.mark.parametrize("topic", [*PAGES, "summarise", "models"])
def test_a_topic_as_json(mellea: Run, topic: str) -> None:
    """The same parts for programs."""
    told = json.loads(mellea("help", topic, "--json").stdout)
    assert told["topic"] == topic
    assert told["parts"]


def test_help_alone_lists_the_topics(mellea: Run) -> None:
    """With a line for each; as JSON the commands, too."""
    shown = mellea("help").stdout
    assert all(f"mellea help {topic}" in shown for topic in PAGES)
    told = json.loads(mellea("help", "--json").stdout)
    assert set(told["topics"]) == set(PAGES)
    assert "summarise" in told["commands"]


def test_help_of_a_command_is_its_own(mellea: Run) -> None:
    """Also of a command below another; what is misspelled is suggested."""
    assert mellea("help", "summarise").stdout == mellea("summarise", "--help").stdout
    assert mellea("help", "models", "pull").stdout == mellea("models", "pull", "--help").stdout
    done = mellea("help", "exit-code")
    assert done.returncode == 2
    assert "did you mean 'exit-codes'?" in done.stderr


@pytest.mark.parametrize("command", ["summarise", "run", "themes"])
def test_the_short_help_has_what_people_need(mellea: Run, command: str) -> None:
    """About twelve flags by panel; --help-all has every flag of the command."""
    short, whole = mellea(command, "--help").stdout, mellea(command, "--help-all").stdout
    for flag in ("--output", "--where", "--limit", "--text-field", "--model", "--concurrency", "--dry-run"):
        assert flag in short
    assert "--stall-timeout" not in short
    assert f"mellea {command} --help-all shows" in short
    group: Any = typer.main.get_command(app)
    flags = [one for one in group.commands[command].params if one.param_type_name == "option"]
    usual = [one for one in flags if any(re.search(rf"{name}\b(?!-)", short) for name in one.opts if name[:2] == "--")]
    assert 12 <= len(usual) <= 15
    assert len(flags) > 45
    assert all(any(name in whole for name in one.opts) for one in flags)


@pytest.mark.parametrize("command", ["report", "compare", "watch", "review", "evaluate"])
def test_a_command_without_a_short_help_takes_help_all_too(mellea: Run, command: str) -> None:
    """Both show every flag."""
    done = mellea(command, "--help-all")
    assert (done.returncode, done.stdout) == (0, mellea(command, "--help").stdout)


@pytest.mark.parametrize("command", ["", "summarise", "run", "themes"])
def test_the_first_minute_fits_a_small_terminal(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """About ten lines of 80 columns, with three examples that are commands; narrow terminals get two lines each."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = first_minute(command).splitlines()
    assert 8 <= len(lines) <= 11
    assert all(len(line) <= 80 for line in lines)
    examples = [line for line in lines if line.startswith("  mellea ")]
    assert len(examples) == 3
    monkeypatch.setenv("COLUMNS", "60")
    assert len(first_minute(command).splitlines()) > len(lines)


@pytest.mark.parametrize("words", [one for one in commands() if one not in {("mcp",), ("review",)}], ids=" ".join)
def test_every_command_has_json(words: tuple[str, ...], mellea: Run) -> None:
    """And errors on its command line are told as JSON, with the command that helps."""
    command: Any = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    assert any("--json" in parameter.opts for parameter in command.params)
    done = mellea(*words, "--json", "--no-such-flag")
    assert (done.returncode, done.stdout) == (2, "")
    told = json.loads(done.stderr)["error"]
    assert set(told) == {"code", "message", "hint", "file", "line", "exit_code"}
    assert (told["code"], told["exit_code"]) == ("usage", 2)
    every = "-all" if getattr(command, "has_short_help", False) else ""
    assert told["hint"] == f"mellea {' '.join(words)} --help{every}"


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
@pytest.mark.parametrize("words", [(), ("summarise",), ("models", "pull")], ids=" ".join)
def test_a_manual_page_is_sound(words: tuple[str, ...]) -> None:
    """Groff has nothing to complain about, and shows flags with their dashes."""
    group: Any = typer.main.get_command(app)
    page = manual_page(group.make_context("mellea", [], resilient_parsing=True), words)
    groff = str(shutil.which("groff"))
    done = subprocess.run(
        [groff, "-man", "-Tutf8", "-ww", "-P-bcou"], input=page, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    shown = done.stdout
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS"):
        assert f"\n{heading}\n" in shown
    assert "-h, --help" in shown
    if not words:
        assert all(name in shown for name, entry in COMMANDS.items() if not entry.hidden)


def test_a_manual_page_is_printed(mellea: Run) -> None:
    """For `man -l -`."""
    done = mellea("help", "--man", "export")
    assert done.stdout.startswith('.TH "MELLEA\\-EXPORT" 1')
    assert ".SH INPUT" in done.stdout


Complete = Callable[..., list[str]]


@pytest.fixture
def complete(mellea: Run) -> Complete:
    """What bash is offered for the last word of a command line."""

    def run(*words: str, **environ: str) -> list[str]:
        asked = {
            "_MELLEA_COMPLETE": "complete_bash",
            "COMP_WORDS": "mellea " + " ".join(words),
            "COMP_CWORD": str(len(words)),
        }
        return [line for line in mellea(env=asked | environ).stdout.splitlines() if line]

    return run


def test_columns_of_the_named_input_are_completed(complete: Complete, mellea: Run, tmp_path: Path) -> None:
    """Of a table's header, or of the first row of JSON; after a comma the next one; blanks are escaped for bash."""
    (tmp_path / "in.csv").write_text("id,Order number,text\n1,2,fine\n")
    write_rows(tmp_path / "out.jsonl", [{"id": 1, "text": "fine", "sentiment": "positive"}])
    assert complete("summarise", "in.csv", "--text-field", "") == ["id", "Order\\ number", "text"]
    assert complete("summarise", "in.csv", "--id-field", "O") == ["Order\\ number"]
    assert complete("show", "out.jsonl", "--columns", "id,s") == ["id,sentiment"]
    assert complete("report", "out.jsonl", "--by", "t") == ["text"]
    assert complete("show", "none.jsonl", "--columns", "") == []
    assert complete("show", "--columns", "") == []
    (tmp_path / "page.csv").write_bytes(b"\x89PNG\r\n")
    assert complete("show", "page.csv", "--columns", "") == []
    line = {"_MELLEA_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "mellea summarise in.csv --text-field O"}
    assert '"Order number"' in mellea(env=line).stdout


def test_models_and_pipelines_are_completed(complete: Complete, tmp_path: Path) -> None:
    """The catalogue, an Ollama's models on this disk, files in this folder; no request is made."""
    library = tmp_path / "models" / "manifests" / "registry.ollama.ai" / "library" / "llama3.2"
    library.mkdir(parents=True)
    for tag in ("latest", "1b"):
        (library / tag).write_text("{}")
    (tmp_path / "own.gguf").write_bytes(b"")
    (tmp_path / "fields.toml").write_text("")
    assert complete("summarise", "-m", "llama", OLLAMA_MODELS=str(tmp_path / "models")) == ["llama3.2:1b", "llama3.2"]
    assert complete("summarise", "-m", "ow") == ["own.gguf"]
    assert "smollm2-135m" in complete("chat", "-m", "smol")
    assert complete("run", "f") == ["fast", "fields.toml"]
    assert complete("help", "exit") == ["exit-codes"]


def test_only_commands_with_many_flags_have_a_short_help() -> None:
    """The others show all of theirs."""
    group: Any = typer.main.get_command(app)
    short = {
        name
        for name, entry in COMMANDS.items()
        if not entry.hidden and isinstance(found := group.commands[name], SectionedCommand) and found.has_short_help
    }
    assert short == {"summarise", "run", "themes", "chat", "watch-folder"}
