"""Classes, hints and messages of errors on the wire, and rate-limit headers."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from loopback import Fault, ModelServer, faults
from mellea_cli.backends.http_errors import ErrorObject, classify, is_error, one_line
from mellea_cli.backends.ollama import OllamaBackend
from mellea_cli.backends.openai import OpenAIBackend
from mellea_cli.errors import (
    BackendError,
    BackendUnavailable,
    BadOutput,
    ContentFiltered,
    ContextTooLong,
    EndpointMissing,
    ModelMissing,
    NotAuthorized,
    QuotaSpent,
    RateLimited,
    RequestRefused,
    ServerFault,
    StreamBroken,
)
from mellea_cli.messages import GenerateRequest, Message

Serve = Callable[..., ModelServer]
KEY = "sk-loopback-0123456789"


async def openai_error(
    server: ModelServer, *, model: str = "test-model", key: str = KEY, path: str = "/v1"
) -> BackendError:
    """Ask once over the OpenAI protocol and return the error."""
    backend = OpenAIBackend(base_url=server.url + path, api_key=key)
    return await error_of(backend, model)


async def ollama_error(server: ModelServer, *, model: str = "granite4.1:3b") -> BackendError:
    """Ask once over Ollama's protocol and return the error."""
    return await error_of(OllamaBackend(base_url=server.url), model)


async def error_of(backend: OpenAIBackend | OllamaBackend, model: str) -> BackendError:
    request = GenerateRequest(model, (Message("user", "hello"),))
    try:
        async with aclosing(backend.stream(request)) as chunks:
            with pytest.raises(BackendError) as caught:
                [chunk async for chunk in chunks]
    finally:
        await backend.aclose()
    return caught.value


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (faults.status(400, code="context_length_exceeded"), ContextTooLong),
        (faults.status(400, type="exceed_context_size_error", code=400), ContextTooLong),
        (faults.status(400, message="This model's maximum context length is 8 tokens."), ContextTooLong),
        (faults.status(400, code="content_filter"), ContentFiltered),
        (faults.status(400, code="content_policy_violation"), ContentFiltered),
        (faults.status(400), RequestRefused),
        (faults.status(401, code="invalid_api_key"), NotAuthorized),
        (faults.status(402), QuotaSpent),
        (faults.status(403), NotAuthorized),
        (faults.status(404, code="model_not_found"), ModelMissing),
        (faults.status(404, message="The model `x` does not exist"), ModelMissing),
        (faults.raw_status(404, "404 page not found"), EndpointMissing),
        (faults.raw_status(404, "<html>the model page</html>"), EndpointMissing),
        (faults.raw_status(404), EndpointMissing),
        (faults.raw_status(405), EndpointMissing),
        (faults.raw_status(307, headers={"Location": "http://other.invalid/v1?token=abc"}), EndpointMissing),
        (faults.raw_status(200, "<html>log in</html>", {"Content-Type": "text/html"}), EndpointMissing),
        (faults.status(408), ServerFault),
        (faults.status(409), ServerFault),
        (faults.raw_status(413), ContextTooLong),
        (faults.raw_status(418), RequestRefused),
        (faults.status(422), RequestRefused),
        (faults.status(425), ServerFault),
        (faults.status(429), RateLimited),
        (faults.status(429, code="insufficient_quota"), QuotaSpent),
        (faults.status(429, type="insufficient_quota"), QuotaSpent),
        (faults.status(429, message="you exceeded your quota, insufficient_quota, slow down"), RateLimited),
        (faults.status(500), ServerFault),
        (faults.raw_status(502, "<html>bad gateway</html>"), ServerFault),
        (faults.status(503), ServerFault),
        (faults.status(503, headers={"Retry-After": "2"}), RateLimited),
        (faults.raw_status(504), ServerFault),
        (faults.raw_status(529), ServerFault),
        (faults.raw_status(599), ServerFault),
    ],
)
async def test_a_status_has_its_class(serve: Serve, fault: Fault, kind: type[BackendError]) -> None:
    """Each answer that is a refusal raises its class, with the status and the address."""
    server = serve(fault=faults.always(fault))
    error = await openai_error(server)
    assert type(error) is kind
    assert error.status == fault.status
    assert f"{server.openai_url}/chat/completions" in error.message
    assert "\n" not in error.message
    assert server.state.requests == 1


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"message": "overloaded", "code": "rate_limit_exceeded"}, RateLimited),
        ({"message": "gone", "type": "insufficient_quota"}, QuotaSpent),
        ({"message": "too long", "type": "exceed_context_size_error", "code": 400}, ContextTooLong),
        ({"message": "bad", "code": 400}, RequestRefused),
        ({"message": "busy", "code": 503}, ServerFault),
        ("the runner has crashed", ServerFault),
        ({}, ServerFault),
    ],
)
@pytest.mark.parametrize("ask", [openai_error, ollama_error])
async def test_an_error_object_in_the_stream(serve: Serve, ask: Any, said: Any, kind: type[BackendError]) -> None:
    """An error object inside a 200 stream is the server's fault unless its code knows better; the text is kept."""
    server = serve(fault=faults.always(faults.error_object(2, error=said or {"message": ""})))
    error = await ask(server)
    assert type(error) is kind
    assert error.partial == "The custo"


async def test_ollamas_missing_model(server: ModelServer) -> None:
    """Ollama's 404 for a model names the command that gets it."""
    error = await ollama_error(server, model="granite4")
    assert isinstance(error, ModelMissing)
    assert error.hint == (
        "get it with `ollama pull granite4`, or add --pull,"
        " or choose one that is there with -m: granite4.1:3b, test-model"
    )
    assert error.message.endswith("/api/chat answered 404 Not Found: model 'granite4' not found")


async def test_nobody_listens() -> None:
    """A refused connection says so, and what to start."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        error = await error_of(OllamaBackend(base_url=url), "x")
    assert type(error) is BackendUnavailable
    assert error.message == f"cannot reach {url}/api/chat: connection refused"
    assert "ollama serve" in error.hint
    assert "--backend local" in error.hint
    assert error.__cause__ is not None


async def test_a_name_that_is_nowhere() -> None:
    """A host without an address says so."""
    error = await error_of(OpenAIBackend(base_url="https://nowhere.invalid/v1"), "x")
    assert type(error) is BackendUnavailable
    assert "cannot be resolved" in error.message


@pytest.mark.parametrize("spoken", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"])
async def test_a_server_that_speaks_something_else(spoken: bytes) -> None:
    """A peer that hangs up, or does not speak HTTP, is unavailable; the error carries no header of the request."""
    import asyncio

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(spoken)
        writer.close()

    peer = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with peer:
        url = f"http://127.0.0.1:{peer.sockets[0].getsockname()[1]}/v1"
        error = await error_of(OpenAIBackend(base_url=url, api_key=KEY), "x")
    assert type(error) is BackendUnavailable
    assert KEY not in everything_about(error)


@pytest.mark.parametrize(
    ("stream", "kind"),
    [
        ("data: {oops\n\n", StreamBroken),
        ("data: [1]\n\n", StreamBroken),
        ("data: " + "[" * 200_000 + "\n\n", StreamBroken),
        ("data: \n\n", StreamBroken),
        ("", StreamBroken),
        ("<html>", EndpointMissing),
        ("Ollama is running", EndpointMissing),
        ("data: [DONE]\n\n", StreamBroken),
        ('data: {"choices": [{"delta": {}, "finish_reason": "error"}]}\n\n', ServerFault),
        ('data: {"choices": "x", "usage": [1]}\n\n', StreamBroken),
        ('data: {"choices": {"a": 1}}\n\n', StreamBroken),
        ('data: {"choices": ["x"]}\n\n', StreamBroken),
        ('data: {"choices": [{"delta": "x"}]}\n\n', StreamBroken),
        ('data: {"choices": [{"delta": {"content": 5, "reasoning": [1]}, "finish_reason": 5}]}\n\n', StreamBroken),
    ],
)
async def test_a_stream_that_makes_no_sense(serve: Serve, stream: str, kind: type[BackendError]) -> None:
    """Whatever stands in a 200 stream, only a whole answer gets through."""
    answer = faults.raw_status(200, stream, {"Content-Type": "text/event-stream"})
    error = await openai_error(serve(fault=faults.always(answer)))
    assert type(error) is kind


def everything_about(error: BaseException) -> str:
    """Collect what any log or report could show of an error and its causes."""
    shown = []
    link: BaseException | None = error
    while link is not None:
        shown += [str(link), repr(link), repr(link.args), repr(vars(link)) if hasattr(link, "__dict__") else ""]
        link = link.__cause__ or link.__context__
    return "\n".join(shown)


@pytest.mark.parametrize(
    "fault",
    [
        faults.status(401, message=f"Incorrect API key provided: {KEY}"),
        faults.status(500, message=f"Bearer {KEY}"),
        faults.error_object(1, error={"message": KEY}),
        faults.raw_status(200, f"data: {KEY}\n\n", {"Content-Type": "text/event-stream"}),
        faults.raw_status(302, headers={"Location": f"http://other.invalid/?key={KEY}"}),
        faults.raw_status(302, headers={"Location": f"http://{KEY}@other.invalid/{KEY}"}),
        faults.cut(1),
    ],
)
async def test_the_key_is_in_no_message(serve: Serve, fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    """The key is sent, and stands in nothing that an error, a repr or a log says, even when the server repeats it."""
    caplog.set_level(logging.DEBUG)
    server = serve(fault=faults.always(fault))
    error = await openai_error(server)
    assert server.state.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in everything_about(error)
    assert KEY not in error.hint + error.partial
    assert KEY not in caplog.text
    assert KEY not in repr(OpenAIBackend(base_url=server.openai_url, api_key=KEY))


async def test_a_redirect_is_not_followed(serve: Serve) -> None:
    """A redirect carries no key to another server: it ends the run and says where it points."""
    other = serve()
    server = serve(fault=faults.always(faults.raw_status(307, headers={"Location": other.openai_url + "?x=1"})))
    error = await openai_error(server)
    assert isinstance(error, EndpointMissing)
    assert f"it redirects to {other.openai_url}" in error.message
    assert "x=1" not in error.message
    assert other.state.requests == 0


async def test_a_long_error_is_shortened(serve: Serve) -> None:
    """Of an endless error body only a bounded part is read, and little of it is shown, in one line."""
    body = "\x1b[31mred\x07 alert\r\n" * 500_000
    error = await openai_error(serve(fault=faults.always(faults.raw_status(500, body))))
    assert len(error.message) < 500
    assert error.message.isprintable()
    assert "[31mred alert" in error.message


async def test_retry_after_reaches_the_error(serve: Serve) -> None:
    """The error says how long the server asks to be left alone."""
    server = serve(fault=faults.always(faults.status(429, headers={"Retry-After": "7"})))
    assert (await openai_error(server)).retry_after_s == 7.0
    assert (await ollama_error(server)).retry_after_s == 7.0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error": {"message": "m", "code": "c", "type": "t", "param": "p"}}', "m"),
        ('{"error": "m"}', "m"),
        ('{"message": "m"}', "m"),
        ('{"detail": "m"}', "m"),
        ('{"detail": [{"loc": ["body"]}]}', '[{"loc": ["body"]}]'),
        ('{"error": null}', ""),
        ("[]", ""),
        ("m", "m"),
        ("<html>m</html>", ""),
        ("", ""),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_error_bodies_of_every_shape(body: str, message: str) -> None:
    """The server's words are found in each shape that servers use."""
    assert ErrorObject.parse(body).message == message


def test_codes_are_read() -> None:
    """`code` and `type` count when they are text, and a number only when it is a status."""
    error = ErrorObject.parse(json.dumps({"error": {"code": 503, "type": "t", "message": 5}}))
    assert (error.codes, error.status, error.message) == (("t",), 503, "5")
    assert ErrorObject.parse('{"error": {"code": 7}}').status is None
    assert ErrorObject.parse('{"error": {"code": true}}').status is None


# Wordings of servers as they were reported in public; each row names the server.
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        # unknown models
        (400, {"error": {"message": "x is not a valid model ID", "code": 400}}, ModelMissing),  # OpenRouter
        (400, {"error": {"message": "Invalid model name passed in model=x."}}, ModelMissing),  # LiteLLM
        (404, {"object": "error", "message": "The model `x` does not exist.", "code": 404}, ModelMissing),  # vLLM
        (400, {"detail": "Model x not found"}, ModelMissing),  # Open WebUI
        (404, {"error": {"message": "The model `x` has been decommissioned"}}, ModelMissing),  # Groq
        (422, {"detail": [{"loc": ["body", "model"], "msg": "Unknown model: x"}]}, ModelMissing),  # FastAPI
        (
            400,
            {"error": {"code": "model_not_supported", "message": "The requested model is not supported."}},
            ModelMissing,
        ),
        (
            404,
            {"error": {"code": "DeploymentNotFound", "message": "This API deployment does not exist."}},
            ModelMissing,
        ),
        (500, {"error": "model 'x' not found, try pulling it first"}, ModelMissing),  # older Ollamas behind proxies
        (400, {"error": {"message": "model x is not available on this server"}}, ModelMissing),
        (403, {"error": {"message": "You do not have access to the model x"}}, ModelMissing),
        (500, {"error": {"message": "the model is overloaded"}}, ServerFault),
        (500, {"error": "model requires more system memory (5 GiB) than is available (3 GiB)"}, ServerFault),
        # keys
        (
            400,
            [{"error": {"code": 400, "message": "API key expired. Please renew the API key."}}],
            NotAuthorized,
        ),  # Gemini
        (400, {"error": {"message": "No connected db.", "type": "no_db_connection"}}, NotAuthorized),  # LiteLLM
        (422, {"message": "Missing API key"}, NotAuthorized),
        (500, {"error": {"message": "Invalid API key provided"}}, NotAuthorized),
        (404, {"error": {"message": "API key not found"}}, NotAuthorized),
        # quotas and rate limits
        (429, {"error": {"message": "Insufficient credits. Add more."}}, QuotaSpent),
        (429, {"error": {"message": "Limit reached on requests per day (RPD): Limit 200"}}, QuotaSpent),  # OpenAI
        (
            429,
            {"error": {"message": "Rate limit of 50 per 86400s exceeded for UserByModelByDay."}},
            QuotaSpent,
        ),  # GitHub
        (429, {"error": {"message": "Please retry after 7200 seconds."}}, QuotaSpent),  # Azure
        (429, {"error": {"message": "Limit reached on tokens per min (TPM). Upgrade for more per day"}}, RateLimited),
        (429, {"error": {"message": "Rate limit reached. Add a payment method in billing."}}, RateLimited),
        (429, {"error": {"message": "Request too large for x on tokens per min (TPM)"}}, ContextTooLong),  # OpenAI
        (403, {"error": {"message": "Your account is in arrears", "code": "Arrearage"}}, QuotaSpent),  # DashScope
        (400, {"error": {"message": "Billing hard limit has been reached"}}, QuotaSpent),
        # context
        (400, {"error": {"message": "Range of input length should be [1, 30720]"}}, ContextTooLong),  # DashScope
        (400, {"error": {"message": "This model's maximum context length is 8 tokens."}}, ContextTooLong),
        (500, {"error": {"message": "context size exceeded"}}, ContextTooLong),  # llama.cpp
        (400, {"error": {"message": "prompt is too long: 9 tokens > 8 maximum"}}, ContextTooLong),
        (500, {"error": {"message": "context deadline exceeded"}}, ServerFault),
        # content
        (400, {"error": {"message": "Content Exists Risk"}}, ContentFiltered),
        (403, {"error": {"message": "The input was flagged. No credits were charged."}}, ContentFiltered),
        # the model's own JSON
        (400, {"error": {"code": "json_validate_failed", "message": "Failed to generate JSON"}}, BadOutput),  # Groq
        (400, {"error": {"code": "tool_use_failed", "message": "Failed to call a function."}}, BadOutput),
        # schemas and paths
        (500, {"error": "invalid JSON schema in format"}, RequestRefused),  # Ollama
        (200, {"error": "Unexpected endpoint or method. (POST /chat/completions)"}, EndpointMissing),  # LM Studio
        (400, {"error": {"message": "temperature must be below 2"}}, RequestRefused),
        (424, {"error": "CUDA out of memory", "error_type": "generation"}, ServerFault),  # TGI
        # codes count as words, and a status inside a 400 before the 400
        (403, {"errors": [{"code": "token_quota_reached", "message": "No more."}]}, QuotaSpent),
        (400, {"error": {"message": "Provider returned error", "code": 502}}, ServerFault),
        (400, {"error": {"message": "Provider returned error", "metadata": {"raw": "Invalid role"}}}, RequestRefused),
        (400, {"message": "ThrottlingException: Rate exceeded"}, RateLimited),
        (429, {"error": {"message": "Quota exceeded, limit: 0. Please retry in 33.5s."}}, QuotaSpent),
        # what only looks like another cause
        (503, {"error": "The request queue length 100 exceeds the limit 50"}, ServerFault),
        (400, {"error": "'max_tokens' exceeds the maximum allowed value of 4096"}, RequestRefused),
        (400, {"error": "Conversation roles must alternate user/assistant"}, RequestRefused),
    ],
)
def test_the_words_of_servers(status: int, body: Any, kind: type[BackendError]) -> None:
    """Each wording gets the class that its cause has, whatever status the server chose for it."""
    assert classify(status, ErrorObject.read(body), {}) is kind


@pytest.mark.parametrize(
    ("event", "found"),
    [
        ({"error": "x"}, True),
        ({"object": "error", "message": "m"}, True),
        ({"code": 50505, "message": "busy", "data": None}, True),
        ({"type": "error", "error": {"message": "m"}}, True),
        ({"detail": "Not Found"}, True),
        ({"code": 422, "details": "too long"}, True),
        ({"success": False, "errors": [{"message": "m"}]}, True),
        ({"error_code": 50004, "text": "busy", "msg": "busy"}, True),
        ({"type": "ping"}, False),
        ({"choices": None, "base_resp": {"status_code": 1008}}, True),
        ({"choices": [], "base_resp": {"status_code": 0}}, False),
        ({"choices": [], "error": None}, False),
        ({"choices": [{"delta": {}}], "error": {}}, False),
        ({"message": {"content": "a"}, "done": False}, False),
        ({"status": "pulling manifest"}, False),
    ],
)
def test_errors_inside_a_stream_are_told_from_answers(event: dict[str, Any], found: bool) -> None:
    """Every shape of an error counts, and no event of an answer does."""
    assert is_error(event) is found


async def test_the_servers_models_are_named(serve: Serve) -> None:
    """An unknown model's error names the models that are there, the nearest one first."""
    error = await openai_error(
        serve(fault=faults.always(faults.status(404, code="model_not_found"))), model="granite4.1"
    )
    assert error.hint == "choose one of its models with --model: granite4.1:3b, test-model"


def test_one_line() -> None:
    """A message is one printable line of bounded length."""
    assert one_line(" a\n\tb\x1b[0m\u202e ") == "a b [0m"
    assert one_line("x" * 1000, 10) == "x" * 9 + "…"
