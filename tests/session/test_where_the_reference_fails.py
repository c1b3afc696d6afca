"""X1 to X18: what must hold where the reference library fails, each against a real server that counts."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from loopback import ModelServer, faults
from loopback.plan import Call, Fault
from loopback.replies import default_reply, pieces
from mellea_cli import (
    MelleaSession,
    ModelOption,
    Requirement,
    ValidationResult,
    check,
    generative,
    req,
    simple_validate,
    wait_for_all_mots,
)
from mellea_cli.errors import BackendError, EmptyAnswer, ModelMissing, ServerFault, StreamBroken

Serve = Callable[..., ModelServer]
Open = Callable[..., MelleaSession]

FEEDBACK = ["Too slow.", "It crashes.", "Fast delivery.", "Billed twice."]


async def test_x1_a_failed_thunk_raises_the_same_error_twice(serve: Serve, open_session: Open) -> None:
    """Every way to read a failed thunk raises one and the same error, and none of them asks again."""
    server = serve(fault=faults.always(faults.status(400)))
    thunk = await open_session(server).ainstruct("Say something.", strategy=None)
    with pytest.raises(BackendError) as first:
        await thunk.avalue()
    for read in (thunk.avalue, thunk.astream, lambda: wait_for_all_mots([thunk])):
        with pytest.raises(BackendError) as again:
            await read()
        assert again.value is first.value
    for look in (lambda: thunk.value, lambda: str(thunk), thunk.wait):
        with pytest.raises(BackendError) as seen:
            look()
        assert seen.value is first.value
    assert thunk.error is first.value
    assert not thunk.is_computed()
    assert server.state.requests == 1


async def test_x2_many_may_wait_for_one_thunk(m: MelleaSession, server: ModelServer) -> None:
    """Three tasks that await one thunk, and a list that holds it three times, share one request."""
    thunk = await m.ainstruct("Say something.")
    texts = await asyncio.gather(thunk.avalue(), thunk.avalue(), thunk.avalue())
    await wait_for_all_mots([thunk, thunk, thunk])
    assert set(texts) == {thunk.value} == {default_reply("", None)}
    assert server.state.requests == 1


async def test_x3_a_call_that_waits_and_is_cancelled_gives_its_request_up(serve: Serve, open_session: Open) -> None:
    """When the time limit of one who awaits the result runs out, the server sees the connection close."""
    server = serve(fault=faults.always(faults.stall(2)))
    m = open_session(server)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(m.ainstruct("Say something.", await_result=True), 0.2)
    await server.until(lambda state: state.disconnects == 1)
    assert server.state.requests == 1


async def test_x3_a_thunk_that_nobody_holds_any_more_gives_its_request_up(serve: Serve, open_session: Open) -> None:
    """A call returns its thunk at once, within any time limit; dropping the thunk closes the connection."""
    server = serve(fault=faults.always(faults.stall(2)))
    m = open_session(server)
    thunk = await asyncio.wait_for(m.ainstruct("Say something."), 0.2)
    await server.until(lambda state: state.pieces == 2)
    assert server.state.disconnects == 0
    del thunk
    await server.until(lambda state: state.disconnects == 1)


async def test_x3_cancelling_the_one_task_that_awaits_gives_its_request_up(serve: Serve, open_session: Open) -> None:
    """A task that fires a call and waits for its answer takes the request with it when it is cancelled."""
    server = serve(fault=faults.always(faults.stall(2)))
    m = open_session(server)

    async def ask() -> str:
        thunk = await m.ainstruct("Say something.")
        return await thunk.avalue()

    task = asyncio.create_task(ask())
    await server.until(lambda state: state.pieces == 2)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    del task
    await server.until(lambda state: state.disconnects == 1)


async def test_x3_cancelling_one_of_several_waiters_leaves_the_thunk(serve: Serve, open_session: Open) -> None:
    """One who waits for a thunk that others hold may be cancelled; the answer still comes."""
    server = serve(latency_s=0.3)
    thunk = await open_session(server).ainstruct("Say something.")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(thunk.avalue(), 0.05)
    assert await thunk.avalue() == default_reply("", None)
    assert server.state.counts()["disconnects"] == 0


async def test_x4_two_thousand_thunks_pass_one_limiter(serve: Serve, open_session: Open) -> None:
    """2,000 thunks fired at once: never more than 16 requests in flight, none fails, results in order."""
    server = serve(latency_s=0.01, record=False)
    m = open_session(server, concurrency=16)
    thunks = [await m.ainstruct(f"Repeat MARK-{number}", strategy=None) for number in range(2000)]
    await wait_for_all_mots(thunks)
    assert [thunk.value for thunk in thunks] == [default_reply(f"MARK-{number}", None) for number in range(2000)]
    assert server.state.max_in_flight == 16
    assert server.state.requests == 2000
    assert len(server.state.connections) <= 16


async def test_x5_step_three_runs_side_by_side_under_the_default_strategy(serve: Serve, open_session: Open) -> None:
    """The tutorial's step 3 has its four requests in flight at once."""
    server = serve(latency_s=0.3)
    m = open_session(server)
    thunks = []
    for item in FEEDBACK:
        thunk = await m.ainstruct("Summarise in one sentence: {{text}}", user_variables={"text": item})
        thunks.append(thunk)
    assert not any(thunk.is_computed() for thunk in thunks)
    await wait_for_all_mots(thunks)
    assert all(thunk.is_computed() for thunk in thunks)
    assert server.state.max_in_flight == 4


async def test_x6_shared_lists_stay_as_they_are(m: MelleaSession, server: ModelServer) -> None:
    """A second call with the same requirements and other variables shows the second values."""
    wanted: list[Requirement | str] = [Requirement("It names {{name}}.", lambda _: ValidationResult(True))]
    before = list(wanted)
    grounding = {"source": "{{name}}"}
    for name in ("Ada", "Bob"):
        variables = {"name": name}
        await m.ainstruct(
            "Greet {{name}}.",
            requirements=wanted,
            user_variables=variables,
            grounding_context=grounding,
            await_result=True,
        )
        assert variables == {"name": name}
    second = server.state.bodies[1]["messages"][-1]["content"]
    assert "It names Bob." in second
    assert "Greet Bob." in second
    assert "Ada" not in second
    assert wanted == before
    assert [getattr(one, "description", one) for one in wanted] == ["It names {{name}}."]
    assert grounding == {"source": "{{name}}"}


def test_x7_a_stub_asks_again_after_bad_json(serve: Serve, open_session: Open) -> None:
    """Bad JSON once, then good: the value comes back after two requests, the second with the reason."""
    server = serve(fault=faults.once(faults.not_json()))

    @generative
    def count(text: str) -> int:
        """Count the words."""

    assert count(open_session(server), text="one MARK-1") == 1
    assert server.state.requests == 2
    assert "not valid JSON" in server.state.bodies[1]["messages"][-1]["content"]


def test_x8_none_is_a_legal_value(serve: Serve, open_session: Open) -> None:
    """`-> str | None` answered with null returns None, after one request."""
    server = serve(reply=lambda prompt, schema: '{"result": null}')

    @generative
    def complaint(text: str) -> str | None:
        """The complaint, or null."""

    assert complaint(open_session(server), "All is well.") is None
    assert server.state.requests == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_x9_a_cut_connection_keeps_the_partial_text(serve: Serve, open_session: Open, stream: bool) -> None:
    """The error of a connection that is cut after six pieces carries those six."""
    server = serve(fault=faults.always(faults.cut(6)))
    m = open_session(server, max_retries=0)
    thunk = await m.ainstruct("Say something.", strategy=None, model_options={ModelOption.STREAM: stream})
    with pytest.raises(StreamBroken) as broken:
        await thunk.avalue()
    assert broken.value.partial == "".join(pieces(default_reply("", None))[:6])


async def test_x10_async_validators_are_awaited(m: MelleaSession) -> None:
    """An async validator's verdict counts, and it is given the answer."""
    seen = []

    async def reject(text: str) -> tuple[bool, str]:
        await asyncio.sleep(0)
        seen.append(text)
        return False, "never good enough"

    result = await m.ainstruct(
        "Say something.", requirements=[req("Good.", simple_validate(reject))], return_sampling_results=True
    )
    assert not result.success
    assert seen == [default_reply("", None)] * 2
    assert result.sample_validations[0][0][1].reason == "never good enough"


async def test_x11_retry_after_is_kept(serve: Serve, open_session: Open) -> None:
    """After a 429 with Retry-After 1 the request comes again no earlier than a second later, and succeeds."""
    server = serve(fault=faults.once(faults.status(429, headers={"Retry-After": "1"})))
    thunk = await open_session(server).ainstruct("Say something.")
    assert await thunk.avalue() == default_reply("", None)
    first, second = server.state.started
    assert second - first >= 1.0
    assert thunk.attempts == 2


async def test_x12_a_server_fault_on_a_later_attempt_is_a_server_fault(serve: Serve, open_session: Open) -> None:
    """A 500 on the second attempt is not reported as a requirement that was not met."""

    def plan(call: Call) -> Fault | None:
        return faults.status(500) if call.attempt > 1 else None

    server = serve(fault=plan)
    m = open_session(server, max_retries=0)
    never = req("Never.", simple_validate(lambda text: False))
    with pytest.raises(ServerFault) as fault:
        await m.ainstruct("Say something.", requirements=[never], return_sampling_results=True)
    assert fault.value.status == 500
    assert server.state.requests == 2


async def test_x12_a_judge_that_cannot_be_asked_is_no_verdict(serve: Serve, open_session: Open) -> None:
    """A server that fails at the judge's question fails the call; the requirement is not taken for unmet."""

    def plan(call: Call) -> Fault | None:
        return faults.status(500) if call.index > 0 else None

    server = serve(fault=plan)
    thunk = await open_session(server, max_retries=0).ainstruct("Say something.", requirements=["It is polite."])
    with pytest.raises(ServerFault):
        await thunk.avalue()


def test_x13_stdout_holds_results_only(serve: Serve, protocol: str) -> None:
    """A program's stdout holds what it printed, and the library's words go to stderr."""
    server = serve(fault=faults.once(faults.status(503)))
    url = server.openai_url if protocol == "openai" else server.url
    program = f"""
from mellea_cli import ChatContext, start_session, req, simple_validate
import asyncio
async def main():
    async with start_session({protocol!r}, "test-model", base_url={url!r}, ctx=ChatContext()) as m:
        never = req("Never.", simple_validate(lambda text: (False, "no")))
        print(await (await m.ainstruct("Say something.", requirements=[never])).avalue())
asyncio.run(main())
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == default_reply("", None) + "\n"
    assert "SimpleContext" in ran.stderr
    assert "no answer met the requirements" in ran.stderr


async def test_x14_a_reply_of_reasoning_alone_is_an_error(serve: Serve, open_session: Open) -> None:
    """A reply without content is asked again, and then an error that says there was only reasoning."""
    server = serve(thinking="Let me think about it.", fault=faults.always(faults.empty()))
    thunk = await open_session(server).ainstruct("Say something.")
    with pytest.raises(EmptyAnswer, match="only reasoning"):
        await thunk.avalue()
    assert server.state.requests == 2


async def test_x14_without_a_strategy_it_is_a_warning(
    serve: Serve, open_session: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """With `strategy=None` the empty text comes back, and a warning says that there was only reasoning."""
    server = serve(thinking="Let me think about it.", fault=faults.always(faults.empty()))
    thunk = await open_session(server).ainstruct("Say something.", strategy=None)
    with caplog.at_level(logging.WARNING, "mellea_cli"):
        assert await thunk.avalue() == ""
    assert thunk.thinking == "Let me think about it."
    assert any("only reasoning" in record.getMessage() for record in caplog.records)


async def test_x15_requirements_are_checked_in_order_duplicates_kept(m: MelleaSession) -> None:
    """Verdicts come in the order of the requirements, each as often as it is listed."""
    order: list[str] = []

    def named(name: str) -> Requirement:
        def note(text: str) -> bool:
            order.append(name)
            return True

        return check(name, simple_validate(note))

    first, second, third = named("c"), named("a"), named("b")
    wanted = [first, second, first, third, second]
    result = await m.ainstruct("Say something.", requirements=wanted, return_sampling_results=True)
    assert order == ["c", "a", "c", "b", "a"]
    assert [one for one, _ in result.result_validations] == wanted


async def test_x16_an_empty_prompt_has_its_content(m: MelleaSession, server: ModelServer) -> None:
    """The message of an empty prompt goes out with an empty `content`, not without one."""
    await (await m.ainstruct("")).avalue()
    assert server.state.bodies[0]["messages"] == [{"role": "user", "content": ""}]


@pytest.mark.parametrize("none", [None, ""])
async def test_x17_no_system_prompt_means_no_system_message(serve: Serve, open_session: Open, none: str | None) -> None:
    """`SYSTEM_PROMPT: None` with a call takes the session's system message away."""
    server = serve()
    m = open_session(server, model_options={ModelOption.SYSTEM_PROMPT: "Be brief."})
    await (await m.ainstruct("Say something.")).avalue()
    await (await m.ainstruct("Say something.", model_options={ModelOption.SYSTEM_PROMPT: none})).avalue()
    roles: list[list[Any]] = [[message["role"] for message in body["messages"]] for body in server.state.bodies]
    assert roles == [["system", "user"], ["user"]]


async def test_x18_a_model_is_known_by_its_exact_name(serve: Serve, open_session: Open) -> None:
    """`granite4` is missing where only `granite4.1:3b` is present."""
    server = serve(models=("granite4.1:3b",))
    thunk = await open_session(server, model_id="granite4").ainstruct("Say something.")
    with pytest.raises(ModelMissing, match="granite4"):
        await thunk.avalue()
    assert server.state.completed == 0
