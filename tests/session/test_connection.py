"""Which model a session talks to, and when it is chosen."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from loopback import ModelServer, faults
from loopback.replies import default_reply
from mellea_cli import (
    ChatContext,
    MelleaSession,
    ModelOption,
    SimpleContext,
    errors,
    model_ids,
    start_backend,
    start_session,
)
from mellea_cli.backends.ollama import OllamaModelBackend
from mellea_cli.backends.openai import OpenAIBackend
from mellea_cli.backends.scripted import ScriptedBackend
from mellea_cli.errors import BackendError, ModelFileError, UsageError
from mellea_cli.models.catalogue import DEFAULT_MODEL
from mellea_cli.models.store import ModelStore
from mellea_cli.session import connection
from mellea_cli.session.connection import in_api_words

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


@pytest.mark.parametrize("kind", ["ollama", "openai"])
def test_sessions_of_one_backend_object_have_connections_of_their_own(server: ModelServer, kind: str) -> None:
    """The object says where and which model; its options hold, and closing one session leaves the others."""
    options = {ModelOption.SEED: 5}
    backend = (
        OllamaModelBackend("test-model", base_url=server.url, model_options=options, timeout=9)
        if kind == "ollama"
        else OpenAIBackend("test-model", base_url=server.openai_url, api_key="", model_options=options, timeout=9)
    )
    first, second = MelleaSession(backend), MelleaSession(backend, ChatContext(), session_id="mine")
    assert first.instruct("Hi.").value == REPLY
    first.close()
    assert second.instruct("Hi.").value == REPLY
    third = MelleaSession(second.backend, model_options={ModelOption.SEED: 6})
    second.close()
    assert third.instruct("Hi.").value == REPLY
    third.close()
    assert (second.id, second.backend) == ("mine", backend)
    bodies = server.state.bodies
    assert [one.get("seed") or one["options"]["seed"] for one in bodies if "messages" in one] == [5, 5, 6]


def test_what_start_backend_gives_makes_sessions(server: ModelServer) -> None:
    """A context and a connection; a session's own `backend` does too."""
    context, backend = start_backend("ollama", "test-model", context_type="chat", base_url=server.url)
    assert isinstance(context, ChatContext)
    with MelleaSession(backend, context) as m, MelleaSession(m.backend) as other:
        assert m.instruct("Hi.").value == other.instruct("Hi.").value == REPLY
    assert repr(backend) == "Connection('ollama', 'test-model')"


def test_a_known_model_has_its_name_on_each_kind_of_server() -> None:
    """Ollama's on Ollama, the hub's elsewhere, and whatever there is where it has only one."""
    model = model_ids.IBM_GRANITE_4_1_3B
    assert (model.on("ollama"), model.on("openai")) == ("granite4.1:3b", "ibm-granite/granite-4.1-3b")
    assert start_backend("ollama", model)[1].model == "granite4.1:3b"
    assert start_backend(None, model, base_url="http://127.0.0.1:9/v1")[1].model == "ibm-granite/granite-4.1-3b"
    assert model_ids.OPENAI_GPT_5_1.on("ollama") == "gpt-5.1"


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (lambda: start_session(5), "not int"),
        (lambda: start_session("ollama", 5), "model_ids, not int"),
        (lambda: start_session("ollama", ctx="chat"), "ChatContext"),
        (lambda: start_session("ollama", model_options=[1]), "model_options is a dict"),
    ],
)
def test_wrong_types_are_refused_at_the_start(start: Callable[[], object], says: str) -> None:
    """In one line that says what was expected."""
    with pytest.raises(TypeError, match=says):
        start()


def test_no_server_gives_one_short_traceback_with_the_hint() -> None:
    """No chain of causes, and what to do in the API's words, not the command's."""
    start = "m.start_session('ollama', base_url='http://127.0.0.1:9', max_retries=0)"
    program = f"import mellea_cli as m; {start}.instruct('x')"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    *trace, error, hint = ran.stderr.splitlines()
    assert ran.stderr.count("Traceback") == 1
    assert len(trace) < 15
    assert error.startswith("mellea_cli.errors.BackendUnavailable: cannot reach")
    assert hint == 'Hint: start it with `ollama serve`, or use start_session("local"), which needs no server'


def test_hints_name_arguments() -> None:
    """No hint of the engine's reaches a caller with a flag of the command in it."""
    root = Path(errors.__file__).parent
    folders = ("backends", "engine", "models", "pipelines", "requirements")
    sources = [path.read_text() for folder in folders for path in (root / folder).rglob("*.py")]
    hints = [one for text in sources for one in re.findall(r'hint\s*=\s*f?"([^"]*(?:--|-[mv]+ )[^"]*)"', text)]
    assert len(hints) > 10
    for hint in hints:
        error = in_api_words(UsageError("x", hint=hint))
        assert isinstance(error, UsageError)
        assert not re.search(r"(^|\s)--?[a-z]", error.hint), error.hint
        assert error.__notes__ == [f"Hint: {error.hint}"]
        in_api_words(error)
        assert len(error.__notes__) == 1


async def test_a_stream_timeout_is_a_timeout_error(serve: Serve, open_session: Open) -> None:
    """`except TimeoutError` catches it, and so does `except BackendError`; it names the option."""
    server = serve(fault=faults.always(faults.stall(0)))
    m = open_session(server, max_retries=0)
    with pytest.raises(TimeoutError, match=r"STREAM_TIMEOUT is 0\.05 s") as late:
        await m.ainstruct("Hi.", model_options={ModelOption.STREAM_TIMEOUT: 0.05}, await_result=True)
    assert isinstance(late.value, BackendError)
    assert "STREAM_TIMEOUT" in late.value.__notes__[0]
    stalled = serve(fault=faults.always(faults.stall(2)))
    with pytest.raises(TimeoutError) as cut:
        await open_session(stalled, max_retries=0, timeout=0.3).ainstruct("Hi.", await_result=True)
    assert isinstance(cut.value, BackendError)
    assert cut.value.partial


def test_a_missing_embedded_model_is_not_fetched_against_the_will(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With `fetch=False` it is an error that says the size; otherwise the size is said before the download."""
    monkeypatch.setenv("MELLEA_CACHE_DIR", str(tmp_path))
    with start_session("local", fetch=False) as m, pytest.raises(ModelFileError, match="not on this") as missing:
        m.instruct("Hi.")
    assert "1.1 GB" in missing.value.__notes__[0]
    monkeypatch.setattr(ModelStore, "pull", lambda self, model: None)
    connection._download_default(DEFAULT_MODEL, "no Ollama answers", fetch=True)
    assert "no Ollama answers: downloading" in caplog.text
    assert "1.1 GB" in caplog.text
    assert "fetch=False" in caplog.text
