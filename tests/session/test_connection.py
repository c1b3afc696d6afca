"""Which model a session talks to, and when it is chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from loopback import ModelServer
from loopback.replies import default_reply
from mellea_cli import MelleaSession, SimpleContext, start_session
from mellea_cli.backends.scripted import ScriptedBackend
from mellea_cli.errors import UsageError

Serve = Callable[..., ModelServer]
Open = Callable[..., MelleaSession]

REPLY = default_reply("", None)


def test_how_a_session_may_not_start() -> None:
    """Unknown backends, contradictions and numbers out of range are refused before anything runs."""
    with pytest.raises(UsageError, match="no backend 'watsonx'"):
        start_session("watsonx")
    with pytest.raises(UsageError, match="needs a model"):
        start_session("openai")
    with pytest.raises(ValueError, match="Cannot specify both"):
        start_session(ctx=SimpleContext(), context_type="chat")
    with pytest.raises(ValueError, match="'simple' or 'chat'"):
        start_session(context_type="long")
    with pytest.raises(ValueError, match="concurrency"):
        start_session(concurrency=0)
    with pytest.raises(ValueError, match="max_retries"):
        start_session(max_retries=-1)


def test_a_backend_object_may_stand_for_its_name() -> None:
    """The scripted backend, or one of a user's own, is taken as it is and closed with the session."""
    backend = ScriptedBackend(lambda request: f"You said {request.messages[-1].content}")
    with start_session(backend, "made-up") as m:
        thunk = m.instruct("hello")
        assert (thunk.value, thunk.model) == ("You said hello", "made-up")
    with pytest.raises(UsageError, match="closed"):
        asyncio.run(anext(backend.stream(None)))


def test_an_address_alone_means_the_openai_protocol(server: ModelServer) -> None:
    """With a `base_url` and no backend the server is asked over the protocol that nearly all speak."""
    with start_session(model_id="test-model", base_url=server.openai_url) as m:
        assert m.instruct("Hi.").value == REPLY
    assert "response_format" not in server.state.bodies[0]


def test_the_default_is_a_running_ollama_that_has_the_model(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any argument the Ollama on this machine is asked for granite4.1:3b."""
    monkeypatch.setenv("OLLAMA_HOST", server.url)
    with start_session() as m:
        assert m.instruct("Hi.").model == "granite4.1:3b"


def test_a_server_that_comes_later_is_found(serve: Serve, open_session: Open) -> None:
    """A first call that fails for want of a server does not spoil the next."""
    server = serve()
    server.stop()
    m = open_session(server, max_retries=0)
    with pytest.raises(Exception, match="cannot reach"):
        m.instruct("Hi.")
    server.start()
    assert m.instruct("Hi.").value == REPLY
