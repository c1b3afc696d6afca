"""The session API's contract, point by point, against a real server that counts."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel

from loopback import ModelServer, faults
from loopback.plan import Call, Fault
from loopback.replies import default_reply, pieces
from mellea_cli import (
    ChatContext,
    MelleaSession,
    ModelOption,
    ModelOutputThunk,
    RepairTemplateStrategy,
    SimpleContext,
    ValidationResult,
    generative,
    req,
    simple_validate,
    start_session,
    wait_for_all_mots,
)
from mellea_cli.errors import BackendError, CutAnswer, ParseError, ServerFault

Serve = Callable[..., ModelServer]
Open = Callable[..., MelleaSession]

STEPS = Path(__file__).parents[2] / "samples" / "tutorial"
REPLY = default_reply("", None)
LIVE = {ModelOption.STREAM: True}


class Mood(BaseModel):
    """What a test asks for."""

    mood: str


def run_step(number: int, server: ModelServer, protocol: str) -> subprocess.CompletedProcess[str]:
    """Run one of the tutorial's programs; for the OpenAI protocol, which has no default server, with its address."""
    source = (STEPS / f"step{number}.py").read_text(encoding="utf-8")
    if protocol == "openai":
        where = f'start_session("openai", "test-model", base_url={server.openai_url!r}, '
        source = source.replace("start_session(", where)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        env={**os.environ, "OLLAMA_HOST": server.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a1_the_tutorial_runs_with_only_its_imports_changed(number: int, serve: Serve, protocol: str) -> None:
    """Each of the five programs prints what its text says, and the server sees the requests that it says."""
    server = serve(latency_s=0.4)
    ran = run_step(number, server, protocol)
    lines = ran.stdout.splitlines()
    in_flight = {1: 1, 2: 1, 3: 4, 4: 2, 5: 1}[number]
    assert server.state.max_in_flight == in_flight
    if number == 4:
        assert lines[0] == f"Summary:   {REPLY}"
        assert lines[1].removeprefix("Sentiment: ") in {"positive", "negative", "mixed"}
        assert lines[2] == f"Issues:    {REPLY}"
    else:
        assert lines == [REPLY] * (4 if number == 3 else 1)
    assert ("stale contexts" in ran.stderr) == (number == 5)


def test_a1_the_tutorial_s_programs_differ_from_it_in_import_lines_only() -> None:
    """Every line that names our package is an import."""
    for path in sorted(STEPS.glob("step*.py")):
        naming = [line for line in path.read_text(encoding="utf-8").splitlines() if "mellea_cli" in line]
        assert naming
        assert all(re.match(r"import mellea_cli as mellea$|from mellea_cli[\w.]* import ", line) for line in naming)


async def test_a2_a_call_returns_at_once_with_a_running_thunk(serve: Serve, open_session: Open) -> None:
    """Under the default strategy too the thunk is there before its answer, and its request is on its way."""
    server = serve(fault=faults.always(faults.stall(0)))
    always = req("Always.", simple_validate(lambda text: True))
    thunk = await open_session(server).ainstruct("Say something.", requirements=[always])
    await server.until(lambda state: state.in_flight == 1)
    assert not thunk.is_computed()
    assert thunk.value is None
    await thunk.cancel_generation()


async def test_a2_without_a_strategy_tokens_stream_as_they_come(serve: Serve, open_session: Open) -> None:
    """The pieces of an answer that never ends are there as soon as the server has sent them, one by one."""
    server = serve(fault=faults.always(faults.stall(5)))
    thunk = await open_session(server).ainstruct("Say something.", strategy=None, model_options=LIVE)
    assert [await thunk.astream() for _ in range(5)] == pieces(REPLY)[:5]
    assert not thunk.is_computed()
    await thunk.cancel_generation()


async def test_a2_with_a_strategy_the_accepted_answer_is_one_piece(serve: Serve, open_session: Open) -> None:
    """Nothing of a rejected answer is ever streamed."""
    server = serve(fault=faults.once(faults.says("Rejected.")))
    wanted = req("It waits.", simple_validate(lambda text: "waits" in text))
    thunk = await open_session(server).ainstruct("Say something.", requirements=[wanted], model_options=LIVE)
    assert [piece async for piece in thunk] == [REPLY]
    assert thunk.attempts == 2


async def test_a3_every_way_to_read_gives_the_same(m: MelleaSession) -> None:
    """`await`, `avalue()`, `astream()`, `async for`, `async with`, `value` and `str()` agree."""
    thunk = await m.ainstruct("Say something.", strategy=None)
    assert await thunk is thunk
    assert await thunk.avalue() == thunk.value == str(thunk) == REPLY
    assert [piece async for piece in thunk] == [REPLY]
    async with await m.ainstruct("Say something.", strategy=None) as other:
        assert await other.astream() == REPLY
    assert other.value == REPLY


async def test_a3_leaving_async_with_closes_the_connection(serve: Serve, open_session: Open) -> None:
    """A `break` inside `async with thunk` gives the rest of the answer up, and the server sees it."""
    server = serve(fault=faults.always(faults.stall(3)))
    async with await open_session(server).ainstruct("Say something.", strategy=None, model_options=LIVE) as thunk:
        async for piece in thunk:
            assert piece == pieces(REPLY)[0]
            break
    await server.until(lambda state: state.disconnects == 1)
    assert thunk.cancelled


async def test_a3_cancel_generation_keeps_the_text_so_far(serve: Serve, open_session: Open) -> None:
    """A thunk that is given up holds what had arrived, is computed, has no error, and streams no more."""
    server = serve(fault=faults.always(faults.stall(3)))
    thunk = await open_session(server).ainstruct("Say something.", strategy=None, model_options=LIVE)
    arrived = "".join([await thunk.astream() for _ in range(3)])
    waiting = asyncio.create_task(thunk.avalue())
    await thunk.cancel_generation()
    await server.until(lambda state: state.disconnects == 1)
    assert await waiting == thunk.value == arrived == "".join(pieces(REPLY)[:3])
    assert thunk.cancelled
    assert thunk.error is None
    assert thunk.is_computed()
    with pytest.raises(RuntimeError, match="read to its end"):
        await thunk.astream()
    await thunk.cancel_generation()


async def test_a3_cancelling_a_chat_closes_its_connection(serve: Serve, open_session: Open) -> None:
    """`achat` hands out no thunk, so whoever cancels it cancels the request."""
    server = serve(fault=faults.always(faults.stall(1)))
    m = open_session(server)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(m.achat("Hello."), 0.2)
    await server.until(lambda state: state.disconnects == 1)


async def test_a4_the_limit_is_settable_and_results_keep_their_order(serve: Serve, open_session: Open) -> None:
    """Requests in flight follow `concurrency`, and the thunks stand in the order of the calls."""
    server = serve(latency_s=0.02)
    m = open_session(server, concurrency=3)
    thunks = [await m.ainstruct(f"Repeat MARK-{number}") for number in range(12)]
    await wait_for_all_mots(thunks)
    assert server.state.max_in_flight == 3
    assert [thunk.value for thunk in thunks] == [default_reply(f"MARK-{number}", None) for number in range(12)]


@pytest.mark.parametrize("code", [408, 409, 425, 429, 500, 502, 503])
async def test_a5_transport_trouble_is_retried(serve: Serve, open_session: Open, code: int) -> None:
    """A request that the server could not take is sent again, on the transport's budget alone."""
    server = serve(fault=faults.once(faults.status(code, headers={"Retry-After": "0"})))
    result = await open_session(server).ainstruct("Say something.", return_sampling_results=True)
    assert result.success
    assert len(result.sample_generations) == 1
    assert server.state.requests == 2


async def test_a5_the_two_budgets_do_not_multiply(serve: Serve, open_session: Open) -> None:
    """A broken stream and then a bad answer cost one of each budget: three requests, two answers judged."""

    def plan(call: Call) -> Fault | None:
        return {1: faults.cut(2), 2: faults.not_json()}.get(call.attempt)

    server = serve(fault=plan)
    thunk = await open_session(server).ainstruct("Say MARK-1.", format=Mood)
    await thunk
    assert thunk.attempts == 3
    assert thunk.sampling is not None
    assert len(thunk.sampling.sample_generations) == 2
    assert server.state.requests == 3


async def test_a5_a_server_that_always_fails_is_given_up(serve: Serve, open_session: Open) -> None:
    """The bound on retries holds, and the error says how often the request was sent, and its status."""
    server = serve(fault=faults.always(faults.status(500)))
    thunk = await open_session(server, max_retries=2).ainstruct("Say something.")
    with pytest.raises(ServerFault) as failed:
        await thunk.avalue()
    assert failed.value.status == 500
    assert failed.value.attempts == thunk.attempts == server.state.requests == 3


async def test_a5_the_bound_on_total_time_holds(serve: Serve, open_session: Open) -> None:
    """A wait that would end after `retry_for` seconds is not begun."""
    server = serve(fault=faults.always(faults.status(500, headers={"Retry-After": "30"})))
    thunk = await open_session(server, retry_for=5.0).ainstruct("Say something.")
    with pytest.raises(ServerFault):
        await thunk.avalue()
    assert server.state.requests == 1


async def test_a5_a_cut_answer_is_asked_again_with_the_reason(serve: Serve, open_session: Open) -> None:
    """An answer that the length limit cut off costs one answer, and the next request says why."""
    server = serve(fault=faults.once(faults.length("The customer wri")))
    thunk = await open_session(server).ainstruct("Say MARK-1.")
    assert await thunk.avalue() == default_reply("MARK-1", None)
    assert "length limit" in server.state.bodies[1]["messages"][-1]["content"]
    assert thunk.usage is not None
    assert thunk.usage.completion_tokens > 0


async def test_a5_a_bad_answer_s_error_says_which_it_was(serve: Serve, open_session: Open) -> None:
    """After the budget the error is the answer's own, with the partial text and the number of answers."""
    server = serve(fault=faults.always(faults.length("The customer wri")))
    thunk = await open_session(server).ainstruct("Say something.")
    with pytest.raises(CutAnswer) as cut:
        await thunk.avalue()
    assert cut.value.text == "The customer wri"
    assert cut.value.attempts == server.state.requests == 2


async def read_on(thunk: ModelOutputThunk) -> None:
    """Read to the end."""
    while not thunk.is_computed():
        await thunk.astream()


async def test_a5_pieces_that_were_read_are_never_followed_by_a_second_answer(serve: Serve, open_session: Open) -> None:
    """A stream that breaks after its reader has seen pieces fails; before that it is sent again."""
    server = serve(token_delay_s=0.02, fault=faults.once(faults.cut(4)))
    m = open_session(server)
    seen = await m.ainstruct("Say MARK-1.", strategy=None, model_options=LIVE)
    first = await seen.astream()
    with pytest.raises(BackendError):
        await read_on(seen)
    assert first == pieces(default_reply("MARK-1", None))[0]
    unseen = await m.ainstruct("Say MARK-2.", strategy=None, model_options=LIVE)
    assert await unseen.avalue() == default_reply("MARK-2", None)
    assert server.state.requests == 3


async def test_a6_structured_output_is_validated_whatever_the_strategy(serve: Serve, open_session: Open) -> None:
    """With a format the answer is parsed or there is an error with its text, even with `strategy=None`."""
    server = serve(fault=faults.always(faults.says("not json")))
    m = open_session(server)
    for strategy, requests in ((None, 1), (RepairTemplateStrategy(loop_budget=3), 3)):
        server.state.clear()
        thunk = await m.ainstruct("Say something.", format=Mood, strategy=strategy)
        with pytest.raises(ParseError) as bad:
            await thunk.avalue()
        assert bad.value.text == "not json"
        assert server.state.requests == requests


async def test_a6_the_parsed_value_stands_beside_the_text(m: MelleaSession, server: ModelServer) -> None:
    """`format=Model` sends the schema, keeps the text as it came, and gives an instance."""
    thunk = await m.ainstruct("Say something.", format=Mood)
    assert json.loads(await thunk.avalue())["mood"] == thunk.parsed_repr.mood == REPLY
    body = server.state.bodies[0]
    schema = body.get("format") or body["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["mood"]


def test_a7_a_validator_sees_the_whole_context(m: MelleaSession) -> None:
    """A validator is given the context with the answer at its end."""
    turns = []

    def look(ctx: SimpleContext) -> ValidationResult:
        turns.append(ctx.last_turn())
        return ValidationResult(True)

    m.instruct("Say something.", requirements=[req("Seen.", look)])
    assert turns[0].model_input.description == "Say something."
    assert turns[0].output.value == REPLY


async def test_a8_sync_calls_work_inside_a_running_loop(
    m: MelleaSession, server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A sync method and a sync stub in a coroutine block it, a DEBUG line says so, and thunks already fired go on."""

    @generative
    def mood(text: str) -> str:
        """Name the mood."""

    thunk = await m.ainstruct("Say something.")
    with caplog.at_level(logging.DEBUG, "mellea_cli"):
        assert m.instruct("Say something.").value == REPLY
        assert mood(m, text="x") == REPLY
    assert any("blocks the running event loop" in record.getMessage() for record in caplog.records)
    assert str(thunk) == REPLY


def test_a8_eight_threads_share_a_session(serve: Serve, open_session: Open) -> None:
    """Eight threads call `instruct` on one session at once, and each gets its own answer."""
    server = serve(latency_s=0.2)
    m = open_session(server)
    answers: dict[int, str | None] = {}

    def work(number: int) -> None:
        answers[number] = m.instruct(f"Repeat MARK-{number}").value

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == {number: default_reply(f"MARK-{number}", None) for number in range(8)}
    assert server.state.max_in_flight == 8


def test_a8_two_event_loops_one_after_the_other(m: MelleaSession, server: ModelServer) -> None:
    """`asyncio.run` twice on one session; a thunk of the first loop can be read in the second."""

    async def fire() -> ModelOutputThunk:
        return await m.ainstruct("Say something.")

    thunk = asyncio.run(fire())

    async def read() -> str:
        other = await m.ainstruct("Say something.")
        return await thunk.avalue() + await other.avalue()

    assert asyncio.run(read()) == REPLY * 2
    assert server.state.requests == 2


DROPPED = """
import asyncio, sys
from mellea_cli import start_session
def talk():
    m = start_session({protocol!r}, "test-model", base_url={url!r})
    print(m.instruct("Say something.").value)
    return m
kept = talk()          # held at the end of the program, never closed
talk()                 # dropped at once
async def main():
    m = start_session({protocol!r}, "test-model", base_url={url!r})
    thunk = await m.ainstruct("Say something.", strategy=None)
    return thunk       # still on its way when the program ends
left = asyncio.run(main())
"""


def test_a8_a_dropped_session_leaves_nothing_behind(serve: Serve, protocol: str) -> None:
    """Sessions that are never closed neither hang the interpreter nor leave a warning about open resources."""
    server = serve(latency_s=0.3)
    url = server.openai_url if protocol == "openai" else server.url
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", DROPPED.format(protocol=protocol, url=url)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONASYNCIODEBUG": "0"},
    )
    assert ran.stdout == f"{REPLY}\n" * 2
    for word in ("Warning", "unclosed", "Error", "Traceback"):
        assert word not in ran.stderr
    server.wait(lambda state: state.in_flight == 0)


async def test_a8_closing_ends_thread_and_connections(serve: Serve, open_session: Open) -> None:
    """Leaving `async with` gives up what runs, closes the connections and ends the thread; later calls say so."""
    server = serve(fault=faults.always(faults.stall(1)))
    async with open_session(server) as m:
        thunk = await m.ainstruct("Say something.", strategy=None)
        await server.until(lambda state: state.pieces == 1)
    with pytest.raises(RuntimeError, match="closed before"):
        await thunk.avalue()
    await server.until(lambda state: state.disconnects == 1)
    assert "mellea-session" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(RuntimeError, match="has been closed"):
        await m.ainstruct("Say something.")
    m.close()


def test_a9_the_import_is_light() -> None:
    """`import mellea_cli` and a session that has not called yet load neither the HTTP client nor pydantic."""
    program = """
import sys, mellea_cli
assert "asyncio" not in sys.modules
m = mellea_cli.start_session()
import threading
assert threading.active_count() == 1
heavy = {"httpx", "aiohttp", "pydantic", "jinja2", "rich"} & sys.modules.keys()
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a9_nothing_below_warning_is_shown(serve: Serve, protocol: str) -> None:
    """A call that has nothing to warn of writes nothing, on neither stream."""
    server = serve()
    url = server.openai_url if protocol == "openai" else server.url
    program = f"from mellea_cli import start_session; start_session({protocol!r}, 'test-model', base_url={url!r})"
    ran = subprocess.run(
        [sys.executable, "-c", program + ".instruct('Hi.')"], capture_output=True, timeout=60, check=True
    )
    assert (ran.stdout, ran.stderr) == (b"", b"")


async def test_a10_a_chat_context_warns_once_and_loses_no_turn(
    serve: Serve, open_session: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """Two overlapping chats take turns in the order of the calls; the second is shown the first with its answer."""
    server = serve(latency_s=0.1)
    m = open_session(server, ctx=ChatContext())
    with caplog.at_level(logging.WARNING, "mellea_cli"):
        await asyncio.gather(m.achat("First MARK-1."), m.achat("Second MARK-2."))
    warned = [record for record in caplog.records if "stale contexts" in record.getMessage()]
    assert len(warned) == 1
    assert [message["content"] for message in server.state.bodies[1]["messages"]] == [
        "First MARK-1.",
        default_reply("MARK-1", None),
        "Second MARK-2.",
    ]
    assert len(m.ctx.as_list()) == 4


def test_start_session_asks_nobody() -> None:
    """A session on a server that is not there starts; its first call says what is wrong."""
    m = start_session("ollama", "x", base_url="http://127.0.0.1:9", max_retries=0)
    with m, pytest.raises(BackendError, match=r"127\.0\.0\.1:9"):
        m.instruct("Say something.")
