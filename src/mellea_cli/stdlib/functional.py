"""Calls without a session: each takes a context and a backend, and returns the answer and the next context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mellea_cli.session.session import MelleaSession

if TYPE_CHECKING:
    from mellea_cli.backends.base import Backend
    from mellea_cli.messages import Message
    from mellea_cli.requirements.requirement import ValidationResult
    from mellea_cli.session.connection import Connection
    from mellea_cli.session.thunk import ModelOutputThunk
    from mellea_cli.stdlib.components import Requirements
    from mellea_cli.stdlib.context import Context
    from mellea_cli.stdlib.sampling import SamplingResult

Answer = tuple["ModelOutputThunk | SamplingResult", "Context"]


def _session(backend: Backend | Connection, context: Context) -> MelleaSession:
    session = MelleaSession(backend, context)
    # No other call can change this session's context.
    session._warned = True  # noqa: SLF001 - the session is made here
    return session


def act(action: Any, context: Context, backend: Backend | Connection, **arguments: Any) -> Answer:
    """Send `action`; the arguments are those of `MelleaSession.act`. Each call opens a connection of its own."""
    with _session(backend, context) as session:
        return session.act(action, **arguments), session.ctx


async def aact(action: Any, context: Context, backend: Backend | Connection, **arguments: Any) -> Answer:
    """Send `action` and wait for the answer; the arguments are those of `MelleaSession.aact`."""
    async with _session(backend, context) as session:
        arguments.pop("await_result", None)
        return await session.aact(action, await_result=True, **arguments), session.ctx


def instruct(description: str, context: Context, backend: Backend | Connection, **arguments: Any) -> Answer:
    """Give the model a task; the arguments are those of `MelleaSession.instruct`."""
    with _session(backend, context) as session:
        return session.instruct(description, **arguments), session.ctx


async def ainstruct(description: str, context: Context, backend: Backend | Connection, **arguments: Any) -> Answer:
    """Give the model a task and wait for the answer; the arguments are those of `MelleaSession.ainstruct`."""
    async with _session(backend, context) as session:
        arguments.pop("await_result", None)
        return await session.ainstruct(description, await_result=True, **arguments), session.ctx


def chat(content: str, context: Context, backend: Backend | Connection, **arguments: Any) -> tuple[Message, Context]:
    """Send a message; the arguments are those of `MelleaSession.chat`."""
    with _session(backend, context) as session:
        return session.chat(content, **arguments), session.ctx


async def achat(
    content: str, context: Context, backend: Backend | Connection, **arguments: Any
) -> tuple[Message, Context]:
    """Send a message; the arguments are those of `MelleaSession.achat`."""
    async with _session(backend, context) as session:
        return await session.achat(content, **arguments), session.ctx


def validate(
    reqs: Requirements, context: Context, backend: Backend | Connection, **arguments: Any
) -> list[ValidationResult]:
    """Check requirements; the arguments are those of `MelleaSession.validate`."""
    with _session(backend, context) as session:
        return session.validate(reqs, **arguments)
