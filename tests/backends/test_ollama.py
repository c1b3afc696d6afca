"""What is Ollama's own: addresses, tags, the request's form, thinking, pulling."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from loopback import Call, Fault, ModelServer, faults
from mellea_cli.backends.base import BackendSettings
from mellea_cli.backends.ollama import OllamaBackend, PullProgress, full_name, host_url
from mellea_cli.backends.security import Secrets
from mellea_cli.errors import ContextTooLong, ModelMissing, RequestRefused, ServerFault, StreamBroken, UsageError
from mellea_cli.messages import Chunk, GenerateRequest, Message, Options, Usage

Serve = Callable[..., ModelServer]
MODEL = "granite4.1:3b"


@asynccontextmanager
async def ollama(server: ModelServer) -> AsyncIterator[OllamaBackend]:
    backend = OllamaBackend(base_url=server.url)
    try:
        yield backend
    finally:
        await backend.aclose()


def request(**changes: Any) -> GenerateRequest:
    return GenerateRequest(**{"model": MODEL, "messages": (Message("user", "hello"),), **changes})


async def collect(backend: OllamaBackend, asked: GenerateRequest) -> list[Chunk]:
    return [chunk async for chunk in backend.stream(asked)]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("  ", "http://127.0.0.1:11434"),
        ("localhost", "http://localhost:11434"),
        ("box:8080", "http://box:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:11434"),  # noqa: S104 - nothing listens: the address is replaced
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("http://0.0.0.0:11434/", "http://127.0.0.1:11434"),
        ("[::]:8080", "http://[::1]:8080"),
        ("[fe80::1]", "http://[fe80::1]:11434"),
        ("http://box", "http://box"),
        ("https://box", "https://box"),
        ("https://box/ollama/", "https://box/ollama"),
        ("'http://box:1'", "http://box:1"),
        ('"box"', "http://box:11434"),
    ],
)
def test_hosts_are_read_as_ollama_reads_them(host: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """OLLAMA_HOST may lack scheme and port; an address to listen on becomes loopback."""
    monkeypatch.setenv("MELLEA_ALLOW_HTTP", "1")
    assert host_url(host) == url
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert OllamaBackend().base_url == url


@pytest.mark.parametrize("host", ["box:port", "http://box:99999", "ftp://box", "http://[::1"])
def test_what_is_no_address_is_refused(host: str) -> None:
    """A host that cannot be used is a usage error, before anything is sent."""
    with pytest.raises(UsageError, match="address"):
        OllamaBackend(base_url=host)


def test_an_address_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`base_url` wins over OLLAMA_HOST."""
    monkeypatch.setenv("OLLAMA_HOST", "box")
    assert OllamaBackend(base_url="127.0.0.1:5").base_url == "http://127.0.0.1:5"


@pytest.mark.parametrize(
    ("model", "full"),
    [
        ("x", "x:latest"),
        ("x:1b", "x:1b"),
        ("host:5000/team/x", "host:5000/team/x:latest"),
        ("hf.co/a/b:Q4", "hf.co/a/b:Q4"),
    ],
)
def test_a_name_without_a_tag_means_latest(model: str, full: str) -> None:
    """`x` means `x:latest`; the port of a registry is no tag."""
    assert full_name(model) == full


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ("granite4.1:3b", True),
        ("GRANITE4.1:3B", True),
        ("granite4", False),
        ("granite4.1", False),
        ("m", True),
        ("m:7b", False),
    ],
)
async def test_a_model_is_matched_by_its_exact_tag(serve: Serve, wanted: str, there: bool) -> None:
    """`prepare` accepts exactly the models that are there, and names the command for another."""
    async with ollama(serve(models=("granite4.1:3b", "m:latest"))) as backend:
        if there:
            await backend.prepare(wanted)
        else:
            with pytest.raises(ModelMissing) as caught:
                await backend.prepare(wanted)
            assert f"`ollama pull {wanted}`" in caught.value.hint
            assert "--pull" in caught.value.hint


async def test_the_request_has_ollamas_form(server: ModelServer) -> None:
    """Options go where Ollama looks for them, and what was not chosen is not sent."""
    options = Options(
        temperature=0.5,
        top_p=0.9,
        max_tokens=64,
        seed=3,
        stop=("END",),
        context_window=2048,
        thinking=False,
        native={"top_k": 5, "keep_alive": "5m"},
    )
    schema = {"type": "object", "properties": {"summary": {"type": "string"}}}
    async with ollama(server) as backend:
        await collect(backend, request(options=options, output_schema=schema))
        await collect(backend, request())
    full, bare = server.state.bodies
    assert full == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "options": {
            "temperature": 0.5,
            "top_p": 0.9,
            "num_predict": 64,
            "num_ctx": 2048,
            "seed": 3,
            "stop": ["END"],
            "top_k": 5,
        },
        "think": False,
        "format": schema,
        "keep_alive": "5m",
        "truncate": False,
    }
    assert bare == {"model": MODEL, "messages": full["messages"], "stream": True, "options": {}}


@pytest.mark.parametrize("name", ["model", "messages", "stream", "format", "options"])
async def test_the_request_cannot_be_taken_apart(server: ModelServer, name: str) -> None:
    """A native option may not replace what makes the request."""
    async with ollama(server) as backend:
        with pytest.raises(UsageError, match=name):
            await collect(backend, request(options=Options(native={name: 1})))
    assert server.state.requests == 0


async def test_thinking_is_kept_apart(serve: Serve) -> None:
    """Reasoning text is not part of the answer."""
    async with ollama(serve(thinking="hmm, let me see", reply=lambda *_: "Yes.")) as backend:
        chunks = await collect(backend, request(options=Options(thinking=True)))
    assert "".join(chunk.text for chunk in chunks) == "Yes."
    assert "".join(chunk.thinking for chunk in chunks) == "hmm, let me see"


async def test_a_model_that_does_not_think(serve: Serve) -> None:
    """A model that refuses `think` is asked again without it, once: the next request leaves it out at once."""
    server = serve(refuse=frozenset({"think"}))
    async with ollama(server) as backend:
        for _ in range(2):
            assert (await collect(backend, request(options=Options(thinking=False))))[-1].finish_reason == "stop"
    assert ["think" in body for body in server.state.bodies] == [True, False, False]


async def test_another_refusal_is_not_about_thinking(serve: Serve) -> None:
    """Only a refusal that names thinking is answered by leaving it out."""
    server = serve(fault=faults.always(faults.status(400, message="bad options")))
    async with ollama(server) as backend:
        with pytest.raises(RequestRefused):
            await collect(backend, request(options=Options(thinking=False)))
    assert server.state.requests == 1


async def test_the_end_says_why_and_how_much(serve: Serve) -> None:
    """The last chunk carries the reason as Ollama names it, and its counts."""
    async with ollama(serve(fault=faults.always(faults.says("cut of", "length")))) as backend:
        last = (await collect(backend, request()))[-1]
    assert (last.finish_reason, last.usage) == ("length", Usage(1, 2))


@pytest.mark.parametrize(
    "end", ['{"done": true}', '{"done": true, "message": {}}', '{"done": true, "message": {"content": null}}']
)
async def test_a_sparse_end_is_an_end(serve: Serve, end: str) -> None:
    """Missing counts, reasons and contents are no failure."""
    answer = faults.raw_status(200, f'{{"message": {{"content": "a"}}}}\n{{"message": {{}}}}\n{end}\n{{"late": 1}}')
    async with ollama(serve(fault=faults.always(answer))) as backend:
        chunks = await collect(backend, request())
    assert chunks == [Chunk("a"), Chunk(finish_reason="stop", usage=Usage(0, 0))]


async def test_what_has_another_shape_says_nothing(serve: Serve) -> None:
    """Numbers where texts belong, lists where objects do: no crash, and what is sound next to them counts."""
    odd = ['{"message": "x"}', '{"message": {"content": 5, "thinking": [1]}}', '{"message": {"content": "a"}}']
    end = '{"done": true, "done_reason": 5, "eval_count": "3", "prompt_eval_count": -1}'
    answer = faults.raw_status(200, "\n".join([*odd, end]))
    async with ollama(serve(fault=faults.always(answer))) as backend:
        chunks = await collect(backend, request())
    assert chunks == [Chunk("a"), Chunk(finish_reason="stop", usage=Usage(0, 0))]


async def test_a_whole_answer_survives_a_cut_behind_it(serve: Serve) -> None:
    """What breaks behind `done` costs nothing."""
    answer = faults.raw_status(200, '{"message": {"content": "a"}}\n{"done": true}\n{"half')
    async with ollama(serve(fault=faults.always(answer))) as backend:
        chunks = await collect(backend, request())
    assert [chunk.finish_reason for chunk in chunks] == [None, "stop"]


async def test_pulling_shows_how_far_it_is(server: ModelServer) -> None:
    """A pull yields its progress and ends when the model is there."""
    async with ollama(server) as backend:
        steps = [step async for step in backend.pull("tiny")]
        await backend.prepare("tiny")
    assert PullProgress("pulling abc", 50, 100) in steps
    assert steps[-1].status == "success"


async def test_pulling_what_is_nowhere(serve: Serve) -> None:
    """A model that the library does not have is missing, and no retry brings it."""
    async with ollama(serve(pullable=frozenset())) as backend:
        with pytest.raises(ModelMissing, match="no model tiny"):
            [step async for step in backend.pull("tiny")]


async def test_a_pull_that_stops_is_no_success() -> None:
    """A pull whose stream ends early is an error with the next step."""
    import asyncio

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"status": "pulling manifest"}\n')
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as peer:
        backend = OllamaBackend(base_url=f"127.0.0.1:{peer.sockets[0].getsockname()[1]}")
        with pytest.raises(StreamBroken, match="stopped pulling"):
            [step async for step in backend.pull("tiny")]
        await backend.aclose()


@pytest.mark.parametrize("merge", [True, False])
async def test_texts_that_arrive_together_may_be_one_chunk(serve: Serve, merge: bool) -> None:
    """Chunks with more than text stay as they are and where they are."""
    said = [{"content": "a"}, {"content": "b"}, {"thinking": "hm", "content": ""}, {"content": "c"}]
    lines = [{"message": message} for message in said]
    body = "".join(f"{json.dumps(line)}\n" for line in (*lines, {"message": {"content": "d"}, "done": True}))
    server = serve(fault=lambda _: faults.raw_status(200, body, {"Content-Type": "application/x-ndjson"}))
    backend = OllamaBackend(base_url=server.url, merge_chunks=merge)
    chunks = await collect(backend, request())
    await backend.aclose()
    texts = [Chunk("ab")] if merge else [Chunk("a"), Chunk("b")]
    assert chunks == [*texts, Chunk("", "hm"), Chunk("c"), Chunk("d", "", "stop", Usage())]


@pytest.mark.parametrize(
    "name", ["granite4.1:3b", "library/granite4.1:3b", "registry.ollama.ai/library/Granite4.1:3B", "library/test-model"]
)
async def test_spellings_of_one_model(server: ModelServer, name: str) -> None:
    """Ollama's own library and capitals make no other model."""
    async with ollama(server) as backend:
        await backend.prepare(name)


async def test_a_missing_model_names_the_nearest(server: ModelServer) -> None:
    """The names that are there follow the command that gets the model."""
    async with ollama(server) as backend:
        with pytest.raises(ModelMissing) as caught:
            await backend.prepare("granite4.1:3")
    assert "ollama pull granite4.1:3`" in caught.value.hint
    assert caught.value.hint.endswith("with -m: granite4.1:3b, test-model")


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        (BackendSettings(secrets=Secrets("", {"OLLAMA_API_KEY": "k-1", "OPENAI_API_KEY": "sk"})), "Bearer k-1"),
        (BackendSettings(secrets=Secrets("", {"OPENAI_API_KEY": "sk"})), None),
        (BackendSettings(secrets=Secrets("", {"DESK_KEY": "k-2"}), key_variable="DESK_KEY"), "Bearer k-2"),
        (BackendSettings(api_key="k-3"), "Bearer k-3"),
    ],
)
async def test_a_bearer_key_is_sent(server: ModelServer, settings: BackendSettings, sent: str | None) -> None:
    """Ollama's own variable, a pool's or a key that was given; never the key of another provider."""
    backend = OllamaBackend.from_settings(dataclasses.replace(settings, base_url=server.url))
    await collect(backend, request())
    await backend.aclose()
    assert server.state.headers[0].get("authorization") == sent


LONG = "The parcel came late again. " * 1_000


@pytest.mark.parametrize(
    ("text", "counted", "cut"),
    [
        (LONG, 2_050, True),
        (LONG, 6_000, False),
        ("配送がまた遅れました。" * 1_000, 2_050, True),
        (LONG, 300, False),
        (" " * 50_000 + "late", 1_100, False),
        ("-" * 50_000, 1_100, False),
        ("short", 0, False),
    ],
)
async def test_a_cut_prompt_is_noticed(serve: Serve, text: str, counted: int, cut: bool) -> None:
    """Where far fewer tokens were read than the text must have; small counts are those of a cache."""
    end = {"message": {"content": "a"}, "done": True, "done_reason": "stop", "prompt_eval_count": counted}
    server = serve(fault=faults.always(faults.raw_status(200, json.dumps(end) + "\n")))
    async with ollama(server) as backend:
        if cut:
            with pytest.raises(ContextTooLong, match=str(counted)):
                await collect(backend, request(messages=(Message("user", text),)))
        else:
            assert await collect(backend, request(messages=(Message("user", text),)))


async def test_a_loaded_model_is_no_answer(serve: Serve) -> None:
    """`load` as the reason says that nothing was asked: the request is sent again."""
    answer = faults.raw_status(200, '{"message": {"content": ""}, "done": true, "done_reason": "load"}\n')
    async with ollama(serve(fault=faults.always(answer))) as backend:
        with pytest.raises(ServerFault, match="loaded"):
            await collect(backend, request())


async def test_a_format_that_is_ignored_without_thinking(serve: Serve) -> None:
    """Prose without any JSON to a request with a format: `think` is left to the model from then on."""
    said = iter(["I think that it is bad.", '{"summary": "a"}'])
    server = serve(reply=lambda *_: next(said))
    asked = request(options=Options(thinking=False), output_schema={"type": "object", "properties": {}})
    async with ollama(server) as backend:
        await collect(backend, asked)
        await collect(backend, asked)
    assert ["think" in body for body in server.state.bodies] == [True, False]


@pytest.mark.parametrize(
    "refusal",
    ['"m" does not support thinking', 'think value "low" is not supported for this model', "invalid think value: low"],
)
async def test_a_refused_level_is_taken_back(serve: Serve, refusal: str) -> None:
    """In each wording that Ollama has for it."""

    def plan(call: Call) -> Fault | None:
        body = json.dumps({"error": refusal})
        return faults.raw_status(400, body, {"Content-Type": "application/json"}) if "think" in call.body else None

    server = serve(fault=plan)
    async with ollama(server) as backend:
        for _ in range(2):
            await collect(backend, request(options=Options(thinking="low")))
    assert ["think" in body for body in server.state.bodies] == [True, False, False]
