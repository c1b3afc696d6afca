"""`mellea skill` and `mellea mcp`, the latter with the official client and a server in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client, stdio
from mcp.types import CallToolResult, TextContent

from mellea_cli.cli.agents import AgentFiles, skill_text
from mellea_cli.errors import UsageError
from rowfiles import Run

READING = {"list_files", "show_rows", "report", "compare"}


@asynccontextmanager
async def assistant(folder: Path, *flags: str) -> AsyncIterator[Client]:
    """A client of `mellea mcp`."""
    command = stdio.StdioServerParameters(
        command=sys.executable,
        args=["-m", "mellea_cli", "mcp", "--folder", str(folder), *flags],
        env={"MELLEA_BACKEND": "scripted"},
    )
    async with Client(command, read_timeout_seconds=60) as client:
        yield client


def value(result: CallToolResult) -> Any:
    """What a tool returned."""
    assert not result.is_error, result.content
    found = result.structured_content
    return found["result"] if found is not None and set(found) == {"result"} else found


def error(result: CallToolResult) -> str:
    assert result.is_error
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Feedback in a folder, and a file next to it."""
    inside = tmp_path / "inside"
    inside.mkdir()
    rows = [{"id": f"r{number}", "text": f"Delivery {number} was late", "channel": "email"} for number in range(6)]
    (inside / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "secret.jsonl").write_text('{"text": "secret"}\n')
    (inside / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    return inside


def test_the_skill_is_printed(mellea: Run) -> None:
    """It begins with the fields by which an agent finds it."""
    done = mellea("skill")
    assert done.returncode == 0
    assert done.stdout == skill_text()
    assert done.stdout.startswith("---\nname: mellea\ndescription: ")


async def test_without_a_flag_the_tools_only_read(folder: Path) -> None:
    """No tool asks the model, and each says that it only reads."""
    async with assistant(folder) as client:
        tools = (await client.list_tools()).tools
    assert {tool.name for tool in tools} == READING
    assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
    assert all(tool.description for tool in tools)


async def test_a_run_and_its_report(folder: Path) -> None:
    """A run writes its rows and returns its counts; the report counts them; a second call asks nothing."""
    async with assistant(folder, "--allow-run") as client:
        arguments = {"input": "in.jsonl", "output": "out.jsonl", "first": 4}
        summary = value(await client.call_tool("run", arguments))
        again = value(await client.call_tool("run", arguments))
        report = value(await client.call_tool("report", {"results": "out.jsonl", "by": ["channel"]}))
        compared = value(await client.call_tool("compare", {"before": "out.jsonl", "after": "out.jsonl"}))
    assert (summary["total"], summary["done"], summary["failed"]) == (4, 4, 0)
    assert again["calls"] == 0
    assert report["rows"] == 4
    assert compared
    assert len((folder / "out.jsonl").read_text().splitlines()) == 4


async def test_rows_are_shown_by_condition(folder: Path) -> None:
    """Only the named columns, only the rows that meet the condition, at most as many as asked for."""
    async with assistant(folder) as client:
        arguments = {"file": "in.jsonl", "columns": ["id", "channel"], "where": 'id != "r0"', "first": 2}
        rows = value(await client.call_tool("show_rows", arguments))
        refused = error(await client.call_tool("show_rows", {"file": "in.jsonl", "columns": ["idd"]}))
    assert rows == [{"id": "r1", "channel": "email"}, {"id": "r2", "channel": "email"}]
    assert "did you mean id?" in refused


async def test_no_path_leads_out_of_the_folder(folder: Path) -> None:
    """A relative path, an absolute one and a link are refused with the reason."""
    async with assistant(folder) as client:
        for name in ("../secret.jsonl", str(folder.parent / "secret.jsonl"), "link.jsonl"):
            refused = error(await client.call_tool("report", {"results": name}))
            assert "is outside" in refused


async def test_a_file_that_looks_like_a_flag_is_a_file(folder: Path) -> None:
    """The name that an assistant gives is never read as a flag."""
    async with assistant(folder) as client:
        refused = error(await client.call_tool("report", {"results": "--help"}))
    assert "--help" in refused
    assert "Usage" not in refused


async def test_an_error_is_the_command_s_own(folder: Path) -> None:
    """What the command says reaches the assistant, with the next thing to do."""
    async with assistant(folder, "--allow-run") as client:
        refused = error(await client.call_tool("run", {"input": "none.jsonl", "output": "out.jsonl"}))
    assert "none.jsonl: no such file" in refused
    assert "{" not in refused


def test_files_are_listed_newest_first(folder: Path) -> None:
    """Every format that can be read, and pipeline files; hidden files, folders and other files are left out."""
    for name in (".hidden.jsonl", "out.jsonl.journal", "notes.txt"):
        (folder / name).write_text("{}\n")
    for name in ("book.xlsx", "week.parquet", "fields.toml"):
        (folder / name).write_bytes(b"")
    (folder / "sub").mkdir()
    (folder / "sub" / "week.csv").write_text("text\nx\n")
    files = AgentFiles(folder).list_files()
    assert set(files) == {"sub/week.csv", "in.jsonl", "link.jsonl", "book.xlsx", "week.parquet", "fields.toml"}


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """It is a wrong use, with the flag that names one."""
    with pytest.raises(UsageError, match="there is no folder"):
        AgentFiles(tmp_path / "none")
