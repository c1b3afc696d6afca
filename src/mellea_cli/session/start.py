"""How a session begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mellea_cli.session.calls import Calls
from mellea_cli.session.context import ChatContext, Context, SimpleContext
from mellea_cli.session.link import Endpoint, Link, check
from mellea_cli.session.options import ModelOptions
from mellea_cli.session.portal import Portal
from mellea_cli.session.session import MelleaSession

if TYPE_CHECKING:
    from mellea_cli.backends.base import Backend


def start_session(  # noqa: PLR0913 - the reference's signature, and what it hides in backend_kwargs
    backend_name: str | Backend | None = None,
    model_id: str | None = None,
    ctx: Context | None = None,
    *,
    context_type: Literal["simple", "chat"] | None = None,
    model_options: ModelOptions | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    concurrency: int | None = None,
    max_retries: int = 5,
    retry_for: float = 120.0,
    timeout: float | None = 600.0,
) -> MelleaSession:
    """Start a session. Nothing is asked and no thread is started before its first call.

    Args:
        backend_name: `"ollama"`, `"openai"` (any server that speaks that protocol), `"local"` (the embedded model) or
            `"scripted"`, or a backend object. By default an Ollama that runs on this machine and has the model, else
            the embedded model; with a `base_url`, the OpenAI protocol.
        model_id: the model's name there. By default `granite4.1:3b` on Ollama, the catalogue's first model when
            embedded; an OpenAI-compatible server needs one to be named.
        ctx: what has been said so far; a new `SimpleContext` by default.
        context_type: `"simple"` or `"chat"`, instead of `ctx`.
        model_options: options of every call, by `ModelOption` or by the server's own names.
        base_url: the server's address; the environment's (`OLLAMA_HOST`, `OPENAI_BASE_URL`) by default.
        api_key: by default `OPENAI_API_KEY`.
        concurrency: requests in flight at most; 16 by default, 4 for the embedded model.
        max_retries: times a request is sent again when the transport is at fault.
        retry_for: seconds after which a request is not sent again any more.
        timeout: seconds that one request may take, from sending it to the end of its answer; `None` for no limit.

    Raises:
        UsageError: there is no such backend, or an option or a setting cannot be used.
        ValueError: both `ctx` and `context_type` were given, or a number is out of its range.
    """
    endpoint = Endpoint(backend_name, model_id, base_url, api_key, concurrency, max_retries, retry_for, timeout)
    check(endpoint)
    calls = Calls(Portal(), Link(endpoint), _context(ctx, context_type))
    return MelleaSession(calls, model_options=model_options)


def _context(ctx: Context | None, kind: str | None) -> Context:
    if kind is None:
        return ctx if ctx is not None else SimpleContext()
    if ctx is not None:
        raise ValueError("Cannot specify both ctx and context_type")
    if kind not in {"simple", "chat"}:
        raise ValueError(f"context_type is 'simple' or 'chat', not {kind!r}")
    return ChatContext() if kind == "chat" else SimpleContext()
