"""`mellea doctor`: what this machine has, and whether a run without flags works."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import typer

from mellea_cli.cli.flags import JsonFlag, write_json
from mellea_cli.cli.summarise import RunOptions
from mellea_cli.errors import ExitCode, MelleaError

if TYPE_CHECKING:
    from mellea_cli.ui.theme import Role, Span


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `mellea doctor`."""

    part: str  # The part of the report that it belongs to
    subject: str
    state: Literal["ok", "note", "bad"]
    text: str


def doctor(ctx: typer.Context, as_json: JsonFlag = False) -> None:
    """Show version, settings, backends, models and terminal; say what to run if something is missing."""
    import asyncio

    settings, options = _run_settings(ctx)
    findings = [
        *_program(),
        *_settings(ctx),
        *settings,
        *asyncio.run(_backends()),
        *_models(),
        *_extensions(),
        *_terminal(),
    ]
    works, sentence, command = _default_run(options)
    findings.append(Finding("default run", "mellea summarise", "ok" if works else "bad", sentence))
    good = all(finding.state != "bad" for finding in findings)
    if as_json:
        write_json({"ok": good, "findings": [asdict(finding) for finding in findings], "fix": command or None})
    else:
        _print_findings(findings, command)
    raise typer.Exit(ExitCode.OK if good else ExitCode.USAGE)


def _print_findings(findings: Sequence[Finding], command: str) -> None:
    """Print what was found, part by part, and the command that fixes it; none is printed when it is empty."""
    from mellea_cli.ui.console import print_table, say

    roles: Mapping[str, Role] = {"ok": "good", "note": "warn", "bad": "bad"}
    heads = ("", *(finding.part for finding in findings))
    rows: list[Sequence[str | Span]] = [
        (("strong", one.part if one.part != before else ""), one.subject, (roles[one.state], one.state), one.text)
        for before, one in zip(heads, findings, strict=False)
    ]
    print_table(rows, stream=sys.stdout, environ=os.environ)
    if command:
        say(sys.stdout, f"to fix it: {command}")


def _program() -> Iterator[Finding]:
    import platform

    from mellea_cli import __version__

    yield Finding("program", "mellea", "ok", __version__)
    yield Finding("program", "python", "ok", f"{platform.python_version()} ({sys.executable})")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("program", "machine", "ok", f"{platform.system()} {platform.machine()}, {cores} cores")


def _settings(ctx: typer.Context) -> Iterator[Finding]:
    """Every setting that differs from its default, with the source of its value."""
    from mellea_cli.backends.security import certificate_problem
    from mellea_cli.cli.settings import config_path

    path = config_path()
    if isinstance(ctx.obj, MelleaError):
        hint = f"; {ctx.obj.hint}" if ctx.obj.hint else ""
        yield Finding("settings", "file", "bad", f"{ctx.obj.message}{hint}")
    elif path.exists():
        yield Finding("settings", "file", "ok", str(path))
    else:
        yield Finding("settings", "file", "note", f"{path} (none)")
    if problem := certificate_problem():
        yield Finding("settings", "certificates", "bad", f"{problem}: https servers cannot be reached")
    for key in ("OLLAMA_HOST", "OPENAI_BASE_URL", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        if value := os.environ.get(key):
            yield Finding("settings", key, "ok", f"{value} (from the environment)")
    if os.environ.get("OPENAI_API_KEY"):
        yield Finding("settings", "OPENAI_API_KEY", "ok", "is set (from the environment)")


def _run_settings(ctx: typer.Context) -> tuple[list[Finding], RunOptions]:
    """The flags of `summarise` that a variable or the configuration file sets, and a run with these alone."""
    from mellea_cli.cli.error_boundary import describe_click_error, is_click_error
    from mellea_cli.cli.settings import choose_servers, config_path

    group: Any = ctx.parent.command if ctx.parent else None
    if group is None:
        return [], RunOptions()
    try:
        summarise = group.commands["summarise"].make_context("summarise", [], parent=ctx.parent)
        options = RunOptions(**choose_servers(summarise.params, summarise.get_parameter_source))
    except Exception as error:
        if isinstance(error, MelleaError):
            return [Finding("settings", "summarise", "bad", error.message)], RunOptions()
        if not is_click_error(error):
            raise
        return [Finding("settings", "summarise", "bad", describe_click_error(error)[0])], RunOptions()
    found = []
    for name, value in summarise.params.items():
        source = getattr(summarise.get_parameter_source(name), "name", "")
        if source in {"ENVIRONMENT", "DEFAULT_MAP"}:
            origin = f"MELLEA_{name.upper()}" if source == "ENVIRONMENT" else str(config_path())
            shown = " ".join(value) if isinstance(value, list | tuple) else getattr(value, "value", value)
            found.append(Finding("settings", name.replace("_", "-"), "ok", f"{shown} (from {origin})"))
    return found, options


async def _backends() -> list[Finding]:
    base_url = os.environ.get("OPENAI_BASE_URL")
    if base_url:
        openai = await _server("openai", base_url, timeout_s=5.0)
    else:
        openai = Finding(
            "backends", "openai", "note", "not asked: set OPENAI_BASE_URL, or name a server with --base-url"
        )
    return [await _server("ollama", None, timeout_s=3.0), openai, _local()]


async def _server(name: str, base_url: str | None, *, timeout_s: float) -> Finding:
    """Ask a server for its models."""
    import asyncio

    from mellea_cli.backends.base import BackendSettings
    from mellea_cli.backends.registry import open_backend

    where = f"{base_url}: " if base_url else ""
    try:
        backend = open_backend(name, BackendSettings(base_url=base_url, connect_timeout_s=timeout_s / 3))
    except MelleaError as error:
        return Finding("backends", name, "note", error.message)
    try:
        async with asyncio.timeout(timeout_s):
            models = await backend.models()
    except (MelleaError, TimeoutError) as error:
        return Finding("backends", name, "note", f"{where}{error or f'no answer within {timeout_s:.0f} s'}")
    finally:
        await backend.aclose()
    return Finding("backends", name, "ok", f"{where}running, with {', '.join(models) or 'no models'}")


def _local() -> Finding:
    import importlib.metadata
    import importlib.util

    if importlib.util.find_spec("xllamacpp") is None:
        text = "the embedded model server is not installed: pip install 'mellea-cli[local]'"
        return Finding("backends", "local", "note", text)
    return Finding("backends", "local", "ok", f"xllamacpp {importlib.metadata.version('xllamacpp')}")


def _models() -> Iterator[Finding]:
    from mellea_cli.models.store import ModelStore

    store = ModelStore()
    for entry in store.entries():
        here = entry.state in {"verified", "unchecked"}
        text = f"{entry.state}, {entry.size / 1e6:,.0f} of {entry.model.size / 1e6:,.0f} MB"
        yield Finding("models", entry.model.name, "ok" if here else "note", text)
    yield Finding("models", "folder", "ok", f"{store.root}, {store.size() / 1e6:,.0f} MB")


def _extensions() -> Iterator[Finding]:
    """What other packages have registered."""
    from mellea_cli.backends.registry import BACKEND_FACTORIES
    from mellea_cli.io.formats import FORMATS
    from mellea_cli.models.store import MODEL_SOURCES
    from mellea_cli.run.executor import EXECUTORS

    for point in (BACKEND_FACTORIES, FORMATS, EXECUTORS, MODEL_SOURCES):
        for name, package in point.packages():
            yield Finding("extensions", name, "ok", f"{point.kind} of {package}")


def _terminal() -> Iterator[Finding]:
    from mellea_cli.ui.run_display import choose_display

    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        kind = "a terminal" if stream.isatty() else "not a terminal"
        yield Finding("terminal", name, "ok", f"{kind}, {stream.encoding}")
    facts = [f"{key}={os.environ[key]}" for key in ("TERM", "NO_COLOR", "FORCE_COLOR", "CI") if key in os.environ]
    yield Finding("terminal", "environment", "ok", " ".join(facts) or "no relevant variable is set")
    shown = choose_display(sys.stderr, os.environ)
    yield Finding("terminal", "display", "ok", f"a run is shown as {shown}")


def _default_run(options: RunOptions) -> tuple[bool, str, str]:
    """Whether a run without flags works, why, and the command that makes it work."""
    from mellea_cli.cli.backend_setup import choose_for_run
    from mellea_cli.models.store import ModelStore

    try:
        chosen = choose_for_run(options)
        if chosen.backend == "local" and ModelStore().find(chosen.model) is None:
            reason = f"{chosen.reason or f'the embedded model {chosen.model}'}, which is not on this machine yet"
            return False, reason, f"mellea models pull {chosen.model}"
    except MelleaError as error:
        return False, error.message, error.hint
    return True, chosen.reason or f"asking {chosen.backend} for {chosen.model}, as the settings say", ""
