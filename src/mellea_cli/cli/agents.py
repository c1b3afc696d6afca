"""`mellea skill` and `mellea mcp`: what coding agents and assistants need to work with feedback."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mellea_cli.cli.flags import JsonFlag, write_json
from mellea_cli.errors import ExitCode, MelleaError, UsageError

if TYPE_CHECKING:
    from mcp.server import MCPServer

_MOST_FILES = 200
_MOST_ROWS = 200
# How long a stopped run may finish the requests that are in flight, in seconds
_STOPPING_S = 30.0


def skill(as_json: JsonFlag = False) -> None:
    """Print a SKILL.md for coding agents."""
    if as_json:
        write_json({"text": skill_text()})
    else:
        sys.stdout.write(skill_text())


def skill_text() -> str:
    """The SKILL.md that the package brings."""
    from importlib.resources import files

    return files("mellea_cli").joinpath("SKILL.md").read_text(encoding="utf-8")


def mcp(
    folder: Annotated[
        Path, typer.Option("--folder", metavar="DIR", help="Files below this folder can be read (default: here).")
    ] = Path(),
    allow_run: Annotated[
        bool, typer.Option("--allow-run", help="Offer the tool that asks the model and writes files.")
    ] = False,
    local_only: Annotated[
        bool, typer.Option("--local-only", help="With --allow-run: refuse any server but this machine.")
    ] = False,
) -> None:
    """Serve feedback to an assistant over the Model Context Protocol (stdio). Read-only without --allow-run.

    Needs the extra mcp: pip install 'mellea-cli[mcp]'.
    """
    try:
        server = build_server(folder, allow_run=allow_run, local_only=local_only)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "mcp":
            raise
        raise UsageError("mellea mcp needs the extra mcp", hint="pip install 'mellea-cli[mcp]'") from None
    server.run("stdio")


def build_server(folder: Path, *, allow_run: bool = False, local_only: bool = False) -> MCPServer:
    """The server with its tools."""
    from mcp.server import MCPServer
    from mcp.types import ToolAnnotations

    from mellea_cli import __version__

    files = AgentFiles(folder)
    server = MCPServer(
        "mellea",
        version=__version__,
        instructions="Customer feedback and its answers. Take counts and shares from `report`; never count rows.",
        log_level="WARNING",
    )
    reading = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    for tool in (files.list_files, files.show_rows, files.report, files.compare):
        server.add_tool(_as_tool(tool), annotations=reading)
    if allow_run:
        runs = AgentRuns(files, ("--local-only",) if local_only else ())
        server.add_tool(
            _as_tool(runs.run),
            annotations=ToolAnnotations(
                read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=not local_only
            ),
        )
    return server


def _as_tool(function: Callable[..., Any]) -> Callable[..., Any]:
    """A tool whose errors reach the assistant as one line; the SDK hides the text of all others."""
    from mcp.server.mcpserver.exceptions import ToolError

    @functools.wraps(function)
    async def tool(*args: Any, **arguments: Any) -> Any:
        try:
            found = function(*args, **arguments)
            return await found if inspect.isawaitable(found) else found
        except MelleaError as error:
            raise ToolError(error.message) from None

    return tool


class AgentFiles:
    """The tools that read. Paths are relative to the folder, and none leads out of it.

    The docstrings of the tools are what the assistant reads.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self.folder = folder.expanduser().resolve(strict=True)
        except OSError:
            raise UsageError(f"there is no folder {folder}", hint="mellea mcp --folder DIR") from None

    def path(self, name: str) -> Path:
        """A file of the folder."""
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder):
            raise UsageError(f"{name} is outside {self.folder}")
        return path

    def list_files(self) -> list[str]:
        """List the feedback files, results and pipeline files that can be read, newest first."""
        from mellea_cli.io.formats import format_of_name

        found = [
            path
            for path in self.folder.rglob("*")
            if (path.suffix == ".toml" or format_of_name(path.name))
            and not any(part.startswith(".") for part in path.relative_to(self.folder).parts)
            and path.is_file()
        ]
        found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        return [path.relative_to(self.folder).as_posix() for path in found[:_MOST_FILES]]

    async def report(self, results: str, by: list[str] | None = None) -> dict[str, Any]:
        """Counts, shares, trends, themes and quotes of a finished run. `results` is the output of a run.

        `by` names columns to split by, such as ["channel"].
        """
        split = [f"--by={column}" for column in by or ()]
        return await self._object("report", str(self.path(results)), "--format=json", "-o", "-", *split)

    async def compare(self, before: str, after: str) -> dict[str, Any]:
        """What changed between two finished runs, such as last week's and this week's output."""
        return await self._object("compare", str(self.path(before)), str(self.path(after)), "--format=json", "-o", "-")

    async def show_rows(self, file: str, columns: list[str], where: str = "", first: int = 20) -> list[dict[str, Any]]:
        """Rows of a result or a feedback file, with the named columns only.

        `where` chooses rows by an expression such as `sentiment == "negative" && channel == "email"`. At most 200 rows.
        """
        chosen = [f"--where={where}"] if where else []
        limit = f"--limit={max(1, min(first, _MOST_ROWS))}"
        rows = await self._json("show", str(self.path(file)), f"--json={','.join(columns)}", limit, *chosen)
        return rows if isinstance(rows, list) else [rows]

    async def _object(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = await self._json(*arguments)
        return found

    async def _json(self, *arguments: str) -> Any:
        code, stdout, stderr = await run_mellea(arguments, self.folder)
        if code != ExitCode.OK:
            raise MelleaError(_said(stderr) or f"mellea {arguments[0]} ended with {code}")
        text = stdout.decode()
        try:
            return json.loads(text)
        except ValueError:
            return [json.loads(line) for line in text.splitlines() if line.strip()]


class AgentRuns:
    """The tool that asks the model. Which model that is, only the user's own configuration says."""

    def __init__(self, files: AgentFiles, flags: Sequence[str] = ()) -> None:
        self._files, self._flags = files, flags

    async def run(
        self,
        input: str,  # noqa: A002 - the word that the assistant reads
        output: str,
        fields: list[str] | None = None,
        first: int | None = None,
    ) -> dict[str, Any]:
        """Ask the model once for each row of `input` and write one row for each to `output`.

        Every row gets sentiment, summary and issues. `fields` adds own ones, such as ["product: the product",
        "refund(bool): the customer wants money back"]. `first` takes only so many rows. The same call again continues
        where it stopped. Returns the run's counts; large files take long.
        """
        more = [f"--field={field}" for field in fields or ()]
        if first is not None:
            more.append(f"--limit={first}")
        source, target = str(self._files.path(input)), str(self._files.path(output))
        arguments = ("summarise", source, "-o", target, "--json", "-q", *self._flags, *more)
        code, _, stderr = await run_mellea(arguments, self._files.folder)
        if code not in {ExitCode.OK, ExitCode.SOME_FAILED}:
            raise MelleaError(_said(stderr) or f"the run ended with {code}")
        summary: dict[str, Any] = json.loads(stderr.decode().splitlines()[-1])
        return summary


async def run_mellea(arguments: Sequence[str], folder: Path) -> tuple[int, bytes, bytes]:
    """Run a command in a process of its own; cancelling interrupts it, so that it can be continued."""
    import signal

    pipe = asyncio.subprocess.PIPE
    # The server's own stdin and stdout carry the protocol.
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mellea_cli", *arguments,
        cwd=folder, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe,
    )  # fmt: skip
    try:
        stdout, stderr = await process.communicate()
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(asyncio.shield(process.wait()), _STOPPING_S)
        except TimeoutError:
            process.kill()
        raise
    return process.returncode or 0, stdout, stderr


def _said(stderr: bytes) -> str:
    """What a command said when it failed, for the assistant."""
    lines = [line.removeprefix("mellea: ") for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    with suppress(ValueError, IndexError):
        # A run says its last line in JSON: an error, or a summary with the reason why it has stopped.
        told = json.loads(lines[-1])
        error = told.get("error") or {"message": told["stopped"], "hint": ""}
        return "; ".join(filter(None, (error["message"], error["hint"])))
    return "; ".join(lines[-3:])
