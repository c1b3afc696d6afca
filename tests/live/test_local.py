"""The embedded server, its prompt cache and the backend over it, with the real small model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from mellea_cli.backends.llama_server import thread_count
from mellea_cli.backends.local import EmbeddedServer, EmbeddedServerLost, LocalBackend
from mellea_cli.errors import BackendUnavailable, ContextTooLong, ModelFileError, ModelMissing, Scope, UsageError
from mellea_cli.messages import Chunk, GenerateRequest, Message, Options
from mellea_cli.models.store import ModelStore
from mellea_cli.pipelines.confidence import read_choices

pytestmark = [pytest.mark.slow, pytest.mark.live, pytest.mark.timeout(300)]

NAME = "smollm2-135m"
SCHEMA = {
    "title": "Mood",
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}, "word": {"type": "string", "maxLength": 20}},
    "required": ["mood", "word"],
    "additionalProperties": False,
}
ENDLESS = {"ignore_eos": True}


def ask(
    text: str, *, max_tokens: int = 8, schema: dict[str, object] | None = None, **native: object
) -> GenerateRequest:
    options = Options(temperature=0, max_tokens=max_tokens, native=native)
    return GenerateRequest(NAME, (Message("user", text),), options, schema)


async def answer(backend: LocalBackend, request: GenerateRequest) -> list[Chunk]:
    async with aclosing(backend.stream(request)) as chunks:
        return [chunk async for chunk in chunks]


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def server_of(backend: LocalBackend) -> EmbeddedServer:
    assert backend._running is not None
    return backend._running.server


def is_running(pid: int) -> bool:
    """Whether a process exists and is not just waiting to be buried."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def until(condition: Callable[[], object]) -> None:
    """Wait for a state of another process."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - another process's state has no event to wait for
            await asyncio.sleep(0.02)


async def until_gone(pid: int) -> None:
    await until(lambda: not is_running(pid))


def of_process(pid: int, what: str) -> bytes:
    """What the kernel tells of a process."""
    return Path(f"/proc/{pid}/{what}").read_bytes()


async def slots(server: EmbeddedServer) -> list[bool]:
    """Which slots are at work, as the server tells."""
    async with httpx.AsyncClient() as client:
        listed = await client.get(f"{server.url}/slots", headers={"Authorization": f"Bearer {server.api_key}"})
    return [slot["is_processing"] for slot in listed.json()]


@pytest.fixture
async def backend(small_store: ModelStore) -> AsyncIterator[LocalBackend]:
    """A backend with two slots that has not been started yet."""
    backend = LocalBackend(NAME, slots=2, context_per_slot=1024, store=small_store)
    yield backend
    await backend.aclose()


async def test_a_schema_is_followed_and_usage_is_told(backend: LocalBackend) -> None:
    """The streamed answer is JSON of the right shape, in pieces, with one finish reason and the counts."""
    await backend.prepare(NAME)
    chunks = await answer(backend, ask("I love this shop!", max_tokens=60, schema=SCHEMA))
    value = json.loads(text_of(chunks))
    assert value["mood"] in ("good", "bad")
    assert set(value) == {"mood", "word"}
    assert len([chunk for chunk in chunks if chunk.text]) > 3
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    usage = [chunk.usage for chunk in chunks if chunk.usage]
    assert len(usage) == 1
    assert usage[0].prompt_tokens > 5
    assert usage[0].completion_tokens > 5


async def test_the_tokens_of_an_answer_tell_its_choices(backend: LocalBackend) -> None:
    """Under a schema the server still says what else the model would have written."""
    asked = replace(ask("I love this shop!", max_tokens=60, schema=SCHEMA), top_logprobs=20)
    chunks = await answer(backend, asked)
    tokens = [token for chunk in chunks for token in chunk.tokens]
    assert "".join(token.text for token in tokens) == text_of(chunks)
    moods = read_choices(SCHEMA, tokens)["mood"]
    assert sum(moods.values()) == pytest.approx(1)
    assert 0 < moods[json.dumps(json.loads(text_of(chunks))["mood"])] <= 1


async def test_a_small_model_answers_what_it_may(small_store: ModelStore, small_model: Path) -> None:
    """It has a server of its own; the other one does not start for that, and log-probabilities come along."""
    backend = LocalBackend(NAME, slots=1, context_per_slot=512, store=small_store, small_model=str(small_model))
    try:
        asked = replace(ask("Is the sky blue? Answer yes or no.", max_tokens=1), top_logprobs=20, small=True)
        found = [chunk.tokens[0].likely for chunk in await answer(backend, asked) if chunk.tokens]
        assert len(found) == 1
        assert len(found[0]) == 20
        assert max(found[0].values()) < 0
        assert backend._running is None
    finally:
        await backend.aclose()


async def test_the_same_question_has_the_same_answer(backend: LocalBackend) -> None:
    """At temperature 0 a model alone on its server repeats itself."""
    first = text_of(await answer(backend, ask("Name a colour.")))
    assert first
    assert text_of(await answer(backend, ask("Name a colour."))) == first


async def test_four_at_once_are_worked_on_at_once(small_store: ModelStore) -> None:
    """All four have begun before any has ended, and all four slots say that they are at work."""
    backend = LocalBackend(NAME, slots=4, context_per_slot=512, store=small_store)
    begun = asyncio.Barrier(5)
    seen: list[list[bool]] = []

    async def one(number: int) -> str:
        async with aclosing(backend.stream(ask(f"Count from {number}.", max_tokens=60, **ENDLESS))) as chunks:
            text = (await anext(chunks)).text
            await begun.wait()
            return text + "".join([chunk.text async for chunk in chunks])

    async def look() -> None:
        await begun.wait()
        seen.append(await slots(server_of(backend)))

    try:
        *texts, _ = await asyncio.gather(*(one(number) for number in range(4)), look())
    finally:
        await backend.aclose()
    assert seen == [[True] * 4]
    assert all(texts)


async def test_concurrent_first_calls_start_one_server(backend: LocalBackend) -> None:
    """Whoever comes first starts it, the others wait for it."""
    await asyncio.gather(backend.prepare(NAME), *(answer(backend, ask("Hi")) for _ in range(2)), backend.prepare(NAME))
    assert child_servers() == [server_of(backend).pid]


def child_servers() -> list[int]:
    """The embedded servers that this process has started and that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and _parent(entry) == os.getpid() and _is_server(entry):
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _parent(process: Path) -> int:
    return int((process / "stat").read_text().rpartition(")")[2].split()[1])


def _is_server(process: Path) -> bool:
    return b"mellea_cli.backends.llama_server" in (process / "cmdline").read_bytes().split(b"\0")


async def test_closing_a_stream_frees_its_slot(small_store: ModelStore) -> None:
    """An answer that nobody wants any more is not generated to its end."""
    backend = LocalBackend(NAME, slots=1, context_per_slot=4096, store=small_store)
    try:
        async with aclosing(backend.stream(ask("Tell a story.", max_tokens=4000, **ENDLESS))) as chunks:
            await anext(chunks)
            assert await slots(server_of(backend)) == [True]
        # Thousands of tokens are still to come: the slot can be free this soon only because the request was cancelled.
        async with asyncio.timeout(10):
            at_work = [True]
            while any(at_work):
                at_work = await slots(server_of(backend))
                await asyncio.sleep(0.02)
        assert text_of(await answer(backend, ask("Hi")))
    finally:
        await backend.aclose()


async def test_a_prompts_beginning_is_computed_once(backend: LocalBackend) -> None:
    """A slot keeps the prompt it saw last: a second request with the same beginning reuses it."""
    await backend.prepare(NAME)
    server = server_of(backend)
    rules = "You judge what customers say about a shop, kindly and in few words. " * 12
    cached = []
    async with httpx.AsyncClient(timeout=60) as client:
        for text in ("The tea was cold.", "Great service!"):
            messages = [{"role": "system", "content": rules}, {"role": "user", "content": text}]
            got = await client.post(
                f"{server.url}/v1/chat/completions",
                headers={"Authorization": f"Bearer {server.api_key}"},
                json={"model": NAME, "messages": messages, "max_tokens": 2},
            )
            cached.append(got.json()["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert cached[0] == 0
    assert cached[1] > 100


async def test_only_the_parent_may_ask(backend: LocalBackend) -> None:
    """Without the key, with a wrong one, or from a page in a browser there is nothing to be had."""
    await backend.prepare(NAME)
    server = server_of(backend)
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    async with httpx.AsyncClient() as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            for path in ("/v1/chat/completions", "/completion"):
                assert (await client.post(server.url + path, headers=headers, json=body)).status_code == 401
            for path in ("/v1/models", "/slots", "/props"):
                assert (await client.get(server.url + path, headers=headers)).status_code == 401
        asked = await client.get(f"{server.url}/health", headers={"Origin": "http://evil.example"})
    assert asked.headers.get("Access-Control-Allow-Origin") not in ("*", "http://evil.example")


async def test_the_key_stays_between_the_two(backend: LocalBackend) -> None:
    """The key is neither an argument nor in the environment, and each server has its own."""
    await backend.prepare(NAME)
    server = server_of(backend)
    for place in ("cmdline", "environ"):
        assert server.api_key.encode() not in of_process(server.pid, place)
    assert len(server.api_key) > 30
    assert httpx.URL(server.url).host == "127.0.0.1"


async def test_nothing_is_left_after_aclose(backend: LocalBackend) -> None:
    """The process is gone, a second close is fine, a later request is told off."""
    await backend.prepare(NAME)
    pid = server_of(backend).pid
    await backend.aclose()
    await backend.aclose()
    with pytest.raises(FileNotFoundError):
        of_process(pid, "stat")
    with pytest.raises(UsageError, match="was closed"):
        await answer(backend, ask("Hi"))


async def test_closing_what_was_never_started(backend: LocalBackend) -> None:
    """A backend that was opened and not used has nothing to stop."""
    await backend.aclose()


async def test_a_dead_server_is_named_and_replaced(backend: LocalBackend) -> None:
    """Whoever was being answered hears how it died; the next request finds a new server."""
    chunks = backend.stream(ask("Tell a story.", max_tokens=900, **ENDLESS))
    first = await anext(chunks)
    pid = server_of(backend).pid
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(BackendUnavailable, match=r"the embedded server died \(SIGKILL, as the system") as caught:
        async for _ in chunks:
            pass
    assert caught.value.partial.startswith(first.text)
    assert caught.value.retryable
    assert text_of(await answer(backend, ask("Hi")))
    assert server_of(backend).pid != pid


async def test_a_server_that_keeps_dying_ends_the_run(backend: LocalBackend) -> None:
    """After four deaths nothing is started any more, and the error says that no request can succeed."""
    for _ in range(4):
        await backend.prepare(NAME)
        server = server_of(backend)
        os.kill(server.pid, signal.SIGKILL)
        assert await server.ended(10)
    with pytest.raises(EmbeddedServerLost, match="died 4 times") as caught:
        await answer(backend, ask("Hi"))
    assert caught.value.scope is Scope.RUN
    with pytest.raises(EmbeddedServerLost):
        await backend.prepare(NAME)


async def test_a_cancelled_start_leaves_no_process(backend: LocalBackend) -> None:
    """Ctrl-C while the model is being loaded stops the child too, and a later start works."""
    task = asyncio.ensure_future(backend.prepare(NAME))
    await until(child_servers)
    children = child_servers()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for pid in children:
        await until_gone(pid)
    assert text_of(await answer(backend, ask("Hi")))


async def test_the_loop_runs_on_while_the_model_loads(backend: LocalBackend) -> None:
    """Starting happens off the event loop: others get their turns."""
    turns = 0
    task = asyncio.ensure_future(backend.prepare(NAME))
    while not task.done():
        await asyncio.sleep(0.01)
        turns += 1
    await task
    assert turns > 5


async def test_another_model_is_refused(backend: LocalBackend) -> None:
    """One server runs one model, and says which."""
    assert await backend.models() == [NAME]
    with pytest.raises(ModelMissing, match=f"runs {NAME}, not other"):
        await backend.prepare("other")


async def test_a_prompt_that_does_not_fit_is_the_items_trouble(backend: LocalBackend) -> None:
    """A prompt longer than a slot fails alone; the server goes on."""
    with pytest.raises(ContextTooLong):
        await answer(backend, ask("word " * 3000))
    assert text_of(await answer(backend, ask("Hi")))


async def test_a_choice_of_context_is_refused(backend: LocalBackend) -> None:
    """The window is fixed when the server starts, as with every OpenAI-compatible server."""
    request = GenerateRequest(NAME, (Message("user", "Hi"),), Options(context_window=99))
    with pytest.raises(UsageError, match="context window"):
        await answer(backend, request)


async def test_a_path_is_a_model(small_model: Path) -> None:
    """A GGUF file of the user's own needs no catalogue."""
    backend = LocalBackend(str(small_model), slots=1, context_per_slot=512)
    try:
        request = GenerateRequest(str(small_model), (Message("user", "Hi"),), Options(max_tokens=3))
        assert text_of(await answer(backend, request))
    finally:
        await backend.aclose()


async def test_a_missing_file_has_the_command_that_fixes_it(tmp_path: Path) -> None:
    """Nothing is fetched unasked: the error says what to type."""
    backend = LocalBackend(NAME, slots=1, store=ModelStore(tmp_path, sources=[]))
    with pytest.raises(ModelFileError, match="is not on this machine yet") as caught:
        await backend.prepare(NAME)
    assert caught.value.hint == f"mellea models pull {NAME}"


async def test_a_cut_model_file_is_explained(small_model: Path, tmp_path: Path) -> None:
    """The server's own reason reaches the user in one line."""
    cut = tmp_path / "cut.gguf"
    with small_model.open("rb") as file:
        cut.write_bytes(file.read(20_000_000))
    backend = LocalBackend(str(cut), slots=1)
    with pytest.raises(ModelFileError, match=r"cannot load .*cut\.gguf: .*not within the file bounds") as caught:
        await backend.prepare(str(cut))
    assert "\n" not in caught.value.message


async def test_a_made_up_model_file_is_explained(tmp_path: Path) -> None:
    """A file that only begins like a model does not take the run down with it."""
    odd = tmp_path / "odd.gguf"
    odd.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 10**12, 10**12) + os.urandom(5000))
    backend = LocalBackend(str(odd), slots=1)
    with pytest.raises((ModelFileError, BackendUnavailable), match="the embedded server"):
        await backend.prepare(str(odd))
    await backend.aclose()


async def test_a_missing_binding_has_the_install_command(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the extra `local` the error is the command that installs it."""
    (tmp_path / "xllamacpp.py").write_text("raise ModuleNotFoundError(\"No module named 'xllamacpp'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    backend = LocalBackend(str(small_model), slots=1)
    with pytest.raises(UsageError, match="is not installed") as caught:
        await backend.prepare(str(small_model))
    assert caught.value.hint == "pip install 'mellea-cli[local]'"


async def test_files_in_the_current_folder_do_not_get_in_the_way(
    backend: LocalBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's folder may hold a `json.py`: the child does not import it."""
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path)
    await backend.prepare(NAME)


@pytest.mark.parametrize(("slots", "context"), [(0, 512), (-1, 512), (1, 0)])
def test_senseless_sizes_are_refused(slots: int, context: int) -> None:
    """Sizes are checked before anything is started."""
    with pytest.raises(UsageError):
        LocalBackend(NAME, slots=slots, context_per_slot=context)


PARENT = """
import asyncio, sys
from pathlib import Path
from mellea_cli.backends.llama_server import ServerConfig
from mellea_cli.backends.local import EmbeddedServer

async def main():
    start = EmbeddedServer.start(ServerConfig(sys.argv[1], "m", 1, 256, log=sys.argv[2] == "log"))
    server = await start
    print(server.pid, server.url, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


def parent_of(model: Path, log: str = "") -> subprocess.Popen[str]:
    """A process that owns a server, and nothing else."""
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, str(model), log], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


async def test_the_server_dies_with_a_killed_parent(small_model: Path) -> None:
    """After kill -9 of its parent nobody has to clean up."""
    parent = parent_of(small_model)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline().split()[0])
    assert is_running(pid)
    parent.kill()
    parent.communicate()
    await until_gone(pid)


async def test_the_log_is_silent_unless_asked_for(small_model: Path) -> None:
    """llama.cpp writes hundreds of lines: none reaches the screen, or all."""
    for log in ("", "log"):
        parent = parent_of(small_model, log)
        assert parent.stdout is not None
        parent.stdout.readline()
        parent.kill()
        _, err = parent.communicate()
        assert ("llama" in err) == bool(log)
        assert bool(err) == bool(log)


@pytest.fixture
def child(small_model: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The server program alone, without the code that usually owns it, and its address."""
    config = {"model": str(small_model), "name": "m", "slots": 1, "context_per_slot": 256, "api_key": "k"}
    with subprocess.Popen(
        [sys.executable, "-m", "mellea_cli.backends.llama_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({**config, "parent": os.getpid()}).encode() + b"\n")
        process.stdin.flush()
        yield process, json.loads(process.stdout.readline())["url"]
        process.kill()


def test_the_end_of_stdin_ends_the_server(child: tuple[subprocess.Popen[bytes], str]) -> None:
    """Closing the pipe is enough on every system, and it is a normal end."""
    process, url = child
    assert httpx.get(f"{url}/health").status_code == 200
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(20) == 0


def test_an_interrupt_is_left_to_the_parent(child: tuple[subprocess.Popen[bytes], str]) -> None:
    """A terminal's Ctrl-C does not take the server away from a run that is being wound up."""
    process, url = child
    process.send_signal(signal.SIGINT)
    assert httpx.get(f"{url}/health").status_code == 200
    assert process.poll() is None


def test_a_child_without_a_parent_does_nothing() -> None:
    """A configuration that never comes is an end, not an error."""
    done = subprocess.run(
        [sys.executable, "-m", "mellea_cli.backends.llama_server"],
        input=b"",
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_threads_follow_what_the_process_may_use() -> None:
    """Bound to one processor it computes with one thread."""
    assert 1 <= thread_count() <= (os.cpu_count() or 1)
    code = (
        "import os; from mellea_cli.backends.llama_server import thread_count; "
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(thread_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


PREFIX = (
    Message("system", "You sort letters by their mood. " + "Read each one to its end before you say anything. " * 8),
    Message("user", "I am glad."),
    Message("assistant", "happy"),
)
SLOTS = 2


@asynccontextmanager
async def opened(model: Path, states: Path, told: list[str]) -> AsyncIterator[LocalBackend]:
    backend = LocalBackend(str(model), slots=SLOTS, context_per_slot=1024, prompt_cache=states)
    backend.share_prefixes([PREFIX], told.append)
    try:
        await backend.prepare(str(model))
        yield backend
    finally:
        await backend.aclose()


async def cached_tokens(backend: LocalBackend, slot: int) -> tuple[int, int]:
    """How many of a request's prompt tokens the slot had already, and how many there were."""
    assert backend._running is not None
    server = backend._running.server
    messages = [*PREFIX, Message("user", "It rains.")]
    body: dict[str, Any] = {"messages": [{"role": one.role, "content": one.content} for one in messages]}
    async with httpx.AsyncClient(timeout=120, headers={"Authorization": f"Bearer {server.api_key}"}) as client:
        answer = await client.post(f"{server.url}/v1/chat/completions", json={**body, "max_tokens": 1, "id_slot": slot})
    usage = answer.json()["usage"]
    return usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"]


async def test_every_slot_starts_from_the_beginning_that_one_evaluated(small_model: Path, tmp_path: Path) -> None:
    """The first start evaluates and says so, the second takes it from disk; no slot evaluates it again."""
    first: list[str] = []
    async with opened(small_model, tmp_path, first) as backend:
        for slot in range(SLOTS):
            cached, whole = await cached_tokens(backend, slot)
            assert whole - cached < 20, slot
    assert len(first) == 1
    second: list[str] = []
    async with opened(small_model, tmp_path, second) as backend:
        for slot in range(SLOTS):
            cached, whole = await cached_tokens(backend, slot)
            assert whole - cached < 20, slot
    assert second == []
    assert len(list(tmp_path.glob("*.slot"))) == 1


async def test_a_damaged_state_is_made_again(small_model: Path, tmp_path: Path) -> None:
    """A file that a crash cut short costs time, and nothing else."""
    async with opened(small_model, tmp_path, []):
        pass
    (state,) = tmp_path.glob("*.slot")
    whole = state.stat().st_size
    state.write_bytes(state.read_bytes()[: whole // 2])
    told: list[str] = []
    async with opened(small_model, tmp_path, told) as backend:
        request = GenerateRequest(str(small_model), (*PREFIX, Message("user", "Well.")), Options(max_tokens=3))
        text = "".join([chunk.text async for chunk in backend.stream(request)])
    assert told
    assert text
    assert state.stat().st_size == whole


async def test_other_prompts_keep_files_of_their_own(small_model: Path, tmp_path: Path) -> None:
    """Only the newest are kept."""
    backend = LocalBackend(str(small_model), slots=1, context_per_slot=1024, prompt_cache=tmp_path)
    for number in range(8):
        (tmp_path / f"old{number}.slot").write_bytes(b"x")
    backend.share_prefixes([PREFIX], lambda _: None)
    try:
        await backend.prepare(str(small_model))
    finally:
        await backend.aclose()
    kept = [path.name for path in tmp_path.glob("*.slot")]
    assert len(kept) == 6
    assert any(not name.startswith("old") for name in kept)
