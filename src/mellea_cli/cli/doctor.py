"""`mellea doctor`: what this machine has, and whether a run without any flags would work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import typer

State = Literal["ok", "note", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's screen."""

    part: str
    subject: str
    state: State
    text: str


def doctor(ctx: typer.Context) -> None:
    """Show version, settings, backends, models and terminal; say what to type if something is missing."""
    import asyncio

    from mellea_cli.errors import ExitCode
    from mellea_cli.ui.status import print_findings

    findings = [*_program(), *_settings(ctx), *asyncio.run(_backends()), *_models(), *_terminal()]
    works, sentence, command = asyncio.run(_default_run())
    findings.append(Finding("default run", "mellea summarise", "ok" if works else "bad", sentence))
    print_findings(findings, command, stream=sys.stdout, environ=os.environ)
    raise typer.Exit(ExitCode.OK if works else ExitCode.USAGE)


def _program() -> Iterator[Finding]:
    import platform

    from mellea_cli import __version__

    yield Finding("program", "mellea", "ok", __version__)
    yield Finding("program", "python", "ok", f"{platform.python_version()} ({sys.executable})")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("program", "machine", "ok", f"{platform.system()} {platform.machine()}, {cores} cores")


def _settings(ctx: typer.Context) -> Iterator[Finding]:
    """Every setting of `summarise` that does not stand at its default, and where its value comes from."""
    from mellea_cli.cli.settings import config_path

    path = config_path()
    yield Finding(
        "settings", "file", "ok" if path.exists() else "note", f"{path}" + ("" if path.exists() else " (none)")
    )
    group: Any = ctx.parent.command if ctx.parent else None
    if group is None:
        return
    command = group.commands["summarise"]
    inner = command.make_context("summarise", [], parent=ctx.parent)
    for name, value in inner.params.items():
        source = getattr(inner.get_parameter_source(name), "name", "")
        if source in {"ENVIRONMENT", "DEFAULT_MAP"}:
            origin = f"MELLEA_{name.upper()}" if source == "ENVIRONMENT" else str(path)
            told = " ".join(value) if isinstance(value, list | tuple) else getattr(value, "value", value)
            yield Finding("settings", name.replace("_", "-"), "ok", f"{told} (from {origin})")
    for key in ("OLLAMA_HOST", "OPENAI_BASE_URL", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        if value := os.environ.get(key):
            yield Finding("settings", key, "ok", f"{value} (from the environment)")
    if os.environ.get("OPENAI_API_KEY"):
        yield Finding("settings", "OPENAI_API_KEY", "ok", "is set (from the environment)")


async def _backends() -> list[Finding]:
    return [await _ollama(), await _openai(), _local()]


async def _ollama() -> Finding:
    import asyncio

    from mellea_cli.backends.base import BackendSettings
    from mellea_cli.backends.registry import open_backend
    from mellea_cli.errors import MelleaError

    try:
        backend = open_backend("ollama", BackendSettings(connect_timeout_s=1.0))
    except MelleaError as error:
        return Finding("backends", "ollama", "note", error.message)
    try:
        async with asyncio.timeout(3.0):
            names = await backend.models()
    except (MelleaError, TimeoutError) as error:
        return Finding("backends", "ollama", "note", f"not reachable: {error or 'no answer within 3 s'}")
    finally:
        await backend.aclose()
    return Finding("backends", "ollama", "ok", f"running, with {', '.join(names) or 'no models'}")


async def _openai() -> Finding:
    import asyncio

    base_url = os.environ.get("OPENAI_BASE_URL")
    if not base_url:
        return Finding("backends", "openai", "note", "not asked: OPENAI_BASE_URL is not set (or give --base-url)")
    from mellea_cli.backends.base import BackendSettings
    from mellea_cli.backends.registry import open_backend
    from mellea_cli.errors import MelleaError

    try:
        backend = open_backend("openai", BackendSettings(base_url=base_url, connect_timeout_s=2.0))
    except MelleaError as error:
        return Finding("backends", "openai", "note", error.message)
    try:
        async with asyncio.timeout(5.0):
            names = await backend.models()
    except (MelleaError, TimeoutError) as error:
        return Finding("backends", "openai", "note", f"{base_url}: {error or 'no answer within 5 s'}")
    finally:
        await backend.aclose()
    return Finding("backends", "openai", "ok", f"{base_url} answers, with {len(names)} models")


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


def _terminal() -> Iterator[Finding]:
    from mellea_cli.ui.console import choose_display

    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        kind = "a terminal" if stream.isatty() else "not a terminal"
        yield Finding("terminal", name, "ok", f"{kind}, {stream.encoding}")
    facts = [f"{key}={os.environ[key]}" for key in ("TERM", "NO_COLOR", "FORCE_COLOR", "CI") if key in os.environ]
    yield Finding("terminal", "environment", "ok", " ".join(facts) or "nothing that matters is set")
    shown = choose_display(stream=sys.stderr, environ=os.environ, quiet=False, no_live=False)
    yield Finding("terminal", "display", "ok", f"a run would be shown {shown}")


async def _default_run() -> tuple[bool, str, str]:
    """Whether a run without flags would work: a sentence, and the command that mends it."""
    from mellea_cli.cli.backend_setup import Wanted, choose
    from mellea_cli.errors import MelleaError
    from mellea_cli.models.store import ModelStore

    try:
        chosen = await choose(Wanted("auto", None, None, None))
        if chosen.backend == "local" and ModelStore().find(chosen.model) is None:
            return False, f"{chosen.reason}, which is not on this machine yet", f"mellea models pull {chosen.model}"
    except MelleaError as error:
        return False, error.message, error.hint
    return True, chosen.reason, ""
