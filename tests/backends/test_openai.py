"""What is the OpenAI protocol's own: keys, the request's form, and what is given up for servers that refuse it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from loopback import Call, Fault, ModelServer, faults
from mellea_cli.backends.openai import OpenAIBackend
from mellea_cli.errors import (
    ContentFiltered,
    ContextTooLong,
    EndpointMissing,
    ModelMissing,
    NotAuthorized,
    RequestRefused,
    ServerFault,
    StreamBroken,
    UsageError,
)
from mellea_cli.messages import Chunk, GenerateRequest, Message, Options, Usage

Serve = Callable[..., ModelServer]
SCHEMA = {"title": "Short answer!", "type": "object", "properties": {"summary": {"type": "string"}}}


@asynccontextmanager
async def openai(server: ModelServer, **settings: Any) -> AsyncIterator[OpenAIBackend]:
    backend = OpenAIBackend(base_url=server.openai_url, **settings)
    try:
        yield backend
    finally:
        await backend.aclose()


def request(**changes: Any) -> GenerateRequest:
    return GenerateRequest(**{"model": "test-model", "messages": (Message("user", "hello"),), **changes})


async def collect(backend: OpenAIBackend, asked: GenerateRequest) -> list[Chunk]:
    return [chunk async for chunk in backend.stream(asked)]


def events(*values: Any, done: bool = True) -> Fault:
    """Answer with these events."""
    body = "".join(f"data: {json.dumps(value)}\n\n" for value in values) + ("data: [DONE]\n\n" if done else "")
    return faults.raw_status(200, body, {"Content-Type": "text/event-stream"})


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


async def test_the_request_has_its_form(server: ModelServer) -> None:
    """Options go by the protocol's names, the schema is strict, and what was not chosen is not sent."""
    options = Options(
        temperature=0.5, top_p=0.9, max_tokens=64, seed=3, stop=("END",), thinking="low", native={"logit_bias": {}}
    )
    async with openai(server) as backend:
        await collect(backend, request(options=options, output_schema=SCHEMA))
        await collect(backend, request())
    full, bare = server.state.bodies
    assert full == {
        "model": "test-model",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 64,
        "seed": 3,
        "stop": ["END"],
        "reasoning_effort": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "Short_answer_", "schema": SCHEMA, "strict": True},
        },
        "logit_bias": {},
    }
    assert set(bare) == {"model", "messages", "stream", "stream_options"}


@pytest.mark.parametrize(
    ("thinking", "sent"),
    [
        (None, {}),
        (False, {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": False}}),
        (True, {"reasoning_effort": "medium", "chat_template_kwargs": {"enable_thinking": True}}),
        ("high", {"reasoning_effort": "high"}),
    ],
)
async def test_thinking_is_said_in_both_ways(server: ModelServer, thinking: Any, sent: dict[str, Any]) -> None:
    """Whether to reason goes out as an effort and, for a plain yes or no, as the chat template's switch."""
    async with openai(server) as backend:
        await collect(backend, request(options=Options(thinking=thinking)))
    names = {"reasoning_effort", "chat_template_kwargs"}
    assert {name: value for name, value in server.state.bodies[0].items() if name in names} == sent


async def test_a_context_window_has_no_place(server: ModelServer) -> None:
    """The wire has no field for a context window, and saying so beats dropping it."""
    async with openai(server) as backend:
        with pytest.raises(UsageError, match="context window"):
            await collect(backend, request(options=Options(context_window=2048)))
    assert server.state.requests == 0


@pytest.mark.parametrize("name", ["model", "messages", "stream"])
async def test_the_request_cannot_be_taken_apart(server: ModelServer, name: str) -> None:
    """A native option may not replace what makes the request."""
    async with openai(server) as backend:
        with pytest.raises(UsageError, match=name):
            await collect(backend, request(options=Options(native={name: 1})))


async def test_what_json_cannot_hold_is_a_usage_error(server: ModelServer) -> None:
    """A native option that cannot be written is refused before anything is sent."""
    async with openai(server) as backend:
        for value in (object(), float("nan")):
            with pytest.raises(UsageError, match="JSON"):
                await collect(backend, request(options=Options(native={"x": value})))
    assert server.state.requests == 0


async def test_the_prompt_arrives_letter_by_letter(server: ModelServer) -> None:
    """Whatever stands in a prompt reaches the server as it is; a lone surrogate, which no wire takes, is marked."""
    text = '{{7*7}} [red]\x1b[0m \u2028 é 漢 😀 \\u0041 "\n'
    async with openai(server) as backend:
        await collect(backend, request(messages=(Message("user", text), Message("user", "a\ud800"))))
    assert [message["content"] for message in server.state.bodies[0]["messages"]] == [text, "a?"]


async def test_the_key_and_the_address_come_from_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """OPENAI_BASE_URL and OPENAI_API_KEY are the defaults, white space around the key is not part of it."""
    server = serve(api_key="sk-env")
    monkeypatch.setenv("OPENAI_BASE_URL", server.openai_url + "/")
    monkeypatch.setenv("OPENAI_API_KEY", " sk-env\n")
    backend = OpenAIBackend()
    assert (await collect(backend, request()))[-1].usage
    await backend.aclose()


async def test_a_wrong_key_names_the_variable(serve: Serve) -> None:
    """A refused key ends the run and says where the key comes from."""
    async with openai(serve(api_key="sk-right"), api_key="sk-wrong") as backend:
        with pytest.raises(NotAuthorized) as caught:
            await collect(backend, request())
    assert "OPENAI_API_KEY" in caught.value.hint


async def test_no_key_is_fine_elsewhere(server: ModelServer) -> None:
    """A server of one's own needs no key, and is sent none."""
    async with openai(server) as backend:
        await collect(backend, request())
    assert "authorization" not in server.state.headers[0]


def test_openai_itself_wants_a_key() -> None:
    """Without a key the default address is a usage error, before anything is sent."""
    with pytest.raises(UsageError, match="wants a key") as caught:
        OpenAIBackend()
    assert "OPENAI_API_KEY" in caught.value.hint


@pytest.mark.parametrize("key", ["sk-a b", "sk-a\nb", "sk-é", "sk-\u2026"])
def test_a_key_that_no_header_takes(key: str) -> None:
    """A key that was copied badly is refused without being shown."""
    with pytest.raises(UsageError) as caught:
        OpenAIBackend(base_url="http://127.0.0.1:1/v1", api_key=key)
    assert key not in caught.value.message + caught.value.hint


async def test_reasoning_is_kept_apart(serve: Serve) -> None:
    """Reasoning text, under either of its names, is not part of the answer."""
    async with openai(serve(thinking="hmm, so", reply=lambda *_: "Yes.")) as backend:
        chunks = await collect(backend, request())
    assert "".join(chunk.text for chunk in chunks) == "Yes."
    assert "".join(chunk.thinking for chunk in chunks) == "hmm, so"
    other = serve(fault=faults.always(events(delta(reasoning="so"), delta("stop", content="Yes."))))
    async with openai(other) as backend:
        assert (await collect(backend, request()))[:2] == [Chunk(thinking="so"), Chunk("Yes.")]


async def test_a_refusal_fails_the_item(serve: Serve) -> None:
    """A model that refuses has not answered: the item fails with the model's words."""
    server = serve(fault=faults.always(events(delta(refusal="I can"), delta(refusal="not."), delta("stop"))))
    async with openai(server) as backend:
        with pytest.raises(ContentFiltered, match="the model refuses: I cannot"):
            await collect(backend, request())


@pytest.mark.parametrize(
    ("sent", "chunks"),
    [
        ([delta("tool_calls", content="a")], [Chunk("a"), Chunk(finish_reason="stop")]),
        (
            [delta(content="a"), delta("stop"), {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}],
            [Chunk("a"), Chunk(finish_reason="stop", usage=Usage(3, 1))],
        ),
        (
            [{**delta("length", content="a"), "usage": {"prompt_tokens": 3, "completion_tokens": None}}],
            [Chunk("a"), Chunk(finish_reason="length", usage=Usage(3, 0))],
        ),
        (
            [
                delta(role="assistant", content=""),
                delta(content=None),
                {"choices": None},
                {},
                delta("stop", content="a"),
            ],
            [Chunk("a"), Chunk(finish_reason="stop")],
        ),
        (
            [delta("stop", content="a"), delta("stop", content="b")],
            [Chunk("a"), Chunk("b"), Chunk(finish_reason="stop")],
        ),
        (
            [delta("stop", content=[{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}])],
            [Chunk("a"), Chunk(finish_reason="stop")],
        ),
        ([delta("stop", content="\ud83d\ude00 \ud83d")], [Chunk("😀 "), Chunk("\ufffd"), Chunk(finish_reason="stop")]),
        (
            [delta(content="a\ud83d"), delta("stop", content="\ude00 b")],
            [Chunk("a"), Chunk("😀 b"), Chunk(finish_reason="stop")],
        ),
    ],
)
@pytest.mark.parametrize("done", [True, False])
async def test_the_forms_of_an_answer(serve: Serve, sent: list[Any], chunks: list[Chunk], done: bool) -> None:
    """Each form of event that servers send comes out right, with and without the closing mark."""
    async with openai(serve(fault=faults.always(events(*sent, done=done)))) as backend:
        assert await collect(backend, request()) == chunks


async def test_a_whole_answer_survives_a_cut_behind_it(serve: Serve) -> None:
    """What breaks behind the finish reason costs the token counts at most."""
    broken = events(delta("stop", content="a"), done=False)
    server = serve(fault=faults.always(Fault(status=200, body=broken.body + "data: {", headers=broken.headers)))
    async with openai(server) as backend:
        assert await collect(backend, request()) == [Chunk("a"), Chunk(finish_reason="stop")]


async def test_a_server_that_does_not_stream(serve: Serve) -> None:
    """A server that answers with one document, pretty-printed, is still understood."""
    message = {"role": "assistant", "content": "Yes."}
    value = {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 2, "completion_tokens": 1},
    }
    answer = faults.raw_status(200, json.dumps(value, indent=2), {"Content-Type": "application/json"})
    async with openai(serve(fault=faults.always(answer))) as backend:
        assert await collect(backend, request()) == [Chunk("Yes."), Chunk(finish_reason="stop", usage=Usage(2, 1))]


async def test_a_refused_schema_goes_into_the_prompt(serve: Serve) -> None:
    """JSON mode with the schema in the prompt, then the prompt alone; later requests begin where that ended."""
    server = serve(refuse=frozenset({"json_schema", "json_object"}))
    async with openai(server) as backend:
        for _ in range(2):
            await collect(backend, request(output_schema=SCHEMA))
    formats = [(body.get("response_format") or {}).get("type") for body in server.state.bodies]
    assert formats == ["json_schema", "json_object", None, None]
    prompts = [body["messages"][-1]["content"] for body in server.state.bodies]
    assert prompts[0] == "hello"
    assert all(json.dumps(SCHEMA) in prompt for prompt in prompts[1:])


async def test_json_mode_is_kept_where_it_works(serve: Serve) -> None:
    """A server that knows JSON mode but no schema keeps being asked in JSON mode."""
    server = serve(refuse=frozenset({"json_schema"}))
    async with openai(server) as backend:
        await collect(backend, request(output_schema=SCHEMA))
        await collect(backend, request(output_schema=SCHEMA))
    formats = [body["response_format"]["type"] for body in server.state.bodies]
    assert formats == ["json_schema", "json_object", "json_object"]


async def test_max_tokens_goes_by_its_other_name(serve: Serve) -> None:
    """A server that refuses `max_tokens` gets `max_completion_tokens`, from then on at once."""
    server = serve(refuse=frozenset({"max_tokens"}))
    async with openai(server) as backend:
        for limit in (5, 6):
            await collect(backend, request(options=Options(max_tokens=limit)))
    sent = [(body.get("max_tokens"), body.get("max_completion_tokens")) for body in server.state.bodies]
    assert sent == [(5, None), (None, 5), (None, 6)]


@pytest.mark.parametrize(
    ("words", "most"),
    [
        ("max_tokens is too large: 900. This model supports at most 300 completion tokens.", 300),
        ("a value of 900 but the supported maxOutputTokens are from 1 (inclusive) to 301 (exclusive)", 300),
        ("maximum context length is 1000 tokens. You requested 900 output tokens, and at least 700 input tokens", 300),
    ],
)
async def test_a_limit_that_is_too_high_is_lowered(serve: Serve, words: str, most: int) -> None:
    """The server's own limit is used from then on; what a context has left is used for this request only."""

    def plan(call: Call) -> Fault | None:
        return faults.status(400, message=words) if call.body["max_tokens"] > most else None

    server = serve(fault=plan)
    async with openai(server) as backend:
        for _ in range(2):
            await collect(backend, request(options=Options(max_tokens=900)))
    sent = [body["max_tokens"] for body in server.state.bodies]
    assert sent == ([900, most, 900, most] if "context" in words else [900, most, most])


async def test_a_refusal_that_names_nothing_costs_the_schema_once(serve: Serve) -> None:
    """Only a server that has never answered is asked without the schema, and without JSON mode, for no reason given."""
    server = serve(fault=faults.always(faults.status(400, message="Request contains an invalid argument.")))
    async with openai(server) as backend:
        for _ in range(2):
            with pytest.raises(RequestRefused, match="invalid argument"):
                await collect(backend, request(output_schema=SCHEMA))
    formats = [(body.get("response_format") or {}).get("type") for body in server.state.bodies]
    assert formats == ["json_schema", "json_object", None, "json_schema"]


@pytest.mark.parametrize(
    ("content", "text"),
    [(7, "7"), ({"a": 1}, '{"a": 1}'), ({"text": "a"}, "a"), (["a", {"type": "text", "text": "b"}], "ab")],
)
async def test_contents_that_are_no_texts(serve: Serve, content: Any, text: str) -> None:
    """Servers send numbers, the object itself, or lists: none of it is lost."""
    async with openai(serve(fault=faults.always(events(delta(content=content), delta("stop"))))) as backend:
        assert "".join(chunk.text for chunk in await collect(backend, request())) == text


@pytest.mark.parametrize(
    "name", ["reasoning_effort", "chat_template_kwargs", "stream_options", "temperature", "seed", "stop"]
)
async def test_other_refused_parameters_are_left_out(serve: Serve, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A parameter that a server does not know is left out from then on; the log warns of what the user chose."""

    def plan(call: Call) -> Fault | None:
        return faults.status(400, message="Unknown parameter.", param=name) if name in call.body else None

    caplog.set_level(logging.INFO)
    server = serve(fault=plan)
    asked = request(options=Options(temperature=0, seed=1, stop=("#",), thinking=False))
    async with openai(server) as backend:
        await collect(backend, asked)
        await collect(backend, asked)
    assert [name in body for body in server.state.bodies] == [True, False, False]
    levels = [record.levelno for record in caplog.records if name in record.getMessage()]
    assert levels == [logging.WARNING if name in ("temperature", "seed", "stop") else logging.INFO]


async def test_a_bad_value_is_not_dropped(serve: Serve) -> None:
    """A refusal of the value, not of the parameter, is the user's to know."""
    server = serve(fault=faults.always(faults.status(400, message="temperature must be below 2", param="temperature")))
    async with openai(server) as backend:
        with pytest.raises(RequestRefused, match="below 2"):
            await collect(backend, request(options=Options(temperature=3)))
    assert server.state.requests == 1


async def test_a_users_own_format_is_not_given_up(serve: Serve) -> None:
    """`response_format` among the native options is the user's: its refusal is an error, not a loop."""
    server = serve(refuse=frozenset({"json_object"}))
    native = {"response_format": {"type": "json_object"}}
    async with openai(server) as backend:
        with pytest.raises(RequestRefused):
            await collect(backend, request(options=Options(native=native)))
    assert server.state.requests == 1


async def test_a_parameter_fallback_that_does_not_help_is_forgotten(serve: Serve) -> None:
    """Only what let an answer through is remembered."""
    server = serve(fault=faults.always(faults.status(400, message="seed is not supported, nor anything else")))
    async with openai(server) as backend:
        with pytest.raises(RequestRefused):
            await collect(backend, request(options=Options(seed=1)))
        with pytest.raises(RequestRefused):
            await collect(backend, request(options=Options(seed=1)))
    assert ["seed" in body for body in server.state.bodies] == [True, False, True, False]


async def test_requests_side_by_side_agree_on_what_is_refused(serve: Serve) -> None:
    """Many first requests at once all get through, and none of the later ones is refused."""
    server = serve(refuse=frozenset({"json_schema", "max_tokens"}))
    asked = request(output_schema=SCHEMA, options=Options(max_tokens=50))
    async with openai(server) as backend:
        await asyncio.gather(*(collect(backend, asked) for _ in range(8)))
        before = server.state.requests
        await asyncio.gather(*(collect(backend, asked) for _ in range(8)))
    assert server.state.requests == before + 8


def test_name_and_slots_are_the_callers() -> None:
    """The embedded server speaks this protocol under its own name."""
    backend = OpenAIBackend(base_url="http://127.0.0.1:1/v1", name="local", slots=4)
    assert (backend.name, backend.slots) == ("local", 4)


@pytest.mark.parametrize("merge", [True, False])
async def test_texts_that_arrive_together_may_be_one_chunk(serve: Serve, merge: bool) -> None:
    """Chunks with more than text stay as they are and where they are."""
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    thought, end = delta(reasoning="hm"), delta("stop", content="d")
    server = serve(
        fault=lambda _: events(delta(content="a"), delta(content="b"), thought, delta(content="c"), end, usage)
    )
    async with openai(server, merge_chunks=merge) as backend:
        chunks = await collect(backend, request())
    texts = [Chunk("ab")] if merge else [Chunk("a"), Chunk("b")]
    last = [Chunk("", "hm"), Chunk("c"), Chunk("d"), Chunk(finish_reason="stop", usage=Usage(1, 2))]
    assert chunks == [*texts, *last]


PIECES = ('{"summary"', ': "late"}')


def call(piece: Any, **more: Any) -> dict[str, Any]:
    return {"index": 0, "function": {"arguments": piece, **more}}


@pytest.mark.parametrize(
    "sent",
    [
        [
            delta(tool_calls=[call("", name="f")]),
            *(delta(tool_calls=[call(one)]) for one in PIECES),
            delta("tool_calls"),
        ],
        [*(delta(function_call={"arguments": one}) for one in PIECES), delta("function_call")],
        [delta(tool_calls=[call({"summary": "late"})]), delta("stop", content="\n")],
        [
            delta(tool_calls=[call(PIECES[0]), {"index": 1, "function": {"arguments": "{}"}}]),
            delta(tool_calls=[call(PIECES[1])]),
        ],
        [delta(content="".join(PIECES)), delta(tool_calls=[call("{}")]), delta("tool_calls")],
    ],
)
async def test_a_tool_call_holds_the_answer(serve: Serve, sent: list[Any]) -> None:
    """Its arguments count where the content is empty."""
    async with openai(serve(fault=faults.always(events(*sent)))) as backend:
        chunks = await collect(backend, request())
    assert json.loads("".join(chunk.text for chunk in chunks)) == {"summary": "late"}
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("SAFETY", "content_filter"),
        ("sensitive", "content_filter"),
        ("eos_token", "stop"),
        ("max-tokens", "length"),
        ("incomplete", "length"),
        ("content-filter", "content_filter"),
        ("COMPLETE", "stop"),
        ("maxTokens", "length"),
        ("ERROR_TOXIC", "content_filter"),
        ("whatever", "stop"),
        (None, "stop"),
    ],
)
async def test_finish_reasons_of_many_servers(serve: Serve, finish: str | None, reason: str) -> None:
    """Names and capitals differ, and `[DONE]` alone is an orderly end."""
    async with openai(serve(fault=faults.always(events(delta(content="a"), delta(finish))))) as backend:
        assert (await collect(backend, request()))[-1].finish_reason == reason


@pytest.mark.parametrize("finish", ["error", "insufficient_system_resource", "abort", "unknown", "MALFORMED_RESPONSE"])
async def test_finish_reasons_that_are_faults(serve: Serve, finish: str) -> None:
    """They are the server's, so the request is sent again; what had come is kept with the error."""
    async with openai(serve(fault=faults.always(events(delta(content="a"), delta(finish))))) as backend:
        with pytest.raises(ServerFault, match=finish.lower()) as caught:
            await collect(backend, request())
    assert caught.value.partial == "a"


async def test_a_finish_reason_before_the_end(serve: Serve) -> None:
    """Text behind it counts, and an answer that breaks off behind it is broken."""
    early = [delta("stop", content=""), delta(content="a"), delta(content="b")]
    async with openai(serve(fault=faults.always(events(*early, delta("stop"))))) as backend:
        assert "".join(chunk.text for chunk in await collect(backend, request())) == "ab"
    async with openai(serve(fault=faults.always(events(*early, done=False)))) as backend:
        with pytest.raises(StreamBroken):
            await collect(backend, request())


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"thinking": "hm"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
    ],
)
async def test_the_fields_of_reasoning(serve: Serve, fields: dict[str, Any]) -> None:
    """Each name that servers give it, and parts of the content."""
    async with openai(serve(fault=faults.always(events(delta(**fields), delta("stop", content="a"))))) as backend:
        chunks = await collect(backend, request())
    assert ("".join(chunk.thinking for chunk in chunks), "".join(chunk.text for chunk in chunks)) == ("hm", "a")


async def test_reasoning_tokens_are_read(serve: Serve) -> None:
    """They tell whether reasoning has used up the limit."""
    counts = {"prompt_tokens": 1, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7}}
    sent = events(delta("stop", content="a"), {"choices": [], "usage": counts})
    async with openai(serve(fault=faults.always(sent))) as backend:
        usage = (await collect(backend, request()))[-1].usage
    assert usage is not None
    assert usage.reasoning_tokens == 7


@pytest.mark.parametrize(
    "said",
    [
        {"prompt_tokens_details": {"cached_tokens": 1024}},
        {"prompt_tokens_details": None, "prompt_cache_hit_tokens": 1024},
        {"cached_tokens": 1024},
        {"cache_read_input_tokens": 1024},
    ],
    ids=["openai", "deepseek", "moonshot", "anthropic"],
)
async def test_cached_tokens_are_read(said: dict[str, Any], serve: Serve) -> None:
    """In each form in which a server says how much of the prompt it had in its cache."""
    sent = events(delta("stop", content="a"), {"choices": [], "usage": {"prompt_tokens": 1200, **said}})
    async with openai(serve(fault=faults.always(sent))) as backend:
        usage = (await collect(backend, request()))[-1].usage
    assert usage is not None
    assert (usage.cached_tokens, (usage + usage).cached_tokens) == (1024, 2048)


async def test_no_reasoning_becomes_little_where_a_server_knows_no_none(serve: Serve) -> None:
    """A server that lists the levels it knows gets the low one, from then on at once."""
    known = "'reasoning_effort' does not support 'none'. Supported values are: 'low', 'medium', and 'high'."

    def plan(call: Call) -> Fault | None:
        return faults.status(400, message=known) if call.body.get("reasoning_effort") == "none" else None

    server = serve(fault=plan)
    async with openai(server) as backend:
        for _ in range(2):
            await collect(backend, request(options=Options(thinking=False)))
    assert [body["reasoning_effort"] for body in server.state.bodies] == ["none", "low", "low"]


@pytest.mark.parametrize(
    "listed",
    [
        {"object": "list", "data": [{"id": "a"}, {"id": "b"}]},
        [{"id": "a"}, {"id": "b"}],
        {"models": [{"name": "a"}, {"model": "b"}, {}]},
        {"data": ["a", "b"]},
    ],
)
async def test_lists_of_models_in_other_forms(
    server: ModelServer, listed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together answers with a bare list, proxies with Ollama's or with names alone."""

    async def get_json(_: str) -> Any:
        return listed

    async with openai(server) as backend:
        monkeypatch.setattr(backend._wire, "get_json", get_json)
        assert await backend.models() == ["a", "b"]


async def test_a_missing_path_is_told_from_a_missing_model(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare 404 is about the model where the server has a list without it, else about the address."""
    server = serve(fault=faults.always(faults.raw_status(404, "404 page not found")))
    async with openai(server) as backend:
        with pytest.raises(EndpointMissing) as missing:
            await collect(backend, request())
    assert "/v1" in missing.value.hint

    async def others() -> list[str]:
        return ["granite4.1:3b", "test-model-2"]

    async with openai(server) as backend:
        monkeypatch.setattr(backend, "models", others)
        with pytest.raises(ModelMissing, match="404 page not found") as caught:
            await collect(backend, request())
    assert caught.value.hint.endswith("test-model-2, granite4.1:3b")


@pytest.mark.parametrize(
    ("repeats", "counted", "cut"), [(1_000, 4_096, True), (1_000, 4_097, False), (1_000, 8_192, False), (1, 512, False)]
)
async def test_a_prompt_that_was_cut_is_noticed(
    serve: Callable[..., ModelServer], repeats: int, counted: int, cut: bool
) -> None:
    """The count is the size of a window, and the text has far more tokens; any other count may lack cached ones."""
    usage = {"prompt_tokens": counted, "completion_tokens": 1}
    server = serve(fault=faults.always(events(delta(content="a"), delta("stop"), {"choices": [], "usage": usage})))
    asked = request(messages=(Message("user", "The parcel came late, and nobody was here. " * repeats),))
    async with openai(server) as backend:
        if cut:
            with pytest.raises(ContextTooLong, match="has cut the prompt to 4096 tokens"):
                await collect(backend, asked)
        else:
            assert await collect(backend, asked)
